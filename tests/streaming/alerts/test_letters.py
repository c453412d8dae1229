"""Dead letters: what is added is there once, in order, within the bound, whatever was cut short."""

from pathlib import Path

from streaming.alerts.letters import DeadLetters


def numbers(letters: DeadLetters) -> list[int]:
    return [letter["n"] for letter in letters]


def test_letters_are_taken_once_and_come_back_where_they_are_left(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert (letters.take(), numbers(letters)) == ([], [])
    letters.add([{"n": 1, "名": "平安"}, {"n": 2}])
    letters.add([{"n": 3}])
    assert [one["n"] for one in letters.take()] == [1, 2, 3]
    letters.add([{"n": 4}])
    letters.done([{"n": 2}])
    assert numbers(letters) == [4, 2]


def test_who_was_killed_while_sending_has_them_again(tmp_path: Path) -> None:
    DeadLetters(tmp_path).add([{"n": 1}])
    DeadLetters(tmp_path).take()
    DeadLetters(tmp_path).add([{"n": 2}])
    assert [one["n"] for one in DeadLetters(tmp_path).take()] == [1, 2]


def test_the_files_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_bytes=1000)
    for n in range(300):
        letters.add([{"n": n}])
    kept = numbers(letters)
    assert kept == list(range(kept[0], 300))
    assert len(kept) >= 80
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000


def test_a_line_cut_short_by_a_crash_costs_no_other(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add([{"n": 1}])
    with letters.path.open("ab") as file:
        file.write(b'{"n": 2, "body": "\xe5\xb9')
    letters.add([{"n": 3}])
    assert numbers(letters) == [1, 3]


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add([{"n": 1}])
    assert letters.path.stat().st_mode & 0o077 == 0
    letters.take()
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())

"""The history of signals: each id once for ever, each number once an epoch, and nothing half-written."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data.signal_files
from data.errors import StoreError
from data.history import SignalHistory
from data.schema import SIGNAL, SIGNAL_ADDED
from data.signal import Signal, from_table

MINUTE = 60 * 10**9
DAY = 86_400 * 10**9
END = 1_748_223_000 * 10**9  # 2025-05-26 01:30 UTC


def fired(bar: int, *stocks: int, strategy: str = "macd", action: str = "BUY", confidence: float = 0.8) -> list[Signal]:
    """Signals of one scan, `bar` minutes after END."""
    return [
        Signal(
            strategy,
            "v1",
            f"{600_000 + stock}.SH",
            "1m",
            END + bar * MINUTE,
            action,
            confidence,
            10.0 + stock,
            "talib",
            END,
            {"RSI(14)": 25.5},
            name="茅台",
        )
        for stock in stocks
    ]


def places(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["epoch"].to_pylist(), table["seq"].to_pylist(), strict=True))


def one_file(root: Path) -> Path:
    (path,) = root.glob("*.parquet")
    return path


def test_what_was_appended_reads_back_as_it_was_returned(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path / "signals", clock=lambda: 42)
    stored = history.append(fired(0, 1, 2)) + history.append(fired(1, 1))
    assert [(s.epoch, s.seq, s.published_ns) for s in stored] == [(history.epoch, n, 42) for n in (1, 2, 3)]
    table = SignalHistory(tmp_path / "signals").query(newest_first=False)
    assert table.schema.equals(SIGNAL)
    assert from_table(table) == stored


def test_reading_makes_nothing(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path / "signals")
    assert history.query().num_rows == 0
    assert history.last_bar_ends(END) == {}
    assert history.compact() == 0
    assert history.append([]) == []
    assert not (tmp_path / "signals").exists()


def test_an_id_is_stored_once_for_ever(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    assert len(history.append(fired(0, 1, 2, 1))) == 2
    assert history.append(fired(0, 2, 1)) == []
    again = SignalHistory(tmp_path)
    assert [s.symbol for s in again.append(fired(0, 1, 3) + fired(1, 1))] == ["600003.SH", "600001.SH"]
    again.compact()
    assert again.append(fired(0, 3) + fired(1, 1)) == []
    ids = again.query()["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 4


def test_a_batch_of_several_bars_meets_each_of_its_files(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    for bar in range(5):
        history.append(fired(bar, 1))
    assert [s.bar_end for s in history.append([s for bar in range(-1, 6) for s in fired(bar, 1)])] == [
        END - MINUTE,
        END + 5 * MINUTE,
    ]


def test_epochs_sort_in_the_order_of_opening_even_when_the_clock_is_set_back(tmp_path: Path) -> None:
    epochs = []
    for now in (DAY * 20_000, DAY * 10_000, DAY * 10_000, DAY * 20_000 + 1000):
        history = SignalHistory(tmp_path, clock=lambda now=now: now)
        history.append(fired(len(epochs), 1))
        epochs.append(history.epoch)
    assert epochs == sorted(set(epochs))
    assert places(SignalHistory(tmp_path).query(newest_first=False)) == [(epoch, 1) for epoch in epochs]


@pytest.mark.parametrize(
    ("asked", "symbols"),
    [
        ({}, [3, 2, 1, 1]),
        ({"after": END}, [3, 2]),
        ({"upto": END}, [1, 1]),
        ({"after": END, "upto": END + MINUTE}, [2]),
        ({"symbols": ["600001.SH", "600003.SH"]}, [3, 1, 1]),
        ({"symbols": []}, []),
        ({"strategies": ["rsi"]}, [3]),
        ({"actions": ["SELL"]}, [2]),
        ({"min_confidence": 0.8}, [3, 1, 1]),
        ({"limit": 2}, [3, 2]),
        ({"limit": 2, "newest_first": False}, [1, 1]),
        ({"limit": 9, "newest_first": False, "actions": ["BUY"]}, [1, 1, 3]),
    ],
)
@pytest.mark.parametrize("compacted", [False, True])
def test_queries(tmp_path: Path, asked: dict[str, object], symbols: list[int], compacted: bool) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1) + fired(0, 1, strategy="boll"))
    history.append(fired(2, 3, strategy="rsi", confidence=0.9))
    history.append(fired(1, 2, action="SELL", confidence=0.3))
    if compacted:
        history.compact()
    assert [int(text[3:6]) for text in history.query(**asked)["symbol"].to_pylist()] == symbols


def test_the_newest_are_found_without_opening_what_is_older(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1))
    one_file(tmp_path).write_bytes(b"damaged")
    history.append(fired(1, 1, 2))
    assert history.query(limit=2).num_rows == 2
    assert history.query(after=END).num_rows == 2
    with pytest.raises(StoreError):
        history.query(limit=3)


def test_resume_gives_what_followed_in_order_across_restarts(tmp_path: Path) -> None:
    first, second = SignalHistory(tmp_path), None
    first.append(fired(5, 1, 2))
    first.append(fired(3, 1))
    second = SignalHistory(tmp_path)
    second.append(fired(1, 1, 2, 3))
    everything = [*((first.epoch, n) for n in (1, 2, 3)), *((second.epoch, n) for n in (1, 2, 3))]
    for compacted in (False, True):
        if compacted:
            assert second.compact() == 3
        reader = SignalHistory(tmp_path)
        for number, place in enumerate([(first.epoch, 0), *everything]):
            table = reader.since(*place)
            assert table is not None
            assert places(table) == everything[number:]
    assert places(second.since(first.epoch, 1, 1) or SIGNAL.empty_table()) == everything[1:2]
    assert places(second.since(first.epoch, 1, 4) or SIGNAL.empty_table()) == everything[1:5]
    assert places(second.since(first.epoch, 1, 9) or SIGNAL.empty_table()) == everything[1:]


def test_resume_from_an_epoch_that_never_fired(tmp_path: Path) -> None:
    silent = SignalHistory(tmp_path)
    later = SignalHistory(tmp_path)
    later.append(fired(0, 1))
    table = later.since(silent.epoch, 0)
    assert table is not None
    assert places(table) == [(later.epoch, 1)]


@pytest.mark.parametrize("place", [("nonsense", 0), ("", 0), ("20250523T070001123456abcd", 3)])
def test_resume_from_a_place_that_never_was(tmp_path: Path, place: tuple[str, int]) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1))
    assert history.since(*place) is None
    assert history.since(history.epoch, 2) is None
    assert history.since(history.epoch, -1) is None


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_lost_file_is_noticed_by_who_resumes_before_it(tmp_path: Path, lost: int) -> None:
    appended = []
    for run in range(2):
        history = SignalHistory(tmp_path)
        for bar in range(2):
            before = set(tmp_path.glob("*.parquet"))
            history.append(fired(10 * run + bar, 1))
            (path,) = set(tmp_path.glob("*.parquet")) - before
            appended.append((history.epoch, bar + 1, path))
    SignalHistory(tmp_path).append(fired(30, 1))
    appended[lost][2].unlink()
    fresh = SignalHistory(tmp_path)
    assert fresh.since(appended[0][0], 0) is None
    # Who had seen more than the lost one goes on as before.
    assert lost == 3 or fresh.since(*appended[3][:2]) is not None


def test_cooldowns_after_a_restart(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1) + fired(0, 2))
    history.append(fired(7, 1) + fired(4, 1, action="SELL"))
    history.append(fired(9, 2))
    again = SignalHistory(tmp_path)
    key = ("macd", "600001.SH", "BUY", "1m")
    assert again.last_bar_ends(END + 8 * MINUTE) == {
        key: END + 7 * MINUTE,
        ("macd", "600001.SH", "SELL", "1m"): END + 4 * MINUTE,
        ("macd", "600002.SH", "BUY", "1m"): END,
    }
    assert again.last_bar_ends(END + 7 * MINUTE)[key] == END
    assert again.last_bar_ends(END + 8 * MINUTE, after=END + 4 * MINUTE) == {key: END + 7 * MINUTE}


def test_compaction_keeps_every_signal_and_days_apart(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    for bar in (0, 1, 2, 1440, 1441, 2880):
        history.append(fired(bar, 1, 2))
    before = history.query()
    assert history.compact() == 5
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    assert SignalHistory(tmp_path).query().equals(before)
    history.append(fired(3, 1))
    assert history.compact() == 2
    assert history.compact() == 0
    assert history.query().num_rows == before.num_rows + 1


def test_what_is_older_is_not_opened_to_append(tmp_path: Path) -> None:
    SignalHistory(tmp_path).append(fired(0, 1))
    history = SignalHistory(tmp_path)
    history.append(fired(1, 1))
    history.compact()
    one_file(tmp_path).write_bytes(b"damaged")
    assert len(history.append(fired(1440, 1))) == 1
    assert history.query(after=END + 2 * MINUTE).num_rows == 1
    with pytest.raises(StoreError):
        history.since(history.epoch, 0)


def test_a_crash_between_compacting_and_deleting_costs_nothing(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    for bar in range(3):
        history.append(fired(bar, 1))
    old = {path: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    history.compact()
    for path, content in old.items():
        path.write_bytes(content)
    again = SignalHistory(tmp_path)
    assert again.query().num_rows == 3
    assert again.append(fired(0, 1)) == []
    assert again.compact() == 3
    assert again.query().num_rows == 3


def test_readers_see_everything_while_files_are_replaced(tmp_path: Path) -> None:
    writer = SignalHistory(tmp_path)
    for bar in range(4):
        writer.append(fired(bar, 1))
    reader = SignalHistory(tmp_path)

    def rewrite() -> None:
        for bar in range(4, 24):
            writer.append(fired(bar, 1))
            writer.compact()

    with ThreadPoolExecutor(1) as pool:
        work, seen = pool.submit(rewrite), 4
        while not work.done():
            rows = reader.query()["id"].to_pylist()
            assert len(rows) == len(set(rows)) >= seen
            seen = len(rows)
        work.result()
    assert reader.query().num_rows == 24


def test_a_listing_that_saw_neither_the_old_files_nor_the_new_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1))
    history.append(fired(1, 1))
    listings = [[], *([sorted(os.listdir(tmp_path))] * 2)]
    with monkeypatch.context() as patch:
        patch.setattr(data.signal_files.os, "listdir", lambda root: listings.pop(0))
        table = history.query()
    assert table.num_rows == 2


def test_two_writers_take_turns(tmp_path: Path) -> None:
    writers = [SignalHistory(tmp_path) for _ in range(3)]

    def write(history: SignalHistory) -> list[Signal]:
        return [signal for bar in range(6) for signal in history.append(fired(bar, 1, 2))]

    with ThreadPoolExecutor(3) as pool:
        stored = [signal for part in pool.map(write, writers) for signal in part]
    table = SignalHistory(tmp_path).query()
    assert table.num_rows == len(stored) == len({signal.id for signal in stored}) == 12
    assert len(set(places(table))) == 12


def test_no_flipped_bit_gives_a_wrong_answer(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, *range(50)))
    path, whole, rng = one_file(tmp_path), history.query(), random.Random(7)
    content = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(SIGNAL.names.index("engine"))
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(4, chunk.data_page_offset)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert history.query().equals(whole)
        except StoreError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: pq.write_table(pa.table({"id": ["x"]}), path),
    ],
    ids=["empty", "cut off", "other columns"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1))
    path = one_file(tmp_path)
    damage(path)
    for use in (history.query, lambda: history.append(fired(0, 2)), lambda: history.since(history.epoch, 0)):
        with pytest.raises(StoreError, match=path.name):
            use()


def test_a_disk_that_refuses_keeps_nothing_and_a_retry_keeps_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = SignalHistory(tmp_path)
    history.append(fired(0, 1))
    write = data.history.write_parquet

    def refuse(path: Path, table: pa.Table) -> None:
        write(path, table)  # renamed, but the folder cannot be synced
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(data.history, "write_parquet", refuse)
        with pytest.raises(OSError, match="No space"):
            history.append(fired(1, 1, 2))
    assert history.query().num_rows == 1
    assert [signal.seq for signal in history.append(fired(1, 1, 2))] == [2, 3]


WRITER = """
import sys
from pathlib import Path
from data.history import SignalHistory
from test_history import fired
history = SignalHistory(Path(sys.argv[1]))
for bar in range(int(sys.argv[2]), 10_000):
    history.append(fired(bar - 1, 1, 2, 3))  # what the last run may have kept already
    for signal in history.append(fired(bar, 1, 2, 3)):
        print(signal.epoch, signal.seq, signal.id, bar, flush=True)
    if bar % 20 == 0:
        history.compact()
"""


def test_killed_at_any_moment_it_reads_whole_and_nothing_is_twice(tmp_path: Path) -> None:
    rng = random.Random(7)
    acknowledged: list[tuple[str, int, str]] = []
    bar = 1
    here = Path(__file__)
    code = f"import sys; sys.path[:0] = [{str(here.parent)!r}, {str(here.parents[2])!r}]\n{WRITER}"
    for _ in range(4):
        command = [sys.executable, "-c", code, str(tmp_path), str(bar)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            left = rng.randrange(1, 120)
            for line in writer.stdout:
                epoch, seq, key, at = line.split()
                acknowledged.append((epoch, int(seq), key))
                bar = int(at)
                if (left := left - 1) == 0:
                    writer.kill()
        assert left <= 0
        table = SignalHistory(tmp_path).query()
        ids = table["id"].to_pylist()
        assert len(ids) == len(set(ids))
        assert len(set(places(table))) == len(ids)
        assert set(acknowledged) <= {(*place, key) for place, key in zip(places(table), ids, strict=True)}
    everything = SignalHistory(tmp_path).since(acknowledged[0][0], 0)
    assert everything is not None
    assert everything.num_rows == SignalHistory(tmp_path).query().num_rows


def test_files_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    kept = history.append(fired(0, 1, 2))
    path = one_file(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(list(SIGNAL_ADDED)), path, write_page_checksum=True)
    again = SignalHistory(tmp_path)
    assert from_table(again.query(newest_first=False)) == kept
    assert again.append(fired(0, 1)) == []
    again.append(fired(1, 1))
    assert again.compact() == 2
    assert again.query().num_rows == 3
    pq.write_table(table.drop_columns(["price"]), one_file(tmp_path))
    with pytest.raises(StoreError, match="its columns are not those of a signal"):
        SignalHistory(tmp_path).query()

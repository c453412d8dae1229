"""`mystocks-scan replay`: a recorded session comes out as it was stored, or says what does not."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.crash_tape import FIRST, begun, serve
from data.calendar import bar_ends
from data.history import SignalHistory
from data.schema import BAR
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.cli import main
from streaming.segment import Segment, segments, to_frame

SYMBOLS = 20
MARKET = SimulatedMarket(SYMBOLS, 7)
DAY = MARKET.sessions[FIRST]
BATCHES = 110
"""The first five minutes and a half."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose service ended after some minutes of a session, with its tape."""
    folder = tmp_path_factory.mktemp("recorded") / "sim"
    begun(folder, MARKET, SYMBOLS)
    serve(folder, SYMBOLS, BATCHES, 0.0)
    return folder


@pytest.fixture
def store(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(recorded, tmp_path / "sim"))


def replay(store: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--store", str(store), *options])
    out, err = capsys.readouterr()
    return int(str(ended.value.code)), out, err


def verify(store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code, out, _ = replay(store, capsys, "--verify", "--json", "--date", str(DAY))
    (line,) = out.splitlines()
    return code, json.loads(line)


def rewrite(path: Path, change: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def minute_file(store: Path, minute: int) -> Path:
    end = int(bar_ends(DAY, "1m")[minute])
    (path,) = (file.path for file in BarStore(store).files("1m") if (file.first, file.last) == (end, end))
    return path


def test_a_recorded_session_comes_out_as_it_was_stored(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in recorded.rglob("*"))
    code, said = verify(recorded, capsys)

    assert (code, said["differences"]) == (0, [])
    assert said["1m_bars_stored"] == said["1m_bars_replayed"] > 60
    assert said["signals_stored"] == said["signals_replayed"] > 10
    assert (said["batches"], said["batches_missing"], said["places_damaged"]) == (BATCHES, 0, 0)
    assert sorted(path for path in recorded.rglob("*")) == before

    code, out, _ = replay(recorded, capsys, "--verify")
    assert (code, out.splitlines()[-1]) == (0, "all equal")


def test_every_frame_that_a_strategy_names_is_compared(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("strategies:\n  - {name: five, frame: 5m, when: close > 1e9, action: BUY}\n")
    code, out, _ = replay(recorded, capsys, "--verify", "--json", "--strategies", str(rules))
    said = json.loads(out)

    assert (code, said["differences"]) == (0, [])
    assert said["frames"] == ["1m", "5m", "1d"]
    assert said["5m_bars_stored"] == said["5m_bars_replayed"] == SYMBOLS - 1


def test_without_verify_it_prints_what_it_makes(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = replay(recorded, capsys, "--json", "--engine", "talib")
    lines = [json.loads(line) for line in out.splitlines()]
    history = SignalHistory(recorded / "signals").query(
        after=int(bar_ends(DAY, "1m")[0]) - 1, frames=["1m"], newest_first=False
    )

    assert code == 0
    assert len(lines) == 5
    assert sorted(s["id"] for line in lines for s in line["signals"]) == sorted(history["id"].to_pylist())
    assert f"{BATCHES} batches of" in err


def test_a_bar_that_was_changed_is_found(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = BAR.get_field_index("high")
    last_bit = 2.0**-40
    path = minute_file(store, 3)
    first = pq.read_table(path)

    def raised(table: Any) -> Any:
        highs = table["high"].to_pylist()
        highs[0] += last_bit
        return table.set_column(place, BAR.field("high"), [highs])

    rewrite(path, raised)
    code, said = verify(store, capsys)

    assert code == 1
    (found,) = said["differences"]
    assert (found["what"], found["name"]) == ("bar", "high")
    assert found["symbol"] == first["symbol"][0].as_py()
    assert found["stored"] - found["replayed"] == pytest.approx(last_bit, rel=0.01)


def test_bars_that_are_missing_or_too_many_are_found(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = minute_file(store, 2)
    n_bars = pq.read_metadata(path).num_rows
    path.unlink()
    rewrite(minute_file(store, 3), lambda table: table.slice(1))
    code, out, _ = replay(store, capsys, "--verify", "--date", str(DAY))

    assert code == 1
    assert out.count("only in the replay") == n_bars + 1
    assert f"{n_bars + 1} differences" in out


def test_a_signal_that_is_missing_or_says_another_price_is_found(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opens = int(bar_ends(DAY, "1m")[0])
    history = SignalHistory(store / "signals").query(after=opens - 1, newest_first=False).to_pylist()
    kept = {path: pq.read_table(path) for path in sorted((store / "signals").glob("*.parquet"))}
    paths = [p for p, rows in kept.items() if rows["bar_end"][0].value >= opens and rows["frame"][0].as_py() == "1m"]
    rewrite(paths[0], lambda table: table.slice(1))
    rewrite(
        paths[1],
        lambda table: table.set_column(
            table.column_names.index("price"),
            table.schema.field("price"),
            [[price + 1 for price in table["price"].to_pylist()]],
        ),
    )
    n_changed = pq.read_metadata(paths[1]).num_rows
    code, said = verify(store, capsys)

    assert code == 1
    assert len([d for d in said["differences"] if d["name"] == "price"]) == n_changed
    (gone,) = (d for d in said["differences"] if d["name"] == "")
    assert (gone["what"], gone["stored"]) == ("signal", None)
    assert gone["symbol"] in {row["symbol"] for row in history}


def test_a_damaged_tape_is_said_and_its_bars_differ(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = segments(store / "tape").values()
    frames = list(Segment(path).frames())
    whole = bytearray(path.read_bytes())
    for frame in frames[50:70]:
        whole[frame.start + 100] ^= 1
    path.write_bytes(whole)
    code, said = verify(store, capsys)

    assert code == 1
    assert (said["batches"], said["batches_missing"]) == (BATCHES - 20, 20)
    assert said["places_damaged"] == 1


def test_signals_of_other_strategies_are_counted_apart(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("strategies:\n  - {name: other, when: close > 1e9, action: BUY}\n")
    code, out, _ = replay(recorded, capsys, "--verify", "--json", "--strategies", str(file))
    said = json.loads(out)

    assert (code, said["differences"], said["signals_stored"]) == (0, [], 0)
    assert said["signals_of_other_strategies"] > 10


@pytest.mark.parametrize("taped", [True, False])
def test_what_is_not_recorded_is_exit_3(taped: bool, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not taped:
        shutil.rmtree(store / "tape")
    code, _, err = replay(store, capsys, "--verify", *(["--date", "2024-01-02"] if taped else []))

    assert code == 3
    assert ("has nothing of 2024-01-02; it has 1 sessions" in err) if taped else ("has no tape" in err)


def run(store: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    usual = ["--cluster", "inline", "--engine", "talib", "--port", "0", "--speed", "0", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["run", "--store", str(store), *usual, *options])
    out, err = capsys.readouterr()
    return int(str(ended.value.code)), out, err


def of_day(store: Path) -> list[Any]:
    """The bars of the session, without their receipt."""
    table = BarStore(store).table("1m", after=int(bar_ends(DAY, "1m")[0]) - 1, columns=BAR.names)
    return sorted(str(row) for row in table.to_pylist())


def test_run_feeds_on_a_tape(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path / "again", MARKET, SYMBOLS)
    code, _, err = run(tmp_path / "again", capsys, "--feed", f"replay:{recorded / 'tape'}")

    assert code == 0, err
    assert of_day(tmp_path / "again") == of_day(recorded)
    after = int(bar_ends(DAY, "1m")[0]) - 1
    first, again = (
        SignalHistory(store / "signals").query(after=after, frames=["1m"])["id"].to_pylist()
        for store in (recorded, tmp_path / "again")
    )
    assert sorted(first) == sorted(again)
    assert not (tmp_path / "again" / "tape").exists()


def test_run_feeds_on_the_bars_of_a_store_into_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars = MARKET.bars("1m", DAY)
    some = bars.filter(pc.less(bars["bar_end"].cast("int64"), int(bar_ends(DAY, "1m")[8])))
    BarStore(tmp_path / "old", origin="sim").append(some, "1m")
    code, out, err = run(tmp_path / "new", capsys, "--feed", f"replay:{tmp_path / 'old'}", "--intervals", "3")
    assert code == 0, err
    assert len(out.splitlines()) == 3
    assert BarStore(tmp_path / "new").origin == "replay"
    code, _, err = run(tmp_path / "new", capsys, "--feed", f"replay:{tmp_path / 'old'}")

    assert code == 0, err
    assert of_day(tmp_path / "new") == of_day(tmp_path / "old")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, None, "as replay:PATH"),
        ("none.tape", None, "as replay:PATH; there is no "),
        ("quotes.txt", b"x", "is no tape"),
        ("quotes.csv", b"symbol,quote_time,last,volume\n", "holds no ticks: give --feed replay:PATH another file"),
        ("quotes.csv", b"symbol,quote_time,last,volume\nx,y,z,u\n", "holds no ticks"),
        ("quotes.csv", b"symbol,last\n600000.SH,1\n", "lacks the columns quote_time, volume"),
        ("2024-01-02.tape", b"garbage" * 100, "holds no quotes: give --feed replay:PATH another tape"),
        (
            "2024-01-02.tape",
            to_frame(b"H", 0, 0, b'{"format": 99}\n') + to_frame(b"T", 1, 0, b"x"),
            "is not readable: .* another",
        ),
        ("2024-01-02.tape", to_frame(b"T", 1, 0, b"x"), "which says what it holds, is damaged. Give .* another"),
    ],
)
def test_a_replay_of_nothing_is_refused_before_anything_starts(
    name: str | None,
    content: bytes | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("jobs.commands.run.assemble", started)
    if content is not None and name is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = run(tmp_path / "new", capsys, "--feed", "replay" if name is None else f"replay:{tmp_path / name}")
    assert code == 2
    assert re.search(said, err)
    assert not (tmp_path / "new").exists()


def test_the_simulated_market_is_taped_where_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSTOCKS_SCAN__FEED__TAPE", "true")
    monkeypatch.setenv("MYSTOCKS_SCAN__FEED__SYMBOLS", str(SYMBOLS))
    for _ in range(2):
        code, _, err = run(tmp_path / "sim", capsys, "--intervals", "2")
        assert code == 0, err
    assert list(segments(tmp_path / "sim" / "tape")) == [DAY]
    stored = of_day(tmp_path / "sim")
    ends = BarStore(tmp_path / "sim").bar_ends("1m")[-4:]
    assert ends == [int(end) for end in bar_ends(DAY, "1m")[:4]]
    code, said = verify(tmp_path / "sim", capsys)

    # The service was told to end after two intervals; the tape had more. What it stored is all as it was.
    assert {d["stored"] for d in said["differences"]} <= {None}
    assert len(stored) == said["1m_bars_stored"] <= said["1m_bars_replayed"]

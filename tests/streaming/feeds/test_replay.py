"""Replays: what was recorded comes again, and folds into the bars that it was, or that it was made of."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import MINUTE, bar_ends
from data.errors import UsageError
from data.schema import BAR, TICK
from data.settings import FeedSettings, ScanSettings, Settings
from data.simulator import SimulatedMarket
from data.store import BarStore
from streaming.bars import MarketBars
from streaming.feeds import find_feed
from streaming.feeds.replay import ReplayFeed, open_feed
from streaming.gaps import Loss, losses_of, to_metadata
from streaming.recordings import open_recording, read_ticks
from streaming.tape import Tape

MARKET = SimulatedMarket(25, seed=3)
DAY, NEXT = MARKET.sessions[:2]


def folded(batches: Iterable[pa.RecordBatch], frame: str = "1m", after: int | None = None) -> pa.Table:
    """The bars of some ticks, and those still open at their end."""
    builder = MarketBars(MARKET.symbols, [frame], after={frame: after})
    closed = [bar for batch in batches for bar in builder.add(batch)]
    schema = BAR.remove_metadata()
    bars = [batch.replace_schema_metadata({}) for batch in [*closed, *builder.end_session()]]
    return pa.Table.from_batches(bars, schema)


def rows(table: pa.Table) -> list[Any]:
    """The bars, each as (bar_end, symbol, the rest)."""
    names = ("bar_end", "symbol", *(name for name in BAR.names if name not in ("bar_end", "symbol")))
    columns = [table[name].cast(pa.int64()) if name.startswith("bar_") else table[name] for name in names]
    return sorted(zip(*(column.to_pylist() for column in columns), strict=True))


def read_all(feed: ReplayFeed) -> list[pa.RecordBatch]:
    async def run() -> list[pa.RecordBatch]:
        return [batch async for batch in feed.frames()]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def taped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape of a session's first 25 minutes and of the next one's first."""
    folder = tmp_path_factory.mktemp("tape")
    tape = Tape(folder, origin="sim", keep=5)
    for day, n in ((DAY, 502), (NEXT, 22)):
        found = MARKET.snapshots(day)
        for seq in range(n):
            received = str(int(bar_ends(NEXT, "1d")[0]) + seq)
            tape.append([next(found).replace_schema_metadata({"seq": str(seq), "received_ns": received})])
    tape.close()
    return folder


@pytest.mark.parametrize("frame", ["1m", "15m", "1d"])
def test_bars_become_ticks_that_fold_back_into_them(frame: str, tmp_path: Path) -> None:
    bars = MARKET.bars(frame, DAY, NEXT)
    BarStore(tmp_path, origin="sim").append(bars, frame)
    recording = open_recording(tmp_path, frame)

    assert rows(folded(recording.batches(), frame)) == rows(bars)
    assert recording.symbols() == sorted(set(bars["symbol"].to_pylist()))
    assert all(batch.schema.equals(TICK) for batch in recording.batches())


def test_bars_without_amounts_stay_without(tmp_path: Path) -> None:
    bars = MARKET.bars("5m", DAY)
    nothing = pa.nulls(bars.num_rows, pa.float64())
    bars = bars.set_column(BAR.get_field_index("amount"), BAR.field("amount"), nothing)
    bars = bars.set_column(BAR.get_field_index("prev_close"), BAR.field("prev_close"), nothing)
    BarStore(tmp_path, origin="sim").append(bars, "5m")

    def traded(table: pa.Table) -> list[Any]:
        return list(map(str, rows(table.filter(pc.equal(table["flags"], 0)))))

    assert traded(folded(open_recording(tmp_path, "5m").batches(), "5m")) == traded(bars)


@pytest.mark.parametrize("kind", ["tape", "bars"])
def test_going_on_behind_a_bar_gives_the_later_bars(kind: str, taped: Path, tmp_path: Path) -> None:
    frame = "1m" if kind == "tape" else "15m"
    if kind == "bars":
        BarStore(tmp_path, origin="sim").append(MARKET.bars("15m", DAY, NEXT), "15m")
    recording = open_recording(taped if kind == "tape" else tmp_path, frame)
    whole = rows(folded(recording.batches(), frame))
    for bar in (0, 3, 13):
        after = int(bar_ends(DAY, frame)[bar])
        got = read_all(ReplayFeed(recording, after=after, interval_s=0))
        later = [row for row in whole if row[0] > after]
        assert rows(folded(got, frame, after=after)) == later
    over = read_all(ReplayFeed(recording, after=int(bar_ends(DAY, "1d")[0]), interval_s=0))
    assert rows(folded(over, frame)) == [row for row in whole if row[0] > bar_ends(DAY, "1d")[0]] != []


def test_a_part_of_the_market_a_batch_goes_on_too() -> None:
    class Parts:
        def symbols(self) -> list[str]:
            return list(MARKET.symbols)

        def batches(self) -> Any:
            for batch in list(MARKET.snapshots(DAY))[:220]:
                for first in range(0, batch.num_rows, 5):
                    yield batch.slice(first, 5)

    after = int(bar_ends(DAY, "1m")[9])
    got = read_all(ReplayFeed(Parts(), after=after, interval_s=0))
    later = [row for row in rows(folded(Parts().batches())) if row[0] > after]
    assert got[0].num_rows == len(set(got[0]["symbol"].to_pylist())) > 5
    assert rows(folded(got, after=after)) == later


def test_a_replay_keeps_the_pace_of_its_quotes(taped: Path) -> None:
    waits: list[float] = []

    class Counted(ReplayFeed):
        async def _wait_until(self, due: float) -> None:
            waits.append(due)
            await asyncio.sleep(0)

    read_all(Counted(open_recording(taped / f"{NEXT}.tape", "1m"), interval_s=600.0))
    # 09:25:00 to 09:30:00 counts as a minute, then 3 seconds each; time that reading takes is not caught up.
    steps = np.diff(waits)
    assert steps[0] == pytest.approx(600, abs=5)
    assert steps[1:] == pytest.approx(30.0, abs=5)


def test_ticks_of_a_csv_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text(
        "symbol,quote_time,last,volume,high,note\n"
        "600000.SH,2024-01-02T09:30:03,10.5,100,10.6,\n"
        "sz000001,2024-01-02 09:30:00,9.5,0,,x\n"
        "600000.SH,2024-01-02T01:30:06Z,10.4,300,10.6,\n"
        "600000.SH,yesterday,10.4,300,,\n"
        "123,2024-01-02T09:30:06,10.4,300,,\n"
        "600000.SH,2024-01-02T09:30:09,1O.4,300,,\n"
        "600000.SH,2024-01-02T09:30:09,10.7,400,10.8,\n",
        encoding="utf-8",
    )
    recording = open_recording(file, "1m")
    batches = list(recording.batches())

    assert recording.symbols() == ["000001.SZ", "600000.SH"]
    opened = int(bar_ends(DAY, "1m")[0]) - MINUTE
    assert [batch["quote_time"].cast("int64")[0].as_py() - opened for batch in batches] == [0, 3e9, 6e9, 9e9]
    last = batches[-1].to_pylist()[0]
    assert (last["symbol"], last["last"], last["volume"], last["high"], last["low"]) == (
        "600000.SH",
        10.7,
        400,
        10.8,
        0,
    )
    assert np.isnan(last["amount"])
    assert "3 of 7 rows are no ticks" in caplog.text
    builder = MarketBars(["600000.SH"], ["1m"])
    for batch in batches:
        builder.add(batch)
    (bar,) = builder.end_session()
    assert bar["amount"].to_pylist() == [None]


def test_the_simulated_day_as_csv_gives_its_bars(tmp_path: Path) -> None:
    batches = list(MARKET.snapshots(DAY))[:90]
    table = pa.Table.from_batches(batches)
    lines = [",".join(TICK.names)]
    lines += [",".join(str(cell) for cell in row.values()) for row in table.to_pylist()]
    (tmp_path / "day.csv").write_text("\n".join(lines))
    assert rows(folded(open_recording(tmp_path / "day.csv", "1m").batches())) == rows(folded(batches))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "symbol,last\n1,2\n", "lacks the columns quote_time, volume"),
        ("a.csv", "", "is not readable as CSV"),
        ("a.txt", "x", "is no tape"),
    ],
)
def test_what_is_no_recording_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        open_recording(tmp_path / name, "1m")


def test_a_path_that_is_missing_or_a_frame_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    for name in ("replay", "replay:", f"replay:{tmp_path / 'none.tape'}"):
        with pytest.raises(UsageError, match="as replay:PATH"):
            find_feed(name)(Settings(feed=FeedSettings(name=name)), after=None)
    BarStore(tmp_path, origin="sim").append(MARKET.bars("1d", DAY), "1d")
    with pytest.raises(UsageError, match="no 5m bars to replay; it has 1d"):
        open_feed(Settings(feed=FeedSettings(name=f"replay:{tmp_path}"), scan=ScanSettings(frame="5m")), after=None)


def test_an_empty_file_of_ticks_is_an_empty_recording(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("symbol,quote_time,last,volume\nx,y,z,u\n")
    assert read_ticks(tmp_path / "a.csv").num_rows == 0
    assert list(open_recording(tmp_path / "a.csv", "1m").batches()) == []


def test_what_was_lost_before_a_frame_stays_with_it() -> None:
    lost = to_metadata([Loss(1, 2, ("600519.SH",))])

    class Gappy:
        def symbols(self) -> list[str]:
            return list(MARKET.symbols)

        def batches(self) -> Iterator[pa.RecordBatch]:
            first, second = islice(MARKET.snapshots(DAY), 2)
            yield first
            yield second.replace_schema_metadata(lost)

    first, second = read_all(ReplayFeed(Gappy(), interval_s=0))
    assert losses_of(first) == []
    assert losses_of(second) == [Loss(1, 2, ("600519.SH",))]

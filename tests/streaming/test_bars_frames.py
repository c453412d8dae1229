"""Bars of several frames in one pass: what closes when, what a late quote revises, what is still open."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import SECOND, bar_ends
from data.schema import AFTER_HOURS, FLAG_INCOMPLETE, FLAG_NO_TRADE, FRAMES, TICK
from data.simulator import SimulatedMarket
from streaming.bars import MarketBars

A, B = "600519.SH", "000001.SZ"


def ns(clock: str) -> int:
    """A time of 2024-03-05 in Shanghai, UTC ns."""
    return int(np.datetime64(f"2024-03-05T{clock}", "ns").astype(np.int64)) - 8 * 3600 * SECOND


def tick(clock: str, last: float, volume: float, symbol: str = A) -> pa.RecordBatch:
    """One quote; amounts are volume x 10."""
    row = {"symbol": symbol, "quote_time": ns(clock), "last": last, "volume": volume, "amount": volume * 10}
    return pa.RecordBatch.from_pylist([row | dict.fromkeys(("open", "high", "low", "prev_close"), 0.0)], schema=TICK)


def shown(batches: list[pa.RecordBatch], *names: str) -> list[tuple[Any, ...]]:
    """(frame, end, ...) of every bar, in the order in which they came."""
    return [
        (
            batch.schema.metadata[b"frame"].decode(),
            row["bar_end"].tz_convert("Asia/Shanghai").strftime("%H:%M"),
            *(row[name] for name in names),
        )
        for batch in batches
        for row in batch.to_pylist()
    ]


def test_shorter_frames_close_first_at_a_boundary_that_they_share() -> None:
    bars = MarketBars([A], ("15m", "1m", "5m"))
    assert bars.frames == ("1m", "5m", "15m")
    bars.add(tick("09:43:30", 9, 0))
    bars.add(tick("09:43:33", 10, 100))
    closed = bars.add(tick("09:46:30", 11, 300))
    assert shown(closed, "volume") == [
        ("1m", "09:44", 100),
        ("1m", "09:45", 0),
        ("5m", "09:45", 100),
        ("15m", "09:45", 100),
        ("1m", "09:46", 0),
    ]


def test_a_whole_day_closes_with_the_clock() -> None:
    bars = MarketBars([A], closing_grace_s=30)
    made = bars.add(tick("09:30:03", 10, 100)) + bars.add(tick("15:00:01", 11, 300))
    made += bars.close_upto(ns("15:00:31"))
    assert [sum(frame == name for frame, _ in shown(made)) for name in FRAMES] == [240, 48, 16, 8, 4, 1]
    assert [frame for frame, _ in shown(made)][-6:] == list(FRAMES)
    assert shown(made, "open", "close", "volume")[-1] == ("1d", "15:00", 10, 11, 300)


def test_a_late_quote_gives_revisions_of_what_it_changes_and_takes_back_what_stood_elsewhere() -> None:
    bars = MarketBars([A], ("1m", "5m"), late_s=60)
    bars.add(tick("09:30:03", 10, 100))
    bars.add(tick("09:31:30", 12, 400))
    assert shown(bars.add(tick("09:32:04", 12, 400)), "volume", "revision") == [("1m", "09:32", 300, 0)]
    made = bars.add(tick("09:31:02", 15, 250))
    assert shown(made, "open", "high", "volume", "revision") == [("1m", "09:32", 15, 15, 300, 1)]
    assert bars.add(tick("09:31:02", 15, 250)) == []
    assert shown(bars.add(tick("09:32:00", 13, 400)), "close") == []
    made = bars.add(tick("09:35:04", 12, 400))
    assert shown(made, "high", "volume", "revision")[-1] == ("5m", "09:35", 15, 400, 0)
    # Older than the late window: nothing is entered.
    assert bars.add(tick("09:31:05", 99, 260)) == []
    assert (bars.counts["delayed"], bars.counts["older"]) == (3, 1)


def test_a_symbol_that_turns_up_late_gets_its_first_bar_not_a_revision() -> None:
    bars = MarketBars([A, B], ("1m",), late_s=60)
    bars.add(tick("09:30:03", 10, 100))
    bars.add(tick("09:31:04", 10, 100))
    made = bars.add(tick("09:30:30", 20, 700, B))
    assert shown(made, "symbol", "volume", "revision") == [("1m", "09:31", B, 700, 0)]


def test_minutes_between_which_quotes_are_missing_are_flagged_also_when_they_had_closed() -> None:
    bars = MarketBars([A, B], ("1m", "5m"), late_s=60, cadence_s=5)
    for symbol in (A, B):
        bars.add(tick("09:30:03", 10, 100, symbol))
    bars.add(tick("09:31:00", 10, 100))
    for second in range(5, 60, 5):
        bars.add(tick(f"09:31:{second:02d}", 10, 100))
    made = bars.add(tick("09:32:04", 10, 100))
    assert shown(made, "symbol", "flags") == [("1m", "09:32", A, FLAG_NO_TRADE), ("1m", "09:32", B, FLAG_NO_TRADE)]
    made = bars.add(tick("09:32:05", 11, 300, B))
    assert shown(made, "symbol", "flags", "revision") == [
        ("1m", "09:31", B, FLAG_INCOMPLETE, 1),
        ("1m", "09:32", B, FLAG_NO_TRADE | FLAG_INCOMPLETE, 1),
    ]
    flags = {row[:3]: row[3] for row in shown(bars.end_session(), "symbol", "flags")}
    assert flags["5m", "09:35", B] == FLAG_INCOMPLETE
    assert flags["5m", "09:35", A] == 0


def test_lunch_and_the_closing_auction_are_no_gap() -> None:
    bars = MarketBars([A], ("1m",), late_s=60, cadence_s=5)
    made = []
    for clock, volume in (("11:29:57", 0), ("11:30:00", 100), ("13:00:03", 200)):
        made += bars.add(tick(clock, 10, volume))
    bars = MarketBars([A], ("1m",), late_s=60, cadence_s=5)
    for clock, volume in (("14:56:57", 0), ("14:57:00", 100), ("15:00:02", 900)):
        made += bars.add(tick(clock, 10, volume))
    made += bars.end_session()
    assert not any(flags & FLAG_INCOMPLETE for _, _, flags in shown(made, "flags"))


def test_the_developing_bar_shows_the_day_so_far() -> None:
    bars = MarketBars([A, B])
    assert bars.developing() is None
    bars.add(tick("09:30:03", 10, 100))
    assert bars.developing("5m") is not None
    bars.add(tick("14:50:00", 12, 900))
    batch = bars.developing()
    assert batch is not None
    assert batch.schema.metadata[b"developing"] == b"1"
    assert shown([batch], "symbol", "open", "high", "low", "close", "volume", "amount") == [
        ("1d", "15:00", A, 10, 12, 10, 12, 900, 9000)
    ]
    bars.add(tick("15:00:00", 11, 1000))
    bars.close_upto(ns("15:01:00"))
    assert bars.developing() is None


def test_after_hours_trades_stand_apart() -> None:
    bars = MarketBars([A, B], ("1m", "1d"))
    assert bars.after_hours().equals(AFTER_HOURS.empty_table())
    bars.add(tick("14:59:00", 10, 0))
    for clock, volume in (("15:00:00", 500), ("15:10:00", 700), ("15:29:00", 900)):
        bars.add(tick(clock, 10, volume))
    assert [(r["symbol"], str(r["day"]), r["volume"], r["amount"]) for r in bars.after_hours().to_pylist()] == [
        (A, "2024-03-05", 400, 4000)
    ]


@pytest.mark.parametrize(
    ("after", "wanted"), [("09:33:00", [("09:35", FLAG_INCOMPLETE), ("09:40", 0)]), ("09:35:00", [("09:40", 0)])]
)
def test_a_longer_bar_that_began_before_the_start_is_incomplete(after: str, wanted: list[tuple[str, int]]) -> None:
    bars = MarketBars([A], ("1m", "5m"), after={"1m": ns(after), "5m": ns(after)})
    made = []
    for clock, volume in (("09:33:00", 100), ("09:34:00", 200), ("09:36:00", 300), ("09:40:04", 300)):
        made += bars.add(tick(clock, 10, volume))
    assert [row[1:] for row in shown(made, "flags") if row[0] == "5m"] == wanted


@pytest.mark.parametrize(("base", "place"), [("1m", 7), ("1m", 233), ("5m", 100)])
def test_longer_bars_go_on_from_the_shorter_ones_that_are_stored(base: str, place: int) -> None:
    """As if the service had never been away: prices, totals, extremes of the day, and the developing bar."""
    market = SimulatedMarket(10, 7)
    day = market.sessions[123]
    frames = FRAMES[FRAMES.index(base) :]
    whole = MarketBars(market.symbols, frames, late_s=30)
    snapshots = list(market.snapshots(day))[::6]
    made = [batch for snapshot in snapshots for batch in whole.add(snapshot)]
    until = int(bar_ends(day, "1m")[place])
    ends = [(batch.schema.metadata[b"frame"].decode(), int(batch.schema.metadata[b"bar_end"])) for batch in made]
    after = {frame: max((end for f, end in ends if f == frame and end <= until), default=None) for frame in frames}
    closed = [batch for batch, (f, end) in zip(made, ends, strict=True) if f == base and end <= until]
    table = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in closed])
    again = MarketBars(market.symbols, frames, late_s=30, after=after, closed=table)
    rest = []
    for snapshot in snapshots:
        if snapshot["quote_time"][0].value >= (after[base] or 0):
            rest += again.add(snapshot)
    expected = [batch for batch, (_, end) in zip(made, ends, strict=True) if end > until]
    assert [batch.to_pylist() for batch in rest] == [batch.to_pylist() for batch in expected]
    open_yet, expected_open = again.developing(), whole.developing()
    assert open_yet is not None
    assert expected_open is not None
    assert open_yet.to_pylist() == expected_open.to_pylist()

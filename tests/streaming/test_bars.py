"""Ticks folded into bars: the definitions, the traps of the providers, and laws over damaged streams."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.calendar import SECOND, bar_ends
from data.errors import FrameError
from data.schema import BAR, FLAG_INCOMPLETE, TICK
from data.simulator import SimulatedMarket
from streaming.bars import MarketBars

DAY = "2024-03-05"
A, B = "600519.SH", "000001.SZ"


def ns(clock: str, day: str = DAY) -> int:
    """A time of day in Shanghai, UTC ns."""
    return int(np.datetime64(f"{day}T{clock}", "ns").astype(np.int64)) - 8 * 3600 * SECOND


def quote(
    symbol: str,
    clock: str,
    last: float,
    volume: float,
    *,
    day: str = DAY,
    high: float = 0,
    low: float = 0,
    open_: float = 0,
) -> dict[str, Any]:
    """One row of ticks; amounts are volume x 10."""
    return {
        "symbol": symbol,
        "quote_time": ns(clock, day),
        "last": last,
        "open": open_,
        "high": high,
        "low": low,
        "prev_close": 9.5,
        "volume": volume,
        "amount": volume * 10,
    }


def ticks(*rows: dict[str, Any], received_ns: int = 0) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pylist(list(rows), schema=TICK)
    return batch.replace_schema_metadata({"received_ns": str(received_ns)}) if received_ns else batch


def feed(builder: MarketBars, *batches: pa.RecordBatch) -> list[dict[str, Any]]:
    """All the bars that come of the batches, the last ones at the session's end."""
    closed = [bars for batch in batches for bars in builder.add(batch)]
    return rows_of([*closed, *builder.end_session()])


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def clock_of(bar: dict[str, Any]) -> str:
    return bar["bar_end"].tz_convert("Asia/Shanghai").strftime("%H:%M")


def shown(bars: Sequence[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [(clock_of(bar), *(bar[name] for name in names)) for bar in bars]


@pytest.fixture(scope="module")
def sim() -> SimulatedMarket:
    return SimulatedMarket(60, seed=2)


@pytest.fixture(scope="module")
def snapshots(sim: SimulatedMarket) -> list[pa.RecordBatch]:
    """One simulated session."""
    return list(sim.snapshots(sim.sessions[123]))


@pytest.mark.parametrize("frame", ["1m", "60m", "1d"])
def test_folding_the_simulated_snapshots_gives_the_simulated_bars(
    sim: SimulatedMarket, snapshots: list[pa.RecordBatch], frame: str
) -> None:
    builder = MarketBars(sim.symbols, [frame])
    folded = pa.Table.from_batches(
        [bars.replace_schema_metadata(None) for batch in snapshots for bars in builder.add(batch)]
    )
    wanted = sim.bars(frame, sim.sessions[123]).replace_schema_metadata(None)
    if frame == "1d":
        # The simulator estimates a day's amount.
        folded, wanted = folded.drop_columns("amount"), wanted.drop_columns("amount")
    assert folded.unify_dictionaries().combine_chunks().equals(wanted.combine_chunks())
    assert builder.counts == {}


def test_a_bar_has_schema_start_end_and_what_closed_it() -> None:
    builder = MarketBars([A], ["1m"])
    assert builder.add(ticks(quote(A, "09:30:30", 10, 100), received_ns=1)) == []
    (bars,) = builder.add(ticks(quote(A, "09:31:30", 10, 100), received_ns=2))
    assert bars.schema.equals(BAR)
    assert bars.schema.metadata == {
        b"frame": b"1m",
        b"bar_end": str(ns("09:31:00")).encode(),
        b"revision": b"0",
        b"developing": b"0",
        b"received_ns": b"2",
        b"quote_ns": str(builder.watermark).encode(),
    }
    (bar,) = bars.to_pylist()
    assert (bar["bar_start"].value, bar["bar_end"].value) == (ns("09:30:00"), ns("09:31:00"))
    assert (bar["revision"], bar["flags"], bar["prev_close"], bar["amount"]) == (0, 0, 9.5, 1000.0)


def test_auctions_lunch_and_the_close_belong_where_they_belong() -> None:
    bars = feed(
        MarketBars([A], ["1m"]),
        ticks(quote(A, "09:24:00", 0, 0)),
        ticks(quote(A, "09:25:00", 10.0, 500)),
        ticks(quote(A, "09:30:00", 10.0, 500)),
        ticks(quote(A, "09:31:00", 10.1, 700)),
        ticks(quote(A, "11:30:00", 10.2, 900)),
        ticks(quote(A, "11:30:02", 10.3, 1000)),
        ticks(quote(A, "13:00:00", 10.4, 1100)),
        ticks(quote(A, "14:57:00", 10.5, 1300)),
        ticks(quote(A, "15:00:04", 10.6, 2000)),
        ticks(quote(A, "15:31:00", 10.6, 2600)),
    )
    traded = [bar for bar in bars if bar["flags"] == 0]
    assert shown(traded, "open", "close", "volume") == [
        ("09:31", 10.0, 10.1, 700),
        ("11:30", 10.2, 10.3, 300),
        ("13:01", 10.4, 10.4, 100),
        ("14:57", 10.5, 10.5, 200),
        ("15:00", 10.6, 10.6, 700),
    ]
    assert len(bars) == 240


def test_after_hours_and_early_stamps_open_no_bar() -> None:
    builder = MarketBars([A], ["1m"])
    bars = feed(
        builder,
        ticks(quote(A, "09:10:00", 9, 100)),
        ticks(quote(A, "09:20:00", 9, 7000)),
        ticks(quote(A, "14:59:59", 10, 100)),
        ticks(quote(A, "15:05:01", 11, 300)),
        ticks(quote(A, "15:34:59", 11, 400)),
    )
    assert [clock_of(bar) for bar in bars] == ["15:00"]
    assert builder.counts == {"early": 2, "after_hours": 2}


def test_minutes_without_a_trade_carry_the_close_and_those_before_the_first_do_not_exist() -> None:
    bars = feed(
        MarketBars([A, B], ["1m"]),
        ticks(quote(A, "09:25:00", 0, 0), quote(B, "09:25:00", 0, 0)),
        ticks(quote(A, "09:32:30", 10, 100)),
        ticks(quote(A, "09:34:30", 11, 300), quote(B, "09:34:30", 0, 0)),
    )
    assert shown(bars, "symbol", "open", "high", "low", "close", "volume", "amount", "flags") == [
        ("09:33", A, 10, 10, 10, 10, 100, 1000, 0),
        ("09:34", A, 10, 10, 10, 10, 0, 0, 1),
        ("09:35", A, 11, 11, 11, 11, 200, 2000, 0),
    ]


def test_extremes_between_two_snapshots_and_the_days_open_are_taken_in() -> None:
    bars = feed(
        MarketBars([A], ["1m"]),
        ticks(quote(A, "09:25:00", 0, 0)),
        ticks(quote(A, "09:30:03", 10.2, 100, open_=10.0, high=10.4, low=9.9)),
        ticks(quote(A, "09:31:03", 10.1, 200, open_=10.0, high=10.4, low=9.9)),
        ticks(quote(A, "09:31:06", 10.2, 300, open_=10.0, high=10.7, low=9.9)),
        ticks(quote(A, "09:32:06", 10.2, 400, open_=10.0, high=10.7, low=9.5)),
    )
    assert shown(bars, "open", "high", "low", "close") == [
        ("09:31", 10.0, 10.4, 9.9, 10.2),
        ("09:32", 10.1, 10.7, 10.1, 10.2),
        ("09:33", 10.2, 10.2, 9.5, 10.2),
    ]


def test_a_price_counts_only_with_a_trade() -> None:
    builder = MarketBars([A], ["1m"])
    bars = feed(
        builder,
        ticks(quote(A, "09:30:03", 10, 100)),
        ticks(quote(A, "09:30:06", 12, 100)),
        ticks(quote(A, "09:30:09", 0, 200)),
        ticks(quote(A, "09:30:12", float("nan"), 200)),
        ticks(quote(A, "09:30:15", float("inf"), 200)),
        ticks(quote(A, "09:30:18", 12, float("inf"))),
        ticks(quote(A, "09:30:21", 12, float("nan"))),
        ticks(quote(A, "09:30:24", 11, 200) | {"amount": float("nan"), "high": float("nan"), "low": float("nan")}),
    )
    assert shown(bars, "high", "close", "volume", "amount") == [("09:31", 11, 11, 200, None)]
    assert builder.counts == {"no_price": 4}


def test_duplicates_older_snapshots_and_a_volume_that_fell_are_dropped_and_counted() -> None:
    builder = MarketBars([A], ["1m"])
    bars = feed(
        builder,
        ticks(quote(A, "09:30:03", 10, 100)),
        ticks(quote(A, "09:30:03", 10, 100)),
        ticks(quote(A, "09:30:09", 11, 300)),
        ticks(quote(A, "09:30:06", 99, 200)),
        ticks(quote(A, "09:30:06", 99, 350)),
        ticks(quote(A, "09:30:12", 99, 50)),
        ticks(quote(A, "09:30:12", 12, 400)),
    )
    assert shown(bars, "high", "close", "volume") == [("09:31", 12, 12, 400)]
    assert builder.counts == {"duplicate": 1, "older": 2, "volume_fell": 1}


def test_rows_of_one_batch_come_in_any_order_and_a_symbol_more_than_once() -> None:
    bars = feed(
        MarketBars([A, B], ["1m"]),
        ticks(
            quote(A, "09:31:03", 12, 300),
            quote(B, "09:30:03", 20, 100),
            quote(A, "09:30:06", 11, 200),
            quote(A, "09:30:03", 10, 100),
        ),
    )
    assert shown(bars, "symbol", "open", "close", "volume") == [
        ("09:31", A, 10, 11, 200),
        ("09:31", B, 20, 20, 100),
        ("09:32", A, 12, 12, 100),
        ("09:32", B, 20, 20, 0),
    ]


def test_unknown_symbols_are_counted_and_the_rest_lives() -> None:
    builder = MarketBars([A], ["1m"])
    bars = feed(builder, ticks(quote("600000.SH", "09:30:03", 5, 100), quote(A, "09:30:03", 10, 100)))
    assert [bar["symbol"] for bar in bars] == [A]
    assert builder.counts == {"unknown": 1}


def test_one_stamp_from_the_future_closes_no_bar() -> None:
    symbols = [f"600{k:03d}.SH" for k in range(200)]
    builder = MarketBars(symbols, ["1m"])
    rows = [quote(symbol, "09:30:03", 10, 100) for symbol in symbols]
    rows[17]["quote_time"] = ns("14:59:00")
    rows[18]["quote_time"] = ns("09:30:00", "2034-03-05")
    assert builder.add(ticks(*rows)) == []
    assert builder.counts == {"ahead": 2}
    assert builder.watermark == ns("09:30:03")


def test_a_bar_waits_for_its_grace_and_what_comes_later_is_counted_and_goes_to_the_next() -> None:
    builder = MarketBars([A, B], ["1m"], grace_s=3.5)
    quiet = ticks(quote(A, "09:25:00", 0, 0), quote(B, "09:25:00", 0, 0))
    assert builder.add(quiet) == []
    assert builder.add(ticks(quote(A, "09:30:57", 10, 100))) == []
    assert builder.add(ticks(quote(A, "09:31:03", 10, 100))) == []
    assert builder.add(ticks(quote(B, "09:30:59", 20, 100))) == [], "within the grace"
    (first,) = builder.add(ticks(quote(A, "09:31:06", 11, 200)))
    assert shown(first.to_pylist(), "symbol", "volume") == [("09:31", A, 100), ("09:31", B, 100)]
    assert builder.add(ticks(quote(B, "09:31:00", 30, 400))) == []
    assert builder.counts == {"late": 1}
    rest = feed(builder, ticks(quote(B, "09:31:50", 21, 500)))
    assert shown(rest, "symbol", "close", "volume") == [("09:32", A, 11, 100), ("09:32", B, 21, 400)]


def test_the_clock_closes_bars_but_a_mute_feed_makes_none() -> None:
    builder = MarketBars([A], ["1m"], grace_s=3.5, closing_grace_s=30)
    assert builder.close_upto(ns("09:31:10")) == []
    builder.add(ticks(quote(A, "11:29:30", 10, 100)))
    builder.add(ticks(quote(A, "11:29:59", 10, 200)))
    assert builder.close_upto(ns("11:30:03")) == []
    (bars,) = builder.close_upto(ns("11:30:04"))
    assert bars.schema.metadata[b"received_ns"] == str(ns("11:30:04")).encode()
    assert [clock_of(bar) for bar in bars.to_pylist()] == ["11:30"]
    assert builder.close_upto(ns("13:20:00")) == []
    assert clock_of(rows_of(builder.add(ticks(quote(A, "15:00:00", 11, 500))))[-1]) == "14:59"
    assert builder.close_upto(ns("15:00:29")) == []
    assert [clock_of(bar) for bar in rows_of(builder.close_upto(ns("15:00:31")))] == ["15:00"]


def test_a_start_in_the_midst_of_a_session_takes_what_was_traded_as_the_base() -> None:
    bars = feed(
        MarketBars([A], ["1m"]),
        ticks(quote(A, "10:00:30", 10, 5000, high=15, low=5)),
        ticks(quote(A, "10:00:33", 11, 5100, high=15, low=5)),
        ticks(quote(A, "10:01:33", 11, 5100, high=15, low=5)),
    )
    assert shown(bars, "open", "high", "low", "close", "volume", "flags") == [
        ("10:01", 11, 11, 11, 11, 100, FLAG_INCOMPLETE),
        ("10:02", 11, 11, 11, 11, 0, 1),
    ]


def test_bars_go_on_behind_those_that_are_stored(sim: SimulatedMarket, snapshots: list[pa.RecordBatch]) -> None:
    whole = sim.bars("1m", sim.sessions[123])
    for stored in (0, 119, 237):
        after = int(bar_ends(sim.sessions[123], "1m")[stored])
        builder = MarketBars(sim.symbols, ["1m"], after={"1m": after})
        rest = pa.Table.from_batches(
            [
                bars.replace_schema_metadata(None)
                # From the snapshot at that bar's end on, the 20th of its minute.
                for batch in snapshots[2 + 20 * stored + 19 :]
                for bars in builder.add(batch)
            ]
        )
        ends = whole["bar_end"].cast(pa.int64()).to_numpy()
        wanted = whole.filter(pa.array(ends > after)).replace_schema_metadata(None)
        assert rest.unify_dictionaries().combine_chunks().equals(wanted.combine_chunks()), stored


def test_a_new_day_ends_the_session_and_volume_starts_anew() -> None:
    builder = MarketBars([A], ["1m"])
    builder.add(ticks(quote(A, "14:59:59", 10, 9000, day="2024-03-04")))
    closed = rows_of(builder.add(ticks(quote(A, "09:25:00", 11, 300))))
    assert [clock_of(bar) for bar in closed] == ["15:00"]
    bars = feed(builder, ticks(quote(A, "15:00:00", 10, 9000, day="2024-03-04")))
    assert shown(bars, "volume", "open") == [("09:31", 300, 11)]
    assert builder.counts == {"other_day": 1}


def test_five_minutes_of_ticks_equal_five_of_minutes_without_the_idle_ones() -> None:
    batches = [
        ticks(quote(A, "09:30:03", 10, 100)),
        ticks(quote(A, "09:33:03", 13, 200)),
        ticks(quote(A, "09:36:03", 9, 300)),
        ticks(quote(A, "09:44:03", 9, 300)),
    ]
    bars = feed(MarketBars([A], ["5m"]), *batches)
    assert shown(bars, "open", "high", "low", "close", "volume", "flags") == [
        ("09:35", 10, 13, 10, 13, 200, 0),
        ("09:40", 9, 9, 9, 9, 100, 0),
        ("09:45", 9, 9, 9, 9, 0, 1),
    ]


def test_an_empty_batch_a_plain_symbol_column_and_an_unknown_frame() -> None:
    builder = MarketBars([A], ["1m"])
    assert builder.add(ticks()) == []
    assert builder.end_session() == []
    plain = ticks(quote(A, "09:30:03", 10, 100))
    plain = pa.RecordBatch.from_arrays([plain["symbol"].cast(pa.string()), *plain.columns[1:]], names=TICK.names)
    assert len(feed(builder, plain)) == 1
    with pytest.raises(FrameError, match="got '2m'"):
        MarketBars([A], ["2m"])


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A quarter of an hour of one day's snapshots of two symbols, every 3 s, in order; extremes hide between them."""
    rows = []
    for symbol in (A, B):
        last, volume, high, low = 10.0, 0.0, 0.0, 0.0
        rows.append(quote(symbol, "09:25:00", 0, 0))
        for k in range(draw(st.integers(2, 60))):
            lots = draw(st.integers(0, 3))
            if lots:
                last = draw(st.integers(900, 1100)) / 100
                hidden = draw(st.integers(890, 1110)) / 100
                volume += lots * 100
                high = max(high, last, hidden)
                low = min(low or last, last, hidden)
            clock = f"09:{30 + k * 15 // 60}:{k * 15 % 60:02d}"
            rows.append(quote(symbol, clock, last if volume else 0, volume, high=high, low=low))
    return sorted(rows, key=lambda row: row["quote_time"])


def totals(bars: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float, float, float]]:
    """Symbol -> volume, amount, high and low over all its bars."""
    found = {}
    for symbol in (A, B):
        own = [bar for bar in bars if bar["symbol"] == symbol]
        if own:
            sums = [sum(bar[name] for bar in own) for name in ("volume", "amount")]
            found[symbol] = (*sums, max(bar["high"] for bar in own), min(bar["low"] for bar in own))
    return found


@settings(max_examples=60, deadline=None)
@given(streams(), st.randoms(use_true_random=False))
def test_snapshots_lost_doubled_and_out_of_order_leave_the_totals_right(
    rows: list[dict[str, Any]], random: Any
) -> None:
    newest = {row["symbol"]: row for row in rows}
    wanted = {
        symbol: (row["volume"], row["amount"], row["high"], row["low"])
        for symbol, row in newest.items()
        if row["volume"]
    }
    keep = [row for row in rows if row["quote_time"] == ns("09:25:00") or row is newest[row["symbol"]]]
    damaged = keep + [row for row in rows if row not in keep for _ in range(random.choice((0, 1, 1, 2)))]
    # Out of order by less than the grace.
    damaged.sort(key=lambda row: row["quote_time"] + random.randrange(0, 50) * SECOND)
    builder = MarketBars([A, B], ["1m"], grace_s=60)
    batches, place = [], 0
    while place < len(damaged):
        size = random.randrange(1, 6)
        batches.append(ticks(*damaged[place : place + size]))
        place += size
    bars = feed(builder, *batches)
    assert totals(bars) == wanted
    assert builder.counts["late"] == 0
    keys = [(bar["symbol"], bar["bar_end"]) for bar in bars]
    assert len(keys) == len(set(keys))


@settings(max_examples=30, deadline=None)
@given(streams())
def test_everything_twice_gives_the_same_bars(rows: list[dict[str, Any]]) -> None:
    once = feed(MarketBars([A, B], ["1m"]), *(ticks(row) for row in rows))
    twice = feed(MarketBars([A, B], ["1m"]), *(ticks(row) for row in rows for _ in range(2)))
    replayed = feed(MarketBars([A, B], ["1m"], grace_s=3600), *(ticks(row) for row in [*rows, *rows]))
    assert once == twice == replayed

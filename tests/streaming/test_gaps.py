"""Up to when symbols have been heard of, in the market's time."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from data.calendar import SECOND, SHANGHAI, day_ns
from data.schema import FLAG_INCOMPLETE, TICK, TIME
from streaming.bars import MarketBars
from streaming.gaps import Heard, Loss, to_metadata
from streaming.health import TradingClock

MIDNIGHT = int(day_ns(np.array(["2026-06-30"], dtype="datetime64[D]"))[0])


def at(clock: str) -> int:
    hour, minute, second = map(int, clock.split(":"))
    return MIDNIGHT + (hour * 3600 + minute * 60 + second) * SECOND


def test_only_time_in_which_the_market_trades_makes_a_gap() -> None:
    assert (at("08:00:00")) % (24 * 3600 * SECOND) == 0, SHANGHAI
    heard = Heard(TradingClock(lambda day: True))
    heard.grow(2)
    both, one = np.array([0, 1]), np.array([0])

    def hear(place: np.ndarray, clock: str) -> list[tuple[int, list[int]]]:
        return [(since, who.tolist()) for since, who in heard.hear(place, at(clock), 5.0)]

    assert hear(both, "09:25:00") == [(0, [0, 1])]
    assert hear(both, "09:30:03") == []
    assert hear(one, "09:30:06") == []
    assert hear(both, "09:30:09") == [(at("09:30:03"), [1])]
    assert hear(one, "09:30:06") == []  # an older answer says nothing new
    assert hear(both, "09:30:15") == [(at("09:30:09"), [0, 1])]
    assert hear(both, "11:29:58") == [(at("09:30:15"), [0, 1])]
    assert hear(both, "13:00:02") == []
    assert hear(one, "14:56:58") == [(at("13:00:02"), [0])]
    assert hear(one, "15:00:01") == []  # the closing auction
    assert hear(both, "15:00:04") == [(at("13:00:02"), [1])]
    heard.forget(one)
    assert hear(both, "15:00:07") == [(0, [0])]


def ticks(clock: str, rows: dict[str, tuple[float, float]], losses: list[Loss]) -> pa.RecordBatch:
    """Symbol -> (last price, volume), all stamped alike."""
    columns = {name: [price for price, _ in rows.values()] for name in ("last", "open", "high", "low", "prev_close")}
    volume = [total for _, total in rows.values()]
    columns |= {"volume": volume, "amount": [price * total for price, total in rows.values()]}
    about = {"symbol": list(rows), "quote_time": pa.array([at(clock)] * len(rows), pa.int64()).cast(TIME)}
    batch = pa.table(about | columns).cast(TICK).combine_chunks().to_batches()[0]
    return batch.replace_schema_metadata({"received_ns": str(at(clock)), **to_metadata(losses)})


def test_a_loss_concerns_a_symbol_up_to_its_next_quote_and_no_other() -> None:
    bars = MarketBars(["600519.SH", "000001.SZ"], ["1m"])
    closed = bars.add(ticks("09:25:00", {"600519.SH": (10, 0), "000001.SZ": (10, 0)}, []))
    closed += bars.add(ticks("09:30:03", {"600519.SH": (10, 100), "000001.SZ": (10, 100)}, []))
    lost = Loss(at("09:30:03"), at("09:32:30"), ("600519.SH",))
    first = ticks("09:31:10", {"600519.SH": (11, 300)}, [lost])  # its own newest quote is older than the frame's
    closed += bars.add(first)
    closed += bars.add(ticks("09:33:10", {"600519.SH": (12, 500), "000001.SZ": (10, 300)}, []))
    closed += bars.add(ticks("09:34:30", {"600519.SH": (12, 600)}, []))
    incomplete = {
        (row["symbol"], (row["bar_end"].minute, row["flags"] & FLAG_INCOMPLETE > 0))
        for batch in closed
        for row in batch.to_pylist()
    }
    flagged = {(symbol, minute) for symbol, (minute, flag) in incomplete if flag}
    assert flagged == {("600519.SH", 31), ("600519.SH", 32)}


def test_losses_that_are_of_no_account_any_more_are_not_kept() -> None:
    bars = MarketBars(["600519.SH", "000001.SZ"], ["1m"])
    bars.add(ticks("09:25:00", {"600519.SH": (10, 0), "000001.SZ": (10, 0)}, []))
    bars.lost(at("09:30:00"), at("09:30:01"), ["000001.SZ"])
    clock = [f"{9 + m // 60}:{m % 60:02}:{s:02}" for m in range(31, 100) for s in (0, 20, 40)]
    for k, (before, now) in enumerate(pairwise(clock)):
        loss = Loss(at(before), at(now), ("600519.SH",))
        bars.add(ticks(now, {"600519.SH": (10, 100 * k + 100)}, [loss]))
    assert len(bars._session._losses) < 50
    bars.add(ticks("10:45:00", {"000001.SZ": (10, 100)}, []))  # the first since its loss
    (row,) = (
        r for batch in bars.end_session() for r in batch.to_pylist() if r["symbol"] == "000001.SZ" and r["volume"]
    )
    assert row["flags"] & FLAG_INCOMPLETE

"""The built-in strategies against a straightforward program: a loop over symbols, TA-Lib on each one's own bars, plain
Python on the last of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import talib

from data.panel import Packed
from data.simulator import SimulatedMarket
from scanner.engines.base import Engine
from scanner.loading import load
from scanner.market import merge
from scanner.scan import make_plan, scan_shard
from scanner.tasks import split

CLOSE_NS = 7 * 3600 * 10**9
DAY_NS = 86_400 * 10**9


@dataclass
class Bars:
    """One symbol's own bars, adjusted, oldest first, and the places of its unexplained gaps."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    gaps: list[int]

    @property
    def n(self) -> int:
        return len(self.close)


def crosses_over(x: Sequence[float], y: Sequence[float]) -> bool:
    """Of NaN nothing is true."""
    return bool(len(x) > 1 and x[-1] > y[-1] and x[-2] <= y[-2])


def golden_cross(bars: Bars) -> dict[str, float] | None:
    macd, signal, _ = talib.MACD(bars.close, 12, 26, 9)
    if crosses_over(macd, signal):
        return {"MACD(12,26,9).macd": macd[-1], "MACD(12,26,9).signal": signal[-1]}
    return None


def death_cross(bars: Bars) -> dict[str, float] | None:
    macd, signal, _ = talib.MACD(bars.close, 12, 26, 9)
    if crosses_over(signal, macd):
        return {"MACD(12,26,9).macd": macd[-1], "MACD(12,26,9).signal": signal[-1]}
    return None


def leaves_oversold(bars: Bars) -> dict[str, float] | None:
    rsi = talib.RSI(bars.close, 14)
    return {"RSI(14)": rsi[-1]} if crosses_over(rsi, [30.0] * bars.n) else None


def leaves_overbought(bars: Bars) -> dict[str, float] | None:
    rsi = talib.RSI(bars.close, 14)
    return {"RSI(14)": rsi[-1]} if crosses_over([70.0] * bars.n, rsi) else None


def breaks_up(bars: Bars) -> dict[str, float] | None:
    upper, _, _ = talib.BBANDS(bars.close, 20, 2, 2, 0)
    if crosses_over(bars.close, upper):
        return {"close": bars.close[-1], "BBANDS(20,2,2).upperband": upper[-1]}
    return None


def breaks_down(bars: Bars) -> dict[str, float] | None:
    _, _, lower = talib.BBANDS(bars.close, 20, 2, 2, 0)
    if crosses_over(lower, bars.close):
        return {"close": bars.close[-1], "BBANDS(20,2,2).lowerband": lower[-1]}
    return None


def kdj_cross(bars: Bars) -> dict[str, float] | None:
    k, d = [np.nan] * 8, [np.nan] * 8
    for t in range(8, bars.n):
        top, bottom = max(bars.high[t - 8 : t + 1]), min(bars.low[t - 8 : t + 1])
        rsv = 100 * (bars.close[t] - bottom) / (top - bottom) if top > bottom else 50.0
        k.append(rsv if t == 8 else (rsv + 2 * k[-1]) / 3)
        d.append(k[-1] if t == 8 else (k[-1] + 2 * d[-1]) / 3)
    return {"KDJ(9,3,3).k": k[-1], "KDJ(9,3,3).d": d[-1]} if crosses_over(k, d) and d[-1] < 50 else None


def volume_breakout(bars: Bars) -> dict[str, float] | None:
    if bars.n < 21:
        return None
    usual, top = talib.SMA(bars.volume, 20)[-2], max(bars.high[-21:-1])
    if bars.volume[-1] > 3 * usual and bars.close[-1] > top:
        return {
            "volume": bars.volume[-1],
            "prev(SMA(volume,20),1)": usual,
            "close": bars.close[-1],
            "prev(highest(high,20),1)": top,
        }
    return None


def high_60(bars: Bars) -> dict[str, float] | None:
    if bars.n < 61 or not bars.close[-1] > max(bars.close[-61:-1]):
        return None
    return {"close": bars.close[-1], "prev(highest(close,60),1)": max(bars.close[-61:-1])}


RULES = {
    # A recursive indicator is taken to look five times its lookback, its own bar included, back; a cross one bar more.
    "macd_golden_cross": (golden_cross, 5 * 34 + 2),
    "macd_death_cross": (death_cross, 5 * 34 + 2),
    "rsi_leaves_oversold": (leaves_oversold, 5 * 15 + 2),
    "rsi_leaves_overbought": (leaves_overbought, 5 * 15 + 2),
    "bollinger_break_up": (breaks_up, 21),
    "bollinger_break_down": (breaks_down, 21),
    "kdj_golden_cross": (kdj_cross, 5 * 9 + 2),
    "volume_breakout": (volume_breakout, 21),
    "high_60": (high_60, 61),
}
"""Strategy -> its rule, and how many of the newest bars it looks at."""


def widest_limit(symbol: str, day: date) -> float:
    if symbol.endswith(".BJ"):
        return 0.30
    if symbol.startswith(("688", "689")) or (symbol[:2] == "30" and day >= date(2020, 8, 24)):
        return 0.20
    return 0.10


def own_bars(symbol: str, rows: list[dict[str, Any]], first_day: date) -> Bars:
    """Adjusted from the newest backwards by the exchange's own previous close; gaps where that is not known."""
    prices = {name: np.array([row[name] for row in rows]) for name in ("open", "high", "low", "close")}
    gaps = []
    steps = np.ones(len(rows))
    for t in range(1, len(rows)):
        last, reference = rows[t - 1]["close"], rows[t].get("prev_close")
        if reference is not None:
            steps[t] = reference / last if abs(reference - last) > 0.001 else 1.0
        elif t >= 5 or rows[0]["date"] == first_day:
            move = abs(rows[t]["open"] - last)
            if move > last * widest_limit(symbol, rows[t]["date"]) + 0.01:
                gaps.append(t)
    factor = 1.0
    for t in range(len(rows) - 1, 0, -1):
        factor *= steps[t]
        for values in prices.values():
            values[t - 1] *= factor
    return Bars(**prices, volume=np.array([float(row["volume"]) for row in rows]), gaps=gaps)


def rows_by_symbol(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.sort_by([("symbol", "ascending"), ("date", "ascending")]).to_pylist():
        found.setdefault(row["symbol"], []).append(row)
    return found


def reference(
    by_symbol: dict[str, list[dict[str, Any]]], day: date
) -> tuple[dict[tuple[str, str], dict[str, float]], set[tuple[str, str]]]:
    """(strategy, symbol) -> the values that made it fire on `day`, and those that a gap kept silent."""
    fired, silent = {}, set()
    first_day = min(rows[0]["date"] for rows in by_symbol.values())
    for symbol, rows in by_symbol.items():
        rows = [row for row in rows if row["date"] <= day]
        if not rows or rows[-1]["date"] != day:
            continue
        bars = own_bars(symbol, rows, first_day)
        for name, (rule, window) in RULES.items():
            values = rule(bars)
            if values is None:
                continue
            if any(gap > bars.n - window for gap in bars.gaps):
                silent.add((name, symbol))
            else:
                fired[name, symbol] = values
    return fired, silent


def as_bars(table: pa.Table) -> pa.Table:
    """Rows of days as the store has them."""
    days = table["date"].cast(pa.int32()).cast(pa.int64()).to_numpy()
    ends = pa.array(days * DAY_NS + CLOSE_NS).cast(pa.timestamp("ns", "UTC"))
    lacking = {"amount", "prev_close"} - set(table.column_names)
    for name in sorted(lacking):
        table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
    return table.append_column("bar_end", ends).append_column("revision", pa.array(np.zeros(len(days), np.int32)))


def assert_agree(table: pa.Table, days: Sequence[date], engine: Engine) -> tuple[set[str], int]:
    """On each day the scan and the plain program agree; returns who fired on any, and how many a gap kept silent."""
    registry = load()
    assert set(registry) == set(RULES)
    plan = make_plan("1d", registry.values())
    symbols = sorted(set(table["symbol"].to_pylist()))
    rows = rows_by_symbol(table)
    fired, gapped = set(), 0
    for day in days:
        upto = as_bars(table.filter(pc.less_equal(table["date"], pa.scalar(day))))
        ends = upto["bar_end"].cast(pa.int64()).to_numpy()
        answers = [
            scan_shard(plan, Packed.from_table(upto, "1d", shard), int(ends.max()), engine, origin=int(ends.min()))
            for shard in split(symbols, 2)
        ]
        result = merge(plan, list(registry.values()), answers, int(ends.max()), engine)
        expected, silent = reference(rows, day)
        assert {(hit.strategy, hit.symbol) for hit in result.hits} == set(expected), day
        assert set(result.gapped) == silent, day
        for hit in result.hits:
            values = expected[hit.strategy, hit.symbol]
            assert hit.values.keys() == values.keys()
            assert hit.values == pytest.approx(values, rel=1e-12, abs=1e-9)
        fired |= {hit.strategy for hit in result.hits}
        gapped += len(silent)
    return fired, gapped


def test_on_a_simulated_market(engine: Engine) -> None:
    """60 symbols, 160 sessions with dividends and splits, of which the exchange's reference tells."""
    market = SimulatedMarket(60, seed=23)
    bars = market.bars("1d", *market.sessions[:160])
    table = bars.select(["open", "high", "low", "close", "volume", "prev_close"])
    table = table.append_column("symbol", bars["symbol"].cast(pa.string()))
    table = table.append_column("date", bars["bar_end"].cast(pa.date32()))
    days = sorted(set(table["date"].to_pylist()))
    fired, gapped = assert_agree(table, [days[n] for n in (25, *range(60, 160, 7))], engine)
    assert fired >= set(RULES) - {"volume_breakout"}
    assert gapped == 0
    blind = table.drop_columns(["prev_close"])
    _, gapped = assert_agree(blind, [days[n] for n in range(100, 160, 10)], engine)
    assert gapped > 0


def test_on_the_real_market(market: Path, engine: Engine) -> None:
    """A sample of 50 symbols at twelve bar ends, from one year to the newest."""
    file = market / "ashare_daily_2020_2025.parquet"
    symbols = sorted(pq.read_table(file, columns=["symbol"], read_dictionary=["symbol"])["symbol"].unique().to_pylist())
    sample = np.random.default_rng(50).choice(symbols, 50, replace=False).tolist()
    traded = (pc.field("volume") > 0) & (pc.field("open") > 0)
    table = pq.read_table(file, filters=pc.field("symbol").isin(sample) & traded)
    days = sorted(set(table["date"].to_pylist()))
    fired, _ = assert_agree(table, [days[-n] for n in (1, 2, 3, 5, 10, 20, 40, 60, 90, 120, 150, 200)], engine)
    assert fired == set(RULES)

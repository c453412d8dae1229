"""Volatility: how far a bar reaches."""

import math

from data.panel import Floats
from scanner.indicators.rows import EPSILON, row, true_range
from scanner.indicators.spec import Indicator, Kernel, integer


def atr(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, close before, sum or mean of true ranges."""
    share = 1.0 / n
    highs, lows, closes, v = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, before, average = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = average[j]
        c = closes[j]
        reach = true_range(highs[j], lows[j], before[j])
        # The sum of the first n becomes their mean, which then gives way to each by an n-th; the first bar has none.
        weight = n - 1.0 if k > n else 1.0
        scale = share if k >= n else 1.0
        a = (a * weight + reach) * scale
        a = a if k >= 1.0 else 0.0
        v[j] = a if k >= n else math.nan
        average[j] = a
        before[j] = c
        seen[j] = k + 1.0


def natr(
    t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int
) -> None:
    """State: as of `atr`."""
    atr(t, j0, j1, high, low, close, state, out, n)
    closes, v = row(close, t, j0, j1), row(out, t, j0, j1)
    for j in range(j1 - j0):
        c = closes[j]
        a = v[j]
        share = a / c * 100.0
        share = share if abs(c) >= EPSILON else 0.0
        share = share if n > 1 else a  # as TA-Lib has it
        v[j] = share if a == a else math.nan


def trange(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen, close before."""
    highs, lows, closes, v = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, before = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        c = closes[j]
        reach = true_range(highs[j], lows[j], before[j])
        v[j] = reach if k >= 1.0 else math.nan
        before[j] = c
        seen[j] = k + 1.0


INDICATORS = (
    Indicator(
        name="ATR",
        title="Average true range",
        title_zh="平均真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("atr",),
        kernel=Kernel(atr, 3),
        lookback=lambda timeperiod: timeperiod,
        talib="ATR",
        recursive=True,
        doc="y = (y' * (n-1) + TRANGE) / n, seeded with the mean of the first n true ranges; CNY (Wilder 1978).",
    ),
    Indicator(
        name="NATR",
        title="Normalized average true range",
        title_zh="归一化平均真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("natr",),
        kernel=Kernel(natr, 3),
        lookback=lambda timeperiod: timeperiod,
        talib="NATR",
        recursive=True,
        doc="100 * ATR(n) / close, in percent, so that stocks of different price compare (Forman 2006).",
    ),
    Indicator(
        name="TRANGE",
        title="True range",
        title_zh="真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        outputs=("trange",),
        kernel=Kernel(trange, 2),
        lookback=lambda: 1,
        talib="TRANGE",
        doc="max(high, close') - min(low, close'), close' being the bar before's; CNY (Wilder 1978).",
    ),
)
"""In the order of the catalogue."""

"""Candlestick patterns: 0 where there is none, 100 for a bullish one, -100 for a bearish one.

Long, short and equal are measured against averages of the bars before (TA-Lib's candle settings: ten bars for most), so
a pattern has a lookback too.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel

_OHLC = ("open", "high", "low", "close")


def doji(
    t: int, j0: int, j1: int, start: Floats, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats
) -> None:
    """State: bars seen, sum of the last ten ranges."""
    opens, highs, lows, closes = row(start, t, j0, j1), row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    highs_old, lows_old, v = row(high, t - 10, j0, j1), row(low, t - 10, j0, j1), row(out, t, j0, j1)
    seen, ranges = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        total = ranges[j]
        body = abs(closes[j] - opens[j])
        span = highs[j] - lows[j]
        old = highs_old[j] - lows_old[j]
        found = 100.0 if body <= 0.1 * (total / 10.0) else 0.0
        v[j] = found if k >= 10.0 else math.nan
        ranges[j] = total + (span - old if k >= 10.0 else span)
        seen[j] = k + 1.0


def hammer(
    t: int, j0: int, j1: int, start: Floats, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats
) -> None:
    """State: bars seen, sums of the last ten bodies, of the last ten ranges, and of the five ranges before the last."""
    opens, highs, lows, closes = row(start, t, j0, j1), row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    opens10, highs10 = row(start, t - 10, j0, j1), row(high, t - 10, j0, j1)
    lows10, closes10 = row(low, t - 10, j0, j1), row(close, t - 10, j0, j1)
    highs1, lows1 = row(high, t - 1, j0, j1), row(low, t - 1, j0, j1)
    highs6, lows6, v = row(high, t - 6, j0, j1), row(low, t - 6, j0, j1), row(out, t, j0, j1)
    seen, bodies, ranges, nears = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = opens[j]
        h = highs[j]
        w = lows[j]
        c = closes[j]
        before = lows1[j]
        body_sum = bodies[j]
        range_sum = ranges[j]
        near_sum = nears[j]
        body = abs(c - a)
        upper = a if a > c else c
        lower = c if a > c else a
        short = body < body_sum / 10.0
        shadows = (lower - w > body) & (h - upper < 0.1 * (range_sum / 10.0))
        near = lower <= before + 0.2 * (near_sum / 5.0)
        v[j] = (100.0 if short & shadows & near else 0.0) if k >= 11.0 else math.nan
        span = h - w
        span10 = highs10[j] - lows10[j]
        body10 = abs(closes10[j] - opens10[j])
        span1 = highs1[j] - before
        span6 = highs6[j] - lows6[j]
        body_next = body_sum + (body - body10 if k >= 11.0 else body)
        range_next = range_sum + (span - span10 if k >= 11.0 else span)
        near_next = near_sum + (span1 - span6 if k >= 11.0 else span1)
        bodies[j] = body_next if k >= 1.0 else 0.0
        ranges[j] = range_next if k >= 1.0 else 0.0
        nears[j] = near_next if k >= 6.0 else 0.0
        seen[j] = k + 1.0


def engulfing(
    t: int, j0: int, j1: int, start: Floats, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats
) -> None:
    """State: bars seen, open and close before."""
    opens, closes, v = row(start, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, open_before, close_before = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = opens[j]
        c = closes[j]
        a0 = open_before[j]
        c0 = close_before[j]
        up = (c >= a) & (c0 < a0) & (((c >= a0) & (a < c0)) | ((c > a0) & (a <= c0)))
        down = (c < a) & (c0 >= a0) & (((a >= c0) & (c < a0)) | ((a > c0) & (c <= a0)))
        size = 100.0 if (a != c0) & (c != a0) else 80.0
        found = size if up else 0.0
        found = -size if down else found
        v[j] = found if k >= 2.0 else math.nan
        open_before[j] = a
        close_before[j] = c
        seen[j] = k + 1.0


INDICATORS = (
    Indicator(
        name="CDLDOJI",
        title="Doji",
        title_zh="十字星",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        kernel=Kernel(doji, 2, rtol=0.0),
        lookback=lambda: 10,
        talib="CDLDOJI",
        doc="100 where |close - open| is at most a tenth of the mean high - low of the ten bars before, else 0.",
    ),
    Indicator(
        name="CDLHAMMER",
        title="Hammer",
        title_zh="锤头线",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        kernel=Kernel(hammer, 4, rtol=0.0),
        lookback=lambda: 11,
        talib="CDLHAMMER",
        doc=(
            "100 where a body smaller than the mean body of the ten bars before has a lower shadow longer than itself, "
            "hardly an upper one, and stands near or below the low of the bar before, else 0."
        ),
    ),
    Indicator(
        name="CDLENGULFING",
        title="Engulfing pattern",
        title_zh="吞没形态",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        kernel=Kernel(engulfing, 3, rtol=0.0),
        lookback=lambda: 2,
        talib="CDLENGULFING",
        doc=(
            "100 where a rising body holds the falling body of the bar before, -100 where a falling one holds a rising "
            "one, 80 and -80 where one end of the bodies is the same, else 0."
        ),
    ),
)
"""In the order of the catalogue."""

"""Channels: bands that follow the price at a distance, and what happens where it leaves them."""

import math

from data.panel import Floats
from scanner.indicators.rows import ema, row, slide_high, slide_low, true_range
from scanner.indicators.spec import Indicator, Kernel, integer, number
from scanner.indicators.volatility import atr


def donchian(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    state: Floats,
    upper_out: Floats,
    middle_out: Floats,
    lower_out: Floats,
    n: int,
) -> None:
    """State: bars seen; highest and lowest."""
    upper, middle, lower = row(upper_out, t, j0, j1), row(middle_out, t, j0, j1), row(lower_out, t, j0, j1)
    seen = state[0, j0:j1]
    high_rest = state[slide_high(t, j0, j1, high, n, state, 1), j0:j1]
    low_rest = state[slide_low(t, j0, j1, low, n, state, 2 + n), j0:j1]
    high_block, low_block = state[1, j0:j1], state[2 + n, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        highest = high_block[j]
        lowest = low_block[j]
        a = high_rest[j]
        b = low_rest[j]
        highest = a if a > highest else highest
        lowest = b if b < lowest else lowest
        upper[j] = highest if k >= n else math.nan
        middle[j] = (highest + lowest) / 2.0 if k >= n else math.nan
        lower[j] = lowest if k >= n else math.nan
        seen[j] = k


def keltner(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    upper_out: Floats,
    middle_out: Floats,
    lower_out: Floats,
    n: int,
    atrperiod: int,
    times: float,
) -> None:
    """State: bars seen, close before, sum or mean of true ranges, average of typical prices."""
    wait = max(n - 1, atrperiod)
    share = 1.0 / atrperiod
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    upper, middle, lower = row(upper_out, t, j0, j1), row(middle_out, t, j0, j1), row(lower_out, t, j0, j1)
    seen, before, ranges, average = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        h = highs[j]
        w = lows[j]
        c = closes[j]
        r = ranges[j]
        a = average[j]
        # The one with the shorter lookback starts later, so that both are known from the same bar on.
        since = k - (wait - atrperiod)
        reach = true_range(h, w, before[j])
        total = r + reach
        total = total * share if since == atrperiod else total
        total = total if since >= 1.0 else 0.0
        wilder = (r * (atrperiod - 1.0) + reach) * share
        r = wilder if since > atrperiod else total
        since = k - (wait - (n - 1.0))
        following = ema((h + w + c) / 3.0, a, since, n)
        a = following if since >= 0.0 else 0.0
        upper[j] = a + r * times if k >= wait else math.nan
        middle[j] = a if k >= wait else math.nan
        lower[j] = a - r * times if k >= wait else math.nan
        before[j] = c
        ranges[j] = r
        average[j] = a
        seen[j] = k + 1.0


def supertrend(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    line_out: Floats,
    direction_out: Floats,
    n: int,
    times: float,
) -> None:
    """State: that of `atr`, close before, upper band, lower band, 1 or -1 for the side."""
    atr(t, j0, j1, high, low, close, state, line_out, n)
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    line, direction = row(line_out, t, j0, j1), row(direction_out, t, j0, j1)
    seen, before, uppers, lowers, sides = (
        state[0, j0:j1],
        state[3, j0:j1],
        state[4, j0:j1],
        state[5, j0:j1],
        state[6, j0:j1],
    )
    for j in range(j1 - j0):
        k = seen[j]
        c = closes[j]
        last = before[j]
        upper = uppers[j]
        lower = lowers[j]
        side = sides[j]
        reach = times * line[j]
        mid = (highs[j] + lows[j]) / 2.0
        above = mid + reach
        below = mid - reach
        # A band moves towards the price alone, until a close lies beyond it.
        first = k <= n + 1.0
        upper = above if first | (above < upper) | (last > upper) else upper
        lower = below if first | (below > lower) | (last < lower) else lower
        turned = upper if side < 0.0 else lower
        beyond = (turned - c) * side > 0.0
        side = -side if beyond else side
        side = 1.0 if first else side
        ready = k > n
        line[j] = (lower if side > 0.0 else upper) if ready else math.nan
        direction[j] = side if ready else math.nan
        before[j] = c
        uppers[j] = upper
        lowers[j] = lower
        sides[j] = side


INDICATORS = (
    Indicator(
        name="DONCHIAN",
        title="Donchian channel",
        title_zh="唐奇安通道",
        family="trend",
        pane="overlay",
        inputs=("high", "low"),
        params=(integer("timeperiod", 20),),
        outputs=("upper", "middle", "lower"),
        kernel=Kernel(donchian, lambda timeperiod: 3 + 2 * timeperiod),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="DONCHIAN",
        doc=(
            "upper = the highest high and lower = the lowest low of n bars, this one included; middle = (upper + "
            "lower) / 2 (Donchian 1960)."
        ),
    ),
    Indicator(
        name="KELTNER",
        title="Keltner channel",
        title_zh="肯特纳通道",
        family="volatility",
        pane="overlay",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 20), integer("atrperiod", 10, lo=1), number("nbdev", 2.0)),
        outputs=("upper", "middle", "lower"),
        kernel=Kernel(keltner, 4),
        lookback=lambda timeperiod, atrperiod, nbdev: max(timeperiod - 1, atrperiod),
        talib="KC",
        recursive=True,
        doc=(
            "middle = EMA((high + low + close) / 3, timeperiod); upper, lower = middle +- nbdev * ATR(atrperiod), "
            "the two seeded on bars that end together. TA-Lib calls it KC (Keltner 1960, with Raschke's average true "
            "range)."
        ),
    ),
    Indicator(
        name="SUPERTREND",
        title="Supertrend",
        title_zh="超级趋势",
        family="trend",
        pane="overlay",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 10), number("multiplier", 3.0, lo=0.0)),
        outputs=("supertrend", "direction"),
        kernel=Kernel(supertrend, 7),
        lookback=lambda timeperiod, multiplier: timeperiod,
        talib="SUPERTREND",
        recursive=True,
        doc=(
            "(high + low) / 2 -+ multiplier * ATR(timeperiod) are two bands; the lower one only rises until a close "
            "falls below it, the upper one only falls until a close rises above it. supertrend is the lower band while "
            "direction is 1, the upper one while it is -1; direction starts at 1 and turns at a close beyond the band "
            "(Seban)."
        ),
    ),
)
"""In the order of the catalogue."""

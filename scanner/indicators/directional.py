"""Directional movement: how far highs rise above the highs before, against how far lows fall below the lows."""

import math

from data.panel import Floats
from scanner.indicators.rows import row, true_range
from scanner.indicators.spec import Indicator, Kernel, integer


def movement(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, n: int) -> None:
    """State: bars seen; high, low and close before; smoothed movement up and down, smoothed true range.

    The first n - 1 are summed; from then on a sum loses an n-th of itself a bar.
    """
    part = 1.0 / n
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    seen, high_before, low_before, close_before = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    ups, downs, ranges = state[4, j0:j1], state[5, j0:j1], state[6, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        h = highs[j]
        w = lows[j]
        up = ups[j]
        down = downs[j]
        span = ranges[j]
        rise = h - high_before[j]
        fall = low_before[j] - w
        plus = rise if (rise > 0.0) & (rise > fall) else 0.0
        minus = fall if (fall > 0.0) & (rise < fall) else 0.0
        reach = true_range(h, w, close_before[j])
        up_less = up - up * part if k >= n else up
        down_less = down - down * part if k >= n else down
        span_less = span - span * part if k >= n else span
        up = up_less + plus if k >= 1.0 else 0.0
        down = down_less + minus if k >= 1.0 else 0.0
        span = span_less + reach if k >= 1.0 else 0.0
        ups[j] = up
        downs[j] = down
        ranges[j] = span
        high_before[j] = h
        low_before[j] = w
        close_before[j] = closes[j]
        seen[j] = k + 1.0


def plus_di(
    t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int
) -> None:
    """State: as of `movement`."""
    movement(t, j0, j1, high, low, close, state, n)
    v, seen, ups, ranges = row(out, t, j0, j1), state[0, j0:j1], state[4, j0:j1], state[6, j0:j1]
    percent = 100.0 if n > 1 else 1.0  # as TA-Lib has it
    for j in range(j1 - j0):
        k = seen[j]
        span = ranges[j]
        share = percent * (ups[j] / span)
        share = share if span > 0.0 else 0.0
        v[j] = share if k > n else math.nan


def minus_di(
    t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int
) -> None:
    """State: as of `movement`."""
    movement(t, j0, j1, high, low, close, state, n)
    v, seen, downs, ranges = row(out, t, j0, j1), state[0, j0:j1], state[5, j0:j1], state[6, j0:j1]
    percent = 100.0 if n > 1 else 1.0  # as TA-Lib has it
    for j in range(j1 - j0):
        k = seen[j]
        span = ranges[j]
        share = percent * (downs[j] / span)
        share = share if span > 0.0 else 0.0
        v[j] = share if k > n else math.nan


def dx(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: as of `movement`."""
    movement(t, j0, j1, high, low, close, state, n)
    v, seen, ups, downs = row(out, t, j0, j1), state[0, j0:j1], state[4, j0:j1], state[5, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        up = ups[j]
        down = downs[j]
        # |+DI - -DI| / (+DI + -DI), in which the true range cancels.
        both = up + down
        index = 100.0 * (abs(down - up) / both)
        # Smoothed movement that is not zero never becomes so.
        index = index if both > 0.0 else 0.0
        v[j] = index if k > n else math.nan


INDICATORS = (
    Indicator(
        name="PLUS_DI",
        title="Plus directional indicator",
        title_zh="上升动向指标",
        family="trend",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("plus_di",),
        kernel=Kernel(plus_di, 7),
        lookback=lambda timeperiod: timeperiod,
        talib="PLUS_DI",
        recursive=True,
        doc=(
            "100 * s(+DM) / s(TRANGE), +DM = high - high' where that is positive and more than low' - low, else 0; "
            "s(x) = s' - s'/n + x, seeded with the sum of n - 1; 0 where s(TRANGE) is 0; for n = 1 without the 100, as "
            "in TA-Lib (Wilder 1978)."
        ),
    ),
    Indicator(
        name="MINUS_DI",
        title="Minus directional indicator",
        title_zh="下降动向指标",
        family="trend",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("minus_di",),
        kernel=Kernel(minus_di, 7),
        lookback=lambda timeperiod: timeperiod,
        talib="MINUS_DI",
        recursive=True,
        doc=(
            "100 * s(-DM) / s(TRANGE), -DM = low' - low where that is positive and more than high - high', else 0; "
            "s(x) = s' - s'/n + x, seeded with the sum of n - 1; 0 where s(TRANGE) is 0; for n = 1 without the 100, as "
            "in TA-Lib (Wilder 1978)."
        ),
    ),
    Indicator(
        name="DX",
        title="Directional movement index",
        title_zh="动向指数",
        family="trend",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("dx",),
        kernel=Kernel(dx, 7),
        lookback=lambda timeperiod: timeperiod,
        talib="DX",
        recursive=True,
        doc="100 * |+DI - -DI| / (+DI + -DI), 0 while neither high nor low has moved; ADX is its mean (Wilder 1978).",
    ),
)
"""In the order of the catalogue."""

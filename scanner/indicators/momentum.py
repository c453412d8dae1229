"""Momentum: how fast prices move."""

import math

from data.panel import Floats
from scanner.indicators.rows import EPSILON, row
from scanner.indicators.spec import Indicator, Kernel, integer

FLAT = 1e-10
"""A mean deviation below this share of the price is none, but rounding."""


def rsi(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, value before, sum or mean of gains, of losses."""
    share = 1.0 / n
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, before, gains, losses = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        gain = gains[j]
        loss = losses[j]
        change = a - before[j]
        change = change if k >= 1.0 else 0.0
        up = change if change > 0.0 else 0.0
        down = -change if change < 0.0 else 0.0
        # A sum of the first n changes becomes their mean, which then gives way to each change by an n-th.
        weight = n - 1.0 if k > n else 1.0
        scale = share if k >= n else 1.0
        gain = (gain * weight + up) * scale
        loss = (loss * weight + down) * scale
        both = gain + loss
        strength = 100.0 * (gain / both)
        strength = strength if both > 0.0 else 0.0
        v[j] = strength if k >= n else math.nan
        before[j] = a
        gains[j] = gain
        losses[j] = loss
        seen[j] = k + 1.0


def turned(place: int, n: int) -> int:
    """`place % n` of what is below 2 * n, without a division."""
    return place if place < n else place - n


def cci(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, sum and deviations of the last n typical prices, and these."""
    share, place = 1.0 / n, t % n
    highs, lows, closes, v = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, mean, spread, now = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3 + place, j0:j1]
    for j in range(j1 - j0):
        now[j] = (highs[j] + lows[j] + closes[j]) / 3.0
        mean[j] = 0.0
        spread[j] = 0.0
    # Four bars at a time: what is read and written between them stays in registers.
    for lag in range(n // 4):
        at = place + 1 + 4 * lag
        first, second = state[3 + turned(at, n), j0:j1], state[3 + turned(at + 1, n), j0:j1]
        third, fourth = state[3 + turned(at + 2, n), j0:j1], state[3 + turned(at + 3, n), j0:j1]
        for j in range(j1 - j0):
            mean[j] = mean[j] + first[j] + second[j] + third[j] + fourth[j]
    for lag in range(n - n % 4, n):
        price = state[3 + turned(place + 1 + lag, n), j0:j1]
        for j in range(j1 - j0):
            mean[j] = mean[j] + price[j]
    for j in range(j1 - j0):
        mean[j] = mean[j] / n
    for lag in range(n // 4):
        at = place + 1 + 4 * lag
        first, second = state[3 + turned(at, n), j0:j1], state[3 + turned(at + 1, n), j0:j1]
        third, fourth = state[3 + turned(at + 2, n), j0:j1], state[3 + turned(at + 3, n), j0:j1]
        for j in range(j1 - j0):
            m = mean[j]
            s = spread[j] + abs(first[j] - m) + abs(second[j] - m)
            spread[j] = s + abs(third[j] - m) + abs(fourth[j] - m)
    for lag in range(n - n % 4, n):
        price = state[3 + turned(place + 1 + lag, n), j0:j1]
        for j in range(j1 - j0):
            spread[j] = spread[j] + abs(price[j] - mean[j])
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        a = now[j]
        over = a - mean[j]
        deviation = spread[j] * share
        index = over / (0.015 * deviation)
        index = index if deviation > FLAT * abs(a) else 0.0
        v[j] = index if k >= n else math.nan
        seen[j] = k


def mfi(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    state: Floats,
    out: Floats,
    n: int,
) -> None:
    """State: bars seen, typical price before, sums of flows up and down, bars without flow, the last n signed flows."""
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    volumes, v, flow = row(volume, t, j0, j1), row(out, t, j0, j1), state[5 + t % n, j0:j1]
    seen, before, ups, downs, idle = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1], state[4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        old = flow[j]
        a = (highs[j] + lows[j] + closes[j]) / 3.0
        b = before[j]
        change = a - b
        money = a * volumes[j]
        money = -money if change < 0.0 else money
        money = money if abs(change) > EPSILON * (abs(a) + abs(b)) else 0.0
        money = money if k >= 1.0 else 0.0
        up = ups[j] - (old if old > 0.0 else 0.0)
        down = downs[j] + (old if old < 0.0 else 0.0)
        up = up + (money if money > 0.0 else 0.0)
        down = down - (money if money < 0.0 else 0.0)
        still = idle[j] + 1.0
        still = still if money == 0.0 else 0.0
        still = still if k >= 1.0 else 0.0
        # Running sums of nothing hold what rounding left in them.
        up = up if still < n else 0.0
        down = down if still < n else 0.0
        both = up + down
        share = up if up > 0.0 else 0.0
        share = share if share < both else both
        share = 100.0 * (share / both)
        share = share if both > 0.0 else 0.0
        v[j] = share if k >= n else math.nan
        flow[j] = money
        before[j] = a
        ups[j] = up
        downs[j] = down
        idle[j] = still
        seen[j] = k + 1.0


def roc(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen."""
    now, old, v, seen = row(x, t, j0, j1), row(x, t - n, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        b = old[j]
        change = (a / b - 1.0) * 100.0
        change = change if b != 0.0 else 0.0
        v[j] = change if k >= n else math.nan
        seen[j] = k + 1.0


def mom(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen."""
    now, old, v, seen = row(x, t, j0, j1), row(x, t - n, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        change = now[j] - old[j]
        v[j] = change if k >= n else math.nan
        seen[j] = k + 1.0


INDICATORS = (
    Indicator(
        name="RSI",
        title="Relative strength index",
        title_zh="相对强弱指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(30.0, 70.0),
        inputs=("close",),
        params=(integer("timeperiod", 14),),
        outputs=("rsi",),
        kernel=Kernel(rsi, 4),
        lookback=lambda timeperiod: timeperiod,
        talib="RSI",
        recursive=True,
        doc=(
            "100 * gain / (gain + loss), both Wilder-smoothed and seeded with the mean of the first n changes; "
            "0 where the price never moved (Wilder 1978)."
        ),
    ),
    Indicator(
        name="CCI",
        title="Commodity channel index",
        title_zh="顺势指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(-100.0, 100.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("cci",),
        kernel=Kernel(cci, lambda timeperiod: 3 + timeperiod, rtol=1e-9, flat=lambda high, low, close: (0.0,)),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="CCI",
        doc=(
            "(tp - SMA(tp, n)) / (0.015 * mean absolute deviation of tp over n), tp = (high + low + close) / 3 "
            "(Lambert 1980)."
        ),
    ),
    Indicator(
        name="MFI",
        title="Money flow index",
        title_zh="资金流量指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("high", "low", "close", "volume"),
        params=(integer("timeperiod", 14),),
        outputs=("mfi",),
        kernel=Kernel(mfi, lambda timeperiod: 5 + timeperiod),
        lookback=lambda timeperiod: timeperiod,
        talib="MFI",
        doc=(
            "100 * up / (up + down), the sums over n bars of typical price * volume on bars whose typical price rose, "
            "or fell (Quong and Soudack 1989)."
        ),
    ),
    Indicator(
        name="ROC",
        title="Rate of change",
        title_zh="变动率指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 10, lo=1),),
        outputs=("roc",),
        kernel=Kernel(roc, 1),
        lookback=lambda timeperiod: timeperiod,
        talib="ROC",
        doc="100 * (x / x n bars ago - 1), in percent.",
    ),
    Indicator(
        name="MOM",
        title="Momentum",
        title_zh="动量指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 10, lo=1),),
        outputs=("mom",),
        kernel=Kernel(mom, 1),
        lookback=lambda timeperiod: timeperiod,
        talib="MOM",
        doc="x - x n bars ago, in the units of x.",
    ),
)
"""In the order of the catalogue."""

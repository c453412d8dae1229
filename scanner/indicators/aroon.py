"""Aroon: how long ago the highest high and the lowest low were."""

import math

from data.panel import Floats
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel, integer


def slide_newest(t: int, j0: int, j1: int, values: Floats, sign: float, period: int, state: Floats, at: int) -> int:
    """The highest of the last `period` rows times `sign`, and where the newest of equals stands.

    In the way of `slide_high`. State row `at` holds the highest of the block so far and `at` + 1 its place in the
    block; then come `period` rows of the highest from each row of the block before to that block's end, and as many of
    how far from that end it stands. Returns the row to compare with `at`; the distance stands `period` rows after it.
    Takes 2 + 2 * `period` rows of state.
    """
    place = t % period
    top, where = state[at, j0:j1], state[at + 1, j0:j1]
    now = row(values, t, j0, j1)
    if place == 0:
        for lag in range(1, period + 1):
            to = at + 2 + period - lag
            later = to + 1 if lag > 1 else to
            old = row(values, t - lag, j0, j1)
            high, far = state[to, j0:j1], state[to + period, j0:j1]
            high_later, far_later = state[later, j0:j1], state[later + period, j0:j1]
            for j in range(j1 - j0):
                a = sign * old[j]
                b = high_later[j]
                c = far_later[j]
                higher = (a > b) | (lag == 1)
                high[j] = a if higher else b
                far[j] = lag - 1.0 if higher else c
        for j in range(j1 - j0):
            top[j] = sign * now[j]
            where[j] = 0.0
    else:
        for j in range(j1 - j0):
            a = sign * now[j]
            b = top[j]
            c = where[j]
            top[j] = a if a >= b else b
            where[j] = place if a >= b else c
    return at if place + 1 == period else at + 3 + place


def ages(t: int, j0: int, j1: int, high: Floats, low: Floats, state: Floats, n: int) -> None:
    """State: bars seen; how long ago the highest and the lowest were; what `slide_newest` takes for each."""
    place, at = t % (n + 1), 7 + 2 * n
    high_rest = slide_newest(t, j0, j1, high, 1.0, n + 1, state, 3)
    low_rest = slide_newest(t, j0, j1, low, -1.0, n + 1, state, at)
    seen, since_high, since_low = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    high_block, high_where, high_older = state[3, j0:j1], state[4, j0:j1], state[high_rest, j0:j1]
    low_block, low_where, low_older = state[at, j0:j1], state[at + 1, j0:j1], state[low_rest, j0:j1]
    high_far, low_far = state[high_rest + n + 1, j0:j1], state[low_rest + n + 1, j0:j1]
    for j in range(j1 - j0):
        a = high_older[j]
        b = high_block[j]
        near = place - high_where[j]
        far = place + 1.0 + high_far[j]
        since_high[j] = far if a > b else near
        a = low_older[j]
        b = low_block[j]
        near = place - low_where[j]
        far = place + 1.0 + low_far[j]
        since_low[j] = far if a > b else near
        seen[j] = seen[j] + 1.0


def aroon(
    t: int, j0: int, j1: int, high: Floats, low: Floats, state: Floats, down_out: Floats, up_out: Floats, n: int
) -> None:
    """State: as of `ages`."""
    ages(t, j0, j1, high, low, state, n)
    down, up = row(down_out, t, j0, j1), row(up_out, t, j0, j1)
    seen, since_high, since_low = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    share = 100.0 / n
    for j in range(j1 - j0):
        k = seen[j]
        rising = share * (n - since_high[j])
        falling = share * (n - since_low[j])
        up[j] = rising if k > n else math.nan
        down[j] = falling if k > n else math.nan


def aroonosc(t: int, j0: int, j1: int, high: Floats, low: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: as of `ages`."""
    ages(t, j0, j1, high, low, state, n)
    v, seen, since_high, since_low = row(out, t, j0, j1), state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    share = 100.0 / n
    for j in range(j1 - j0):
        k = seen[j]
        balance = share * (since_low[j] - since_high[j])
        v[j] = balance if k > n else math.nan


INDICATORS = (
    Indicator(
        name="AROON",
        title="Aroon",
        title_zh="阿隆指标",
        family="trend",
        pane="oscillator",
        reference_lines=(30.0, 70.0),
        inputs=("high", "low"),
        params=(integer("timeperiod", 14),),
        outputs=("aroondown", "aroonup"),
        kernel=Kernel(aroon, lambda timeperiod: 11 + 4 * timeperiod),
        aliases={"down": "aroondown", "up": "aroonup"},
        lookback=lambda timeperiod: timeperiod,
        talib="AROON",
        doc=(
            "100 * (n - bars since the highest high of n + 1 bars) / n, and of the lowest low; of equal ones the "
            "newest counts (Chande 1995)."
        ),
    ),
    Indicator(
        name="AROONOSC",
        title="Aroon oscillator",
        title_zh="阿隆振荡指标",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("high", "low"),
        params=(integer("timeperiod", 14),),
        outputs=("aroonosc",),
        kernel=Kernel(aroonosc, lambda timeperiod: 11 + 4 * timeperiod),
        lookback=lambda timeperiod: timeperiod,
        talib="AROONOSC",
        doc="aroonup - aroondown of AROON(n), in [-100, 100] (Chande 1995).",
    ),
)
"""In the order of the catalogue."""

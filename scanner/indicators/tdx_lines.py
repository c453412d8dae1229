"""TongDaXin's system formulas: lines over and around the price.

An average has a value from the first bar at which its window is full, an EMA or SMA from the first bar, which seeds it.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_mean, tdx_sma
from scanner.indicators.spec import Indicator, Kernel, integer, number


def tdx_boll(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    mid_out: Floats,
    upper_out: Floats,
    lower_out: Floats,
    n: int,
    width: float,
) -> None:
    """State: the mean; the mean before, the squared distances from it (Welford 1962, with what leaves the window)."""
    slide_mean(t, j0, j1, x, n, state, 0)
    now, old = row(x, t, j0, j1), row(x, t - n, j0, j1)
    mid, upper, lower = row(mid_out, t, j0, j1), row(upper_out, t, j0, j1), row(lower_out, t, j0, j1)
    total, rest, equal, seen = state[1, j0:j1], state[2, j0:j1], state[3, j0:j1], state[4, j0:j1]
    mean_before, squares = state[5, j0:j1], state[6, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        o = old[j]
        before = mean_before[j]
        count = k if k < n else n
        flat = equal[j] >= count
        mean = (total[j] + rest[j]) / count
        mean = a if flat else mean
        grown = (a - before) * (a - mean)
        moved = (a - o) * ((a - mean) + (o - before))
        more = moved if k > n else grown
        q = squares[j] + more
        q = q if q > 0.0 else 0.0
        q = 0.0 if flat else q
        deviation = math.sqrt(q / (n - 1.0))
        mid[j] = mean if k >= n else math.nan
        upper[j] = mean + deviation * width if k >= n else math.nan
        lower[j] = mean - deviation * width if k >= n else math.nan
        mean_before[j] = mean
        squares[j] = q


def ene(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    upper_out: Floats,
    lower_out: Floats,
    ene_out: Floats,
    n: int,
    m1: float,
    m2: float,
) -> None:
    """State: the mean."""
    slide_mean(t, j0, j1, x, n, state, 0)
    above, below = 1.0 + m1 / 100.0, 1.0 - m2 / 100.0
    mean, seen = state[0, j0:j1], state[4, j0:j1]
    upper, lower, middle = row(upper_out, t, j0, j1), row(lower_out, t, j0, j1), row(ene_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        high = above * mean[j]
        low = below * mean[j]
        upper[j] = high if k >= n else math.nan
        lower[j] = low if k >= n else math.nan
        middle[j] = (high + low) / 2.0 if k >= n else math.nan


def bbi(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, m1: int, m2: int, m3: int, m4: int) -> None:
    """State: the means."""
    slide_mean(t, j0, j1, x, m1, state, 0)
    slide_mean(t, j0, j1, x, m2, state, 5)
    slide_mean(t, j0, j1, x, m3, state, 10)
    slide_mean(t, j0, j1, x, m4, state, 15)
    longest = max(max(m1, m2), max(m3, m4))
    a, b, c, d = state[0, j0:j1], state[5, j0:j1], state[10, j0:j1], state[15, j0:j1]
    seen, v = state[4, j0:j1], row(out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        mean = ((a[j] + b[j]) + (c[j] + d[j])) / 4.0
        v[j] = mean if k >= longest else math.nan


def expma(
    t: int, j0: int, j1: int, x: Floats, state: Floats, fast_out: Floats, slow_out: Floats, m1: int, m2: int
) -> None:
    """State: bars seen, both averages."""
    now, fast, slow = row(x, t, j0, j1), row(fast_out, t, j0, j1), row(slow_out, t, j0, j1)
    seen, first, second = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        f = tdx_sma(a, first[j], k, m1 + 1.0, 2.0)
        s = tdx_sma(a, second[j], k, m2 + 1.0, 2.0)
        fast[j] = f
        slow[j] = s
        first[j] = f
        second[j] = s
        seen[j] = k + 1.0


def dpo(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, mean_out: Floats, n: int, m: int) -> None:
    """State: mean, mean of the values; the last n // 2 + 1 means, the last m values."""
    back = n // 2 + 1
    means, ring = state[10 : 11 + back], state[11 + back : 12 + back + m]
    slide_mean(t, j0, j1, x, n, state, 0)
    now, value, level = row(x, t, j0, j1), row(ring, t, j0, j1), row(means, t, j0, j1)
    mean, old = state[0, j0:j1], row(means, t - back, j0, j1)
    for j in range(j1 - j0):
        level[j] = mean[j]
        value[j] = now[j] - old[j]
    slide_mean(t, j0, j1, ring, m, state, 5)
    average, seen, v, madpo = state[5, j0:j1], state[9, j0:j1], row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = average[j]
        v[j] = a if k + 1.0 >= n + back + m else math.nan
        madpo[j] = b if k + 1.0 >= n + back + m else math.nan


INDICATORS = (
    Indicator(
        name="TDX_BOLL",
        title="Bollinger bands (TongDaXin)",
        title_zh="布林线 BOLL",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("n", 20), number("width", 2.0, lo=0.0)),
        outputs=("mid", "upper", "lower"),
        kernel=Kernel(tdx_boll, 7),
        aliases={"boll": "mid", "ub": "upper", "lb": "lower"},
        lookback=lambda n, width: n - 1,
        dialect="tdx",
        doc=(
            "mid = MA(x, n); upper, lower = mid + width * STD(x, n), mid - width * STD(x, n), where STD is the "
            "sample's (n - 1 in its divisor; TA-Lib's is the population's), and exactly 0 where x stood still "
            "(TongDaXin's BOLL)."
        ),
    ),
    Indicator(
        name="ENE",
        title="Envelope",
        title_zh="轨道线 ENE",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("n", 25, lo=1), number("m1", 6.0, lo=0.0), number("m2", 6.0, lo=0.0)),
        outputs=("upper", "lower", "ene"),
        kernel=Kernel(ene, 5),
        lookback=lambda n, m1, m2: n - 1,
        dialect="tdx",
        doc=(
            "upper = (1 + m1 / 100) * MA(x, n); lower = (1 - m2 / 100) * MA(x, n); ene = (upper + lower) / 2 "
            "(TongDaXin's ENE; 10, 11, 9 are usual too)."
        ),
    ),
    Indicator(
        name="BBI",
        title="Bull and bear index",
        title_zh="多空均线 BBI",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("m1", 3, lo=1), integer("m2", 6, lo=1), integer("m3", 12, lo=1), integer("m4", 24, lo=1)),
        outputs=("bbi",),
        kernel=Kernel(bbi, 20),
        lookback=lambda m1, m2, m3, m4: max(m1, m2, m3, m4) - 1,
        dialect="tdx",
        doc="(MA(x, m1) + MA(x, m2) + MA(x, m3) + MA(x, m4)) / 4 (TongDaXin's BBI).",
    ),
    Indicator(
        name="EXPMA",
        title="Exponential averages (TongDaXin)",
        title_zh="指数平均线 EXPMA",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("m1", 12), integer("m2", 50)),
        outputs=("exp1", "exp2"),
        kernel=Kernel(expma, 3),
        lookback=lambda m1, m2: 0,
        dialect="tdx",
        recursive=True,
        doc=(
            "exp1 = EMA(x, m1), exp2 = EMA(x, m2), y = (2 * x + (m - 1) * y') / (m + 1), seeded with the first value, "
            "so that there are values from the first bar (TongDaXin's EXPMA); TA-Lib's EMA is seeded with a mean."
        ),
    ),
    Indicator(
        name="DPO",
        title="Detrended price oscillator (TongDaXin)",
        title_zh="区间震荡线 DPO",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n", 20, lo=1), integer("m", 6, lo=1)),
        outputs=("dpo", "madpo"),
        kernel=Kernel(dpo, lambda n, m: 13 + n // 2 + m),
        lookback=lambda n, m: n + n // 2 + m - 1,
        dialect="tdx",
        doc=(
            "dpo = x - REF(MA(x, n), n / 2 + 1), the bars rounded down; madpo = MA(dpo, m); in the units of x "
            "(TongDaXin's DPO). TA-Lib's DPO, where it has one, looks back from the price instead."
        ),
    ),
)
"""In the order of the catalogue."""

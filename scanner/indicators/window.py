"""The window functions of the rule language as row kernels: streams and GPUs run these, a batch on a CPU runs numpy.

Each gives the bits of its numpy core in `scanner.functions`. NaN is unknown, and may come and go: they are total.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_high, slide_low
from scanner.indicators.spec import Indicator, Kernel, integer

MOST_BARS = 10_000
"""The largest n of a function."""


def prev(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen."""
    old, v, seen = row(x, t - n, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = old[j]
        v[j] = a if k >= n else math.nan
        seen[j] = k + 1.0


def cross_over(t: int, j0: int, j1: int, x: Floats, y: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen, x before, y before."""
    left, right, v = row(x, t, j0, j1), row(y, t, j0, j1), row(out, t, j0, j1)
    seen, x_before, y_before = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = left[j]
        b = right[j]
        c = x_before[j]
        d = y_before[j]
        above = 1.0 if a > b else 0.0
        above = above if a == a else math.nan
        above = above if b == b else math.nan
        below = 1.0 if c <= d else 0.0
        below = below if c == c else math.nan
        below = below if d == d else math.nan
        below = below if k >= 1.0 else math.nan
        crossed = above * below
        crossed = 0.0 if above == 0.0 else crossed
        v[j] = 0.0 if below == 0.0 else crossed
        x_before[j] = a
        y_before[j] = b
        seen[j] = k + 1.0


def cross_under(t: int, j0: int, j1: int, x: Floats, y: Floats, state: Floats, out: Floats) -> None:
    """State: as of `cross_over`, y first."""
    cross_over(t, j0, j1, y, x, state, out)


def highest(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: known bars in a row, and what `slide_high` keeps."""
    rest = slide_high(t, j0, j1, x, n, state, 1)
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    known, block, before = state[0, j0:j1], state[1, j0:j1], state[rest, j0:j1]
    for j in range(j1 - j0):
        k = known[j] + 1.0
        value = now[j]
        a = block[j]
        b = before[j]
        k = k if value == value else 0.0
        top = a if a > b else b
        v[j] = top if k >= n else math.nan
        known[j] = k


def lowest(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: known bars in a row, and what `slide_low` keeps."""
    rest = slide_low(t, j0, j1, x, n, state, 1)
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    known, block, before = state[0, j0:j1], state[1, j0:j1], state[rest, j0:j1]
    for j in range(j1 - j0):
        k = known[j] + 1.0
        value = now[j]
        a = block[j]
        b = before[j]
        k = k if value == value else 0.0
        bottom = a if a < b else b
        v[j] = bottom if k >= n else math.nan
        known[j] = k


def count(t: int, j0: int, j1: int, met: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: known bars in a row, on how many of the last n of these it held."""
    now, old, v = row(met, t, j0, j1), row(met, t - n, j0, j1), row(out, t, j0, j1)
    known, total = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = known[j]
        a = now[j]
        left = old[j]
        left = left if k >= n else 0.0
        held = total[j] + a - left
        k = k + 1.0
        k = k if a == a else 0.0
        v[j] = held if k >= n else math.nan
        total[j] = held if a == a else 0.0
        known[j] = k


def every(t: int, j0: int, j1: int, met: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, known bars in a row, bars in a row that are not false."""
    now, v = row(met, t, j0, j1), row(out, t, j0, j1)
    seen, known, standing = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        a = now[j]
        bars = seen[j] + 1.0
        k = known[j] + 1.0
        k = k if a == a else 0.0
        unbroken = standing[j] + 1.0
        unbroken = unbroken if a != 0.0 else 0.0
        held = 1.0 if k >= n else math.nan
        held = held if unbroken >= n else 0.0
        v[j] = held if bars >= n else math.nan
        seen[j] = bars
        known[j] = k
        standing[j] = unbroken


def bars_since(t: int, j0: int, j1: int, met: Floats, state: Floats, out: Floats) -> None:
    """State: bars since it last held, that one included; 0 if it never did."""
    now, v, since = row(met, t, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
    for j in range(j1 - j0):
        k = since[j]
        a = now[j]
        k = k + 1.0 if k > 0.0 else 0.0
        k = 1.0 if a == 1.0 else k
        v[j] = k - 1.0 if k > 0.0 else math.nan
        since[j] = k


INDICATORS = (
    Indicator(
        name="PREV",
        title="Value some bars ago",
        title_zh="若干周期前的值",
        family="other",
        pane="oscillator",
        inputs=("x",),
        params=(integer("n", 1, 1, MOST_BARS),),
        outputs=("prev",),
        lookback=lambda n: n,
        kernel=Kernel(prev, 1, total=True),
        doc="x, n bars ago.",
    ),
    Indicator(
        name="CROSS_OVER",
        title="Crossing upwards",
        title_zh="上穿",
        family="other",
        pane="oscillator",
        inputs=("x", "y"),
        outputs=("cross_over",),
        lookback=lambda: 0,
        kernel=Kernel(cross_over, 3, total=True),
        doc="1 where x > y, and x <= y a bar ago.",
    ),
    Indicator(
        name="CROSS_UNDER",
        title="Crossing downwards",
        title_zh="下穿",
        family="other",
        pane="oscillator",
        inputs=("x", "y"),
        outputs=("cross_under",),
        lookback=lambda: 0,
        kernel=Kernel(cross_under, 3, total=True),
        doc="1 where x < y, and x >= y a bar ago.",
    ),
    Indicator(
        name="HIGHEST",
        title="Highest of a window",
        title_zh="区间最高值",
        family="other",
        pane="oscillator",
        inputs=("x",),
        params=(integer("n", 20, 1, MOST_BARS),),
        outputs=("highest",),
        lookback=lambda n: n - 1,
        kernel=Kernel(highest, lambda n: 2 + n, total=True),
        doc="The highest x of n bars; unknown if one of them is.",
    ),
    Indicator(
        name="LOWEST",
        title="Lowest of a window",
        title_zh="区间最低值",
        family="other",
        pane="oscillator",
        inputs=("x",),
        params=(integer("n", 20, 1, MOST_BARS),),
        outputs=("lowest",),
        lookback=lambda n: n - 1,
        kernel=Kernel(lowest, lambda n: 2 + n, total=True),
        doc="The lowest x of n bars; unknown if one of them is.",
    ),
    Indicator(
        name="COUNT",
        title="Count of a window",
        title_zh="区间满足次数",
        family="other",
        pane="oscillator",
        inputs=("condition",),
        params=(integer("n", 20, 1, MOST_BARS),),
        outputs=("count",),
        lookback=lambda n: n - 1,
        kernel=Kernel(count, 2, total=True),
        doc="On how many of n bars the condition (1, 0 or NaN) held; unknown if it is on one of them.",
    ),
    Indicator(
        name="EVERY",
        title="Every bar of a window",
        title_zh="区间一直满足",
        family="other",
        pane="oscillator",
        inputs=("condition",),
        params=(integer("n", 20, 1, MOST_BARS),),
        outputs=("every",),
        lookback=lambda n: n - 1,
        kernel=Kernel(every, 3, total=True),
        doc="1 where the condition (1, 0 or NaN) held on each of n bars, 0 where it failed on one, else unknown.",
    ),
    Indicator(
        name="BARS_SINCE",
        title="Bars since",
        title_zh="上次满足至今的周期数",
        family="other",
        pane="oscillator",
        inputs=("condition",),
        outputs=("bars_since",),
        lookback=lambda: 0,
        kernel=Kernel(bars_since, 1, total=True),
        recursive=True,
        doc="Bars since the condition (1, 0 or NaN) last held, 0 now; unknown if it never did.",
    ),
)

WINDOWS = {indicator.name.lower(): indicator for indicator in INDICATORS}
"""Function of the language -> its declaration; the inputs `x` and `y` are numbers, a `condition` is 1.0, 0.0 or NaN."""

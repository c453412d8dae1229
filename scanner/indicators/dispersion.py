"""Statistics of a window: how far values scatter, and how steeply the line through them rises."""

import math

from data.panel import Floats
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel, integer, number


def var(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, mean, sum of squared deviations from it, value before, bars since it changed.

    The mean and the squares are moved by what enters and leaves the window (Welford), which loses no digits where the
    values are large and scatter little, as sums of squares do.
    """
    share = 1.0 / n
    now, old, v = row(x, t, j0, j1), row(x, t - n, j0, j1), row(out, t, j0, j1)
    seen, means, squares, before, same = (
        state[0, j0:j1],
        state[1, j0:j1],
        state[2, j0:j1],
        state[3, j0:j1],
        state[4, j0:j1],
    )
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        a = now[j]
        oldest = old[j]
        mean = means[j]
        square = squares[j]
        last = before[j]
        still = same[j] + 1.0
        still = still if a == last else 1.0
        full = k > n
        # Until the window is full nothing leaves it.
        gone = oldest if full else mean
        moved = mean + (a - gone) / (n if full else k)
        square = square + (a - gone) * ((a - moved) + (gone - mean))
        square = square if square > 0.0 else 0.0
        # Nothing has moved: no rounding is left either.
        square = 0.0 if still >= k else square
        square = 0.0 if still >= n else square
        mean = a if still >= n else moved
        v[j] = square * share if k >= n else math.nan
        means[j] = mean
        squares[j] = square
        before[j] = a
        same[j] = still
        seen[j] = k


def stddev(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int, times: float) -> None:
    """State: as of `var`."""
    var(t, j0, j1, x, state, out, n)
    v = row(out, t, j0, j1)
    for j in range(j1 - j0):
        v[j] = math.sqrt(v[j]) * times


def slope(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, weighted sum. The weights of a value and of the one opposite differ in sign alone."""
    v, seen, total = row(out, t, j0, j1), state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        total[j] = 0.0
    half = n // 2
    for lag in range(0, half - 1, 2):
        new, old = row(x, t - lag, j0, j1), row(x, t - (n - 1 - lag), j0, j1)
        second, second_old = row(x, t - lag - 1, j0, j1), row(x, t - (n - 2 - lag), j0, j1)
        weight = (n - 1 - 2 * lag) / 2.0
        for j in range(j1 - j0):
            pair = (new[j] - old[j]) * weight + (second[j] - second_old[j]) * (weight - 1.0)
            total[j] = total[j] + pair
    if half % 2 == 1:
        # One or two values apart stand the innermost.
        new, old = row(x, t - half + 1, j0, j1), row(x, t - (n - half), j0, j1)
        for j in range(j1 - j0):
            total[j] = total[j] + (new[j] - old[j]) * ((n + 1 - 2 * half) / 2.0)
    share = 12.0 / (n * (n * n - 1.0))
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        rise = total[j] * share
        v[j] = rise if k >= n else math.nan
        seen[j] = k


INDICATORS = (
    Indicator(
        name="STDDEV",
        title="Standard deviation",
        title_zh="标准差",
        family="volatility",
        pane="oscillator",
        inputs=("close",),
        params=(integer("timeperiod", 20), number("nbdev", 1.0)),
        outputs=("stddev",),
        kernel=Kernel(stddev, 5, rtol=1e-8, flat=lambda close: (0.0,)),
        lookback=lambda timeperiod, nbdev: timeperiod - 1,
        talib="STDDEV",
        doc=(
            "nbdev * sqrt(VAR(x, n)): the population's, as in BBANDS (TongDaXin's STD is the sample's, dividing by "
            "n - 1); 0 where no value differs. Its 20 bars are those of BBANDS; TA-Lib's own default is 5."
        ),
    ),
    Indicator(
        name="VAR",
        title="Variance",
        title_zh="方差",
        family="volatility",
        pane="oscillator",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("var",),
        kernel=Kernel(var, 5, rtol=1e-9, flat=lambda close: (0.0,)),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="VAR",
        # TA-Lib takes no notice of it.
        fixed={"nbdev": 1.0},
        doc=(
            "sum((x - mean)^2) / n over the last n values, the population's; 0 where no value differs. Its 20 bars are "
            "those of BBANDS; TA-Lib's own default is 5."
        ),
    ),
    Indicator(
        name="LINEARREG_SLOPE",
        title="Linear regression slope",
        title_zh="线性回归斜率",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 14),),
        outputs=("slope",),
        kernel=Kernel(slope, 2, rtol=1e-9, flat=lambda close: (0.0,)),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="LINEARREG_SLOPE",
        doc=(
            "b of the line a + b*i of least squares through the last n values, 12 * sum((i - (n-1)/2) * x_i) / "
            "(n * (n^2 - 1)) with i = 0 for the oldest; units of x a bar (TongDaXin's SLOPE)."
        ),
    ),
)
"""In the order of the catalogue."""

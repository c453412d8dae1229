"""What row kernels are written with. A row kernel advances one indicator by bar `t` for the columns [j0, j1):

    def kernel(t, j0, j1, *inputs, state, *outputs, *params)

Matrices are (bars, symbols); a matrix of fewer rows than there are bars is a ring, which `row` hides. `state` is
(rows, symbols), zero before a symbol's first bar; the bars a symbol has had are counted there, never by `t`. Columns
know nothing of each other, so what a column without bars holds does not matter. The same source is compiled for CPUs
(a block of columns in SIMD) and for GPUs (a thread a column), so its language is small: + - * /, comparisons, selects,
abs, math.sqrt, integer counters; every operand in a local before a select; over a window the lag loop outside, columns
inside, and from the oldest bar to the newest, so that sums round the same wherever the history begins.
`scanner.indicators.grammar` checks it.

Divisions by zero give what C gives, and are selected away.
"""

from data.panel import Floats

EPSILON = 1e-14
"""Below this TA-Lib takes a sum or a variance for zero."""


def row(matrix: Floats, t: int, j0: int, j1: int) -> Floats:
    """Bar `t` of a matrix or a ring, columns [j0, j1)."""
    return matrix[t % len(matrix), j0:j1]


def true_range(high: float, low: float, before: float) -> float:
    """The bar's range, the close before it included."""
    spread = high - low
    above = abs(high - before)
    below = abs(low - before)
    spread = above if above > spread else spread
    return below if below > spread else spread


def ema(value: float, before: float, seen: float, period: float) -> float:
    """The next state of an average of which `seen` values came before: a sum until `period`, then the average."""
    total = before + value
    total = total / period if seen + 1.0 == period else total
    average = (value - before) * (2.0 / (period + 1.0)) + before
    return average if seen >= period else total


def slide_high(t: int, j0: int, j1: int, values: Floats, period: int, state: Floats, at: int) -> int:
    """The highest of the last `period` rows is that of the state rows `at` and the one returned.

    Rows are taken in blocks of `period` (van Herk 1992): `at` holds the highest of the block so far, the `period` rows
    after it the highest from each row of the block before to that block's end. Takes 1 + `period` rows of state.
    """
    place = t % period
    top = state[at, j0:j1]
    now = row(values, t, j0, j1)
    if place == 0:
        for lag in range(1, period + 1):
            old = row(values, t - lag, j0, j1)
            to = state[at + 1 + period - lag, j0:j1]
            later = state[at + 1 + (period - lag + 1 if lag > 1 else period - lag), j0:j1]
            for j in range(j1 - j0):
                a = old[j]
                b = later[j]
                b = a if lag == 1 else b
                to[j] = a if a > b else b
        for j in range(j1 - j0):
            top[j] = now[j]
    else:
        for j in range(j1 - j0):
            a = now[j]
            b = top[j]
            top[j] = a if a > b else b
    return at if place + 1 == period else at + 2 + place


def slide_low(t: int, j0: int, j1: int, values: Floats, period: int, state: Floats, at: int) -> int:
    """The lowest, in the way of `slide_high`."""
    place = t % period
    bottom = state[at, j0:j1]
    now = row(values, t, j0, j1)
    if place == 0:
        for lag in range(1, period + 1):
            old = row(values, t - lag, j0, j1)
            to = state[at + 1 + period - lag, j0:j1]
            later = state[at + 1 + (period - lag + 1 if lag > 1 else period - lag), j0:j1]
            for j in range(j1 - j0):
                a = old[j]
                b = later[j]
                b = a if lag == 1 else b
                to[j] = a if a < b else b
        for j in range(j1 - j0):
            bottom[j] = now[j]
    else:
        for j in range(j1 - j0):
            a = now[j]
            b = bottom[j]
            bottom[j] = a if a < b else b
    return at if place + 1 == period else at + 2 + place


def tdx_sma(value: float, before: float, seen: float, n: float, m: float) -> float:
    """TongDaXin's SMA(X, N, M), y = (m * x + (n - m) * y') / n, seeded with the first value: `seen` came before.

    Its EMA(X, N) is SMA(X, N + 1, 2). An average of equal values is that value, without rounding.
    """
    average = before + (value - before) * (m / n)
    return average if seen >= 1.0 else value


def slide_mean(t: int, j0: int, j1: int, values: Floats, n: int, state: Floats, at: int) -> None:
    """The mean of the last `n` rows of a matrix or ring; what comes before a column's first bar counts as zero.

    Takes 5 rows of state from `at`: the mean, the running sum, what rounding took from it, how many equal values came
    last, how many values came. Reads `n` rows back. The sum is kept with its rounding errors (Knuth 1998, 4.2.2), so
    that nothing stays in it of what has left the window, and the mean of `n` equal values is that value exactly.
    """
    now, last, old = row(values, t, j0, j1), row(values, t - 1, j0, j1), row(values, t - n, j0, j1)
    mean, total, rest = state[at, j0:j1], state[at + 1, j0:j1], state[at + 2, j0:j1]
    equal, seen = state[at + 3, j0:j1], state[at + 4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        b = last[j]
        o = old[j]
        o = o if k >= n else 0.0
        before = total[j]
        more = before + a
        part = more - before
        lost = (before - (more - part)) + (a - part)
        less = more - o
        part = less - more
        lost = lost + ((more - (less - part)) - (o + part))
        left = rest[j] + lost
        same = equal[j] + 1.0
        same = same if a == b else 1.0
        average = (less + left) / n
        mean[j] = a if same >= n else average
        total[j] = less
        rest[j] = left
        equal[j] = same
        seen[j] = k + 1.0

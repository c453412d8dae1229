"""TongDaXin's system formulas: overbought and oversold.

An average has a value from the first bar at which its window is full, an EMA or SMA from the first bar, which seeds it.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_high, slide_low, slide_mean, tdx_sma
from scanner.indicators.spec import Indicator, Kernel, integer

FADED = 1e-290
"""Averages below this stand still: their ratio is kept, and does not become that of the smallest numbers there are."""


def tdx_rsi(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, average of gains, of changes."""
    now, last, v = row(x, t, j0, j1), row(x, t - 1, j0, j1), row(out, t, j0, j1)
    seen, gains, sizes = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        gain = gains[j]
        size = sizes[j]
        change = now[j] - last[j]
        change = change if k >= 1.0 else 0.0
        rise = change if change > 0.0 else 0.0
        up = tdx_sma(rise, gain, k - 1.0, n, 1.0)
        both = tdx_sma(abs(change), size, k - 1.0, n, 1.0)
        gain = up if both > FADED else gain
        size = both if both > FADED else size
        share = gain if gain < size else size
        strength = 100.0 * (share / size)
        strength = strength if size > 0.0 else 50.0
        v[j] = strength if k >= 1.0 else math.nan
        gains[j] = gain
        sizes[j] = size
        seen[j] = k + 1.0


def tdx_wr(
    t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int
) -> None:
    """State: bars seen; highest and lowest."""
    closes, v, seen = row(close, t, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
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
        spread = highest - lowest
        place = 100.0 * (highest - closes[j]) / spread
        place = place if spread != 0.0 else 50.0
        v[j] = place if k >= n else math.nan
        seen[j] = k


def bias(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: the mean."""
    slide_mean(t, j0, j1, x, n, state, 0)
    now, mean, seen, v = row(x, t, j0, j1), state[0, j0:j1], state[4, j0:j1], row(out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = mean[j]
        share = (now[j] - a) / a * 100.0
        share = share if a != 0.0 else 0.0
        v[j] = share if k >= n else math.nan


def tdx_roc(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, mean_out: Floats, n: int, m: int) -> None:
    """State: the mean; the last m values."""
    ring = state[5 : 6 + m]
    now, old, value = row(x, t, j0, j1), row(x, t - n, j0, j1), row(ring, t, j0, j1)
    seen, mean, v, average = state[4, j0:j1], state[0, j0:j1], row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        b = old[j]
        change = 100.0 * (now[j] - b) / b
        change = change if b != 0.0 else 0.0
        value[j] = change if k >= n else 0.0
    slide_mean(t, j0, j1, ring, m, state, 0)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k >= n + m else math.nan
        average[j] = b if k >= n + m else math.nan


def mtm(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, mean_out: Floats, n: int, m: int) -> None:
    """State: the mean; the last m values."""
    ring = state[5 : 6 + m]
    now, old, value = row(x, t, j0, j1), row(x, t - n, j0, j1), row(ring, t, j0, j1)
    seen, mean, v, average = state[4, j0:j1], state[0, j0:j1], row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        change = now[j] - old[j]
        value[j] = change if k >= n else 0.0
    slide_mean(t, j0, j1, ring, m, state, 0)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k >= n + m else math.nan
        average[j] = b if k >= n + m else math.nan


def psy(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, mean_out: Floats, n: int, m: int) -> None:
    """State: share of rises, mean of the values; the last n rises, the last m values."""
    rises, ring = state[10 : 11 + n], state[11 + n : 12 + n + m]
    now, last, rise, seen = row(x, t, j0, j1), row(x, t - 1, j0, j1), row(rises, t, j0, j1), state[4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        b = last[j]
        rose = 1.0 if a > b else 0.0
        rise[j] = rose if k >= 1.0 else 0.0
    slide_mean(t, j0, j1, rises, n, state, 0)
    share, value, mean = state[0, j0:j1], row(ring, t, j0, j1), state[5, j0:j1]
    for j in range(j1 - j0):
        value[j] = share[j] * 100.0
    slide_mean(t, j0, j1, ring, m, state, 5)
    v, average = row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k >= n + m else math.nan
        average[j] = b if k >= n + m else math.nan


INDICATORS = (
    Indicator(
        name="TDX_RSI",
        title="Relative strength index (TongDaXin)",
        title_zh="相对强弱指标 RSI",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("close",),
        params=(integer("n", 6),),
        outputs=("rsi",),
        kernel=Kernel(tdx_rsi, 3),
        lookback=lambda n: 1,
        dialect="tdx",
        recursive=True,
        doc=(
            "SMA(MAX(x - x', 0), n, 1) / SMA(|x - x'|, n, 1) * 100, y = (x + (n - 1) * y') / n seeded with the first "
            "change, so that there are values from the second bar; 50 where x never moved (TongDaXin's RSI, whose "
            "three lines are n = 6, 12, 24)."
        ),
    ),
    Indicator(
        name="TDX_WR",
        title="Williams' %R (TongDaXin)",
        title_zh="威廉指标 WR",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("high", "low", "close"),
        params=(integer("n", 10, lo=1),),
        outputs=("wr",),
        kernel=Kernel(tdx_wr, lambda n: 3 + 2 * n),
        lookback=lambda n: n - 1,
        dialect="tdx",
        doc=(
            "100 * (HHV(high, n) - close) / (HHV(high, n) - LLV(low, n)), 0 at the top and 100 at the bottom, 50 "
            "where that range is 0 (TongDaXin's WR, whose two lines are n = 10, 6); TA-Lib's is the negative of it."
        ),
    ),
    Indicator(
        name="BIAS",
        title="Bias ratio",
        title_zh="乖离率 BIAS",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n", 6, lo=1),),
        outputs=("bias",),
        kernel=Kernel(bias, 5),
        lookback=lambda n: n - 1,
        dialect="tdx",
        doc=(
            "(x - MA(x, n)) / MA(x, n) * 100, in percent, 0 where the mean is 0 (TongDaXin's BIAS, whose three lines "
            "are n = 6, 12, 24)."
        ),
    ),
    Indicator(
        name="TDX_ROC",
        title="Rate of change (TongDaXin)",
        title_zh="变动率指标 ROC",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n", 12, lo=1), integer("m", 6, lo=1)),
        outputs=("roc", "maroc"),
        kernel=Kernel(tdx_roc, lambda n, m: 6 + m),
        lookback=lambda n, m: n + m - 1,
        dialect="tdx",
        doc=(
            "roc = 100 * (x - REF(x, n)) / REF(x, n), in percent, 0 where REF(x, n) is 0; maroc = MA(roc, m) "
            "(TongDaXin's ROC)."
        ),
    ),
    Indicator(
        name="MTM",
        title="Momentum with its mean",
        title_zh="动量线 MTM",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n", 12, lo=1), integer("m", 6, lo=1)),
        outputs=("mtm", "mtmma"),
        kernel=Kernel(mtm, lambda n, m: 6 + m),
        lookback=lambda n, m: n + m - 1,
        dialect="tdx",
        doc="mtm = x - REF(x, n); mtmma = MA(mtm, m); in the units of x (TongDaXin's MTM).",
    ),
    Indicator(
        name="PSY",
        title="Psychological line",
        title_zh="心理线 PSY",
        family="momentum",
        pane="oscillator",
        reference_lines=(25.0, 75.0),
        inputs=("close",),
        params=(integer("n", 12, lo=1), integer("m", 6, lo=1)),
        outputs=("psy", "psyma"),
        kernel=Kernel(psy, lambda n, m: 12 + n + m),
        lookback=lambda n, m: n + m - 1,
        dialect="tdx",
        doc=(
            "psy = COUNT(x > x', n) / n * 100, the share of rises in percent, 0 where x stood still; psyma = MA(psy, "
            "m) (TongDaXin's PSY)."
        ),
    ),
)
"""In the order of the catalogue."""

"""TongDaXin's system formulas: trends, as oscillators.

An average has a value from the first bar at which its window is full, an EMA or SMA from the first bar, which seeds it.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_high, slide_low, slide_mean, tdx_sma, true_range
from scanner.indicators.spec import Indicator, Kernel, integer


def tdx_macd(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    dif_out: Floats,
    dea_out: Floats,
    bar_out: Floats,
    short: int,
    long: int,
    mid: int,
) -> None:
    """State: bars seen, fast average, slow average, average of their difference."""
    now, dif, dea, bar = row(x, t, j0, j1), row(dif_out, t, j0, j1), row(dea_out, t, j0, j1), row(bar_out, t, j0, j1)
    seen, fast, slow, signal = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        f = tdx_sma(a, fast[j], k, short + 1.0, 2.0)
        s = tdx_sma(a, slow[j], k, long + 1.0, 2.0)
        d = f - s
        g = tdx_sma(d, signal[j], k, mid + 1.0, 2.0)
        dif[j] = d
        dea[j] = g
        bar[j] = (d - g) * 2.0
        fast[j] = f
        slow[j] = s
        signal[j] = g
        seen[j] = k + 1.0


def tdx_trix(
    t: int, j0: int, j1: int, x: Floats, state: Floats, trix_out: Floats, mean_out: Floats, n: int, m: int
) -> None:
    """State: three averages; the mean; the last m values."""
    ring = state[8 : 9 + m]
    now, value, trix, trma = row(x, t, j0, j1), row(ring, t, j0, j1), row(trix_out, t, j0, j1), row(mean_out, t, j0, j1)
    first, second, third, seen = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[7, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        before = third[j]
        a = tdx_sma(now[j], first[j], k, n + 1.0, 2.0)
        b = tdx_sma(a, second[j], k, n + 1.0, 2.0)
        c = tdx_sma(b, before, k, n + 1.0, 2.0)
        change = (c - before) / before * 100.0
        change = change if before != 0.0 else 0.0
        value[j] = change
        first[j] = a
        second[j] = b
        third[j] = c
    slide_mean(t, j0, j1, ring, m, state, 3)
    mean = state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        trix[j] = a if k > m else math.nan
        trma[j] = b if k > m else math.nan


def tdx_dmi(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    pdi_out: Floats,
    mdi_out: Floats,
    adx_out: Floats,
    adxr_out: Floats,
    n: int,
    m: int,
) -> None:
    """State: means of movement up and down, of true ranges, of dx; the last n, n, n and m of these, m of adx."""
    ups, downs, ranges = state[20 : 21 + n], state[21 + n : 22 + 2 * n], state[22 + 2 * n : 23 + 3 * n]
    strengths, averages = state[23 + 3 * n : 24 + 3 * n + m], state[24 + 3 * n + m : 25 + 3 * n + 2 * m]
    highs, lows = row(high, t, j0, j1), row(low, t, j0, j1)
    high_before, low_before, close_before = row(high, t - 1, j0, j1), row(low, t - 1, j0, j1), row(close, t - 1, j0, j1)
    up, down, reach, seen = row(ups, t, j0, j1), row(downs, t, j0, j1), row(ranges, t, j0, j1), state[4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        h = highs[j]
        w = lows[j]
        rise = h - high_before[j]
        fall = low_before[j] - w
        rose = (k >= 1.0) & (rise > 0.0) & (rise > fall)
        fell = (k >= 1.0) & (fall > 0.0) & (fall > rise)
        spread = true_range(h, w, close_before[j])
        up[j] = rise if rose else 0.0
        down[j] = fall if fell else 0.0
        reach[j] = spread if k >= 1.0 else 0.0
    slide_mean(t, j0, j1, ups, n, state, 0)
    slide_mean(t, j0, j1, downs, n, state, 5)
    slide_mean(t, j0, j1, ranges, n, state, 10)
    pdi, mdi, adx, adxr = (
        row(pdi_out, t, j0, j1),
        row(mdi_out, t, j0, j1),
        row(adx_out, t, j0, j1),
        row(adxr_out, t, j0, j1),
    )
    rises, falls, spreads, dx = state[0, j0:j1], state[5, j0:j1], state[10, j0:j1], row(strengths, t, j0, j1)
    for j in range(j1 - j0):
        spread = spreads[j]
        plus = rises[j] * 100.0 / spread
        minus = falls[j] * 100.0 / spread
        plus = plus if spread != 0.0 else 0.0
        minus = minus if spread != 0.0 else 0.0
        both = minus + plus
        strength = abs(minus - plus) / both * 100.0
        dx[j] = strength if both != 0.0 else 0.0
        pdi[j] = plus
        mdi[j] = minus
    slide_mean(t, j0, j1, strengths, m, state, 15)
    mean, average, old = state[15, j0:j1], row(averages, t, j0, j1), row(averages, t - m, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = mean[j]
        b = old[j]
        plus = pdi[j]
        minus = mdi[j]
        average[j] = a
        pdi[j] = plus if k >= n + 2 * m else math.nan
        mdi[j] = minus if k >= n + 2 * m else math.nan
        adx[j] = a if k >= n + 2 * m else math.nan
        adxr[j] = (a + b) / 2.0 if k >= n + 2 * m else math.nan


def dma(
    t: int, j0: int, j1: int, x: Floats, state: Floats, dif_out: Floats, mean_out: Floats, n1: int, n2: int, m: int
) -> None:
    """State: both means, the mean of their differences; the last m of these."""
    longer, ring = max(n1, n2), state[15 : 16 + m]
    slide_mean(t, j0, j1, x, n1, state, 0)
    slide_mean(t, j0, j1, x, n2, state, 5)
    fast, slow, value = state[0, j0:j1], state[5, j0:j1], row(ring, t, j0, j1)
    for j in range(j1 - j0):
        value[j] = fast[j] - slow[j]
    slide_mean(t, j0, j1, ring, m, state, 10)
    mean, seen, dif, ama = state[10, j0:j1], state[14, j0:j1], row(dif_out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        dif[j] = a if k + 1.0 >= longer + m else math.nan
        ama[j] = b if k + 1.0 >= longer + m else math.nan


def vhf(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: mean change; highest and lowest; the last n changes."""
    ring = state[7 + 2 * n : 8 + 3 * n]
    now, last, value, seen = row(x, t, j0, j1), row(x, t - 1, j0, j1), row(ring, t, j0, j1), state[4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        change = abs(now[j] - last[j])
        value[j] = change if k >= 1.0 else 0.0
    slide_mean(t, j0, j1, ring, n, state, 0)
    high_rest = state[slide_high(t, j0, j1, x, n, state, 5), j0:j1]
    low_rest = state[slide_low(t, j0, j1, x, n, state, 6 + n), j0:j1]
    mean, high_block, low_block, v = state[0, j0:j1], state[5, j0:j1], state[6 + n, j0:j1], row(out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        highest = high_block[j]
        lowest = low_block[j]
        a = high_rest[j]
        b = low_rest[j]
        highest = a if a > highest else highest
        lowest = b if b < lowest else lowest
        path = mean[j] * n
        share = (highest - lowest) / path
        share = share if path != 0.0 else 0.0
        v[j] = share if k > n else math.nan


INDICATORS = (
    Indicator(
        name="TDX_MACD",
        title="MACD (TongDaXin)",
        title_zh="平滑异同平均 MACD",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("short", 12), integer("long", 26), integer("mid", 9)),
        outputs=("dif", "dea", "macd"),
        kernel=Kernel(tdx_macd, 4),
        aliases={"diff": "dif", "bar": "macd"},
        lookback=lambda short, long, mid: 0,
        dialect="tdx",
        recursive=True,
        doc=(
            "dif = EMA(x, short) - EMA(x, long); dea = EMA(dif, mid); macd = (dif - dea) * 2, the bar that Chinese "
            "charts show, twice TA-Lib's hist (TongDaXin's MACD). Every EMA is seeded with the first value, so that "
            "there are values from the first bar, 0 there."
        ),
    ),
    Indicator(
        name="TDX_TRIX",
        title="Triple exponential average (TongDaXin)",
        title_zh="三重指数平均线 TRIX",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n", 12), integer("m", 9)),
        outputs=("trix", "trma"),
        kernel=Kernel(tdx_trix, lambda n, m: 9 + m),
        aliases={"matrix": "trma"},
        lookback=lambda n, m: m,
        dialect="tdx",
        recursive=True,
        doc=(
            "mtr = EMA(EMA(EMA(x, n), n), n), each seeded with the first value; trix = (mtr - mtr') / mtr' * 100, 0 "
            "where mtr' is 0; trma = MA(trix, m) (TongDaXin's TRIX)."
        ),
    ),
    Indicator(
        name="TDX_DMI",
        title="Directional movement (TongDaXin)",
        title_zh="趋向指标 DMI",
        family="trend",
        pane="oscillator",
        reference_lines=(20.0, 50.0),
        inputs=("high", "low", "close"),
        params=(integer("n", 14), integer("m", 6)),
        outputs=("pdi", "mdi", "adx", "adxr"),
        kernel=Kernel(tdx_dmi, lambda n, m: 25 + 3 * n + 2 * m),
        lookback=lambda n, m: n + 2 * m - 1,
        dialect="tdx",
        doc=(
            "mtr, dmp, dmm = sums over n bars of true range, of high - high' where that is above 0 and above low' - "
            "low, and the other way round; pdi = dmp * 100 / mtr, mdi = dmm * 100 / mtr, 0 where mtr is 0; adx = "
            "MA(|mdi - pdi| / (mdi + pdi) * 100, m), where 0/0 counts 0; adxr = (adx + adx m bars ago) / 2. Plain "
            "sums and means, not Wilder's smoothing (TongDaXin's DMI)."
        ),
    ),
    Indicator(
        name="DMA",
        title="Difference of moving averages",
        title_zh="平均差 DMA",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("n1", 10, lo=1), integer("n2", 50, lo=1), integer("m", 10, lo=1)),
        outputs=("dif", "difma"),
        kernel=Kernel(dma, lambda n1, n2, m: 16 + m),
        aliases={"dma": "dif", "ddd": "dif", "ama": "difma"},
        lookback=lambda n1, n2, m: max(n1, n2) + m - 2,
        dialect="tdx",
        doc="dif = MA(x, n1) - MA(x, n2); difma, or ama, = MA(dif, m); in the units of x (TongDaXin's DMA).",
    ),
    Indicator(
        name="VHF",
        title="Vertical horizontal filter",
        title_zh="纵横指标 VHF",
        family="trend",
        pane="oscillator",
        inputs=("close",),
        params=(integer("n", 28),),
        outputs=("vhf",),
        kernel=Kernel(vhf, lambda n: 8 + 3 * n),
        lookback=lambda n: n,
        dialect="tdx",
        doc=(
            "(HHV(x, n) - LLV(x, n)) / SUM(|x - x'|, n): how much of the way led anywhere, 0 where x stood still "
            "(White 1991, as TongDaXin's formulas have it)."
        ),
    ),
)
"""In the order of the catalogue."""

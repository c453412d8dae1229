"""TongDaXin's system formulas: what buyers and sellers put in.

An average has a value from the first bar at which its window is full. A ratio whose lower part is 0 says nothing: it is
100, as much on the one side as on the other, so that no rule fires on it.
"""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_mean
from scanner.indicators.spec import Indicator, Kernel, integer


def balance(up: float, down: float) -> float:
    """`up` in percent of `down`, 100 where that is nothing."""
    share = up / down * 100.0
    return share if down != 0.0 else 100.0


def vr(
    t: int,
    j0: int,
    j1: int,
    close: Floats,
    volume: Floats,
    state: Floats,
    out: Floats,
    mean_out: Floats,
    n: int,
    m: int,
) -> None:
    """State: means of what counts above, of what counts below, of the values; the last n, n and m of these."""
    ups, downs, ring = state[15 : 16 + n], state[16 + n : 17 + 2 * n], state[17 + 2 * n : 18 + 2 * n + m]
    now, last, volumes = row(close, t, j0, j1), row(close, t - 1, j0, j1), row(volume, t, j0, j1)
    up, down, value, seen = row(ups, t, j0, j1), row(downs, t, j0, j1), row(ring, t, j0, j1), state[4, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        b = last[j]
        traded = volumes[j]
        traded = traded if k >= 1.0 else 0.0
        above = traded + traded if a > b else traded
        below = traded + traded if a < b else traded
        up[j] = 0.0 if a < b else above
        down[j] = 0.0 if a > b else below
    slide_mean(t, j0, j1, ups, n, state, 0)
    slide_mean(t, j0, j1, downs, n, state, 5)
    above_mean, below_mean, mean = state[0, j0:j1], state[5, j0:j1], state[10, j0:j1]
    for j in range(j1 - j0):
        value[j] = balance(above_mean[j], below_mean[j])
    slide_mean(t, j0, j1, ring, m, state, 10)
    v, average = row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k >= n + m else math.nan
        average[j] = b if k >= n + m else math.nan


def cr(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    state: Floats,
    out: Floats,
    first_out: Floats,
    second_out: Floats,
    third_out: Floats,
    n: int,
    m1: int,
    m2: int,
    m3: int,
) -> None:
    """State: means of what lies above, of what lies below, three of the values; the last n, n and enough of these."""
    back1, back2, back3 = m1 * 2 // 5 + 1, m2 * 2 // 5 + 1, m3 * 2 // 5 + 1
    length = max(max(m1 + back1, m2 + back2), m3 + back3)
    ups, downs, ring = state[25 : 26 + n], state[26 + n : 27 + 2 * n], state[27 + 2 * n : 28 + 2 * n + length]
    highs, lows = row(high, t, j0, j1), row(low, t, j0, j1)
    high_before, low_before, seen = row(high, t - 1, j0, j1), row(low, t - 1, j0, j1), state[4, j0:j1]
    up, down, value = row(ups, t, j0, j1), row(downs, t, j0, j1), row(ring, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        middle = (high_before[j] + low_before[j]) / 2.0
        above = highs[j] - middle
        below = middle - lows[j]
        up[j] = above if (k >= 1.0) & (above > 0.0) else 0.0
        down[j] = below if (k >= 1.0) & (below > 0.0) else 0.0
    slide_mean(t, j0, j1, ups, n, state, 0)
    slide_mean(t, j0, j1, downs, n, state, 5)
    above_mean, below_mean = state[0, j0:j1], state[5, j0:j1]
    for j in range(j1 - j0):
        value[j] = balance(above_mean[j], below_mean[j])
    slide_mean(t - back1, j0, j1, ring, m1, state, 10)
    slide_mean(t - back2, j0, j1, ring, m2, state, 15)
    slide_mean(t - back3, j0, j1, ring, m3, state, 20)
    means1, means2, means3 = state[10, j0:j1], state[15, j0:j1], state[20, j0:j1]
    v, first, second, third = (
        row(out, t, j0, j1),
        row(first_out, t, j0, j1),
        row(second_out, t, j0, j1),
        row(third_out, t, j0, j1),
    )
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = means1[j]
        c = means2[j]
        d = means3[j]
        v[j] = a if k >= n + length else math.nan
        first[j] = b if k >= n + length else math.nan
        second[j] = c if k >= n + length else math.nan
        third[j] = d if k >= n + length else math.nan


def reach(n: int, m1: int, m2: int, m3: int) -> int:
    """How many values of CR its averages take, the bars that they are moved included."""
    return max(m + m * 2 // 5 + 1 for m in (m1, m2, m3))


def brar(
    t: int,
    j0: int,
    j1: int,
    start: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    br_out: Floats,
    ar_out: Floats,
    n: int,
) -> None:
    """State: means of four distances, from the close before and from the open; the last n of each."""
    ups, downs = state[20 : 21 + n], state[21 + n : 22 + 2 * n]
    tops, bottoms = state[22 + 2 * n : 23 + 3 * n], state[23 + 3 * n : 24 + 4 * n]
    starts, highs, lows, last = (
        row(start, t, j0, j1),
        row(high, t, j0, j1),
        row(low, t, j0, j1),
        row(close, t - 1, j0, j1),
    )
    up, down, seen = row(ups, t, j0, j1), row(downs, t, j0, j1), state[4, j0:j1]
    top, bottom = row(tops, t, j0, j1), row(bottoms, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = starts[j]
        h = highs[j]
        w = lows[j]
        b = last[j]
        above = h - b
        below = b - w
        up[j] = above if (k >= 1.0) & (above > 0.0) else 0.0
        down[j] = below if (k >= 1.0) & (below > 0.0) else 0.0
        top[j] = h - a
        bottom[j] = a - w
    slide_mean(t, j0, j1, ups, n, state, 0)
    slide_mean(t, j0, j1, downs, n, state, 5)
    slide_mean(t, j0, j1, tops, n, state, 10)
    slide_mean(t, j0, j1, bottoms, n, state, 15)
    up_mean, down_mean, top_mean, bottom_mean = state[0, j0:j1], state[5, j0:j1], state[10, j0:j1], state[15, j0:j1]
    br, ar = row(br_out, t, j0, j1), row(ar_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        hope = balance(up_mean[j], down_mean[j])
        mood = balance(top_mean[j], bottom_mean[j])
        br[j] = hope if k > n else math.nan
        ar[j] = mood if k > n else math.nan


def emv(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    volume: Floats,
    state: Floats,
    out: Floats,
    mean_out: Floats,
    n: int,
    m: int,
) -> None:
    """State: means of volume, of ranges, of moves, of the values; the last n, n and m of the last three."""
    ranges, moves, ring = state[20 : 21 + n], state[21 + n : 22 + 2 * n], state[22 + 2 * n : 23 + 2 * n + m]
    highs, lows, volumes = row(high, t, j0, j1), row(low, t, j0, j1), row(volume, t, j0, j1)
    high_before, low_before, seen = row(high, t - 1, j0, j1), row(low, t - 1, j0, j1), state[4, j0:j1]
    spread, move, value = row(ranges, t, j0, j1), row(moves, t, j0, j1), row(ring, t, j0, j1)
    for j in range(j1 - j0):
        spread[j] = highs[j] - lows[j]
    slide_mean(t, j0, j1, volume, n, state, 0)
    slide_mean(t, j0, j1, ranges, n, state, 5)
    volume_mean, range_mean, move_mean, mean = state[0, j0:j1], state[5, j0:j1], state[10, j0:j1], state[15, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        traded = volumes[j]
        wide = range_mean[j]
        both = highs[j] + lows[j]
        middle = 100.0 * (both - (high_before[j] + low_before[j])) / both
        ease = middle * (volume_mean[j] / traded) * spread[j] / wide
        known = (k > 1.0) & (traded != 0.0) & (wide != 0.0) & (both != 0.0)
        move[j] = ease if known else 0.0
    slide_mean(t, j0, j1, moves, n, state, 10)
    for j in range(j1 - j0):
        value[j] = move_mean[j]
    slide_mean(t, j0, j1, ring, m, state, 15)
    v, average = row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k >= 2 * n + m - 2 else math.nan
        average[j] = b if k >= 2 * n + m - 2 else math.nan


def wvad(
    t: int,
    j0: int,
    j1: int,
    start: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    state: Floats,
    out: Floats,
    mean_out: Floats,
    n: int,
    m: int,
) -> None:
    """State: means of the flows, of the values; the last n and m of these."""
    flows, ring = state[10 : 11 + n], state[11 + n : 12 + n + m]
    starts, highs, lows, closes = (
        row(start, t, j0, j1),
        row(high, t, j0, j1),
        row(low, t, j0, j1),
        row(close, t, j0, j1),
    )
    volumes, flow, value, seen = row(volume, t, j0, j1), row(flows, t, j0, j1), row(ring, t, j0, j1), state[4, j0:j1]
    for j in range(j1 - j0):
        spread = highs[j] - lows[j]
        signed = (closes[j] - starts[j]) / spread * volumes[j]
        flow[j] = signed if spread != 0.0 else 0.0
    slide_mean(t, j0, j1, flows, n, state, 0)
    flow_mean, mean = state[0, j0:j1], state[5, j0:j1]
    for j in range(j1 - j0):
        value[j] = flow_mean[j] * n / 1000000.0
    slide_mean(t, j0, j1, ring, m, state, 5)
    v, average = row(out, t, j0, j1), row(mean_out, t, j0, j1)
    for j in range(j1 - j0):
        k = seen[j]
        a = value[j]
        b = mean[j]
        v[j] = a if k + 1.0 >= n + m else math.nan
        average[j] = b if k + 1.0 >= n + m else math.nan


INDICATORS = (
    Indicator(
        name="VR",
        title="Volume ratio",
        title_zh="成交量变异率 VR",
        family="volume",
        pane="oscillator",
        reference_lines=(40.0, 450.0),
        inputs=("close", "volume"),
        params=(integer("n", 26, lo=1), integer("m", 6, lo=1)),
        outputs=("vr", "mavr"),
        kernel=Kernel(vr, lambda n, m: 18 + 2 * n + m),
        lookback=lambda n, m: n + m - 1,
        dialect="tdx",
        doc=(
            "th, tl, tq = volume of the last n bars on which the close rose, fell, did neither; vr = 100 * (th * 2 + "
            "tq) / (tl * 2 + tq), 100 where that divisor is 0; mavr = MA(vr, m) (TongDaXin's VR)."
        ),
    ),
    Indicator(
        name="CR",
        title="Energy line with its bands",
        title_zh="带状能量线 CR",
        family="momentum",
        pane="oscillator",
        reference_lines=(40.0, 400.0),
        inputs=("high", "low"),
        params=(integer("n", 26, lo=1), integer("m1", 10, lo=1), integer("m2", 20, lo=1), integer("m3", 40, lo=1)),
        outputs=("cr", "ma1", "ma2", "ma3"),
        kernel=Kernel(cr, lambda n, m1, m2, m3: 28 + 2 * n + reach(n, m1, m2, m3)),
        lookback=lambda n, m1, m2, m3: n + reach(n, m1, m2, m3) - 1,
        dialect="tdx",
        doc=(
            "mid = (high' + low') / 2; cr = SUM(MAX(0, high - mid), n) / SUM(MAX(0, mid - low), n) * 100, 100 where "
            "the divisor is 0; ma = REF(MA(cr, m), m / 2.5 + 1), the bars rounded down, for m1, m2, m3: each average "
            "is shown that many bars after its own (TongDaXin's CR, which has a fourth of m = 62). CR(26,1,1,1) has a "
            "value soonest."
        ),
    ),
    Indicator(
        name="BRAR",
        title="Emotion index",
        title_zh="情绪指标 BRAR",
        family="momentum",
        pane="oscillator",
        reference_lines=(40.0, 180.0, 400.0),
        inputs=("open", "high", "low", "close"),
        params=(integer("n", 26, lo=1),),
        outputs=("br", "ar"),
        kernel=Kernel(brar, lambda n: 24 + 4 * n),
        lookback=lambda n: n,
        dialect="tdx",
        doc=(
            "br = SUM(MAX(0, high - close'), n) / SUM(MAX(0, close' - low), n) * 100; ar = SUM(high - open, n) / "
            "SUM(open - low, n) * 100; each is 100 where its divisor is 0 (TongDaXin's BRAR)."
        ),
    ),
    Indicator(
        name="EMV",
        title="Ease of movement (TongDaXin)",
        title_zh="简易波动指标 EMV",
        family="volume",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("high", "low", "volume"),
        params=(integer("n", 14), integer("m", 9, lo=1)),
        outputs=("emv", "maemv"),
        kernel=Kernel(emv, lambda n, m: 23 + 2 * n + m),
        lookback=lambda n, m: 2 * n + m - 3,
        dialect="tdx",
        doc=(
            "mid = 100 * (high + low - (high' + low')) / (high + low); emv = MA(mid * MA(volume, n) / volume * (high "
            "- low) / MA(high - low, n), n), where a bar without volume, or without any range in n bars, counts 0; "
            "maemv = MA(emv, m) (TongDaXin's EMV)."
        ),
    ),
    Indicator(
        name="WVAD",
        title="Williams' variable accumulation/distribution",
        title_zh="威廉变异离散量 WVAD",
        family="volume",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("open", "high", "low", "close", "volume"),
        params=(integer("n", 24, lo=1), integer("m", 6, lo=1)),
        outputs=("wvad", "mawvad"),
        kernel=Kernel(wvad, lambda n, m: 12 + n + m),
        lookback=lambda n, m: n + m - 2,
        dialect="tdx",
        doc=(
            "wvad = SUM((close - open) / (high - low) * volume, n) / 1000000, volume in shares (TongDaXin divides "
            "lots of 100 by 10000), where a bar without range counts 0; mawvad = MA(wvad, m) (TongDaXin's WVAD)."
        ),
    ),
)
"""In the order of the catalogue."""

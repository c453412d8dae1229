"""Oscillators: averages against averages, gains against losses, closes against what was in reach."""

import math

from data.panel import Floats
from scanner.indicators.momentum import rsi
from scanner.indicators.rows import ema, row, slide_high, slide_low, true_range
from scanner.indicators.spec import Indicator, Kernel, integer


def apo(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, fastperiod: int, slowperiod: int) -> None:
    """State: bars seen, fast average, slow average."""
    short, long = min(fastperiod, slowperiod), max(fastperiod, slowperiod)
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, fast, slow = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        f = ema(a, fast[j], k, short)
        s = ema(a, slow[j], k, long)
        v[j] = f - s if k + 1.0 >= long else math.nan
        fast[j] = f
        slow[j] = s
        seen[j] = k + 1.0


def ppo(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, fastperiod: int, slowperiod: int) -> None:
    """State: as of `apo`."""
    apo(t, j0, j1, x, state, out, fastperiod, slowperiod)
    v, slow = row(out, t, j0, j1), state[2, j0:j1]
    for j in range(j1 - j0):
        s = slow[j]
        gap = v[j]
        share = gap / s * 100.0
        share = share if s != 0.0 else 0.0
        v[j] = share if gap == gap else math.nan


def trix(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, average, average of the average, and of that."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, first, second, third = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        b = second[j]
        c = third[j]
        a = ema(now[j], first[j], k, n)
        following = ema(a, b, k + 1.0 - n, n)
        b = following if k + 1.0 >= n else b
        following = ema(b, c, k + 2.0 - 2.0 * n, n)
        rate = (following / c - 1.0) * 100.0
        rate = rate if c != 0.0 else 0.0
        v[j] = rate if k + 2.0 >= 3.0 * n else math.nan
        first[j] = a
        second[j] = b
        third[j] = following if k + 2.0 >= 2.0 * n else c
        seen[j] = k + 1.0


def cmo(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: as of `rsi`, which this is with the losses taken off the gains."""
    rsi(t, j0, j1, x, state, out, n)
    v, gains, losses = row(out, t, j0, j1), state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        known = v[j]
        gain = gains[j]
        loss = losses[j]
        both = gain + loss
        balance = 100.0 * ((gain - loss) / both)
        balance = balance if both > 0.0 else 0.0
        v[j] = balance if known == known else math.nan


def pressure(t: int, j0: int, j1: int, state: Floats, n: int, long: int, at: int, weight: float) -> None:
    """Add to state row 3 the share, times `weight`, of the pressure of n bars in their range, of `ultosc`.

    State rows `at` and `at` + 1: the sums of the last n - 1.
    """
    new, old = 10 + t % long, 10 + (t - n + 1) % long
    seen, idle, value, a, b = state[0, j0:j1], state[2, j0:j1], state[3, j0:j1], state[at, j0:j1], state[at + 1, j0:j1]
    a_new, a_old, b_new, b_old = (
        state[new, j0:j1],
        state[old, j0:j1],
        state[long + new, j0:j1],
        state[long + old, j0:j1],
    )
    for j in range(j1 - j0):
        # Running sums of nothing hold what rounding left in them.
        some = idle[j] < n
        up = a[j] + a_new[j]
        reach = b[j] + b_new[j]
        up = up if some else 0.0
        reach = reach if some else 0.0
        share = up / reach
        share = share if reach > 0.0 else 0.0
        value[j] = value[j] + weight * share
        full = seen[j] > n
        less = up - a_old[j]
        a[j] = less if full else up
        less = reach - b_old[j]
        b[j] = less if full else reach


def ultosc(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    out: Floats,
    period1: int,
    period2: int,
    period3: int,
) -> None:
    """State: bars seen, close before, bars without range, sum of shares; two sums a period; the last of each."""
    short, long = min(min(period1, period2), period3), max(max(period1, period2), period3)
    middle = period1 + period2 + period3 - short - long
    highs, lows, closes, v = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, before, idle, value = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    rising, reaching = state[10 + t % long, j0:j1], state[10 + long + t % long, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        w = lows[j]
        c = closes[j]
        last = before[j]
        up = c - (last if last < w else w)
        reach = true_range(highs[j], w, last)
        up = up if k >= 1.0 else 0.0
        reach = reach if k >= 1.0 else 0.0
        still = idle[j] + 1.0
        rising[j] = up
        reaching[j] = reach
        idle[j] = still if reach == 0.0 else 0.0
        value[j] = 0.0
        before[j] = c
        seen[j] = k + 1.0
    pressure(t, j0, j1, state, short, long, 4, 4.0)
    pressure(t, j0, j1, state, middle, long, 6, 2.0)
    pressure(t, j0, j1, state, long, long, 8, 1.0)
    for j in range(j1 - j0):
        total = value[j]
        k = seen[j]
        v[j] = total * (100.0 / 7.0) if k > long else math.nan


def stochrsi(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    fastk_out: Floats,
    fastd_out: Floats,
    n: int,
    fastk: int,
    fastd: int,
) -> None:
    """State: that of `rsi`; bars without a change, sum of fastk; the last `fastd` of fastk, `fastk` + 1 of the index
    and its highest and lowest."""
    ring, top = 6 + fastd, 7 + fastd + fastk
    still_before, last = state[4, j0:j1], state[1, j0:j1]
    now = row(x, t, j0, j1)
    for j in range(j1 - j0):
        a = now[j]
        b = last[j]
        still = still_before[j] + 1.0
        still_before[j] = still if a == b else 0.0
    index = state[ring:top]
    rsi(t, j0, j1, x, state, index, n)
    k_out, d_out, values = row(fastk_out, t, j0, j1), row(fastd_out, t, j0, j1), row(index, t, j0, j1)
    seen, stills, total = state[0, j0:j1], state[4, j0:j1], state[5, j0:j1]
    newest, oldest = state[6 + t % fastd, j0:j1], state[6 + (t + 1) % fastd, j0:j1]
    high_rest = state[slide_high(t, j0, j1, index, fastk, state, top), j0:j1]
    low_rest = state[slide_low(t, j0, j1, index, fastk, state, top + 1 + fastk), j0:j1]
    high_block, low_block = state[top, j0:j1], state[top + 1 + fastk, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        still = stills[j]
        highest = high_block[j]
        lowest = low_block[j]
        a = high_rest[j]
        b = low_rest[j]
        highest = a if a > highest else highest
        lowest = b if b < lowest else lowest
        spread = (highest - lowest) / 100.0
        place = (values[j] - lowest) / spread
        # Where nothing moved the index stands still, but for its rounding.
        place = place if (spread != 0.0) & (still + 1.0 < fastk) else 0.0
        place = place if k >= n + fastk else 0.0
        newest[j] = place
        s = total[j] + place
        # Running sums of nothing hold what rounding left in them.
        s = s if still + 2.0 < fastk + fastd else 0.0
        old = oldest[j]
        ready = k + 1.0 >= n + fastk + fastd
        k_out[j] = place if ready else math.nan
        d_out[j] = s / fastd if ready else math.nan
        total[j] = s - old if ready else s


INDICATORS = (
    Indicator(
        name="PPO",
        title="Percentage price oscillator",
        title_zh="价格震荡百分比指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("fastperiod", 12), integer("slowperiod", 26)),
        outputs=("ppo",),
        kernel=Kernel(ppo, 3, rtol=1e-11),
        # TA-Lib swaps the two if the fast one is the slower.
        lookback=lambda fastperiod, slowperiod: max(fastperiod, slowperiod) - 1,
        talib="PPO",
        # Exponential averages, which is what charts draw and TA-Lib's default from 0.8 on.
        fixed={"matype": 1},
        recursive=True,
        doc=(
            "100 * (EMA(x, fast) - EMA(x, slow)) / EMA(x, slow): MACD in percent, so that stocks of different price "
            "compare, but for the fast average, which starts at its own first bar; 0 where the slow one is 0 (Appel)."
        ),
    ),
    Indicator(
        name="APO",
        title="Absolute price oscillator",
        title_zh="绝对价格震荡指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("fastperiod", 12), integer("slowperiod", 26)),
        outputs=("apo",),
        kernel=Kernel(apo, 3, rtol=1e-11),
        lookback=lambda fastperiod, slowperiod: max(fastperiod, slowperiod) - 1,
        talib="APO",
        fixed={"matype": 1},
        recursive=True,
        doc=(
            "EMA(x, fast) - EMA(x, slow), each from its own first bar, where MACD seeds both on bars that end together "
            "(Appel)."
        ),
    ),
    Indicator(
        name="TRIX",
        title="Rate of change of a triple smoothed average",
        title_zh="三重指数平滑移动平均",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 12, lo=1),),
        outputs=("trix",),
        kernel=Kernel(trix, 4, rtol=1e-11),
        lookback=lambda timeperiod: 3 * timeperiod - 2,
        talib="TRIX",
        recursive=True,
        doc=(
            "100 * (e / e' - 1), e = EMA(EMA(EMA(x, n), n), n), each seeded with the mean of its first n; 0 where e' "
            "is 0. Its 12 bars are TongDaXin's, which seeds with the first value; TA-Lib's own default is 30 "
            "(Hutson 1983)."
        ),
    ),
    Indicator(
        name="CMO",
        title="Chande momentum oscillator",
        title_zh="钱德动量摆动指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(-50.0, 50.0),
        inputs=("close",),
        params=(integer("timeperiod", 14),),
        outputs=("cmo",),
        kernel=Kernel(cmo, 4),
        lookback=lambda timeperiod: timeperiod,
        talib="CMO",
        recursive=True,
        doc=(
            "100 * (gain - loss) / (gain + loss), smoothed as in RSI, as TA-Lib has it (Chande and Kroll 1994 take "
            "plain sums: TA-Lib's CMOU); 0 where the price never moved."
        ),
    ),
    Indicator(
        name="STOCHRSI",
        title="Stochastic RSI",
        title_zh="随机相对强弱指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("close",),
        params=(integer("timeperiod", 14), integer("fastk_period", 14, lo=1), integer("fastd_period", 3, lo=1)),
        outputs=("fastk", "fastd"),
        kernel=Kernel(
            stochrsi,
            lambda timeperiod, fastk_period, fastd_period: 9 + fastd_period + 3 * fastk_period,
            rtol=1e-10,
            flat=lambda close: (0.0, 0.0),
            still=lambda timeperiod, fastk_period, fastd_period: (fastk_period - 1, fastk_period + fastd_period - 2),
        ),
        lookback=lambda timeperiod, fastk_period, fastd_period: timeperiod + fastk_period + fastd_period - 2,
        talib="STOCHRSI",
        fixed={"fastd_matype": 0},
        recursive=True,
        doc=(
            "fastk = 100 * (r - lowest r) / (highest r - lowest r) over fastk_period values of r = RSI(x, timeperiod), "
            "fastd = SMA(fastk, fastd_period); 0 where that range is zero, and where x stood still for fastk_period "
            "bars. 14 and 14 as in the article; TA-Lib's own fastk_period is 5 (Chande and Kroll 1994)."
        ),
    ),
    Indicator(
        name="ULTOSC",
        title="Ultimate oscillator",
        title_zh="终极指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(30.0, 70.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod1", 7, lo=1), integer("timeperiod2", 14, lo=1), integer("timeperiod3", 28, lo=1)),
        outputs=("ultosc",),
        kernel=Kernel(
            ultosc,
            lambda timeperiod1, timeperiod2, timeperiod3: 10 + 2 * max(timeperiod1, timeperiod2, timeperiod3),
            rtol=1e-11,
        ),
        lookback=lambda timeperiod1, timeperiod2, timeperiod3: max(timeperiod1, timeperiod2, timeperiod3),
        talib="ULTOSC",
        doc=(
            "100 * (4 * a(n1) + 2 * a(n2) + a(n3)) / 7, a(n) = sum(close - min(low, close'), n) / sum(TRANGE, n), 0 "
            "where that is 0/0, the shortest period first whatever their order (Williams 1985)."
        ),
    ),
)
"""In the order of the catalogue."""

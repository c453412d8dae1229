"""Stochastics: where the close stands in the range of the last bars."""

import math

from data.panel import Floats
from scanner.indicators.rows import row, slide_high, slide_low
from scanner.indicators.spec import Indicator, Kernel, integer


def stoch(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    slowk_out: Floats,
    slowd_out: Floats,
    n: int,
    slowk: int,
    slowd: int,
) -> None:
    """State: bars seen; sums of fastk and slowk; the last `slowk` of fastk, `slowd` of slowk; highest and lowest."""
    top = 3 + slowk + slowd
    closes, k_out, d_out = row(close, t, j0, j1), row(slowk_out, t, j0, j1), row(slowd_out, t, j0, j1)
    seen, fast_sum, slow_sum = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    fast_now, slow_now = state[3 + t % slowk, j0:j1], state[3 + slowk + t % slowd, j0:j1]
    fast_old, slow_old = state[3 + (t + 1) % slowk, j0:j1], state[3 + slowk + (t + 1) % slowd, j0:j1]
    high_rest = state[slide_high(t, j0, j1, high, n, state, top), j0:j1]
    low_rest = state[slide_low(t, j0, j1, low, n, state, top + 1 + n), j0:j1]
    high_block, low_block = state[top, j0:j1], state[top + 1 + n, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        highest = high_block[j]
        lowest = low_block[j]
        a = high_rest[j]
        b = low_rest[j]
        highest = a if a > highest else highest
        lowest = b if b < lowest else lowest
        spread = highest - lowest
        fast = (closes[j] - lowest) / spread * 100.0
        fast = fast if spread != 0.0 else 0.0
        fast = fast if k >= n else 0.0
        fast_now[j] = fast
        s = fast_sum[j] + fast
        oldest = fast_old[j]
        slow = s / slowk
        fast_sum[j] = s - oldest if k >= n + slowk - 1 else s
        slow = slow if k >= n + slowk - 1 else 0.0
        slow_now[j] = slow
        s = slow_sum[j] + slow
        oldest = slow_old[j]
        slow_sum[j] = s - oldest if k >= n + slowk + slowd - 2 else s
        k_out[j] = slow if k >= n + slowk + slowd - 2 else math.nan
        d_out[j] = s / slowd if k >= n + slowk + slowd - 2 else math.nan
        seen[j] = k


def kdj(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    state: Floats,
    k_out: Floats,
    d_out: Floats,
    j_out: Floats,
    n: int,
    slowk: int,
    slowd: int,
) -> None:
    """State: bars seen, k, d; highest and lowest."""
    closes, ks, ds, js = row(close, t, j0, j1), row(k_out, t, j0, j1), row(d_out, t, j0, j1), row(j_out, t, j0, j1)
    seen, k_last, d_last = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    high_rest = state[slide_high(t, j0, j1, high, n, state, 3), j0:j1]
    low_rest = state[slide_low(t, j0, j1, low, n, state, 4 + n), j0:j1]
    high_block, low_block = state[3, j0:j1], state[4 + n, j0:j1]
    for j in range(j1 - j0):
        count = seen[j] + 1.0
        highest = high_block[j]
        lowest = low_block[j]
        a = high_rest[j]
        b = low_rest[j]
        highest = a if a > highest else highest
        lowest = b if b < lowest else lowest
        spread = highest - lowest
        rsv = 100.0 * (closes[j] - lowest) / spread
        rsv = rsv if spread != 0.0 else 50.0
        k = (rsv + (slowk - 1) * k_last[j]) / slowk
        k = k if count > n else rsv
        d = (k + (slowd - 1) * d_last[j]) / slowd
        d = d if count > n else k
        ks[j] = k if count >= n else math.nan
        ds[j] = d if count >= n else math.nan
        js[j] = 3.0 * k - 2.0 * d if count >= n else math.nan
        k_last[j] = k
        d_last[j] = d
        seen[j] = count


def willr(
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
        place = (highest - closes[j]) / spread * -100.0
        place = place if spread != 0.0 else 0.0
        v[j] = place if k >= n else math.nan
        seen[j] = k


INDICATORS = (
    Indicator(
        name="STOCH",
        title="Stochastic oscillator",
        title_zh="随机指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("high", "low", "close"),
        params=(integer("fastk_period", 9, lo=1), integer("slowk_period", 3, lo=1), integer("slowd_period", 3, lo=1)),
        outputs=("slowk", "slowd"),
        kernel=Kernel(
            stoch, lambda fastk_period, slowk_period, slowd_period: 5 + slowk_period + slowd_period + 2 * fastk_period
        ),
        lookback=lambda fastk_period, slowk_period, slowd_period: fastk_period + slowk_period + slowd_period - 3,
        talib="STOCH",
        fixed={"slowk_matype": 0, "slowd_matype": 0},
        doc=(
            "slowk = SMA(100 * (close - lowest low) / (highest high - lowest low), slowk_period), slowd = SMA(slowk, "
            "slowd_period); 0 where the range is zero (Lane)."
        ),
    ),
    Indicator(
        name="KDJ",
        title="KDJ stochastic",
        title_zh="随机指标 KDJ",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("high", "low", "close"),
        params=(integer("fastk", 9, lo=1), integer("slowk", 3, lo=1), integer("slowd", 3, lo=1)),
        outputs=("k", "d", "j"),
        kernel=Kernel(kdj, lambda fastk, slowk, slowd: 5 + 2 * fastk),
        lookback=lambda fastk, slowk, slowd: fastk - 1,
        dialect="tdx",
        recursive=True,
        doc=(
            "rsv = 100 * (close - lowest low) / (highest high - lowest low), 50 where the range is zero; "
            "k = SMA(rsv, slowk, 1), d = SMA(k, slowd, 1) in TongDaXin's sense, y = (x + (n-1) * y') / n, seeded with "
            "the first rsv; j = 3k - 2d. TA-Lib's own KDJ, where it has one, is seeded otherwise."
        ),
    ),
    Indicator(
        name="WILLR",
        title="Williams' %R",
        title_zh="威廉指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(-80.0, -20.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("willr",),
        kernel=Kernel(willr, lambda timeperiod: 3 + 2 * timeperiod),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="WILLR",
        doc="-100 * (highest high - close) / (highest high - lowest low) over n bars, in [-100, 0] (Williams 1973).",
    ),
)
"""In the order of the catalogue."""

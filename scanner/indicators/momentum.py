"""Momentum: how fast prices move, and where the close stands in its range."""

import numpy as np

from data.panel import Floats
from scanner.indicators.spec import Indicator, integer


def kdj(
    high: Floats, low: Floats, close: Floats, *, fastk: int, slowk: int, slowd: int
) -> tuple[Floats, Floats, Floats]:
    """KDJ of (symbols, length) prices, NaN before each symbol's first bar; k, d, j of the same shape.

    rsv = 100 * (close - lowest low) / (highest high - lowest low) of `fastk` bars, 50 where that range is zero;
    k = (rsv + (slowk - 1) * k') / slowk, d = (k + (slowd - 1) * d') / slowd, both seeded with the first rsv;
    j = 3k - 2d.
    """
    k, d = np.full(close.T.shape, np.nan), np.full(close.T.shape, np.nan)
    if len(k) >= fastk:
        bottom = _extreme(np.minimum, low, fastk)
        spread = _extreme(np.maximum, high, fastk) - bottom
        over = 100 * (np.ascontiguousarray(close.T[fastk - 1 :]) - bottom)
        rsv = np.divide(over, spread, out=np.full(spread.shape, 50.0), where=spread != 0)
        k_last = d_last = np.full(len(close), np.nan)
        for t, now in enumerate(rsv, fastk - 1):
            k_last = k[t] = np.where(np.isnan(k_last), now, (now + (slowk - 1) * k_last) / slowk)
            d_last = d[t] = np.where(np.isnan(d_last), k_last, (k_last + (slowd - 1) * d_last) / slowd)
    return k.T, d.T, (3 * k - 2 * d).T


def _extreme(pick: np.ufunc, values: Floats, n: int) -> Floats:
    """(symbols, length) -> (length - n + 1, symbols): the extreme of each `n` bars, NaN where one of them is."""
    rows = np.ascontiguousarray(values.T)
    width = 1
    while 2 * width <= n:
        rows = pick(rows[width:], rows[:-width])
        width *= 2
    rest = n - width
    out: Floats = pick(rows[rest:], rows[: len(rows) - rest])
    return out


INDICATORS = (
    Indicator(
        name="RSI",
        title="Relative strength index",
        title_zh="相对强弱指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(30.0, 70.0),
        inputs=("close",),
        params=(integer("timeperiod", 14),),
        outputs=("rsi",),
        lookback=lambda timeperiod: timeperiod,
        talib="RSI",
        recursive=True,
        doc=(
            "100 * gain / (gain + loss), both Wilder-smoothed and seeded with the mean of the first n changes; "
            "0 where the price never moved (Wilder 1978)."
        ),
    ),
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
        lookback=lambda fastk, slowk, slowd: fastk - 1,
        dialect="tdx",
        reference=kdj,
        recursive=True,
        doc=(
            "rsv = 100 * (close - lowest low) / (highest high - lowest low), 50 where the range is zero; "
            "k = SMA(rsv, slowk, 1), d = SMA(k, slowd, 1) in TongDaXin's sense, y = (x + (n-1) * y') / n, seeded with "
            "the first rsv; j = 3k - 2d. TA-Lib's own KDJ, where it has one, is seeded otherwise."
        ),
    ),
    Indicator(
        name="CCI",
        title="Commodity channel index",
        title_zh="顺势指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(-100.0, 100.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("cci",),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="CCI",
        doc=(
            "(tp - SMA(tp, n)) / (0.015 * mean absolute deviation of tp over n), tp = (high + low + close) / 3 "
            "(Lambert 1980)."
        ),
    ),
    Indicator(
        name="MFI",
        title="Money flow index",
        title_zh="资金流量指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(20.0, 80.0),
        inputs=("high", "low", "close", "volume"),
        params=(integer("timeperiod", 14),),
        outputs=("mfi",),
        lookback=lambda timeperiod: timeperiod,
        talib="MFI",
        doc=(
            "100 * up / (up + down), the sums over n bars of typical price * volume on bars whose typical price rose, "
            "or fell (Quong and Soudack 1989)."
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
        lookback=lambda timeperiod: timeperiod - 1,
        talib="WILLR",
        doc="-100 * (highest high - close) / (highest high - lowest low) over n bars, in [-100, 0] (Williams 1973).",
    ),
    Indicator(
        name="ROC",
        title="Rate of change",
        title_zh="变动率指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 10, lo=1),),
        outputs=("roc",),
        lookback=lambda timeperiod: timeperiod,
        talib="ROC",
        doc="100 * (x / x n bars ago - 1), in percent.",
    ),
    Indicator(
        name="MOM",
        title="Momentum",
        title_zh="动量指标",
        family="momentum",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("timeperiod", 10, lo=1),),
        outputs=("mom",),
        lookback=lambda timeperiod: timeperiod,
        talib="MOM",
        doc="x - x n bars ago, in the units of x.",
    ),
)
"""In the order of the catalogue."""

"""Trend: moving averages, and what is made of them."""

from scanner.indicators.spec import Indicator, integer, number

INDICATORS = (
    Indicator(
        name="SMA",
        title="Simple moving average",
        title_zh="简单移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("sma",),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="SMA",
        doc="The mean of the last n values: sum(x, n) / n. MA250 is the year line of Chinese charts.",
    ),
    Indicator(
        name="EMA",
        title="Exponential moving average",
        title_zh="指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("ema",),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="EMA",
        recursive=True,
        doc="y = y' + 2/(n+1) * (x - y'), seeded with the mean of the first n values (TongDaXin seeds with the first).",
    ),
    Indicator(
        name="WMA",
        title="Weighted moving average",
        title_zh="加权移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("wma",),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="WMA",
        doc="The mean of the last n values weighted 1 (oldest) to n (newest): sum(k * x_k) / (n(n+1)/2).",
    ),
    Indicator(
        name="DEMA",
        title="Double exponential moving average",
        title_zh="双重指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("dema",),
        lookback=lambda timeperiod: 2 * (timeperiod - 1),
        talib="DEMA",
        recursive=True,
        doc="2 * EMA(x, n) - EMA(EMA(x, n), n), an average with less lag (Mulloy 1994).",
    ),
    Indicator(
        name="TEMA",
        title="Triple exponential moving average",
        title_zh="三重指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("tema",),
        lookback=lambda timeperiod: 3 * (timeperiod - 1),
        talib="TEMA",
        recursive=True,
        doc="3 * EMA1 - 3 * EMA2 + EMA3, where EMAk is the EMA of EMAk-1 (Mulloy 1994).",
    ),
    Indicator(
        name="MACD",
        title="Moving average convergence/divergence",
        title_zh="指数平滑异同移动平均线",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("fastperiod", 12), integer("slowperiod", 26), integer("signalperiod", 9, lo=1)),
        outputs=("macd", "signal", "hist"),
        aliases={"diff": "macd", "dea": "signal"},
        # TA-Lib swaps the two if the fast one is the slower.
        lookback=lambda fastperiod, slowperiod, signalperiod: max(fastperiod, slowperiod) + signalperiod - 2,
        talib="MACD",
        recursive=True,
        doc=(
            "macd = EMA(x, fast) - EMA(x, slow), both seeded on bars that end together; signal = EMA(macd, "
            "signalperiod); hist = macd - signal, not doubled as in TongDaXin (Appel 1979)."
        ),
    ),
    Indicator(
        name="BBANDS",
        title="Bollinger bands",
        title_zh="布林带",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20), number("nbdevup", 2.0), number("nbdevdn", 2.0)),
        outputs=("upperband", "middleband", "lowerband"),
        lookback=lambda timeperiod, nbdevup, nbdevdn: timeperiod - 1,
        talib="BBANDS",
        fixed={"matype": 0},
        doc=(
            "middle = SMA(x, n); upper, lower = middle + nbdevup * s, middle - nbdevdn * s, where s is the population "
            "standard deviation (TongDaXin takes the sample's) of the n values (Bollinger 1983)."
        ),
    ),
    Indicator(
        name="SAR",
        title="Parabolic stop and reverse",
        title_zh="抛物线转向",
        family="trend",
        pane="overlay",
        inputs=("high", "low"),
        params=(number("acceleration", 0.02, lo=0.0), number("maximum", 0.2, lo=0.0)),
        outputs=("sar",),
        lookback=lambda acceleration, maximum: 1,
        talib="SAR",
        recursive=True,
        doc=(
            "sar = sar' + af * (extreme - sar'), af growing by acceleration up to maximum at each new extreme; the "
            "side changes when the price touches it (Wilder 1978)."
        ),
    ),
    Indicator(
        name="ADX",
        title="Average directional movement index",
        title_zh="平均趋向指数",
        family="trend",
        pane="oscillator",
        reference_lines=(20.0, 40.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("adx",),
        lookback=lambda timeperiod: 2 * timeperiod - 1,
        talib="ADX",
        recursive=True,
        doc=(
            "Wilder's mean of 100 * |+DI - -DI| / (+DI + -DI), each DI being smoothed directional movement over "
            "smoothed true range: how strong a trend is, not which way it goes (Wilder 1978)."
        ),
    ),
)
"""In the order of the catalogue."""

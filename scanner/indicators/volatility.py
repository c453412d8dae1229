"""Volatility: how far a bar reaches."""

from scanner.indicators.spec import Indicator, integer

INDICATORS = (
    Indicator(
        name="ATR",
        title="Average true range",
        title_zh="平均真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("atr",),
        lookback=lambda timeperiod: timeperiod,
        talib="ATR",
        recursive=True,
        doc="y = (y' * (n-1) + TRANGE) / n, seeded with the mean of the first n true ranges; CNY (Wilder 1978).",
    ),
    Indicator(
        name="NATR",
        title="Normalized average true range",
        title_zh="归一化平均真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14, lo=1),),
        outputs=("natr",),
        lookback=lambda timeperiod: timeperiod,
        talib="NATR",
        recursive=True,
        doc="100 * ATR(n) / close, in percent, so that stocks of different price compare (Forman 2006).",
    ),
    Indicator(
        name="TRANGE",
        title="True range",
        title_zh="真实波幅",
        family="volatility",
        pane="oscillator",
        inputs=("high", "low", "close"),
        outputs=("trange",),
        lookback=lambda: 1,
        talib="TRANGE",
        doc="max(high, close') - min(low, close'), close' being the bar before's; CNY (Wilder 1978).",
    ),
)
"""In the order of the catalogue."""

"""Volume: sums of what was traded, signed by where the price went."""

from scanner.indicators.spec import Indicator, integer

INDICATORS = (
    Indicator(
        name="OBV",
        title="On-balance volume",
        title_zh="能量潮",
        family="volume",
        pane="oscillator",
        inputs=("close", "volume"),
        outputs=("obv",),
        lookback=lambda: 0,
        talib="OBV",
        recursive=True,
        doc=(
            "y = y' + volume where the close rose, - volume where it fell, seeded with the first volume; shares, so "
            "its level depends on where the history starts (Granville 1963)."
        ),
    ),
    Indicator(
        name="AD",
        title="Chaikin accumulation/distribution line",
        title_zh="累积/派发线",
        family="volume",
        pane="oscillator",
        inputs=("high", "low", "close", "volume"),
        outputs=("ad",),
        lookback=lambda: 0,
        talib="AD",
        recursive=True,
        doc=(
            "y = y' + volume * ((close - low) - (high - close)) / (high - low), nothing added where high = low; "
            "shares, so its level depends on where the history starts (Chaikin)."
        ),
    ),
    Indicator(
        name="ADOSC",
        title="Chaikin accumulation/distribution oscillator",
        title_zh="佳庆指标",
        family="volume",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("high", "low", "close", "volume"),
        params=(integer("fastperiod", 3), integer("slowperiod", 10)),
        outputs=("adosc",),
        lookback=lambda fastperiod, slowperiod: max(fastperiod, slowperiod) - 1,
        talib="ADOSC",
        recursive=True,
        doc="EMA(AD, fast) - EMA(AD, slow), both seeded with the first AD; shares (Chaikin).",
    ),
)
"""In the order of the catalogue."""

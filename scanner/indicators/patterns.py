"""Candlestick patterns: 0 where there is none, 100 for a bullish one, -100 for a bearish one.

Long, short and equal are measured against averages of the bars before (TA-Lib's candle settings: ten bars for most), so
a pattern has a lookback too.
"""

from scanner.indicators.spec import Indicator

_OHLC = ("open", "high", "low", "close")

INDICATORS = (
    Indicator(
        name="CDLDOJI",
        title="Doji",
        title_zh="十字星",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        lookback=lambda: 10,
        talib="CDLDOJI",
        doc="100 where |close - open| is at most a tenth of the mean high - low of the ten bars before, else 0.",
    ),
    Indicator(
        name="CDLHAMMER",
        title="Hammer",
        title_zh="锤头线",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        lookback=lambda: 11,
        talib="CDLHAMMER",
        doc=(
            "100 where a body smaller than the mean body of the ten bars before has a lower shadow longer than itself, "
            "hardly an upper one, and stands near or below the low of the bar before, else 0."
        ),
    ),
    Indicator(
        name="CDLENGULFING",
        title="Engulfing pattern",
        title_zh="吞没形态",
        family="patterns",
        pane="overlay",
        inputs=_OHLC,
        outputs=("pattern",),
        lookback=lambda: 2,
        talib="CDLENGULFING",
        doc=(
            "100 where a rising body holds the falling body of the bar before, -100 where a falling one holds a rising "
            "one, 80 and -80 where one end of the bodies is the same, else 0."
        ),
    ),
)
"""In the order of the catalogue."""

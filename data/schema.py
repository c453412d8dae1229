"""Arrow schemas of ticks, bars and signals. Units stand in each field's metadata under `unit`.

All times are UTC in nanoseconds; a bar is labelled by its end. Prices are raw (as traded), in CNY (B shares: in the
currency they trade in); volume is in shares; amount in CNY.
"""

import pyarrow as pa

TIME = pa.timestamp("ns", tz="UTC")
SYMBOL = pa.dictionary(pa.int32(), pa.string())

FRAMES = ("1m", "5m", "15m", "30m", "60m", "1d")


def _field(name: str, type_: pa.DataType, unit: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"unit": unit})


FLAG_NO_TRADE = 1
"""The bar saw no trade: open = high = low = close = last close, volume 0."""
FLAG_INCOMPLETE = 2
"""Quotes between which the symbol traded are missing: the bar may lack some of its trades, have some of a neighbour's,
and not show all its highs and lows. The day's totals and extremes are right all the same."""

TICK = pa.schema(
    [
        _field("symbol", SYMBOL, "canonical symbol, 600519.SH"),
        _field("quote_time", TIME, "UTC ns, the provider's own stamp"),
        _field("last", pa.float64(), "CNY; 0 before the first trade of the day"),
        _field("open", pa.float64(), "CNY; the day's"),
        _field("high", pa.float64(), "CNY; the day's"),
        _field("low", pa.float64(), "CNY; the day's"),
        _field("prev_close", pa.float64(), "CNY; the exchange's ex-rights reference"),
        _field("volume", pa.float64(), "shares, cumulative for the day"),
        _field("amount", pa.float64(), "CNY, cumulative for the day"),
    ]
)
"""One provider's frame. Its schema metadata: `provider`, `seq` (counting from 1 a provider), `received_ns` (UTC)."""

BAR = pa.schema(
    [
        _field("symbol", SYMBOL, "canonical symbol, 600519.SH"),
        _field("bar_start", TIME, "UTC ns, excluded"),
        _field("bar_end", TIME, "UTC ns, included: the bar's label"),
        _field("open", pa.float64(), "CNY, raw"),
        _field("high", pa.float64(), "CNY, raw"),
        _field("low", pa.float64(), "CNY, raw"),
        _field("close", pa.float64(), "CNY, raw"),
        _field("volume", pa.float64(), "shares"),
        _field("amount", pa.float64(), "CNY; null where the source has none", nullable=True),
        _field("prev_close", pa.float64(), "CNY; the exchange's ex-rights reference of the session", nullable=True),
        _field("flags", pa.uint8(), "bits: 1 no_trade, 2 incomplete"),
        _field("revision", pa.int32(), "0 first, then counting up"),
    ]
)
"""Bars of one frame; the frame stands in the schema metadata under `frame`. Key: (symbol, frame, bar_end, revision)."""

AFTER_HOURS = pa.schema(
    [
        _field("symbol", SYMBOL, "canonical symbol, 600519.SH"),
        _field("day", pa.date32(), "session"),
        _field("volume", pa.float64(), "shares traded after 15:05:00"),
        _field("amount", pa.float64(), "CNY; null where the source has none", nullable=True),
    ]
)
"""Fixed-price trades after the close: they are in no bar."""

FACTOR = pa.schema(
    [
        _field("symbol", SYMBOL, "canonical symbol, 600519.SH"),
        _field("day", pa.date32(), "ex-rights session: prices before it are multiplied by the factor"),
        _field("factor", pa.float64(), "the exchange's ex-rights reference / the last close before"),
        _field("origin", pa.string(), "quote or import"),
    ]
)

NAME = pa.schema(
    [
        _field("symbol", SYMBOL, "canonical symbol, 600519.SH"),
        _field("day", pa.date32(), "session on which the name was seen"),
        _field("name", pa.string(), "the exchange's short name; *ST and ST stand in front of it"),
    ]
)

SIGNAL = pa.schema(
    [
        _field("id", pa.string(), "SHA-256, hexadecimal"),
        _field("epoch", pa.string(), "the writer's run that published it"),
        _field("seq", pa.int64(), "counts from 1 in an epoch"),
        _field("strategy", pa.string(), "name"),
        _field("version", pa.string(), "hash of the strategy's text"),
        _field("symbol", pa.string(), "canonical symbol, 600519.SH"),
        _field("name", pa.string(), "the exchange's short name, where known", nullable=True),
        _field("frame", pa.string(), "1m .. 1d"),
        _field("bar_end", TIME, "UTC ns"),
        _field("developing", pa.bool_(), "whether the bar was still open"),
        _field("action", pa.string(), "BUY, SELL or ALERT"),
        _field("confidence", pa.float64(), "0 to 1"),
        _field("price", pa.float64(), "CNY, raw close of the bar"),
        _field("values", pa.string(), "JSON object: the values that made it fire"),
        _field("engine", pa.string(), "talib, vector or cuda"),
        _field("origin", TIME, "UTC ns, the first bar its indicators saw"),
        _field("at_limit_up", pa.bool_(), "null where the limit is unknown", nullable=True),
        _field("at_limit_down", pa.bool_(), "null where the limit is unknown", nullable=True),
        _field("revision", pa.int32(), "of the bar: 0, or which of its revisions made it fire, or fire no more"),
        _field("revokes", pa.string(), "id of the signal that this one takes back; null for all others", nullable=True),
        _field("quote_ns", pa.int64(), "UTC ns: the exchange's time of the newest quote when the bar was closed"),
        _field("received_ns", pa.int64(), "UTC ns: the payload that completed the bar arrived"),
        _field("bar_closed_ns", pa.int64(), "UTC ns: the bar was closed"),
        _field("scanned_ns", pa.int64(), "UTC ns: its scan was complete"),
        _field("published_ns", pa.int64(), "UTC ns: durable and handed to the broadcaster"),
    ]
)
"""Signals as the history keeps them, one row a signal."""

SIGNAL_ADDED = {"revision": 0, "revokes": None, "quote_ns": 0}
"""Columns that files of earlier versions lack, and what stands there for them."""

"""Quotes in the vendors' own bytes, by the field tables of docs/feeds.md."""

import json
from collections.abc import Mapping
from typing import Any

from data.symbols import board, sina_code
from tests.streaming.feeds.fakes.day import Quote

_MARKET = {"SH": "1", "SZ": "51", "BJ": "62"}
_LEVELS = range(5)


def sina(quote: Quote) -> str:
    """`NAME,OPEN,...` as it stands between the quotes, or after `=` on the socket."""
    book = [f"{100 * (k + 1)},{max(0.0, quote.last - 0.01 * k):.3f}" for k in _LEVELS]
    book += [f"{100 * (k + 1)},{quote.last + 0.01 * (k + 1):.3f}" for k in _LEVELS]
    prices = (quote.open, quote.prev_close, quote.last, quote.high, quote.low, quote.last, quote.last + 0.01)
    fields = [quote.name, *(f"{price:.3f}" for price in prices), f"{quote.volume:.0f}", f"{quote.amount:.3f}"]
    return ",".join([*fields, *book, quote.date, quote.clock, "00"])


def sina_polled(quote: Quote) -> bytes:
    return f'var hq_str_{sina_code(quote.symbol)}="{sina(quote)}";\n'.encode("gb18030")


def sina_pushed(quote: Quote) -> bytes:
    return f"{sina_code(quote.symbol)}={sina(quote)}\n".encode("gb18030")


def tencent(quote: Quote) -> bytes:
    """Volume in lots but of STAR, amount in whole CNY."""
    volume = f"{quote.volume if board(quote.symbol) == 'star' else quote.volume / 100:.0f}"
    last = f"{quote.last:.2f}"
    change = quote.last - quote.prev_close
    bids = [text for k in _LEVELS for text in (f"{max(0.0, quote.last - 0.01 * k):.2f}", "10")]
    asks = [text for k in _LEVELS for text in (f"{quote.last + 0.01 * (k + 1):.2f}", "10")]
    stamp = quote.date.replace("-", "") + quote.clock.replace(":", "")
    fields = [_MARKET[quote.symbol[7:]], quote.name, quote.symbol[:6], last]
    fields += [f"{quote.prev_close:.2f}", f"{quote.open:.2f}", volume, "0", "0", *bids, *asks, "", stamp]
    fields += [f"{change:.2f}", f"{change / quote.prev_close * 100:.2f}", f"{quote.high:.2f}", f"{quote.low:.2f}"]
    fields += [f"{last}/{volume}/{quote.amount:.0f}", volume, f"{quote.amount / 1e4:.2f}", "0.00"]
    return f'v_{sina_code(quote.symbol)}="{"~".join(fields)}~";\n'.encode("gbk")


def eastmoney(quote: Quote, *, one: bool = False) -> dict[str, Any]:
    """The fields of a symbol in a list, or of a stream of its own; `-` stands for nothing yet."""
    prices = (quote.last, quote.high, quote.low, quote.open)
    last, high, low, open_ = (price if quote.volume else "-" for price in prices)
    volume = int(quote.volume / 100) if quote.volume else "-"
    amount = quote.amount if quote.volume else "-"
    market = int(quote.symbol.endswith(".SH"))
    if one:
        values = {
            "f43": last,
            "f44": high,
            "f45": low,
            "f46": open_,
            "f47": volume,
            "f48": amount,
            "f57": quote.symbol[:6],
        }
        return values | {"f60": quote.prev_close, "f86": quote.unix_s, "f107": market}
    values = {"f2": last, "f5": volume, "f6": amount, "f12": quote.symbol[:6], "f13": market, "f15": high, "f16": low}
    return values | {"f17": open_, "f18": quote.prev_close, "f124": quote.unix_s}


def event(data: Mapping[str, Any], *, full: bool) -> bytes:
    """One server-sent event of Eastmoney."""
    text = {"rc": 0, "rt": 4, "svr": 182482656, "lt": 1, "full": int(full), "dlmkts": "", "data": data}
    return b"data: " + json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

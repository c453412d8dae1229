"""Vendors of quotes, each declared once: where they are asked, how, how much, and what reads their bytes.

A vendor joins by an entry in `VENDORS`, or from any installed package by an entry point of the group
`mystocks_scan.feeds` that names a `Vendor`. What is known of each, and from where: docs/feeds.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from data.symbols import sina_code
from streaming.feeds import eastmoney, sina, tencent
from streaming.feeds.wire import Parsed, Universe, unseen

AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
"""Vendors refuse what does not look like a browser."""


@dataclass(frozen=True)
class Budget:
    """How often one vendor may be asked, all connections together: requests a second, and how many at once."""

    per_s: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """One vendor's way of giving quotes.

    `parse` is a pure function of bytes; `fresh` comes before it and says which bytes are worth parsing, given what the
    connection remembers: it leaves out lines that did not change, or makes whole what comes in parts.
    """

    name: str
    title: str
    transport: Literal["poll", "socket", "events"]
    url: str
    """Scheme and host; the setting `feed.urls` replaces it."""
    path: Callable[[Sequence[str]], str]
    """The vendor's codes -> path and query."""
    parse: Callable[[bytes, Universe], Parsed]
    code: Callable[[str], str | None] = sina_code
    """A canonical symbol's code at this vendor; None where it has no quotes of it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    batch: int
    """Symbols a request."""
    shard: int | None = None
    """Symbols a connection; None: any number, a poll makes as many requests as they need."""
    cadence_s: float = 3.0
    """How often it has news; a poll asks for each symbol this often."""
    budget: Budget
    fresh: Callable[[bytes, dict[bytes, Any]], bytes] = lambda body, _: body
    opening: bytes = b""
    """What each line of a quote begins with; a frame without it is no frame but a page about something else."""
    refusal: bytes | None = None
    """What stands in the answer to a batch that is refused as a whole for the sake of a code in it."""
    unknown: bytes | None = None
    """The line that names, between commas, the codes that it does not know."""
    keepalive_s: float | None = None
    """On a socket: an empty text this often."""
    source: str = ""
    """Where what is said here is known from."""
    unverified: str = ""
    """What of it no recorded payload shows."""

    def universe(self, symbols: Sequence[str]) -> Universe:
        """The symbols that it covers, by its codes."""
        codes = ((symbol, self.code(symbol)) for symbol in symbols)
        return Universe({symbol: code for symbol, code in codes if code is not None})


def _list(prefix: str) -> Callable[[Sequence[str]], str]:
    return lambda codes: prefix + ",".join(codes)


_REFERER = "https://finance.sina.com.cn"

_DECLARED = (
    Vendor(
        name="sina",
        title="新浪财经, polled",
        transport="poll",
        url="https://hq.sinajs.cn",
        path=_list("/list="),
        headers={"Referer": f"{_REFERER}/", "User-Agent": AGENT},
        batch=800,
        budget=Budget(per_s=5, burst=10),
        parse=sina.parse,
        fresh=partial(unseen, key=len(b"var hq_str_sh600519")),
        opening=b"var hq_str_",
        source="payloads recorded in easyquotation's tests (tests/test_sina.py)",
        unverified="the limit of codes a request (850 in easyquotation, 50 elsewhere), what gets an address banned",
    ),
    Vendor(
        name="sina_ws",
        title="新浪财经, pushed",
        transport="socket",
        url="wss://hq.sinajs.cn",
        path=_list("/wskt?list="),
        headers={"Origin": _REFERER, "User-Agent": AGENT},
        batch=500,
        shard=500,
        budget=Budget(per_s=1, burst=12),
        parse=partial(sina.parse, prefix=sina.PUSHED),
        fresh=partial(unseen, key=len(b"sh600519")),
        refusal=b"sys_auth=FAILED",
        unknown=b"sys_nxkey=",
        keepalive_s=60.0,
        source="the public collector 74587/sina-real-time",
        unverified="every byte: the format is Sina's polled one, seen in that collector alone",
    ),
    Vendor(
        name="tencent",
        title="腾讯证券, polled",
        transport="poll",
        url="https://qt.gtimg.cn",
        path=_list("/q="),
        headers={"Referer": "https://gu.qq.com/", "User-Agent": AGENT},
        batch=60,
        budget=Budget(per_s=20, burst=40),
        parse=tencent.parse,
        fresh=partial(unseen, key=len(b"v_sh600519")),
        opening=b"v_",
        refusal=b"v_pv_none_match",
        source="payloads recorded in public code, cut after field 37",
        unverified="fields after 37, UTF-8 answers, the budget",
    ),
    Vendor(
        name="eastmoney",
        title="东方财富, server-sent events",
        transport="events",
        url="https://push2.eastmoney.com",
        path=eastmoney.path,
        code=eastmoney.code,
        headers={"Referer": "https://quote.eastmoney.com/", "User-Agent": AGENT},
        batch=100,
        shard=100,
        budget=Budget(per_s=1, burst=60),
        parse=eastmoney.parse,
        fresh=eastmoney.merge,
        source="one frame of one index, recorded in public code; lists and their deltas as public clients read them",
        unverified="frames of lists, the unit of STAR volumes (found by amount / volume), symbols a connection",
    ),
)

VENDORS: Mapping[str, Vendor] = MappingProxyType({vendor.name: vendor for vendor in _DECLARED})
"""Our own vendors by name."""

"""Symbols: one spelling for every code, and what a code says about itself.

The canonical symbol is six digits and the exchange, `600519.SH`. Which digits belong to which exchange, kind and board
is a table of dated facts, `FACTS`; a new code range is a new row. Where several rows fit, the longest prefix counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from data.errors import UnknownSymbolError

EXCHANGES = ("SH", "SZ", "BJ")
KINDS = ("a_share", "b_share", "cdr", "preferred", "etf", "index")
"""`etf` holds every fund traded like a share: ETFs, LOFs, closed-end funds and REITs."""
BOARDS = ("main", "chinext", "star", "bse", "b_share", "preferred", "etf", "index")
"""Shares and CDRs have the board they are listed on; every other kind is its own board."""

_STOCKS = frozenset({"a_share", "b_share", "cdr", "preferred"})
"""What six bare digits may mean."""


@dataclass(frozen=True)
class PrefixFact:
    """Codes of `exchange` that begin with `prefix` (two or three digits) are of `kind` on `board`.

    In use from `since` to `until` (None: still). `source` states the range. `confirmed`: whether a notice was found for
    the dates too; otherwise they are general knowledge, and nothing but the tests depends on them.
    """

    exchange: str
    prefix: str
    kind: str
    board: str
    since: date
    source: str
    until: date | None = None
    confirmed: bool = False


_SSE = "https://www.sse.com.cn/lawandrules/guide/stock/jyglywznylc/zn/c/c_20260831_10830435.shtml"
"""SSE, guide no. 4, allocation of securities codes (third revision of 2026)."""
_SZSE = "https://www.szse.cn/marketServices/technicalservice/doc/P020260306733846760075.pdf"
"""SZSE, table of securities code ranges (March 2026)."""
_BSE = "https://www.bse.cn/jygl_list/200021626.html"
"""BSE, guideline on codes and short names, in force from 2024-04-22: listed shares begin with 92."""
_BSE_SWITCH = "https://www.bse.cn/important_news/200026735.html"
"""BSE, notice of 2025-09-12: from 2025-10-09 all listed shares trade under their 920 codes."""
_STAR = "https://star.sse.com.cn/star/media/news/c/c_20190705_4858655.shtml"
_CHINEXT = "https://www.szse.cn/aboutus/trends/news/t20091102_517893.html"

FACTS = (
    PrefixFact("SH", "600", "a_share", "main", date(1990, 12, 19), _SSE),
    PrefixFact("SH", "601", "a_share", "main", date(2006, 7, 5), _SSE),
    PrefixFact("SH", "603", "a_share", "main", date(2012, 1, 1), _SSE),
    PrefixFact("SH", "605", "a_share", "main", date(2020, 4, 17), _SSE),
    PrefixFact("SH", "688", "a_share", "star", date(2019, 7, 22), _STAR, confirmed=True),
    PrefixFact("SH", "689", "cdr", "star", date(2020, 10, 29), _SSE),
    PrefixFact("SH", "900", "b_share", "b_share", date(1992, 2, 21), _SSE),
    PrefixFact("SH", "330", "preferred", "preferred", date(2014, 11, 28), _SSE),
    PrefixFact("SH", "360", "preferred", "preferred", date(2014, 11, 28), _SSE),
    PrefixFact("SH", "50", "etf", "etf", date(1998, 4, 7), _SSE),
    PrefixFact("SH", "51", "etf", "etf", date(2005, 2, 23), _SSE),
    PrefixFact("SH", "52", "etf", "etf", date(2024, 1, 1), _SSE),
    PrefixFact("SH", "53", "etf", "etf", date(2024, 1, 1), _SSE),
    PrefixFact("SH", "55", "etf", "etf", date(2024, 1, 1), _SSE),
    PrefixFact("SH", "56", "etf", "etf", date(2021, 1, 1), _SSE),
    PrefixFact("SH", "581", "etf", "etf", date(2026, 1, 1), _SSE),
    PrefixFact("SH", "587", "etf", "etf", date(2026, 1, 1), _SSE),
    PrefixFact("SH", "588", "etf", "etf", date(2020, 11, 16), _SSE),
    PrefixFact("SH", "589", "etf", "etf", date(2024, 1, 1), _SSE),
    PrefixFact("SH", "000", "index", "index", date(1991, 7, 15), _SSE),
    PrefixFact("SZ", "000", "a_share", "main", date(1991, 4, 3), _SZSE),
    PrefixFact("SZ", "001", "a_share", "main", date(1997, 1, 1), _SZSE),
    PrefixFact("SZ", "002", "a_share", "main", date(2004, 6, 25), _SZSE),
    PrefixFact("SZ", "003", "a_share", "main", date(2019, 7, 31), _SZSE),
    PrefixFact("SZ", "004", "a_share", "main", date(2019, 7, 31), _SZSE),
    PrefixFact("SZ", "30", "a_share", "chinext", date(2009, 10, 30), _CHINEXT, confirmed=True),
    PrefixFact("SZ", "20", "b_share", "b_share", date(1992, 2, 28), _SZSE),
    PrefixFact("SZ", "140", "preferred", "preferred", date(2015, 1, 1), _SZSE),
    PrefixFact("SZ", "15", "etf", "etf", date(2006, 4, 24), _SZSE),
    PrefixFact("SZ", "16", "etf", "etf", date(2004, 12, 20), _SZSE),
    PrefixFact("SZ", "18", "etf", "etf", date(1998, 4, 7), _SZSE),
    PrefixFact("SZ", "399", "index", "index", date(1991, 4, 3), _SZSE),
    PrefixFact("SZ", "97", "index", "index", date(2010, 1, 1), _SZSE),
    PrefixFact("SZ", "98", "index", "index", date(2010, 1, 1), _SZSE),
    PrefixFact("BJ", "92", "a_share", "bse", date(2024, 4, 22), _BSE, confirmed=True),
    PrefixFact("BJ", "43", "a_share", "bse", date(2021, 11, 15), _BSE_SWITCH, date(2025, 10, 8), confirmed=True),
    PrefixFact("BJ", "83", "a_share", "bse", date(2021, 11, 15), _BSE_SWITCH, date(2025, 10, 8), confirmed=True),
    PrefixFact("BJ", "87", "a_share", "bse", date(2021, 11, 15), _BSE_SWITCH, date(2025, 10, 8), confirmed=True),
    PrefixFact("BJ", "899", "index", "index", date(2022, 11, 21), _BSE),
)

_SPELLINGS = {
    "SH": ("SH", "SS", "SSE", "SHSE", "XSHG"),
    "SZ": ("SZ", "SZSE", "XSHE"),
    "BJ": ("BJ", "BSE", "BJSE", "XBSE"),
}
_EXCHANGE = {spelling: exchange for exchange, spellings in _SPELLINGS.items() for spelling in spellings}
# Three digits decide; the shorter prefixes are spread out first, so that longer ones overwrite them.
_BY_PREFIX = {
    (fact.exchange, fact.prefix + rest): fact
    for fact in sorted(FACTS, key=lambda fact: len(fact.prefix))
    for rest in ([""] if len(fact.prefix) == 3 else "0123456789")
}
_STOCK_EXCHANGE = {prefix: exchange for (exchange, prefix), fact in _BY_PREFIX.items() if fact.kind in _STOCKS}
"""No code is a stock on two exchanges (a test holds the table to it)."""
_NAMES = "|".join(sorted(_EXCHANGE, key=len, reverse=True))
_CODE = re.compile(rf"(?:({_NAMES})\.?)?([0-9]{{6}})|([0-9]{{6}})\.({_NAMES})")
_ACCEPTED = (
    "Write 600519.SH, sh600519, 600519.XSHG or, for a stock, 600519; an index or a fund needs its exchange: sh000001"
)


def canonical(text: str) -> str:
    """The canonical symbol (`600519.SH`) of a code in any vendor's spelling; six bare digits mean the stock.

    Raises UnknownSymbolError, which names the text and what is accepted. Lost leading zeros are an error.
    """
    symbol = _lookup(text)
    if symbol is None:
        raise UnknownSymbolError(f"symbol {text!r} {_why_not(text)}. {_ACCEPTED}")
    return symbol


def canonical_or_none(text: str) -> str | None:
    """The canonical symbol, or None where `canonical` would raise."""
    return _lookup(text)


def canonical_many(texts: Sequence[str]) -> list[str | None]:
    """`canonical_or_none` of each text."""
    return list(map(_lookup, texts))


def fact_of(symbol: str) -> PrefixFact:
    """The fact that covers a canonical symbol. Raises UnknownSymbolError."""
    if _lookup(symbol) != symbol:
        raise UnknownSymbolError(f"symbol {symbol!r} is not the canonical one of a known code. {_ACCEPTED}")
    return _BY_PREFIX[symbol[7:], symbol[:3]]


def kind(symbol: str) -> str:
    """What a canonical symbol is: one of `KINDS`. Raises UnknownSymbolError."""
    return fact_of(symbol).kind


def board(symbol: str) -> str:
    """Where a canonical symbol is listed: one of `BOARDS`. Raises UnknownSymbolError."""
    return fact_of(symbol).board


def sina_code(symbol: str) -> str:
    """The spelling of Sina and Tencent, `sh600519`, of a canonical symbol."""
    return symbol[7:].lower() + symbol[:6]


@lru_cache(maxsize=65_536)
def _lookup(text: str) -> str | None:
    match = _CODE.fullmatch(text.strip().upper())
    if match is None:
        return None
    code, exchange = _parts(match)
    if exchange is None:
        exchange = _STOCK_EXCHANGE.get(code[:3])
    return f"{code}.{exchange}" if (exchange, code[:3]) in _BY_PREFIX else None


def _parts(match: re.Match[str]) -> tuple[str, str | None]:
    """The six digits, and the exchange if one is named."""
    before, code, code_before, after = match.groups()
    named = before or after
    return code or code_before, _EXCHANGE[named] if named else None


def _why_not(text: str) -> str:
    """Why a text is no symbol, as the second half of a sentence."""
    match = _CODE.fullmatch(text.strip().upper())
    if match is None:
        if re.fullmatch(r"[0-9]{1,5}", text.strip()):
            return "has fewer than six digits: a spreadsheet has cut leading zeros off; give the column as text"
        return "is not a code of six digits with or without an exchange"
    code, exchange = _parts(match)
    facts = [fact for e in EXCHANGES if (fact := _BY_PREFIX.get((e, code[:3])))]
    if not facts:
        return f"has a code that no known range covers ({code})"
    places = " or ".join(f"{code}.{fact.exchange} ({fact.kind})" for fact in facts)
    if exchange is None:
        return f"needs its exchange, for it is not a stock: {places}"
    return f"names the exchange {exchange}, which has no such code; it is {places}"

"""Which symbols there are: vendors' lists of the market or of an index, page by page.

Sina: a JSON array of rows {"symbol": "sh600000", "name": ...}, and the number of all as a JSON text of its own.
Eastmoney: {"data": {"total": N, "diff": [{"f12": code, "f14": name}, ...]}}. A list that shifts while it
is read, or is cut short without a word, is found out by its total.
"""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from data.errors import FeedError, UsageError
from data.symbols import canonical_or_none
from streaming.feeds.http import check_ban, lost, open_client, reason_of, shown
from streaming.feeds.reading import Admit, at_once
from streaming.feeds.vendors import AGENT, Budget

MARKET = "market"
"""The scope that stands for all A shares; any other is an index's code, `000300`."""
_TRIES = 3
_SHORT = 0.98
"""A list with less than this share of its total is refused; single rows come and go while it is read."""


@dataclass(frozen=True)
class Page:
    """One page: names by symbol, its number of rows, how many of them are no symbols', how many there are in all."""

    names: Mapping[str, str]
    n_rows: int
    dropped: Counter[str] = field(default_factory=Counter)
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """One vendor's list; declared like a `Vendor`."""

    name: str
    url: str
    path: Callable[[str, int], str | None]
    """Scope and page, from 1 -> path and query; None where it has no list of that scope."""
    parse: Callable[[bytes], Page | None]
    """Pure, never raises for what the bytes hold; None where they are no page."""
    count: Callable[[str], str] | None = None
    """Scope -> path of the number of all; None where each page says it."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"User-Agent": AGENT})
    budget: Budget
    source: str
    unverified: str


def parse_sina(body: bytes) -> Page | None:
    """A page of Sina's, or the number of all."""
    found = _json(body)
    if isinstance(found, str) and found.isdecimal():
        return Page({}, 0, total=int(found))
    if found is None and body.strip() == b"null":
        found = []  # behind the last page
    if not isinstance(found, list):
        return None
    return _page([(row.get("symbol"), row.get("name")) if isinstance(row, dict) else (None, None) for row in found])


def parse_eastmoney(body: bytes) -> Page | None:
    """A page of Eastmoney's."""
    found = _json(body)
    if not isinstance(found, dict) or "data" not in found:
        return None
    data = found["data"] if isinstance(found["data"], dict) else {}
    diff = data.get("diff", [])
    listed = list(diff.values()) if isinstance(diff, dict) else diff if isinstance(diff, list) else []
    rows = [(row.get("f12"), row.get("f14")) if isinstance(row, dict) else (None, None) for row in listed]
    total = data.get("total", 0)
    return _page(rows, total if isinstance(total, int) and total >= 0 else None)


def _page(rows: Sequence[tuple[object, object]], total: int | None = None) -> Page:
    """Rows of (symbol in any spelling, name); what is no symbol is left out."""
    names: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for code, name in rows:
        symbol = canonical_or_none(code) if isinstance(code, str) else None
        if symbol is None:
            dropped["code"] += 1
        else:
            names[symbol] = name.strip() if isinstance(name, str) else ""
    return Page(names, len(rows), dropped, total)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


async def fetch_list(
    source: ListSource,
    scope: str = MARKET,
    *,
    url: str | None = None,
    admit: Admit = at_once,
    timeout_s: float = 10.0,
    sleep: Callable[[float], Any] = asyncio.sleep,
) -> dict[str, str]:
    """Names by symbol, of the market or an index. `url` and `admit` as of `streaming.feeds.reading.VendorConnection`.

    A page that does not come is asked for three times. Raises UsageError where the source has no such list,
    BannedError, and FeedError where pages do not come or are fewer than they should be.
    """
    base = (url or source.url).rstrip("/")

    async def page(client: httpx.AsyncClient, path: str) -> Page:
        reason = ""
        error: Exception | None = None
        for attempt in range(_TRIES):
            if attempt:
                await sleep(2.0**attempt)
            await admit()
            try:
                async with asyncio.timeout(timeout_s):
                    response = await client.get(base + path)
            except (httpx.HTTPError, TimeoutError) as raised:
                reason, error = reason_of(raised), raised
                continue
            check_ban(source.name, response.status_code, response.content)
            found = source.parse(response.content) if response.status_code == httpx.codes.OK else None
            if found is not None:
                return found
            reason, error = f"http_{response.status_code}", FeedError(f"its answer is {shown(response.content)}")
        raise lost(source.name, reason, error)

    names: dict[str, str] = {}
    n_rows, total = 0, None
    async with open_client(dict(source.headers), read_s=timeout_s) as client:
        if source.count is not None:
            total = (await page(client, source.count(scope))).total
        for number in range(1, 10_000):
            path = source.path(scope, number)
            if path is None:
                raise UsageError(f"{source.name} has no list of the index {scope}")
            got = await page(client, path)
            names |= got.names
            n_rows += got.n_rows
            total = got.total if got.total is not None else total
            if not got.n_rows or (total is not None and n_rows >= total):
                break
    if not names or n_rows < math.ceil((total or 0) * _SHORT):
        raise FeedError(
            f"the list of {source.name} has {n_rows} rows of {total or 'an unknown number'}: it is cut short",
            reason="short_list",
        )
    return names


_SINA_API = "/quotes_service/api/json_v2.php/Market_Center."
_EASTMONEY_MARKET = "m:0+t:6,m:0+t:13,m:0+t:80,m:1+t:2,m:1+t:23,m:0+t:7,m:1+t:3,m:0+t:81"


def _node(scope: str) -> str:
    return "hs_a" if scope == MARKET else f"zhishu_{scope}"


_DECLARED = (
    ListSource(
        name="sina_list",
        url="https://vip.stock.finance.sina.com.cn",
        path=lambda scope, page: (
            f"{_SINA_API}getHQNodeData?page={page}&num=80&sort=symbol&asc=1&node={_node(scope)}&symbol=&_s_r_a=page"
        ),
        count=lambda scope: f"{_SINA_API}getHQNodeStockCount?node={_node(scope)}",
        parse=parse_sina,
        budget=Budget(per_s=2, burst=5),
        source="the requests and field names of public clients",
        unverified="every byte; whether an index's node has all its members; what gets an address banned",
    ),
    ListSource(
        name="eastmoney_list",
        url="https://push2.eastmoney.com",
        path=lambda scope, page: (
            f"/api/qt/clist/get?pn={page}&pz=100&po=0&np=1&fltt=2&invt=2&fid=f12&fs={_EASTMONEY_MARKET}&fields=f12,f14"
            if scope == MARKET
            else None
        ),
        parse=parse_eastmoney,
        budget=Budget(per_s=2, burst=5),
        source="the requests and field names of public clients; pages of 100 rows since 2025",
        unverified="every byte; bans of more than 20 hours after some 45,000 requests in an hour are reported",
    ),
)

LISTS: Mapping[str, ListSource] = MappingProxyType({source.name: source for source in _DECLARED})
"""Lists by name."""

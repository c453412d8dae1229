"""Vendors' lists of symbols on this machine."""

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

from data.symbols import sina_code
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.servers import FakeHttp


class FakeSinaList(FakeHttp):
    """vip.stock.finance.sina.com.cn: pages of as many as are asked for, and how many there are."""

    total: int | None = None
    """What it says there are; None: the truth."""

    def __init__(self, day: FakeDay, *, index: dict[str, list[str]] | None = None) -> None:
        super().__init__(day)
        names = day.market.names(day.session)
        self.nodes = {"hs_a": list(day.market.symbols)}
        self.nodes |= {f"zhishu_{code}": members for code, members in (index or {}).items()}
        self.names = {symbol: names.get(symbol, symbol) for symbol in day.market.symbols}

    def codes(self, target: str) -> list[str]:
        return [target]

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        query = parse_qs(urlsplit(codes[0]).query)
        symbols = self.nodes.get(query["node"][0], [])
        if "getHQNodeStockCount" in codes[0]:
            body = json.dumps(str(len(symbols) if self.total is None else self.total)).encode()
        else:
            page, num = int(query["page"][0]), int(query["num"][0])
            part = symbols[(page - 1) * num : page * num]
            body = json.dumps([{"symbol": sina_code(s), "code": s[:6], "name": self.names[s]} for s in part]).encode()
        await self._send(writer, 200, body)


class FakeEastmoneyList(FakeSinaList):
    """push2.eastmoney.com/api/qt/clist/get; it gives short pages, however many are asked for."""

    size = 7

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        page, symbols = int(parse_qs(urlsplit(codes[0]).query)["pn"][0]), self.nodes["hs_a"]
        part = symbols[(page - 1) * self.size : page * self.size]
        data = {"total": len(symbols), "diff": [{"f12": s[:6], "f14": self.names[s]} for s in part]}
        await self._send(writer, 200, json.dumps({"rc": 0, "data": data if part else None}).encode())

"""Vendors on this machine: real servers with the vendors' bytes, which go wrong where they are told to.

    async with FakeSina(day) as fake:
        connection = open_connection(VENDORS["sina"], day.symbols, url=fake.url)
        fake.faults = Faults(reset=True)

A fake that is polled shows the snapshot at which its `FakeDay` stands; `follow=True` lets each answer take the day one
snapshot on. One that pushes sends each snapshot as the day goes on.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Request, Response, Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from data.symbols import sina_code
from streaming.feeds import eastmoney
from tests.streaming.feeds.fakes import spelling
from tests.streaming.feeds.fakes.day import FakeDay, Quote

BAN = b"Kinsoku jikou desu!"
PAGE = "<!DOCTYPE html><html><body>您的访问过于频繁，请稍后再试</body></html>".encode("gbk")


@dataclass(frozen=True)
class Faults:
    """What goes wrong, one field a fault."""

    reset: bool = False
    """The connection is reset."""
    blackhole: bool = False
    """It takes what is sent and answers nothing, not even a ping."""
    mute: bool = False
    """It answers and pings, and gives no quote."""
    stale: bool = False
    """The snapshot that it showed when this began, again and again."""
    garbage: bool = False
    """Every second line is broken: bytes flipped, cut, or replaced."""
    ban: str | None = None
    """`403`: Sina's refusal; `page`: a page with status 200."""
    status: int | None = None
    """Any other HTTP status."""
    duplicate: bool = False
    """Everything twice."""
    out_of_order: bool = False
    """Every second answer is three snapshots old; what is pushed is followed by what was pushed before."""
    volume_reset: bool = False
    """The day's totals start anew."""
    bad_codes: frozenset[str] = frozenset()
    """Codes for whose sake a whole batch is refused."""
    named: bool = True
    """Whether a refusal names those codes, where the vendor does that at all."""
    slow_s: float = 0.0
    """Pause after every 16 bytes."""
    truncated: bool = False
    """Half an answer, then the end."""


class _Fake:
    """What all have: a day, faults, and what they were asked."""

    def __init__(self, day: FakeDay, *, seed: int = 1) -> None:
        self.day = day
        self.asked: list[list[str]] = []
        """The codes of each request or connection."""
        self.headers: list[Mapping[str, str]] = []
        self._faults = Faults()
        self._stale_at = 0
        self._frames = 0
        self._random = random.Random(seed)
        self._symbol: dict[str, str] = {}

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        if faults.stale and not self._faults.stale:
            self._stale_at = self.day.at
        self._faults = faults

    def shown(self, at: int, codes: Iterable[str]) -> list[Quote]:
        """What is shown of `codes` at snapshot `at`, faults included."""
        self._frames += 1
        if self.faults.stale:
            at = self._stale_at
        if self.faults.out_of_order and self._frames % 2 == 0:
            at = max(0, at - 3)
        quotes = self.day.reset_quotes(at) if self.faults.volume_reset else self.day.quotes(at)
        return [quotes[symbol] for code in codes if (symbol := self._symbol.get(code)) in quotes]

    def spoiled(self, lines: Sequence[bytes]) -> bytes:
        """The lines as they go out."""
        if self.faults.garbage:
            lines = [self._broken(line) if k % 2 else line for k, line in enumerate(lines)]
        if self.faults.duplicate:
            lines = [*lines, *lines]
        return b"".join(lines)

    def _broken(self, line: bytes) -> bytes:
        match self._random.randrange(4):
            case 0:
                return line[: len(line) // 2] + b"\n"
            case 1:
                return b"<html>\n"
            case 2:
                return line.replace(b".", b"\xff", 3)
            case _:
                at = self._random.randrange(20, len(line) - 1)
                return line[:at] + bytes([line[at] ^ 0x55]).replace(b"\n", b"?") + line[at + 1 :]


class FakeHttp(_Fake):
    """A server of HTTP/1.1, by hand: so that it can break off anywhere."""

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                    self.headers.append(
                        {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
                    )
                    await self._handle(head[0].split(" ")[1], writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _handle(self, target: str, writer: asyncio.StreamWriter) -> None:
        codes = self.codes(target)
        self.asked.append(codes)
        faults = self.faults
        if faults.reset:
            writer.transport.abort()
        elif faults.blackhole:
            await asyncio.Event().wait()
        elif faults.ban == "403":
            await self._send(writer, 403, BAN)
        elif faults.ban == "page":
            await self._send(writer, 200, PAGE)
        elif faults.status is not None:
            await self._send(writer, faults.status, b"Bad Gateway")
        else:
            await self._answer(codes, writer)

    async def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: text/html; charset=gbk\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode())
        if self.faults.truncated:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            writer.close()
            return
        await self.trickle(writer, body)

    async def trickle(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        """Send, as slowly as it should be."""
        if not self.faults.slow_s:
            writer.write(body)
        else:
            for k in range(0, len(body), 16):
                writer.write(body[k : k + 16])
                await asyncio.sleep(self.faults.slow_s)
        await writer.drain()

    def codes(self, target: str) -> list[str]:
        raise NotImplementedError

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class _FakePolled(FakeHttp):
    def __init__(self, day: FakeDay, *, follow: bool = False, seed: int = 1) -> None:
        super().__init__(day, seed=seed)
        self._follow = follow
        self._symbol = {sina_code(symbol): symbol for symbol in day.symbols}

    def codes(self, target: str) -> list[str]:
        return target.partition("=")[2].split(",")

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        if self.faults.bad_codes & set(codes):
            body = self.refusal(codes)
        elif self.faults.mute:
            body = b"".join(map(self.nothing, codes))
        else:
            known = {sina_code(quote.symbol): quote for quote in self.shown(self.day.at, codes)}
            body = self.spoiled([self.line(known[code]) if code in known else self.nothing(code) for code in codes])
        await self._send(writer, 200, body)
        if self._follow:
            self.day.step()

    def line(self, quote: Quote) -> bytes:
        raise NotImplementedError

    def nothing(self, code: str) -> bytes:
        """The line of a code that has no quote."""
        raise NotImplementedError

    def refusal(self, codes: list[str]) -> bytes:
        raise NotImplementedError


class FakeSina(_FakePolled):
    """hq.sinajs.cn, polled; without its Referer it answers as Sina does."""

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        if "finance.sina.com.cn" not in self.headers[-1].get("referer", ""):
            await self._send(writer, 403, BAN)
        else:
            await super()._answer(codes, writer)

    def line(self, quote: Quote) -> bytes:
        return spelling.sina_polled(quote)

    def nothing(self, code: str) -> bytes:
        return f'var hq_str_{code}="";\n'.encode()

    def refusal(self, codes: list[str]) -> bytes:
        return b'var hq_str_sys_auth="FAILED";\n'


class FakeTencent(_FakePolled):
    """qt.gtimg.cn."""

    def line(self, quote: Quote) -> bytes:
        return spelling.tencent(quote)

    def nothing(self, code: str) -> bytes:
        return f'v_{code}="";\n'.encode()

    def refusal(self, codes: list[str]) -> bytes:
        return b'v_pv_none_match="1";\n'


class FakeEastmoney(FakeHttp):
    """push2.eastmoney.com: a first event with everything, then what has changed."""

    def __init__(self, day: FakeDay, *, seed: int = 1) -> None:
        super().__init__(day, seed=seed)
        self._symbol = {eastmoney.code(symbol): symbol for symbol in day.symbols}

    def codes(self, target: str) -> list[str]:
        query = parse_qs(urlsplit(target).query)
        assert query["fltt"] == ["2"]
        return (query.get("secids") or query["secid"])[0].split(",")

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")
        shown: dict[str, dict[str, Any]] = {}
        one = len(codes) == 1
        queue = self.day.watch()
        try:
            while True:
                at = await queue.get()
                if self.faults.reset:
                    writer.transport.abort()
                    return
                if self.faults.blackhole or self.faults.mute:
                    continue
                if self.faults.out_of_order and self._frames % 2:
                    queue.put_nowait(at)
                quotes = self.shown(at, codes)
                items = {str(k): spelling.eastmoney(quote, one=one) for k, quote in enumerate(quotes)}
                full = not shown
                fresh = {
                    key: {name: value for name, value in item.items() if full or shown[key].get(name) != value}
                    for key, item in items.items()
                }
                fresh = {key: item for key, item in fresh.items() if item}
                if not fresh:
                    continue
                shown = items
                data = fresh.get("0", {}) if one else {"total": len(items), "diff": fresh}
                body = spelling.event(data, full=full)
                await self.trickle(writer, body[: len(body) // 2] + b"\n\n" if self.faults.garbage else body)
                if self.faults.duplicate:
                    await self.trickle(writer, body)
                if self.faults.truncated:
                    writer.write(body[: len(body) // 2])
                    writer.close()
                    return
        finally:
            self.day.leave(queue)


class FakeSinaSocket(_Fake):
    """hq.sinajs.cn/wskt: a message a snapshot, a line a symbol."""

    def __init__(self, day: FakeDay, *, seed: int = 1) -> None:
        super().__init__(day, seed=seed)
        self._symbol = {sina_code(symbol): symbol for symbol in day.symbols}
        self.texts: list[str | bytes] = []
        """What clients have sent."""

    async def __aenter__(self) -> Self:
        self._server: Server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._greet, compression=None, close_timeout=0.2
        )
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self._server.connections):
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers.append({name.lower(): value for name, value in request.headers.raw_items()})
        faults = self.faults
        if faults.ban or request.headers.get("Origin") != "https://finance.sina.com.cn":
            return Response(403, "Forbidden", Headers(), BAN)
        if faults.status is not None:
            return Response(faults.status, "Bad Gateway", Headers(), b"")
        if faults.reset:
            connection.transport.abort()
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        codes = connection.request.path.partition("list=")[2].split(",")
        self.asked.append(codes)
        sender = asyncio.create_task(self._push(connection, codes))
        try:
            with suppress(ConnectionClosed):
                async for message in connection:
                    self.texts.append(message)
        finally:
            sender.cancel()

    async def _push(self, connection: ServerConnection, codes: list[str]) -> None:
        queue = self.day.watch()
        try:
            with suppress(ConnectionClosed):
                if bad := self.faults.bad_codes & set(codes):
                    await connection.send("sys_auth=FAILED", text=True)
                    if self.faults.named:
                        await connection.send(f"sys_nxkey={','.join(sorted(bad))}", text=True)
                    return
                while True:
                    at = await queue.get()
                    if self.faults.reset:
                        connection.transport.abort()
                    elif self.faults.blackhole:
                        connection.transport.pause_reading()
                    elif not self.faults.mute:
                        if self.faults.out_of_order and self._frames % 2:
                            queue.put_nowait(at)
                        body = self.spoiled([spelling.sina_pushed(quote) for quote in self.shown(at, codes)])
                        await connection.send(body, text=True)
        finally:
            self.day.leave(queue)

"""A vendor that pushes over a WebSocket."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Origin

from data.errors import FeedError, RefusedError
from streaming.feeds.http import check_ban, lost
from streaming.feeds.reading import VendorConnection, cancel, unless
from streaming.feeds.vendors import Vendor

_GATHER_S = 0.02
"""Messages that come within this time are parsed together: a vendor sends hundreds a second."""
_REASON_S = 0.2
"""After a refusal this long for the line that says why."""
_LARGEST = 2**22
_QUEUE = 64
"""Messages read ahead; then the vendor waits."""


class SocketConnection(VendorConnection):
    """A WebSocket to a vendor; see `ports.Connection` and `ports.WebSocketCapability`.

    The vendor is told what to send by the address, so other symbols mean another socket; the old one is read until the
    new one is open. A peer that answers no ping is given up by the client within 40 s.
    """

    def __init__(self, vendor: Vendor, symbols: Sequence[str], *, ping_s: float = 20.0, **about: Any) -> None:
        """`ping_s`: how often the peer is asked whether it lives, and how long its answer may take. `about`: as of
        every `VendorConnection`."""
        super().__init__(vendor, symbols, **about)
        self._ping_s = ping_s
        self._handlers: list[Callable[[bytes], None]] = []
        self._socket: ClientConnection | None = None

    def on_message(self, handler: Callable[[bytes], None]) -> None:
        """See `ports.WebSocketCapability`."""
        self._handlers.append(handler)

    async def connect(self) -> None:
        """See `ports.WebSocketCapability`."""
        if self._socket is None:
            self._socket = await self._open()

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """See `ports.WebSocketCapability`."""
        before = self.symbols
        self._reading.ask_for(symbols)
        if self._socket is None:
            return
        try:
            old, self._socket = self._socket, await self._open()
        except FeedError:
            self._reading.ask_for(before)
            raise
        await old.close()

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """See `ports.Connection`."""
        closing = asyncio.create_task(self._closed.wait())
        keeping: asyncio.Task[None] | None = None
        try:
            if await unless(closing, self._opened()) is None:
                return
            if self._vendor.keepalive_s is not None:
                keeping = asyncio.create_task(self._keep_alive(self._vendor.keepalive_s))
            while not self._closed.is_set():
                socket = self._socket
                assert socket is not None
                try:
                    gathered = await unless(closing, self._gather(socket))
                except ConnectionClosed as error:
                    if socket is not self._socket:
                        continue
                    raise lost(self._vendor.name, "connection", error) from error
                if gathered is None:
                    return
                body, received = gathered
                for handler in self._handlers:
                    handler(body)
                self._heed(body)
                yield self._reading.batch(body, received)
        finally:
            await cancel(closing, *([] if keeping is None else [keeping]))
            if self._socket is not None:
                await self._socket.close()

    async def _opened(self) -> bool:
        await self.connect()
        return True

    async def _open(self) -> ClientConnection:
        await self._admit()
        headers = dict(self._vendor.headers)
        origin, agent = headers.pop("Origin", None), headers.pop("User-Agent", None)
        try:
            return await connect(
                self._url + self._vendor.path(self._reading.codes()),
                origin=None if origin is None else Origin(origin),
                user_agent_header=agent,
                additional_headers=headers,
                open_timeout=self._timeout_s,
                ping_interval=self._ping_s,
                ping_timeout=self._ping_s,
                close_timeout=1,
                max_size=_LARGEST,
                max_queue=_QUEUE,
            )
        except InvalidStatus as error:
            check_ban(self._vendor.name, error.response.status_code, bytes(error.response.body or b""))
            raise lost(self._vendor.name, f"http_{error.response.status_code}", error) from error
        except TimeoutError as error:
            raise lost(self._vendor.name, "timeout", error) from error
        except (WebSocketException, OSError) as error:
            raise lost(self._vendor.name, "connection", error) from error

    async def _gather(self, socket: ClientConnection) -> tuple[bytes, int]:
        """The messages that come together, and when the first did. Names may be in any encoding: all is bytes."""
        parts = [await socket.recv(decode=False)]
        received = self._reading.clock()
        with suppress(TimeoutError, ConnectionClosed):  # the next call raises the latter again
            async with asyncio.timeout(_GATHER_S) as window:
                while True:
                    parts.append(await socket.recv(decode=False))
                    if self._is_refused(parts[-1]):
                        window.reschedule(asyncio.get_running_loop().time() + _REASON_S)
        if len(parts) == 1 and self._is_refused(parts[0]):
            with suppress(TimeoutError, ConnectionClosed):
                async with asyncio.timeout(_REASON_S):
                    parts.append(await socket.recv(decode=False))
        return b"\n".join(parts), received

    def _is_refused(self, message: bytes) -> bool:
        return self._vendor.refusal is not None and self._vendor.refusal in message

    def _heed(self, body: bytes) -> None:
        """What control lines say: the codes that are unknown, and whether that refuses the batch."""
        unknown = set[str]()
        if self._vendor.unknown is not None and self._vendor.unknown in body:
            lines = (line.strip() for line in body.split(b"\n"))
            named = [line[len(self._vendor.unknown) :] for line in lines if line.startswith(self._vendor.unknown)]
            codes = b",".join(named).decode("ascii", errors="replace").split(",")
            unknown = {symbol for code in codes if (symbol := self._reading.symbol(code)) is not None}
        if self._is_refused(body):
            raise RefusedError(
                f"{self._vendor.name} refuses {len(self.symbols)} symbols together; it does not know: "
                f"{', '.join(sorted(unknown)) or 'it does not say which'}",
                symbols=frozenset(unknown),
            )
        self._reading.refused |= unknown

    async def _keep_alive(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if self._socket is not None:
                with suppress(ConnectionClosed):  # the reader finds out
                    await self._socket.send("")

"""A connection of the server that is bounded in what it may say, how fast, and how long it may take for it.

The library bounds a message and a header's line; this adds the rest: the time and the size of a request, the number of
frames, whatever they hold, the time to leave after the last word, and answers of HTTP to readers of any speed.
"""

import asyncio
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import SecurityError
from websockets.http11 import Response
from websockets.protocol import OPEN, Event

from streaming.access import DeniedError
from streaming.closing import Close
from streaming.door import Door, home

CLOSE_TIMEOUT_S = 1.0
"""How long an end may take that the other side has a part in."""
SLICE = 4096
"""Bytes that are parsed before the number of frames in them is looked at: of the smallest, 700."""
LINGER_S = 5.0
"""How long the last of an answer may take to be read."""
PIECE = 64 * 1024
"""Bytes of an answer that are written before its reader is waited for."""
MAX_IGNORED = 1024 * 1024
"""Bytes that may still come after the last word; who sends more does not want to read it."""
_END = b"\r\n\r\n"
_REASONS = {1002: "protocol", 1007: "utf8", 1009: "oversize"}


class Limited(ServerConnection):
    """A connection; a subclass names the door that it comes in by.

    `holder`: the digest of the token that it was let in with. `denied`: why it is opened only to be closed.
    """

    door: Door
    holder: str | None = None
    denied: DeniedError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.address: tuple[Any, ...] = transport.get_extra_info("peername")
        self._n_bytes = self._n_ignored = 0
        self._tail = b""
        self._early: bytes | None = None  # what came behind the request, until it is known what that asks for
        self._is_deaf = self._answers = self._saw_eof = False
        self.door.met(self.address)
        limits = self.door.limits
        self._credit, self._credited = float(limits.messages), self.loop.time()
        self._timer = self.loop.call_later(limits.handshake_s, self._late)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        sent = self.protocol.close_sent
        if sent is not None and not self.protocol.close_rcvd_then_sent and sent.code in _REASONS:
            self.refuse(_REASONS[sent.code], f"closed with {sent.code}, {sent.reason}")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf or self.protocol.eof_sent:
            self._n_ignored += len(data)
            if self._n_ignored > MAX_IGNORED:
                self.transport.abort()
        elif self.request is None:
            self._hear_request(data)
        elif self._early is None:
            self._hear(data)
        else:
            self._early += data

    def eof_received(self) -> bool | None:  # type: ignore[override]  # the library's says less than asyncio allows
        self._saw_eof = True
        if self._answers:
            return bool(self.transport.can_write_eof())  # who has said all may still listen
        super().eof_received()
        return None

    def process_event(self, event: Event) -> None:
        if self.request is None:
            super().process_event(event)
            self._timer.cancel()
            self.door.passed(self.address)
            return
        limits, now = self.door.limits, self.loop.time()
        earned = (now - self._credited) * limits.messages_per_s
        self._credit, self._credited = min(limits.messages, self._credit + earned) - 1, now
        if self._credit >= 0:
            super().process_event(event)
        elif self.protocol.state is OPEN:
            text = f"more than {limits.messages_per_s:g} messages a second"
            self.refuse("rate", text)
            self.protocol.fail(Close.TOO_MANY, text)
            self.send_data()

    def refuse(self, reason: str, text: str) -> None:
        """Count and log that something of this connection was refused."""
        self.door.refusals.add(reason, home(self.address), text)

    def opened(self) -> None:
        """The handshake is over: what was said behind the request is heard now."""
        early, self._early = self._early, None
        self.transport.resume_reading()
        if early:
            self._hear(early)

    def declined(self) -> None:
        """The library answers that this is no handshake: nothing more is heard."""
        self._is_deaf, self._early = True, None
        self.transport.resume_reading()
        self.refuse("malformed", "this is no handshake of a WebSocket")

    async def answer(self, head: Response, body: bytes) -> None:
        """Answer the request over HTTP and end the connection, when its reader has all of it."""
        self._is_deaf = self._answers = True
        self.transport.resume_reading()
        with suppress(ConnectionError):
            self.transport.write(head.serialize())
            for start in range(0, len(body), PIECE):
                await self.drain()
                if self.transport.is_closing():
                    break
                self.transport.write(memoryview(body)[start : start + PIECE])
            self.transport.set_write_buffer_limits(0)  # so that the last piece is waited for to its end
            await self.drain()
        self._answers = False
        if self._saw_eof or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()
        self._end_within(LINGER_S)
        await self.wait_closed()

    def _hear_request(self, data: bytes) -> None:
        """Take what belongs to the request; what comes behind it waits until it is known what that asks for."""
        limit = self.door.limits.request_bytes
        joined = self._tail + data
        end = joined.find(_END)
        taken = len(data) if end < 0 else end + len(_END) - len(self._tail)
        self._n_bytes, self._tail = self._n_bytes + taken, joined[-len(_END) + 1 :]
        if self._n_bytes > limit:
            self._reject(431, "request_size", f"a request may have {limit} bytes")
            return
        super().data_received(data[:taken])
        if self.request is not None:
            self._early = data[taken:]
            self.transport.pause_reading()
        elif self.protocol.handshake_exc is not None:  # the library has answered, or found nothing to answer
            too_long = isinstance(self.protocol.handshake_exc, SecurityError)
            self._reject(0, "request_size" if too_long else "malformed", "this is no request of HTTP")

    def _hear(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            super().data_received(data[start : start + SLICE])
        if self.protocol.close_expected():
            self._end_within(CLOSE_TIMEOUT_S)

    def _late(self) -> None:
        self._reject(408, "handshake", f"no request came within {self.door.limits.handshake_s:g} s")

    def _reject(self, status: int, reason: str, text: str) -> None:
        """Say why what has come by now is no request, where nothing has been said yet, and end."""
        self._is_deaf = True
        if self.door.told(self.address):
            self.refuse(reason, text)
        if not self.protocol.eof_sent:
            self.protocol.send_response(self.protocol.reject(status, f"{text}\n"))
            self.send_data()
        self._end_within(CLOSE_TIMEOUT_S)

    def _end_within(self, seconds: float) -> None:
        """Whatever the other side does, this ends."""
        self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

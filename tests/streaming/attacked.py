"""A server on a thread of its own, a subscriber that behaves well beside whatever is done to it, and raw sockets."""

import asyncio
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from typing import Any

from websockets.sync.client import connect

from data.signal import Signal
from streaming.door import Limits
from streaming.http import Answer
from streaming.server import SignalServer

EPOCH = "20250526T013000123456abcd"
LIMITS = Limits(half_open=100, handshake_s=0.5, messages=50)
ONE = Signal("macd", "v1", "600000.SH", "1m", 0, "BUY", 0.8, 10.5, "talib", 0, name="浦发", epoch=EPOCH)
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = f"GET /ws/signals HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{KEY}\r\n"
PATIENCE_S = 60
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


async def echo(query: Mapping[str, str]) -> Answer:
    return Answer.text(200, repr(dict(query)))


class Attacked:
    """The server; `well` is asked after each attack."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = self.on_loop(self._start())
        self._exit = ExitStack()
        self._subscriber = self._exit.enter_context(connect(self.server.url, proxy=None, max_size=None))
        self._subscriber.send('{"type": "subscribe"}')
        for kind in ("hello", "subscribed"):
            assert self._said()["type"] == kind
        self.seen = 0
        self.at_rest = self._held()

    def close(self) -> None:
        self._exit.close()
        self.on_loop(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> SignalServer:
        server = SignalServer("127.0.0.1", 0, epoch=EPOCH, limits=self.limits, routes={"/echo": echo})
        await server.start()
        return server

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    @property
    def refused(self) -> Counter[str]:
        return Counter(self.server.refusals.counts)

    def raw(self) -> socket.socket:
        """A connection that has said nothing yet."""
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def upgraded(self) -> socket.socket:
        """A connection behind the handshake and the greeting."""
        sock = self.raw()
        sock.sendall(UPGRADE.encode())
        got = b""
        while b'"hello"' not in got:
            got += sock.recv(4096)
        assert got.startswith(b"HTTP/1.1 101 ")
        return sock

    def well(self) -> None:
        """A scan reaches the subscriber, in its order; of others no connection, task or handle is left."""
        batch = [ONE.like({"seq": seq, "bar_end": seq}).to_dict() for seq in range(self.seen + 1, self.seen + 4)]
        self.on_loop(self.server.publish(batch))
        assert [signal["seq"] for signal in self._said()["data"]] == [signal["seq"] for signal in batch]
        self.seen += len(batch)
        end = time.monotonic() + PATIENCE_S
        while (held := self._held()) != self.at_rest:
            assert time.monotonic() < end, (held, self.at_rest)
            time.sleep(0.002)

    def _said(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._subscriber.recv(timeout=PATIENCE_S))
        return message

    def _held(self) -> dict[str, int]:
        async def tasks() -> int:
            return len(asyncio.all_tasks(self._loop))

        return {
            "connections": len(self.server.door),
            "half-open": self.server.door.half_open,
            "clients": self.server.clients,
            "addresses": len(self.server.door._count),
            "tasks": self.on_loop(tasks()),
            "handles": len(os.listdir("/proc/self/fd")),
        }


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True, length: int | None = None
) -> bytes:
    """A frame of a client; `length`: what its header says in place of the truth."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mark = 0x80 if masked else 0
    if size < 126:
        head += bytes([mark | size])
    elif size < 1 << 16:
        head += bytes([mark | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mark | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def drained(sock: socket.socket) -> bytes:
    """What the server still says until it ends the connection."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionError:
        pass
    return got


def end_of(said: bytes) -> tuple[int, str] | None:
    """The code and reason of the close frame that the server's last bytes are."""
    for start in range(len(said)):
        if said[start] == 0x88 and start + 2 + said[start + 1] == len(said) and said[start + 1] >= 2:
            return struct.unpack("!H", said[start + 2 : start + 4])[0], said[start + 4 :].decode()
    return None


def pour(sock: socket.socket, make: Callable[[], bytes], at_most: int) -> int:
    """Send until the server has had enough; how many bytes that took."""
    sent = 0
    try:
        while sent < at_most:
            data = make()
            sock.sendall(data)
            sent += len(data)
    except ConnectionError:
        return sent
    return sent


def in_pieces(sock: socket.socket, data: bytes, rng: random.Random) -> None:
    """Send in pieces of any size, until the server has had enough."""
    try:
        while data:
            size = rng.choice([1, 2, 7, 100, 5000])
            sock.sendall(data[:size])
            data = data[size:]
    except ConnectionError:
        pass

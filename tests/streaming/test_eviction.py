"""Bounded bytes a subscriber: who does not read is gone soon, with all that was held for it; who reads late is told."""

import asyncio
import gc
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from data import metrics
from data.signal import Signal
from streaming import broadcast
from streaming.closing import Close
from streaming.server import SignalServer

END = 1_748_223_000 * 10**9
EPOCH = "20250526T013000123456abcd"
MIB = 2**20
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = f"GET /ws/signals HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{KEY}\r\n"


def scan(first: int, n: int, n_bytes: int) -> list[dict[str, Any]]:
    """Signals that take so many bytes together."""
    one = Signal("macd", "v1", "600000.SH", "1m", END, "BUY", 0.8, 10.5, "talib", END, epoch=EPOCH)
    name = "x" * (n_bytes // n)
    return [one.like({"seq": seq, "name": name, "bar_end": END + seq}).to_dict() for seq in range(first, first + n)]


@asynccontextmanager
async def serving(**more: Any) -> AsyncIterator[SignalServer]:
    server = SignalServer("127.0.0.1", 0, epoch=EPOCH, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def deaf(server: SignalServer, **wanted: Any) -> AsyncIterator[socket.socket]:
    """A subscriber that has not read anything yet."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        text = json.dumps({"type": "subscribe", **wanted}).encode()
        await loop.sock_sendall(sock, UPGRADE.encode() + bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        while not any(one.live for one in server.stream.clients):
            await asyncio.sleep(0)
        yield sock


async def read_all(sock: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(sock, MIB):
        pass


def value(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_who_never_reads_is_gone_though_nothing_more_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "OVER_S", 0.05)
    monkeypatch.setattr(broadcast, "GOING_S", 0.05)

    async def test() -> None:
        before = value("mystocks_ws_evicted_total", reason="slow")
        async with serving(max_client_bytes=MIB) as server, deaf(server) as sock:
            batch = scan(1, 10, 12 * MIB)  # the system takes some of it
            gc.collect()
            tracemalloc.start()
            await server.publish(batch)
            assert value("mystocks_ws_clients") == 1
            assert value("mystocks_ws_send_buffer_bytes") > MIB
            held, _ = tracemalloc.get_traced_memory()
            async with asyncio.timeout(10):  # far below what any time-out of the keepalive is
                while server.clients:
                    await asyncio.sleep(0.01)
            given_back = held - tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert given_back > MIB
            assert value("mystocks_ws_send_buffer_bytes") == value("mystocks_ws_clients") == 0
            assert value("mystocks_ws_evicted_total", reason="slow") == before + 1
            with pytest.raises(ConnectionResetError):  # nor does the system go on sending what it has taken
                await read_all(sock)

    asyncio.run(test())


def test_nothing_is_added_to_what_is_over_the_bound() -> None:
    async def test() -> None:
        async with serving(max_client_bytes=MIB) as server, deaf(server):
            await server.publish(scan(1, 10, 12 * MIB))
            unread = server.stream.unread_bytes()
            await server.publish(scan(11, 10, 12 * MIB))
            assert unread <= server.stream.unread_bytes() < unread + 200
            assert server.dropped == 1

    asyncio.run(test())


def test_who_reads_after_all_hears_why_it_must_go_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "OVER_S", 0.0)
    monkeypatch.setattr(broadcast, "GOING_S", 60.0)

    async def test() -> None:
        async with serving(max_client_bytes=1000) as server:
            async with connect(server.url, proxy=None, max_size=None) as client:
                await client.send('{"type": "subscribe"}')
                while json.loads(await client.recv())["type"] != "subscribed":
                    pass
                client.transport.pause_reading()
                await server.publish(scan(1, 10, 40 * MIB))
                while not server.dropped:
                    await asyncio.sleep(0.01)
                await server.publish(scan(11, 2, 100))
                client.transport.resume_reading()
                message = json.loads(await client.recv())
                assert [signal["seq"] for signal in message["data"]] == list(range(1, 11))
                with pytest.raises(ConnectionClosedError) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (Close.SLOW, "slow")
            before = value("mystocks_ws_recover_total", recovered="true"), value("mystocks_ws_messages_total")
            async with connect(server.url, proxy=None) as client:
                since = {"epoch": EPOCH, "seq": message["seq"]}
                await client.send(json.dumps({"type": "subscribe", "since": since}))
                while (message := json.loads(await client.recv()))["type"] != "signals":
                    pass
                assert [signal["seq"] for signal in message["data"]] == [11, 12]
            after = value("mystocks_ws_recover_total", recovered="true"), value("mystocks_ws_messages_total")
            assert (after[0] - before[0], after[1] - before[1]) == (1, 3)

    asyncio.run(test())


def test_one_who_reads_late_but_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "OVER_S", 5.0)

    async def test() -> None:
        async with serving(max_client_bytes=1000) as server, connect(server.url, proxy=None, max_size=None) as client:
            await client.send('{"type": "subscribe"}')
            while json.loads(await client.recv())["type"] != "subscribed":
                pass
            client.transport.pause_reading()
            await server.publish(scan(1, 10, 12 * MIB))
            assert server.stream.unread_bytes() > MIB
            client.transport.resume_reading()
            assert len(json.loads(await client.recv())["data"]) == 10
            await server.publish(scan(11, 1, 10))
            assert json.loads(await client.recv())["seq"] == 11
            assert server.dropped == 0

    asyncio.run(test())

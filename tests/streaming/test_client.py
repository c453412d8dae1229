"""The subscriber of /ws/signals: it comes back, and misses nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from data.errors import FeedError, UsageError
from data.history import SignalHistory
from data.signal import Signal
from streaming.client import signals
from streaming.filter import Filter
from streaming.server import SignalServer

END = 1_748_223_000 * 10**9
QUICK = (0.01, 0.05)


def fired(bar: int, count: int = 1) -> list[Signal]:
    one = Signal("macd", "v1", "", "1m", END + bar * 60 * 10**9, "BUY", 0.8, 10.5, "talib", END)
    return [replace(one, symbol=f"{600_000 + stock}.SH") for stock in range(count)]


@asynccontextmanager
async def serving(history: SignalHistory, port: int = 0, **more: Any) -> AsyncIterator[SignalServer]:
    server = SignalServer("127.0.0.1", port, epoch=history.epoch, **({"replay": history.since} | more))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def publish(server: SignalServer, history: SignalHistory, scan: list[Signal]) -> None:
    await server.publish([signal.to_dict() for signal in history.append(scan)])


async def subscribers(server: SignalServer, count: int) -> None:
    while sum(client.live for client in server._clients) < count:
        await asyncio.sleep(0.001)


class Following:
    """A subscriber in a task of its own, and what it has seen."""

    def __init__(self, url: str, **more: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self._task = asyncio.create_task(self._follow(url, {"backoff_s": QUICK, "notice": self.notices.append} | more))

    async def _follow(self, url: str, more: dict[str, Any]) -> None:
        async with aclosing(signals(url, **more)) as stream:
            async for signal in stream:
                self.seen.append(signal)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.seen) < count and not self._task.done():
                await asyncio.sleep(0.001)
        if self._task.done():
            await self._task

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def first(url: str, **more: Any) -> dict[str, Any]:
    async with asyncio.timeout(60), aclosing(signals(url, **({"backoff_s": QUICK} | more))) as stream:
        return await anext(stream)


def test_signals_come_as_they_were_published(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history) as server:
            following = Following(
                server.url, filters=Filter.of(symbols=["sh600001"], actions=["buy"], min_confidence=0.5)
            )
            await subscribers(server, 1)
            stored = history.append(fired(0, 3))
            await server.publish([signal.to_dict() for signal in stored])
            await following.until(1)
            await following.end()
            assert following.seen == [stored[1].to_dict()]
            assert Signal.from_dict(following.seen[0]) == stored[1]
            assert following.notices == []

    run(test())


def test_it_waits_for_a_server_and_survives_its_restarts(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(SignalHistory(tmp_path)) as server:
            port, url = server.port, server.url
        following = Following(url)
        expected: list[tuple[str, int]] = []
        for run_number in range(4):
            while not following.notices:
                await asyncio.sleep(0.001)
            following.notices.clear()
            history = SignalHistory(tmp_path)
            if run_number:
                stored = history.append(fired(100 * run_number, 2))  # durable, and then it was killed
                expected += [(signal.epoch, signal.seq) for signal in stored]
                history = SignalHistory(tmp_path)
            async with serving(history, port) as server:
                await subscribers(server, 1)
                for bar in range(3):
                    await publish(server, history, fired(100 * run_number + 10 + bar, 2))
                expected += [(history.epoch, number) for number in range(1, 7)]
                await following.until(len(expected))
        await following.end()
        assert [(signal["epoch"], signal["seq"]) for signal in following.seen] == expected

    run(test())


@pytest.mark.parametrize("seed", range(2))
def test_no_gap_and_no_duplicate_over_connections_that_break(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history, ring=20) as server:
            everyone = [Following(server.url) for _ in range(4)]
            await subscribers(server, 4)
            for bar in range(60):
                await publish(server, history, fired(bar, rng.randrange(1, 6)))
                for client in list(server._clients):
                    if rng.random() < 0.1:
                        client.connection.transport.abort()
                await asyncio.sleep(0.002)
            for following in everyone:
                await following.until(server.seq)
                await following.end()
                assert [signal["seq"] for signal in following.seen] == list(range(1, server.seq + 1))
            assert sum(len(following.notices) for following in everyone) > 5

    run(test())


def test_going_on_from_a_place_of_an_earlier_day(tmp_path: Path) -> None:
    old = SignalHistory(tmp_path)
    old.append(fired(0, 5))
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history) as server:
            assert (await first(server.url, since=(old.epoch, 3)))["seq"] == 4

    run(test())


def test_a_gap_is_told(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history, replay=None) as server:
            following = Following(server.url, since=("20200101T000000000000abcd", 7))
            await subscribers(server, 1)
            await publish(server, history, fired(0))
            await following.until(1)
            await following.end()
            assert ["missed" in notice for notice in following.notices] == [True]

    run(test())


def test_without_reconnecting_the_loss_is_an_error(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history) as server:
            following = Following(server.url, reconnect=False)
            await subscribers(server, 1)
        with pytest.raises(FeedError, match="stops"):
            await following.until(1)
        with pytest.raises(FeedError, match=str(server.port)):
            await first(server.url, reconnect=False)

    run(test())


def test_what_no_retry_can_mend_is_an_error_at_once(tmp_path: Path) -> None:
    async def odd(connection: ServerConnection) -> None:
        await connection.send('{"action": "pong"}')
        await connection.wait_closed()

    async def test() -> None:
        for url in ("http://127.0.0.1/ws/signals", "127.0.0.1:8765", "ws://[", "ws://127.0.0.1:99999999/"):
            with pytest.raises(UsageError, match="must look like"):
                await first(url)
        async with serving(SignalHistory(tmp_path)) as server:
            with pytest.raises(FeedError, match="404"):
                await first(server.url + "/x")
            with pytest.raises(UsageError, match="999"):
                await first(server.url, filters=Filter(symbols=frozenset({"999"})))
        async with serve(odd, "127.0.0.1", 0, compression=None) as other:
            port = next(iter(other.sockets)).getsockname()[1]
            with pytest.raises(FeedError, match="protocol"):
                await first(f"ws://127.0.0.1:{port}/ws/signals")

    run(test())


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    history = SignalHistory(tmp_path)
    history.append(fired(0))
    later = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(later) as server:
            assert (await first(server.url, since=(history.epoch, 0), reconnect=False))["seq"] == 1

    run(test())


def test_ending_it_closes_the_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(SignalHistory(tmp_path)) as server:
            following = Following(server.url)
            await subscribers(server, 1)
            await following.end()
            while server.clients:
                await asyncio.sleep(0.001)

    run(test())

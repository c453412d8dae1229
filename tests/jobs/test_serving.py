"""Serving what another process scans: whatever the bus brings, a subscriber has every signal once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from data.history import SignalHistory
from data.schema import SIGNAL
from data.signal import Signal, to_table
from jobs.stages.serving import Serving
from streaming.bus import SIGNALS, EventBus
from streaming.server import SignalServer

END = 1_748_223_000 * 10**9
MINUTE = 60 * 10**9
ONE = Signal("macd", "v1", "600000.SH", "1m", END, "BUY", 0.8, 10.5, "talib", END, {"a": 1.5})


class Scan:
    """A scan in another process, as far as it is seen from here."""

    def __init__(self, root: Path, bus: EventBus) -> None:
        self.root, self.bus = root, bus
        self.start()

    def start(self) -> None:
        """Also after a kill."""
        self.history = SignalHistory(self.root)

    def keep(self, *bars: int) -> list[Signal]:
        return self.history.append([replace(ONE, bar_end=END + bar * MINUTE) for bar in bars])

    async def say(self, signals: list[Signal]) -> None:
        batches = to_table(signals).combine_chunks().to_batches()
        await self.bus.publish(SIGNALS, batches[0] if batches else pa.RecordBatch.from_pylist([], schema=SIGNAL))


@asynccontextmanager
async def served(root: Path) -> AsyncIterator[tuple[Scan, SignalServer]]:
    bus, history = EventBus(), SignalHistory(root)
    epoch, seq = history.place()
    server = SignalServer("127.0.0.1", 0, epoch=epoch, replay=history.since)
    server.begin(epoch, seq)
    await server.start()
    stage = asyncio.create_task(Serving(bus, server, history=history).run())
    try:
        yield Scan(root, bus), server
    finally:
        await bus.close()
        await stage
        await server.stop()


@asynccontextmanager
async def subscribed(server: SignalServer, since: tuple[str, int] | None = None) -> AsyncIterator[ClientConnection]:
    async with connect(server.url, proxy=None) as client:
        wanted = {} if since is None else {"since": {"epoch": since[0], "seq": since[1]}}
        await client.send(json.dumps({"type": "subscribe", **wanted}))
        while json.loads(await client.recv())["type"] != "subscribed":
            pass
        yield client


async def bar_numbers(client: ClientConnection, n: int) -> list[int]:
    """Which bars the next n signals are of."""
    got: list[str] = []
    async with asyncio.timeout(10):
        while len(got) < n:
            got += [signal["bar_end"] for signal in json.loads(await client.recv())["data"]]
    return [int(pa.scalar(text).cast(pa.timestamp("ns", "UTC")).value - END) // MINUTE for text in got]


def test_what_the_bus_does_not_bring_comes_from_the_history_once_and_in_order(tmp_path: Path) -> None:
    async def run() -> None:
        SignalHistory(tmp_path).append([ONE])
        async with served(tmp_path) as (scan, server):
            assert server.seq == 1
            async with subscribed(server) as client:
                first = scan.keep(1, 2)
                await scan.say(first)
                await scan.say(first)  # again, as a bus may that delivers at least once
                assert await bar_numbers(client, 2) == [1, 2]
                scan.keep(3)  # it was killed before it could publish
                scan.start()
                await scan.say([])
                assert await bar_numbers(client, 1) == [3]
                scan.keep(4)
                await scan.say(scan.keep(5))
                scan.start()
                await scan.say(scan.keep(6, 7))
                await scan.say(first)
                assert await bar_numbers(client, 4) == [4, 5, 6, 7]
            place = server.epoch, server.seq
            await scan.say(scan.keep(8))
            async with subscribed(server, since=place) as client:
                assert await bar_numbers(client, 1) == [8]

    asyncio.run(run())


def test_who_served_while_nobody_scanned_yet_serves_the_first_signal(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (scan, server), subscribed(server) as client:
            scan.start()
            await scan.say(scan.keep(1))
            assert await bar_numbers(client, 1) == [1]

    asyncio.run(run())


def test_where_the_history_has_lost_signals_subscribers_are_cut_off_and_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (scan, server):
            async with subscribed(server) as client:
                await scan.say(scan.keep(1))
                await bar_numbers(client, 1)
                place = server.epoch, server.seq
                scan.keep(2)
                for file in tmp_path.glob("*-2-2.parquet"):
                    file.unlink()
                await scan.say(scan.keep(3))
                with pytest.raises(ConnectionClosed):
                    await bar_numbers(client, 1)
            assert server.seq == 3
            async with connect(server.url, proxy=None) as client:
                await client.send(json.dumps({"type": "subscribe", "since": {"epoch": place[0], "seq": place[1]}}))
                answers = [json.loads(await client.recv()) for _ in range(2)]
                assert answers[1]["data"]["recovered"] is False

    asyncio.run(run())

"""From `publish` to the batch in a reader's hands: over Redis, between two processes, and within one.

    python benchmarks/bus.py [--events 500] [--pause-ms 20]

A batch of 5,500 quotes and one of 5,000 bars are published again and again, with a pause between them. A reader takes
the time when it has the decoded batch; its values must be those that were sent. Starts a redis-server of its own.
"""

import argparse
import asyncio
import multiprocessing
import platform
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.simulator import SimulatedMarket
from streaming.bus import EventBus, bar_topic, tick_topic
from streaming.ports import Bus, Subscription
from streaming.redis_bus import RedisBus
from streaming.redis_wire import to_ipc

WARM = 20
"""Events that are not counted."""


def batches() -> dict[str, tuple[str, pa.RecordBatch]]:
    """What is measured -> topic and batch."""
    market = SimulatedMarket(5500, 1)
    session = market.sessions[250]
    ticks = next(batch for k, batch in enumerate(market.snapshots(session)) if k == 50)
    bars = SimulatedMarket(5000, 1).bars("1m", session).combine_chunks().to_batches()[0].slice(0, 5000)
    return {"5,500 quotes": (tick_topic(), ticks), "5,000 bars": (bar_topic("1m"), bars)}


async def read(subscription: Subscription, wanted: pa.RecordBatch, n_events: int) -> list[float]:
    """How long each took, in ms."""
    took: list[float] = []
    async for event in subscription:
        took.append((time.monotonic_ns() - int(event.batch.schema.metadata[b"sent"])) / 1e6)
        if len(took) == 1:
            assert event.batch.equals(wanted)
        if len(took) == n_events:
            return took
    raise RuntimeError("the bus has ended")


async def publish(bus: Bus, topic: str, batch: pa.RecordBatch, n_events: int, pause_s: float) -> None:
    """Publish with a pause after each."""
    for _ in range(n_events):
        await bus.publish(topic, batch.replace_schema_metadata({"sent": str(time.monotonic_ns())}))
        await asyncio.sleep(pause_s)


def reader(url: str, name: str, n_events: int, out: Connection) -> None:
    """The reading process."""

    async def run() -> None:
        topic, batch = batches()[name]
        bus = await RedisBus.connect(url)
        subscription = bus.subscribe(topic)
        await subscription.entered.wait()
        out.send(None)
        out.send(await read(subscription, batch, n_events))
        await bus.close()

    asyncio.run(run())


def over_redis(url: str, name: str, n_events: int, pause_s: float) -> list[float]:
    """From this process to another."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=reader, args=(url, name, n_events, theirs))
    process.start()
    ours.recv()

    async def run() -> None:
        bus = await RedisBus.connect(url)
        await publish(bus, *batches()[name], n_events, pause_s)
        await bus.close()

    asyncio.run(run())
    took: list[float] = ours.recv()
    process.join()
    return took


def in_process(name: str, n_events: int, pause_s: float) -> list[float]:
    """Between two tasks."""

    async def run() -> list[float]:
        topic, batch = batches()[name]
        bus = EventBus()
        reading = asyncio.create_task(read(bus.subscribe(topic), batch, n_events))
        await publish(bus, topic, batch, n_events, pause_s)
        return await reading

    return asyncio.run(run())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--pause-ms", type=float, default=20.0)
    given = parser.parse_args()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([*command, "--dir", str(Path(folder))], stdout=subprocess.DEVNULL)
        try:
            print(f"{given.events} events, {given.pause_ms:g} ms apart; Python {platform.python_version()}")
            for name, (_, batch) in batches().items():
                n_events, pause_s = given.events + WARM, given.pause_ms / 1e3
                for bus, took in (
                    ("in process", in_process(name, n_events, pause_s)),
                    ("over Redis", over_redis(f"redis://127.0.0.1:{port}/0", name, n_events, pause_s)),
                ):
                    p50, p99 = np.percentile(took[WARM:], [50, 99])
                    print(f"{name}, {to_ipc(batch).size / 1e6:.2f} MB, {bus}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        finally:
            server.kill()
            server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every subscriber must have, whatever dies: an oracle of each subscriber's own, against the history.

    python -m benchmarks.oracle [--world light|real|roles] [--kills 20] [--subscribers 40] [--seed 1]

The service (`benchmarks/mortal.py`) is killed by SIGKILL, each time in the middle of a broadcast: when a subscriber,
drawn by the seed, has just read a message. Subscribers have different filters. Half are the real client; it is ended
and begun anew at random. The others are plain connections: some break off and come back where they were or further
back, some do not read for a while, and in a storm all break off at once.

Of every subscriber: each signal of its filter, as the history has it in the end, came at least once over the wire, and
after dropping ids that it holds exactly once and in order; nothing else came; whenever an id came it had the content
that the history has, to the byte; and it was in the history before it came. Of the history: each epoch's first file
says how far the one before had come. Exit code 1 where anything is not so.
"""

import argparse
import asyncio
import itertools
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.mortal import STRATEGIES, WORLDS, Mortal
from data.history import SignalHistory
from data.signal import ACTIONS, encode, from_table
from data.signal_files import SignalFolder, about
from streaming.client import signals
from streaming.filter import Filter

Place = tuple[str, int]
BEFORE_ALL = ("00000000T0000000000000000", 0)
PATIENCE_S = 120.0
STORM = 8
"""Every so many kills everybody breaks off, too."""


@dataclass
class Subscriber:
    """One subscriber, and what it has had: `wire` every signal that came, as it came; `held` without those it had."""

    wanted: Filter
    kind: str
    rng: random.Random
    wire: list[tuple[Place, str, bytes]] = field(default_factory=list)
    held: dict[str, Place] = field(default_factory=dict)
    connections: int = 0

    def take(self, signal: dict[str, Any]) -> None:
        """A signal, as it came."""
        self.wire.append(((signal["epoch"], signal["seq"]), signal["id"], encode(signal)))
        self.held.setdefault(signal["id"], self.wire[-1][0])

    @property
    def place(self) -> Place:
        """Where it goes on: behind the newest signal that it has, or for some kinds a few before."""
        back = self.rng.choice((1, 1, 7, 40)) if self.kind == "back" else 1
        return self.wire[-min(back, len(self.wire))][0] if self.wire else BEFORE_ALL


class Watched:
    """What all subscribers together have seen: `faults` is what should not be."""

    def __init__(self, service: Mortal, rng: random.Random) -> None:
        self.service, self.rng = service, rng
        self.faults: list[str] = []
        self.messages = asyncio.Event()
        self._history = SignalHistory(service.signals)
        self._durable = BEFORE_ALL

    def came(self, place: Place) -> None:
        """A message came: is it durable?"""
        self.messages.set()
        if place > self._durable and place > (durable := self._history.place()):
            self.faults.append(f"{place} was sent, and the history has only {durable}")
        self._durable = max(self._durable, place)

    def lost(self, text: str) -> None:
        """The real client says that it lost signals."""
        if "were missed" in text:
            self.faults.append(text)


async def follow(subscriber: Subscriber, watched: Watched) -> None:
    """Read and break off and come back, for ever."""
    while True:
        subscriber.connections += 1
        reads = subscriber.rng.randrange(1, 200)
        with suppress(OSError, WebSocketException):
            if subscriber.kind == "client":
                async with aclosing(through_client(subscriber, watched, reads)) as stream:
                    async for signal in stream:
                        subscriber.take(signal)
            else:
                await through_socket(subscriber, watched, reads)
        await asyncio.sleep(subscriber.rng.random() * 0.05)


async def through_client(subscriber: Subscriber, watched: Watched, reads: int) -> AsyncGenerator[dict[str, Any]]:
    """So many signals by the client that users have."""
    place = subscriber.place
    options: dict[str, Any] = {"filters": subscriber.wanted, "backoff_s": (0.02, 0.2), "notice": watched.lost}
    async with aclosing(signals(watched.service.url, since=place, **options)) as stream:
        async for signal in stream:
            watched.came((signal["epoch"], signal["seq"]))
            yield signal
            if (reads := reads - 1) == 0:
                return


async def through_socket(subscriber: Subscriber, watched: Watched, reads: int) -> None:
    """So many messages over a connection that is then broken off."""
    epoch, seq = subscriber.place
    options: dict[str, Any] = {"proxy": None, "max_size": None, "compression": None, "close_timeout": 0.1}
    if subscriber.kind == "sleepy":
        options["sock"] = await narrow(watched.service.port)
    async with connect(watched.service.url, **options) as connection:
        since = {"epoch": epoch, "seq": seq}
        await connection.send(json.dumps({"type": "subscribe", **subscriber.wanted.to_dict(), "since": since}))
        async for text in connection:
            message = json.loads(text)
            if message["type"] == "subscribed" and not message["data"]["recovered"]:
                watched.faults.append(f"not recovered from {since}: {message['data']['reason']}")
            if message["type"] != "signals":
                continue
            watched.came((message["epoch"], message["seq"]))
            for signal in message["data"]:
                subscriber.take(signal)
            if subscriber.kind == "sleepy" and subscriber.rng.random() < 0.2:
                connection.transport.pause_reading()
                await asyncio.sleep(1.0)
                connection.transport.resume_reading()
            if (reads := reads - 1) == 0:
                connection.transport.abort()
                return


async def narrow(port: int) -> socket.socket:
    """A connection whose other end soon has to wait."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def somebody(number: int, symbols: list[str], seed: int) -> Subscriber:
    """A subscriber of a kind and with a filter of its own."""
    rng = random.Random(f"{seed} {number}")
    wanted: dict[str, Any] = {}
    if rng.random() < 0.6:
        wanted["symbols"] = rng.sample(symbols, rng.randrange(3, 20))
    if rng.random() < 0.4:
        wanted["strategies"] = rng.sample(STRATEGIES, 2)
    if rng.random() < 0.3:
        wanted["actions"] = rng.sample(ACTIONS, 2)
    if rng.random() < 0.3:
        wanted["min_confidence"] = 0.5
    kind = ("client", "back", "client", "sleepy")[number % 4]
    return Subscriber(Filter.of(**({} if number < 4 else wanted)), kind, rng)


def verdict(subscriber: Subscriber, kept: dict[str, tuple[Place, dict[str, Any], bytes]]) -> Counter[str]:
    """What one subscriber had that it should not, or lacks."""
    due = [(place, name) for name, (place, row, _) in kept.items() if subscriber.wanted.wants(row)]
    faults: Counter[str] = Counter()
    for place, name, content in subscriber.wire:
        if name not in kept:
            faults["sent and not in the history"] += 1
        elif (place, content) != (kept[name][0], kept[name][2]):
            faults["sent with other content"] += 1
    first_held = [(place, name) for name, place in subscriber.held.items()]
    faults["lacking"] = len(set(due) - set(first_held))
    faults["not asked for"] = len(set(first_held) - set(due))
    faults["out of order"] = int(first_held != sorted(first_held))
    return +faults


def epochs_join(root: Path) -> list[str]:
    """Epochs whose first file does not say how far the one before had come."""
    folder = SignalFolder(root)
    batches = sorted((batch, file.path) for file in folder.files() for batch in folder.batches(file))
    found = []
    for (before, _), (batch, path) in itertools.pairwise(batches):
        if batch.epoch != before.epoch and about(path)["previous"].get(batch.epoch) != [before.epoch, before.last]:
            found.append(f"{path.name} does not say that {before.epoch} ended with {before.last}")
    return found


async def judge(service: Mortal, given: argparse.Namespace) -> tuple[list[str], str]:
    """Run, kill, and compare; the faults, and what was done."""
    rng = random.Random(given.seed)
    watched = Watched(service, rng)
    symbols = symbols_of(given.world)
    crowd = [somebody(number, symbols, given.seed) for number in range(given.subscribers)]
    readers = {number: asyncio.create_task(follow(one, watched)) for number, one in enumerate(crowd)}
    kills: Counter[str] = Counter()
    for number, point in enumerate([*given.dies, *[""] * given.kills]):
        service.start(point, after=rng.randrange(1, 6))
        if point:
            await asyncio.to_thread(service.wait)
            kills[point] += 1
            continue
        watched.messages.clear()
        for _ in range(rng.randrange(1, given.messages) * given.subscribers):
            async with asyncio.timeout(PATIENCE_S):
                await watched.messages.wait()
            watched.messages.clear()
        service.check()
        kills[service.kill(rng)] += 1
        if number % STORM == STORM - 1:
            for place, reader in readers.items():
                reader.cancel()
                readers[place] = asyncio.create_task(follow(crowd[place], watched))
    history = SignalHistory(service.signals)
    former = history.place()[0]
    service.start()
    async with asyncio.timeout(PATIENCE_S):
        while history.place()[0] == former and given.world != "roles":  # there the scan may have lived on
            watched.messages.clear()
            await watched.messages.wait()
    await asyncio.to_thread(service.quiet)
    until, newest, due = time.monotonic() + PATIENCE_S, BEFORE_ALL, [sys.maxsize] * len(crowd)
    while any(len(one.held) < n for one, n in zip(crowd, due, strict=True)) and time.monotonic() < until:
        if newest != (newest := history.place()):
            rows = [(s, s.to_dict()) for s in from_table(history.query(newest_first=False))]
            due = [sum(one.wanted.wants(row) for _, row in rows) for one in crowd]
        await asyncio.sleep(0.2)
        for reader in readers.values():
            if reader.done():
                reader.result()
    for reader in readers.values():
        reader.cancel()
    await asyncio.gather(*readers.values(), return_exceptions=True)
    kept = {s.id: ((s.epoch, s.seq), row, encode(row)) for s, row in rows}
    faults = [f"{n} {what} ({one.kind}, {one.wanted})" for one in crowd for what, n in verdict(one, kept).items()]
    faults += watched.faults + epochs_join(service.signals)
    if len(rows) != len(kept):
        faults.append("an id is in the history twice")
    on_wire, n_epochs = sum(len(one.wire) for one in crowd), len({s.epoch for s, _ in rows})
    done = (
        f"{given.world}, seed {given.seed}: {dict(kills)} killed, {len(kept)} signals of {n_epochs} epochs,"
        f" {len(crowd)} subscribers on {sum(one.connections for one in crowd)} connections tried,"
        f" {service.cut_off} cut off, {on_wire} signals on the wire,"
        f" {on_wire - sum(len({name for _, name, _ in one.wire}) for one in crowd)} of them again"
    )
    return faults, done


def symbols_of(world: str) -> list[str]:
    """Those that signals are about."""
    if world == "light":
        return [f"{600_000 + number}.SH" for number in range(40)]
    from data.simulator import SimulatedMarket

    return list(SimulatedMarket(40, 7).symbols)


def run(given: argparse.Namespace) -> tuple[list[str], str]:
    """In a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        service = Mortal(given.world, Path(folder), given.seed)
        try:
            return asyncio.run(judge(service, given))
        finally:
            service.close()


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, default="light")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--dies", action="append", default=[], choices=("kept", "keeping"), help="of the world real")
    parser.add_argument("--subscribers", type=int, default=40)
    parser.add_argument("--messages", type=int, default=20, help="a subscriber has fewer from one kill to the next")
    parser.add_argument("--seed", type=int, default=1)
    faults, done = run(parser.parse_args())
    print(f"{done}: {'; '.join(faults[:20]) or 'all as it should be'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

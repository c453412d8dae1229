"""RedisQueue: one subscription to a bus over Redis.

Its entries are read ahead into a queue of this process. One with the policy BLOCK acknowledges an entry when its reader
has taken the next event; a reader that dies before is given it again. One that may lose events acknowledges at once.

A lasting subscription has one reader at a time: who holds its lease. The next one waits until the lease is let go, or
has run out because its holder died, takes over what was not acknowledged, and only then reads on: events keep their
order.
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from data.errors import BusError
from streaming.bus import Queue, SubscriberStats
from streaming.ports import Event, Policy
from streaming.redis_link import RedisLink, RefusalError
from streaming.redis_wire import (
    KEEP,
    LOOK,
    RELEASE,
    Group,
    Keys,
    Place,
    Reader,
    enter,
    from_ipc,
    identity,
)  # fmt: skip
from streaming.routes import Route

log = logging.getLogger(__name__)

T = TypeVar("T")
BLOCK_MS = 2000
AHEAD = 64
"""Entries that one read brings at most."""
REMEMBERED = 4096
"""Events by which duplicates are known."""
LEAVE_S = 2.0
"""How long the end of a subscription waits for Redis."""


class _Entry(NamedTuple):
    kind: str
    place: Place
    again: bool
    """Whether it was delivered before."""
    fields: dict[bytes, bytes] | None
    """None where it was trimmed."""


class RedisQueue:
    """A subscription over Redis; fulfils `streaming.ports.Subscription`. Read by one reader.

    `entered` is set once publishers know of it, or it has failed: what is published later is not missed. Iterating
    raises BusError where Redis refuses for good, or where somebody else has taken over.
    """

    def __init__(
        self, link: RedisLink, keys: Keys, reader: Reader, *, policy: Policy, size: int, name: str, lease_s: float
    ) -> None:
        self.name, self.pattern = name, reader.pattern
        self.errors = 0
        self.entered = asyncio.Event()
        self._link, self._keys, self._reader, self._blocks = link, keys, reader, policy is Policy.BLOCK
        self._size, self._lease_s = size, lease_s
        self._me = secrets.token_hex(8)
        self._queue = Queue(reader.pattern, policy, size, name, lambda queue: None)
        self._routes: dict[str, Route[RedisQueue]] = {}
        self._at: dict[str, Place] = {}
        """The last entry read, by stream."""
        self._from: dict[str, Place] = {}
        """Streams of which delivered entries are to be read once more, from behind a place."""
        self._hand: deque[_Entry] = deque()
        """Read, and waiting for room."""
        self._taken: deque[tuple[str, Place, bool]] = deque()
        """In the queue and not acknowledged, with what goes together with it; whether it is an event."""
        self._acks: dict[str, list[Place]] = {}
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self._lost = self._duplicates = 0
        self._closing, self._over = asyncio.Event(), asyncio.Event()
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._fault: Exception | None = None
        self._reconnects = link.reconnects
        self.task = asyncio.create_task(self._run(), name=f"redis reader {name}")

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events, oldest first, until the subscription has ended and nothing is left."""
        async for event in self._queue:
            yield event
            self._done()
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Leave the bus; what is queued can still be read. What a lasting subscription leaves unread waits in Redis."""
        self._closing.set()

    def end(self) -> None:
        """Have nothing to do with the bus: it is closed."""
        self.task.cancel()
        self._queue.end()

    async def left(self) -> None:
        """Leave, acknowledge what was read, and return when Redis knows; or does not answer."""
        self._closing.set()
        self._over.set()
        self._room.set()
        await asyncio.wait([self.task], timeout=LEAVE_S)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def stats(self) -> SubscriberStats:
        """This subscriber in figures; `lost` are also entries that Redis let go before they were read."""
        stats = self._queue.stats()
        return replace(stats, lost=stats.lost + self._lost, errors=self.errors, duplicates=self._duplicates)

    async def _run(self) -> None:
        beside: list[asyncio.Task[None]] = []
        try:
            # What was published before it was closed is its own; of a lasting one it waits in Redis.
            if await (self._until_closing(self._enter()) if self._reader.lasting else self._enter()) is not None:
                beside = [asyncio.create_task(self._hold()), asyncio.create_task(self._acknowledge())]
                await self._read()
            self._queue.end()
            with suppress(TimeoutError):
                await self._leave()
        except Exception as error:
            # Its reader is told; who publishes and nobody reads would never know.
            self._fault = error
            log.error("the subscription %s has ended", self.name, exc_info=error)
        finally:
            self.entered.set()
            self._queue.end()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _enter(self) -> bool:
        """Make the groups, take the lease, and take over what a reader before had not acknowledged."""
        reader, key = self._reader, self._keys.lease(self._reader.group)
        if not reader.lasting:
            await self._link.script(KEEP, (key,), self._me, self._lease_ms)
        groups = await enter(self._link, self._keys, reader, {})
        self._at = {kind: group.delivered for kind, group in groups.items()}
        self.entered.set()
        told = False
        while not await self._link.do("SET", key, self._me, "PX", self._lease_ms, *(["NX"] if reader.lasting else [])):
            if not told:
                log.warning("%s waits for its place at the bus: another process reads as %s", self.name, reader.group)
                told = True
            await asyncio.sleep(self._lease_s / 20)
        groups = await enter(self._link, self._keys, reader, self._at)
        for kind, group in groups.items():
            self._at[kind] = group.delivered
            if group.pending:
                try:
                    await self._claim(kind, group)
                except RefusalError as refused:
                    if not refused.forgotten:
                        raise
        return True

    async def _claim(self, kind: str, group: Group) -> None:
        """Take over what others have not acknowledged; they are gone."""
        start, claimed = "0-0", 0
        command = ("XAUTOCLAIM", self._keys.stream(kind), group.name, self._me, 0)
        while ids := (await self._link.do(*command, start, "COUNT", 1000, "JUSTID"))[1]:
            claimed += len(ids)
            last = Place.of(ids[-1])
            start = f"{last.epoch}-{last.n + 1}"
        self._lost += group.pending - claimed  # trimmed meanwhile
        for row in await self._link.do("XINFO", "CONSUMERS", self._keys.stream(kind), group.name):
            if (who := dict(zip(row[::2], row[1::2], strict=True))[b"name"]) != self._me.encode():
                await self._link.do("XGROUP", "DELCONSUMER", self._keys.stream(kind), group.name, who)
        log.info("%s takes over %d events that were not acknowledged", self.name, claimed)
        self._from[kind] = Place(0, 0)

    async def _read(self) -> None:
        """Until the subscription is closed; one that does not last then has what is there and fits its queue."""
        while not self._closing.is_set():
            if self._take_from_hand():
                await self._until_closing(self._room.wait())
                continue
            if (entries := await self._until_closing(self._fetch(BLOCK_MS))) is not None:
                self._hand.extend(entries)
            elif not self._fault:
                self._look_back()  # an answer may have been on its way
        if self._fault is not None:
            raise self._fault
        if self._reader.lasting or not self._reader.kinds:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                while not self._take_from_hand():
                    again = bool(self._from)
                    if not (entries := await self._fetch(0)) and not again:
                        return
                    self._hand.extend(entries)

    async def _fetch(self, block_ms: int) -> list[_Entry]:
        """The next entries, once there are some: first those that were delivered before."""
        if not self._reader.kinds:
            await self._closing.wait()
            return []
        if self._reconnects != self._link.reconnects:
            self._reconnects = self._link.reconnects
            self._look_back()
        again = bool(self._from)
        ids = {kind: str(at) for kind, at in self._from.items()} or dict.fromkeys(self._reader.kinds, ">")
        count = max(1, (self._space() if self._blocks else AHEAD) // len(ids))
        command = ["XREADGROUP", "GROUP", self._reader.group, self._me, "COUNT", count]
        command += ["BLOCK", block_ms] if block_ms else []
        try:
            answer = await self._link.do(*command, "STREAMS", *map(self._keys.stream, ids), *ids.values())
        except RefusalError as refused:
            if not refused.forgotten:
                raise
            # Redis has forgotten the group, or somebody took this reader for dead: it goes on where it was.
            await enter(self._link, self._keys, self._reader, self._at)
            return []
        entries = []
        found = {key.decode(): rows for key, rows in answer or ()}
        for kind in ids:
            rows = found.get(self._keys.stream(kind), [])
            for place, fields in rows:
                pairs = None if fields is None else dict(zip(fields[::2], fields[1::2], strict=True))
                entries.append(_Entry(kind, Place.of(place), again, pairs))
            if again and rows:
                self._from[kind] = entries[-1].place
            elif again:
                del self._from[kind]
        return entries

    def _take_from_hand(self) -> bool:
        """Queue what was read; whether some of it has no room."""
        while not self._blocks or self._space():
            if not self._hand:
                return False
            self._take(self._hand.popleft())
        self._room.clear()
        return True

    def _take(self, entry: _Entry) -> None:
        kind, place, again, fields = entry
        if not again:
            if self._at[kind].epoch in (0, place.epoch):
                self._lost += place.n - self._at[kind].n - 1
            self._at[kind] = place
        event = None if fields is None else self._event(fields)
        self._lost += fields is None
        if not self._blocks:
            self._acks.setdefault(kind, []).append(place)
            self._wake.set()
        else:
            self._taken.append((kind, place, event is not None))
            if event is None and len(self._taken) == 1:
                self._acknowledge_next()
        if event is not None:
            self._queue.offer(event)

    def _event(self, fields: dict[bytes, bytes]) -> Event | None:
        """What this subscriber gets of an entry; None for nothing new."""
        topic = fields[b"topic"].decode()
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = Route.of(topic, [self])
        if not route.whole and not route.parts:
            return None
        batch = from_ipc(fields[b"batch"])
        name = identity(batch)
        sent = f"{fields[b'by'].decode()} {fields[b'no'].decode()}"
        if not self._is_new(sent, f"{topic} {name}" if name else sent):
            self._duplicates += 1
            return None
        found = route.events(batch)
        return found[0][1] if found else None

    def _is_new(self, *names: str) -> bool:
        """Whether none of an event's names was seen; from now on they were."""
        if not self._seen.isdisjoint(names):
            return False
        for name in dict.fromkeys(names):
            self._seen.add(name)
            self._order.append(name)
        while len(self._order) > 2 * REMEMBERED:
            self._seen.discard(self._order.popleft())
        return True

    def _done(self) -> None:
        """The reader has taken the next event: the one before is done."""
        self._room.set()
        if self._blocks:
            self._acknowledge_next()

    def _acknowledge_next(self) -> None:
        """Acknowledge one event and what came behind it and is none."""
        while self._taken:
            kind, place, _ = self._taken.popleft()
            self._acks.setdefault(kind, []).append(place)
            if self._taken and self._taken[0][2]:
                break
        self._wake.set()

    async def _acknowledge(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def _flush(self) -> None:
        while self._acks:
            kind, places = self._acks.popitem()
            await self._link.do("XACK", self._keys.stream(kind), self._reader.group, *map(str, places))

    async def _hold(self) -> None:
        """Keep the lease."""
        while await self._link.script(KEEP, (self._keys.lease(self._reader.group),), self._me, self._lease_ms):
            await asyncio.sleep(self._lease_s / 3)
        self._fault = BusError(
            f"another process reads as {self._reader.group} at {self._link}: this one was silent for {self._lease_s:g}"
            " s and was taken for dead. Only one may read: end one of the two"
        )
        self._closing.set()

    async def _leave(self) -> None:
        """Let go: of the lease, once all is acknowledged that is ever going to be; or of the groups."""
        while self._reader.lasting and self._taken and not self._over.is_set():
            self._room.clear()
            await self._room.wait()
        async with asyncio.timeout(LEAVE_S):
            if self._reader.lasting:
                await self._flush()
            else:
                await self._link.do("HDEL", self._keys.readers, self._reader.group)
                for kind, at in self._at.items():
                    _, n, _ = await self._link.script(LOOK, self._keys.pair(kind))
                    self._lost += max(int(n) - at.n, 0)
                    with suppress(RefusalError):  # there is nothing to destroy
                        await self._link.do("XGROUP", "DESTROY", self._keys.stream(kind), self._reader.group)
                self._lost += len(self._hand)
            await self._link.script(RELEASE, (self._keys.lease(self._reader.group),), self._me)

    async def _until_closing(self, doing: Coroutine[Any, Any, T]) -> T | None:
        """What it gives, or None where the subscription is closed first."""
        work, closing = asyncio.create_task(doing), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({work, closing}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for task in (work, closing):
                task.cancel()
            await asyncio.gather(work, closing, return_exceptions=True)

    def _look_back(self) -> None:
        """Read once more what was delivered and is not acknowledged; what is known of it is left out."""
        self._from = dict.fromkeys(self._reader.kinds, Place(0, 0))

    def _space(self) -> int:
        return self._size - self._queue.stats().depth

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

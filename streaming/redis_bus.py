"""RedisBus: the topics of `streaming.bus` between processes, over Redis Streams.

Delivery is at least once: what was published is in Redis, and what a lasting subscription has not acknowledged is in
the publisher's memory too, which publishes it again where Redis comes back without it. A reader leaves out what it has
had, so that nothing is twice while it lives. Events of one kind (`market.tick`, `market.bar`, `signal.alert`) come in
the order in which they were published.

A subscription with a name and the policy BLOCK is lasting: it is the same one whatever process reads it, and goes on
where the reader before left off. All others end with their process. What no subscription wants is counted and not sent.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pyarrow as pa

from streaming.bus import BusStats, Listening
from streaming.ports import Policy
from streaming.redis_link import RedisLink, RefusalError
from streaming.redis_reader import RedisQueue
from streaming.redis_wire import (
    ADD,
    BEGIN,
    KINDS,
    LOOK,
    Group,
    Keys,
    Place,
    Reader,
    enter,
    kind_of,
    to_ipc,
)  # fmt: skip
from streaming.routes import Route

log = logging.getLogger(__name__)

GUARD_S = 1.0
"""How often a publisher looks whether Redis still has what is not acknowledged."""
SWEEP_S = 30.0
PATIENCE_S = 5.0
"""A publisher that has waited for so long says for whom."""


class RedisBus(Listening[RedisQueue]):
    """The bus over one Redis; fulfils `streaming.ports.Bus`. Open it with `connect`.

    `published` counts what this process has published, `unheard` what of it nobody wanted. `resent`: events published
    again because Redis had forgotten them. `reconnects`: how often Redis was away.
    """

    def __init__(self, link: RedisLink, name: str, *, backlog: int, lease_s: float) -> None:
        super().__init__()
        self._link, self._keys, self._backlog, self._lease_s = link, Keys(name), backlog, lease_s
        self._out = {kind: _Outgoing(link, self._keys, kind) for kind in KINDS}
        self._queues: list[RedisQueue] = []
        self._lasting: dict[str, Reader] = {}
        """Those that publishers have heard of; they never go."""
        self._routes: dict[str, tuple[frozenset[Reader], Route[Reader]]] = {}
        self._published: Counter[str] = Counter()
        self._unheard: Counter[str] = Counter()
        self._closed = False
        self._swept = time.monotonic()
        self._guard = asyncio.create_task(self._watch(), name="redis guard")

    @classmethod
    async def connect(cls, url: str, name: str = "market", *, backlog: int = 256, lease_s: float = 2.0) -> "RedisBus":
        """The bus called `name` at `url`, such as redis://localhost:6379/0; buses of other names know nothing of it.

        `backlog`: how many entries of a stream a lasting subscription may leave unread before publishers wait.
        `lease_s`: a reader that is silent for so long is taken for dead. Raises UsageError for a URL that is none, and
        BusError, which says what to do, where no Redis answers.
        """
        link = RedisLink(url)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return cls(link, name, backlog=backlog, lease_s=lease_s)

    def __str__(self) -> str:
        return f"{self._link}, {self._keys.name}"

    @property
    def reconnects(self) -> int:
        """How often Redis was away and came back."""
        return self._link.reconnects

    @property
    def away(self) -> bool:
        """Whether Redis did not answer last."""
        return self._link.away

    @property
    def resent(self) -> int:
        """Events published again because Redis had forgotten them."""
        return sum(out.resent for out in self._out.values())

    async def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        """Hand a batch to every subscription, of whatever process, whose pattern fits.

        Waits where one with the policy BLOCK has too much unread, and while there is no Redis. Raises UsageError for a
        topic of no kind, BusError where Redis refuses.
        """
        out = self._out[kind_of(topic)]
        self._published[topic] += 1
        async with out.turn:
            for queue in self._queues:
                await queue.entered.wait()
            readers = frozenset[Reader]() if self._closed else await self._readers(out.kind)
            known, route = self._routes.get(topic, (None, None))
            if route is None or known != readers:
                route = Route.of(topic, readers)
                self._routes[topic] = readers, route
            if not (heard := [reader for reader, _ in route.events(batch)]):
                self._unheard[topic] += 1
                return
            lasting = [reader for reader in readers if reader.lasting]
            await out.send(topic, batch, lasting)
            await self._room(out, [reader for reader in heard if reader.limit], lasting)

    def subscribe(self, pattern: str, *, policy: Policy = Policy.BLOCK, size: int = 64, name: str = "") -> RedisQueue:
        """What is published from now on and fits `pattern`; a lasting subscription goes on where it was left.

        `size` bounds what is read ahead, and of a subscription that does not last also what may be unread.
        """
        lasting = policy is Policy.BLOCK and bool(name)
        group = name if lasting else f"~{name or pattern}-{secrets.token_hex(8)}"
        limit = 0 if policy is not Policy.BLOCK else self._backlog if lasting else size
        reader = Reader(group, pattern, limit, lasting)
        queue = RedisQueue(
            self._link, self._keys, reader, policy=policy, size=size, name=name or pattern, lease_s=self._lease_s
        )
        if self._closed:
            queue.end()
        else:
            self._queues.append(queue)
            queue.task.add_done_callback(lambda _: self._queues.remove(queue))
        return queue

    async def expect(self, pattern: str, *, name: str) -> None:
        """Keep what is published from now on for a lasting subscription whose first reader is still to come."""
        self._lasting[name] = Reader(name, pattern, self._backlog, lasting=True)
        await enter(self._link, self._keys, self._lasting[name], {})

    def release(self) -> None:
        """Wait for nobody any more, as when the process is told to end: what is published is in Redis, and where there
        is no Redis BusError says so."""
        self._link.patient = False

    async def close(self) -> None:
        """Publish nothing more; returns when the callbacks have had what was queued for them."""
        self._closed = True
        queues = list(self._queues)
        for queue in queues:
            queue.close()
        await asyncio.gather(*self._listeners)
        await asyncio.gather(*(queue.left() for queue in queues))
        self._guard.cancel()
        await asyncio.gather(self._guard, return_exceptions=True)
        await self._link.close()

    def stats(self) -> BusStats:
        """Figures since the start, of this process alone."""
        return BusStats(dict(self._published), dict(self._unheard), [queue.stats() for queue in self._queues])

    async def _readers(self, kind: str) -> frozenset[Reader]:
        """Everybody's subscriptions that may want something of a stream."""
        if time.monotonic() > self._swept + SWEEP_S:
            await self._sweep()
        answer = await self._link.do("HGETALL", self._keys.readers)
        readers = {Reader.of(group, about) for group, about in zip(answer[::2], answer[1::2], strict=True)}
        self._lasting |= {reader.group: reader for reader in readers if reader.lasting}
        return frozenset(reader for reader in readers.union(self._lasting.values()) if kind in reader.kinds)

    async def _room(self, out: "_Outgoing", waited_for: Sequence[Reader], lasting: Sequence[Reader]) -> None:
        """Return when none of these has too much unread."""
        start, pause_s = time.monotonic(), 0.002
        told = False
        while self._link.patient and (late := [r for r in waited_for if out.unread(r) > r.limit]):
            if time.monotonic() > max(start, self._swept) + PATIENCE_S:
                await self._sweep()
                if not told:
                    told = True
                    names, unread = ", ".join(reader.group for reader in late), out.unread(late[0])
                    log.warning(
                        "publishing on %s waits for %s, who has %d unread: does it run?", out.kind, names, unread
                    )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)
            await out.look(lasting)

    async def _sweep(self) -> None:
        """Remove subscriptions that ended with a process that had no time to say so."""
        self._swept = time.monotonic()
        answer = await self._link.do("HGETALL", self._keys.readers)
        for group, about in zip(answer[::2], answer[1::2], strict=True):
            reader = Reader.of(group, about)
            if reader.lasting or await self._link.do("EXISTS", self._keys.lease(reader.group)):
                continue
            await self._link.do("HDEL", self._keys.readers, reader.group)
            for kind in reader.kinds:
                with suppress(RefusalError):  # there is nothing to destroy
                    await self._link.do("XGROUP", "DESTROY", self._keys.stream(kind), reader.group)

    async def _watch(self) -> None:
        """See now and then that Redis still has what is not acknowledged, also when nothing is published."""
        while True:
            await asyncio.sleep(GUARD_S)
            for out in self._out.values():
                if out.kept and not out.turn.locked():
                    async with out.turn:
                        await out.look([r for r in self._lasting.values() if out.kind in r.kinds])


class _Kept(NamedTuple):
    place: Place
    fields: tuple[Any, ...]


class _Outgoing:
    """What this process sends to one stream: where the stream is, and what is not acknowledged yet."""

    def __init__(self, link: RedisLink, keys: Keys, kind: str) -> None:
        self.kind = kind
        self.turn = asyncio.Lock()
        self.kept: deque[_Kept] = deque()
        self.resent = 0
        self._link, self._keys = link, keys
        self._me, self._sent = secrets.token_hex(8), 0
        self._at: Place | None = None
        self._groups: dict[str, Group] = {}

    async def send(self, topic: str, batch: pa.RecordBatch, lasting: Sequence[Reader]) -> None:
        """Add an event to the stream, and keep it until the lasting readers have acknowledged it."""
        self._sent += 1
        payload = memoryview(to_ipc(batch))
        await self._add(("topic", topic, "by", self._me, "no", self._sent, "batch", payload), lasting)

    async def look(self, lasting: Sequence[Reader]) -> None:
        """See how far the readers are."""
        epoch, n, groups = await self._link.script(LOOK, self._keys.pair(self.kind))
        at = self._at
        if at is not None and (not epoch or int(epoch) != at.epoch or int(n) < at.n):
            await self._again(lasting)
        else:
            self._note(groups, lasting)

    def unread(self, reader: Reader) -> int:
        """How many entries a reader has not acknowledged."""
        group = self._groups.get(reader.group)
        return 0 if group is None or self._at is None else group.unread(self._at)

    async def _add(self, fields: tuple[Any, ...], lasting: Sequence[Reader]) -> None:
        most = max([KINDS[self.kind], *(2 * reader.limit for reader in lasting)])
        while True:
            known = ("", 0) if self._at is None else self._at
            answer = await self._link.script(ADD, self._keys.pair(self.kind), *known, most, *fields)
            if answer[0] == b"ok":
                break
            await self._again(lasting)
        self._at = Place(int(answer[1]), answer[2])
        if lasting:
            self.kept.append(_Kept(self._at, fields))
        self._note(answer[3], lasting)

    async def _again(self, lasting: Sequence[Reader]) -> None:
        """Redis has forgotten entries: send anew what it may lack."""
        assert self._at is not None
        kept, self.kept = self.kept, deque()
        log.warning("Redis at %s has forgotten entries of %s: %d are sent again", self._link, self.kind, len(kept))
        epoch, n = await self._link.script(BEGIN, self._keys.pair(self.kind), *self._at)
        self._at = Place(int(epoch), n)
        for reader in lasting:
            # One that was forgotten begins with what is sent now; those that are still there stay where they are.
            await enter(self._link, self._keys, reader, {self.kind: self._at})
        for _, fields in kept:
            await self._add(fields, lasting)
            self.resent += 1

    def _note(self, groups: Sequence[Any], lasting: Sequence[Reader]) -> None:
        self._groups = {group.name: group for group in map(Group.of, groups)}
        groups_of = [self._groups.get(reader.group) for reader in lasting]
        while self.kept and all(group is not None and group.is_done(self.kept[0].place) for group in groups_of):
            self.kept.popleft()

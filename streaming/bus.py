"""EventBus: topics within one process.

    market.tick.{symbol}              ticks, batches of data.schema.TICK
    market.bar.{symbol}.{frame}       closed bars, batches of data.schema.BAR
    signal.alert                      signals, batches of data.schema.SIGNAL

What is published is a batch of the whole market, and `*` stands in its topic for the symbol: `market.bar.*.1m`. Who
subscribes to `market.bar.*.1m`, `market.bar.*` or `*` gets that very batch; who subscribes to `market.bar.600519.SH.1m`
gets a view of that symbol's rows, cut for those alone who asked. In a pattern `*` stands for any text, dots included.

Every subscriber has a bounded queue, filled from the moment it subscribes, and a declared policy for when it is full.
What is lost is counted, and so is what nobody heard.
"""

import asyncio
import inspect
import logging
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from data.columns import column
from streaming.ports import Event, Policy, Subscription
from streaming.routes import Route

log = logging.getLogger(__name__)

Callback = Callable[[Event], Awaitable[None] | None]

SIGNALS = "signal.alert"


def tick_topic(symbol: str = "*") -> str:
    """The topic of a symbol's ticks, or of everybody's."""
    return f"market.tick.{symbol}"


def bar_topic(frame: str, symbol: str = "*") -> str:
    """The topic of a symbol's closed bars of one frame, or of everybody's."""
    return f"market.bar.{symbol}.{frame}"


@dataclass(frozen=True)
class SubscriberStats:
    """One subscriber in figures. `lost`: events dropped; `conflated`: rows that newer ones stood for; `errors`: of its
    callback; `duplicates`: events that came again and were left out."""

    name: str
    pattern: str
    policy: Policy
    depth: int
    received: int
    lost: int
    conflated: int
    errors: int
    duplicates: int = 0


@dataclass(frozen=True)
class BusStats:
    """The bus in figures; `published` and `unheard` (no subscriber wanted it) count batches by topic."""

    published: dict[str, int]
    unheard: dict[str, int]
    subscribers: list[SubscriberStats]


S = TypeVar("S", bound="Listened")


class Listened(Subscription, Protocol):
    """A subscription with a name that counts the errors of its callback."""

    name: str
    errors: int


class Listening(ABC, Generic[S]):
    """Callbacks over a bus that can be subscribed to. Holds their tasks."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Task[None]] = set()

    @abstractmethod
    def subscribe(self, pattern: str, *, policy: Policy = Policy.BLOCK, size: int = 64, name: str = "") -> S:
        """See `streaming.ports.Bus`."""

    def listen(
        self, pattern: str, callback: Callback, *, policy: Policy = Policy.BLOCK, size: int = 64, name: str = ""
    ) -> S:
        """Call `callback`, a plain or a coroutine function, with each event; its errors are logged and counted."""
        queue = self.subscribe(pattern, policy=policy, size=size, name=name)

        async def read() -> None:
            async for event in queue:
                try:
                    result = callback(event)
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    # One subscriber's fault is not the others'.
                    queue.errors += 1
                    log.exception("subscriber %s failed on %s", queue.name, event.topic)

        task = asyncio.create_task(read())
        self._listeners.add(task)
        task.add_done_callback(self._listeners.discard)
        return queue


class EventBus(Listening["Queue"]):
    """The bus of one event loop; fulfils `streaming.ports.Bus`. Holds subscribers and their queues."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: list[Queue] = []
        self._routes: dict[str, Route[Queue]] = {}
        self._published: Counter[str] = Counter()
        self._unheard: Counter[str] = Counter()
        self._closed = False

    async def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        """Hand a batch to every subscriber whose pattern fits.

        Nobody waits for a slow subscriber but the publisher, and only where that subscriber's policy is BLOCK.
        """
        self._published[topic] += 1
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = Route.of(topic, self._queues)
        waiting = []
        heard = False
        for queue, event in route.events(batch):
            heard = True
            if not queue.offer(event):
                waiting.append((queue, event))
        if not heard:
            self._unheard[topic] += 1
        for queue, event in waiting:
            await queue.put(event)

    def subscribe(self, pattern: str, *, policy: Policy = Policy.BLOCK, size: int = 64, name: str = "") -> "Queue":
        """A queue of what is published from now on and fits `pattern`; read it with `async for`."""
        queue = Queue(pattern, policy, size, name or pattern, self._leave)
        if self._closed:
            queue.end()
        else:
            self._queues.append(queue)
            self._routes.clear()
        return queue

    async def close(self) -> None:
        """Publish nothing more; returns when the callbacks have had what was queued for them."""
        self._closed = True
        for queue in list(self._queues):
            queue.close()
        await asyncio.gather(*self._listeners)

    def stats(self) -> BusStats:
        """Figures since the start; subscribers that have left are not in them."""
        return BusStats(dict(self._published), dict(self._unheard), [queue.stats() for queue in self._queues])

    def _leave(self, queue: "Queue") -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            self._routes.clear()


class Queue:
    """One subscriber's bounded queue; fulfils `streaming.ports.Subscription`. Read by one reader."""

    def __init__(self, pattern: str, policy: Policy, size: int, name: str, leave: Callable[["Queue"], None]) -> None:
        self.name = name
        self.pattern = pattern
        self.errors = 0
        self._policy = policy
        self._size = size
        self._leave = leave
        self._events: deque[Event] = deque()
        self._received = self._lost = self._conflated = 0
        self._ended = False
        self._readable, self._writable = asyncio.Event(), asyncio.Event()
        # Publishers that wait take their turns, so that events keep their order.
        self._turn = asyncio.Lock()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events, oldest first, until the subscription has ended and nothing is left."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._writable.set()
                yield event
            if self._ended:
                return
            self._readable.clear()
            await self._readable.wait()

    def offer(self, event: Event) -> bool:
        """Take an event at once, as the policy says; False where the publisher must wait."""
        if self._ended:
            return True
        if self._policy is Policy.BLOCK and (len(self._events) >= self._size or self._turn.locked()):
            return False
        self._take(event)
        if len(self._events) > self._size:
            self._shrink()
        return True

    async def put(self, event: Event) -> None:
        """Take an event when there is room; count it as lost where the subscriber leaves or the publisher gives up."""
        self._lost += 1
        async with self._turn:
            while len(self._events) >= self._size and not self._ended:
                self._writable.clear()
                await self._writable.wait()
            if not self._ended:
                self._lost -= 1
                self._take(event)

    def close(self) -> None:
        """Leave the bus; what is queued can still be read."""
        self._leave(self)
        self.end()

    def end(self) -> None:
        """Let nothing more in."""
        self._ended = True
        self._readable.set()
        self._writable.set()

    def stats(self) -> SubscriberStats:
        """This subscriber in figures."""
        return SubscriberStats(
            self.name,
            self.pattern,
            self._policy,
            len(self._events),
            self._received,
            self._lost,
            self._conflated,
            self.errors,
        )

    def _take(self, event: Event) -> None:
        self._received += 1
        self._events.append(event)
        self._readable.set()

    def _shrink(self) -> None:
        if self._policy is Policy.LATEST:
            self._events, rows = _newest(self._events)
            self._conflated += rows
        while len(self._events) > self._size:
            self._events.popleft()
            self._lost += 1


def _newest(events: Iterable[Event]) -> tuple[deque[Event], int]:
    """One event a topic: the newest row of each symbol, or the newest batch; and how many rows that leaves out."""
    by_topic: dict[str, list[pa.RecordBatch]] = {}
    for event in events:
        by_topic.setdefault(event.topic, []).append(event.batch)
    merged: deque[Event] = deque()
    left_out = 0
    for topic, batches in by_topic.items():
        newest = batches[-1]
        if len(batches) > 1 and topic.startswith("market."):
            newest = _last_of_each(batches)
        left_out += sum(batch.num_rows for batch in batches) - newest.num_rows
        merged.append(Event(topic, newest))
    return merged, left_out


def _last_of_each(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The last row of each symbol, with the metadata of the last batch."""
    table = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches])
    table = table.unify_dictionaries().combine_chunks()
    codes = table["symbol"].chunk(0).indices.to_numpy()
    _, back = np.unique(codes[::-1], return_index=True)
    rows = column(np.sort(len(codes) - 1 - back), pa.int64())
    batch: pa.RecordBatch = table.take(rows).combine_chunks().to_batches()[0]
    return batch.replace_schema_metadata(batches[-1].schema.metadata)

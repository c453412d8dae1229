"""The ports of this room: what a feed, a bus and a sink are, whatever is behind them.

Each has a contract suite in `tests/contracts/` that every implementation passes.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

import pyarrow as pa

from data.settings import Settings
from data.signal import Signal


class Feed(Protocol):
    """One provider's quotes."""

    @property
    def name(self) -> str:
        """The provider, as it stands in the metadata of its frames."""
        ...

    def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        """The provider's frames as batches of `data.schema.TICK`, until the feed ends or is closed; asked for once.

        Their schema metadata: `provider`, `seq` (counts from 1), `received_ns` (UTC). A slow reader makes the feed
        wait. Raises FeedError where it cannot go on.
        """
        ...

    async def close(self) -> None:
        """End `frames` soon, also while it waits; what has been read stays read. Closing twice is closing once."""
        ...


class OpenFeed(Protocol):
    """What a feed's name stands for in the registry: opens the feed that the settings describe."""

    def __call__(self, settings: Settings, *, after: int | None) -> Feed:
        """`after` (UTC ns): the newest bar end that is stored; the feed goes on from there where it can choose."""
        ...


class Subscription(Protocol):
    """One subscriber's place at a bus: an asynchronous iterator of events, oldest first."""

    def __aiter__(self) -> AsyncIterator["Event"]:
        """Events until the subscription or the bus is closed and what is queued has been read."""
        ...

    async def close(self) -> None:
        """Leave the bus; whoever waits for this subscriber to read goes on."""
        ...


class Event(Protocol):
    """What a subscriber receives."""

    @property
    def topic(self) -> str:
        """The topic it was published on, the symbol filled in where the event is of one symbol."""
        ...

    @property
    def batch(self) -> pa.RecordBatch:
        """The rows that the subscriber asked for; read-only, shared with the other subscribers."""
        ...


class Bus(Protocol):
    """Carries batches from publishers to subscribers; topics are described in `streaming.bus`."""

    async def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        """Hand a batch to every subscriber whose pattern the topic matches; waits for those that declared it."""
        ...

    def subscribe(self, pattern: str) -> Subscription:
        """A bounded queue of what is published from now on and matches `pattern`, where `*` stands for anything."""
        ...

    async def close(self) -> None:
        """End every subscription once what is queued has been read."""
        ...


class Sink(Protocol):
    """Where signals go."""

    async def write(self, signals: Sequence[Signal]) -> None:
        """Take signals, in the order of their sequence numbers."""
        ...

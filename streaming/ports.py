"""The ports of this room: what a feed, a bus and a sink are, whatever is behind them.

Each has a contract suite in `tests/contracts/` that every implementation passes.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

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

        Their schema metadata: `provider`, `seq` (counts from 1), `received_ns` (UTC), and where it is known that quotes
        may be missing before a frame, `lost` (`streaming.gaps`). A slow reader makes the feed
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


@dataclass
class Traffic:
    """What a connection has received so far."""

    frames: int = 0
    received_bytes: int = 0
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Lines, symbols or requests that came to nothing, by reason."""


class Connection(Protocol):
    """One connection to one vendor, for some symbols. It neither retries nor reconnects: who opened it does."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it is asked for; those that the vendor does not cover are left out."""
        ...

    @property
    def refused(self) -> frozenset[str]:
        """Those of `symbols` that the vendor has said it does not know; they are not asked for any more."""
        ...

    @property
    def heard(self) -> Sequence[str]:
        """Those of `symbols` of whom the newest batch says how they stand: by a row, or by none where nothing changed.

        Not among them is whose line was broken or left out, until the next that can be read.
        """
        ...

    @property
    def traffic(self) -> Traffic:
        """Counts, kept up to date."""
        ...

    def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """Each frame as a batch of `data.schema.TICK`, until the connection is closed; asked for once.

        Schema metadata: `provider`, `seq`, `received_ns` (UTC) and `dropped`, a JSON object of counts by reason. A
        frame that says nothing new is a batch without rows. A slow reader makes the vendor wait. Raises FeedError
        with the reason where the connection is lost.
        """
        ...

    async def close(self) -> None:
        """End `batches` soon, also while it waits. Closing twice is closing once."""
        ...


class WebSocketCapability(Protocol):
    """What a connection over a WebSocket can do besides."""

    async def connect(self) -> None:
        """Open the socket, if it is not open. Raises FeedError."""
        ...

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """From now on these symbols, in place of those before. Raises FeedError."""
        ...

    def on_message(self, handler: Callable[[bytes], None]) -> None:
        """Call `handler` with the bytes of each frame, before they are parsed."""
        ...


class Policy(StrEnum):
    """What happens to a subscriber whose queue is full."""

    BLOCK = "block"
    """The publisher waits."""
    LATEST = "latest"
    """What is queued shrinks to the newest row of each symbol (of other topics: to the newest batch); the rest is
    counted."""
    DROP_OLDEST = "drop_oldest"
    """The oldest event goes, and is counted."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a subscriber receives."""

    topic: str
    """The topic it was published on, the symbol filled in where the event was cut for one."""
    batch: pa.RecordBatch
    """The rows asked for; read-only, shared with other subscribers."""


class Subscription(Protocol):
    """One subscriber's place at a bus: an asynchronous iterator of events, oldest first."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Events until the subscription or the bus is closed and what is queued has been read."""
        ...

    def close(self) -> None:
        """Leave the bus; whoever waits for this subscriber goes on."""
        ...


class Bus(Protocol):
    """Carries batches from publishers to subscribers; `streaming.bus` says what topics there are."""

    async def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        """Hand a batch to every subscriber whose pattern fits; waits for those whose policy is BLOCK."""
        ...

    def subscribe(self, pattern: str, *, policy: Policy = ..., size: int = ..., name: str = ...) -> Subscription:
        """What fits `pattern` from now on, where `*` stands for anything, in a queue of at most `size` events."""
        ...

    async def close(self) -> None:
        """Publish nothing more; subscriptions end once what is queued has been read."""
        ...


@runtime_checkable
class SharedBus(Bus, Protocol):
    """A bus between processes, which may wait for one that is not there."""

    def release(self) -> None:
        """Wait for nobody any more, as when this process is told to end."""
        ...


class Sink(Protocol):
    """Where signals go."""

    async def write(self, signals: Sequence[Signal]) -> None:
        """Take signals, in the order of their sequence numbers."""
        ...

"""A shard's part of a scan as it is asked for, wherever it is done: what it says, and how it travels."""

import functools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data.panel import FIELDS
from scanner.scan import Plan

COLUMNS = ("symbol", "bar_end", "revision", *FIELDS)


@dataclass(frozen=True)
class ShardTask:
    """One shard's part of one scan. All of it travels, so that any worker can do it, from the store if need be.

    What is the same from scan to scan is pickled once, and unpickled once where it arrives.
    """

    root: str
    frame: str
    adjusted: str | None
    symbols: tuple[str, ...]
    origin: int
    """UTC ns: the first bar end that indicators see."""
    bar_end: int
    engine: str
    plan: Plan
    previous: int | None = None
    """The bar end before `bar_end`, if `batch` holds every bar after it."""
    batch: pa.Table | pa.RecordBatch | None = None
    """The bars of `bar_end`, which travel as an Arrow IPC stream; without it they are read from the store."""
    trace: int = 0
    revision: int = 0
    """Another one than before where stored bars have changed, not only come."""
    once: bool = False
    """Whether nothing of the batch is kept, for its bars are still open; without one, nothing of what is read."""
    factors: str = ""
    """Which imported factors count: `FactorStore.imported`."""
    revises: int | None = None
    """The `revision` before, where `batch` holds changes to bars of `bar_end` that are stored."""

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two tasks meet the same resident bars."""
        return self.root, self.frame, self.adjusted, self.symbols, self.factors

    def __reduce__(self) -> tuple[Any, ...]:
        lasting = _pickled(self.root, self.frame, self.adjusted, self.symbols, self.engine, self.plan, self.factors)
        bars = None if self.batch is None else _sent(self.batch)
        changing = self.origin, self.bar_end, self.previous, bars, self.trace, self.revision, self.once, self.revises
        return _task, (lasting, *changing)


@functools.lru_cache(maxsize=32)
def _pickled(*lasting: object) -> bytes:
    return pickle.dumps(lasting, protocol=5)


@functools.lru_cache(maxsize=32)
def _unpickled(lasting: bytes) -> tuple[Any, ...]:
    found: tuple[Any, ...] = pickle.loads(lasting)
    return found


def _task(
    lasting: bytes,
    origin: int,
    bar_end: int,
    previous: int | None,
    bars: bytes | None,
    trace: int,
    revision: int,
    once: bool,
    revises: int | None,
) -> ShardTask:
    batch = None if bars is None else pa.ipc.open_stream(bars).read_all()
    root, frame, adjusted, symbols, engine, plan, factors = _unpickled(lasting)
    about = (trace, revision, once, factors, revises)
    return ShardTask(root, frame, adjusted, symbols, origin, bar_end, engine, plan, previous, batch, *about)


_last_sent: tuple[object, bytes] = (None, b"")


def _sent(batch: pa.Table | pa.RecordBatch) -> bytes:
    """A batch as it travels; that of a scan goes to each of its shards."""
    global _last_sent
    last = _last_sent
    if last[0] is not batch:
        last = _last_sent = batch, _to_ipc(batch.select(COLUMNS))
    return last[1]


def _to_ipc(bars: pa.Table | pa.RecordBatch) -> bytes:
    """Bars as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, bars.schema) as writer:
        writer.write(bars)
    return bytes(sink.getvalue())


def split(symbols: Sequence[str], n_shards: int) -> list[tuple[str, ...]]:
    """Symbols -> shards of nearly equal size; none is empty. Neighbours are dealt out, since codes cluster by age."""
    ordered = sorted(symbols)
    return [tuple(ordered[first::n_shards]) for first in range(min(n_shards, len(ordered)))]

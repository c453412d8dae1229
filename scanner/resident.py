"""A shard's bars, kept where they are scanned: read from the store once, then advanced by the newest micro-batch."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.panel import FIELDS, NO_BAR, Packed
from data.store import BarStore
from scanner.engines.base import choose
from scanner.scan import Plan, ShardAnswer, scan_shard

SPARE = 256
"""Columns that a shard holds ready for new bars."""
COLUMNS = ("symbol", "bar_end", "revision", *FIELDS)
MOST = 8
"""Shards that one process keeps."""


@dataclass(frozen=True)
class ShardTask:
    """One shard's part of one scan. All of it travels, so that any worker can do it, from the store if need be."""

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
    batch: bytes | None = None
    """The bars of `bar_end` as an Arrow IPC stream; without it they are read from the store."""
    trace: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two tasks meet the same resident bars."""
        return self.root, self.frame, self.adjusted, self.symbols, self.origin


class Resident:
    """The bars of some symbols, right-aligned in matrices with room for more.

    All newest bars stand in one column; a new bar end moves on by one column, and a symbol that has no bar there is
    shifted along, so that its own newest bar stays in the last column.
    """

    def __init__(self, packed: Packed, upto: int) -> None:
        self.upto = upto
        self.symbols = packed.symbols
        self.frame = packed.frame
        self._stop = packed.length
        self._ends = packed.bar_ends
        self._fields = dict(packed.fields)
        self._lengths = packed.lengths
        self.times = np.unique(packed.bar_ends[packed.bar_ends != NO_BAR])

    def advance(self, table: pa.Table, upto: int) -> None:
        """Take the bars of one later bar end; other symbols' rows are left alone."""
        new = Packed.from_table(table, self.frame, self.symbols)
        if new.length > 1:
            raise ValueError(f"a resident shard advances by one bar end at a time; got {new.length}")
        self.upto = upto
        if new.length == 0:
            return
        if self._stop == self._ends.shape[1]:
            self._grow()
        has = new.lengths == 1
        stop = self._stop
        for matrix, empty in ((self._ends, NO_BAR), *((m, np.nan) for m in self._fields.values())):
            # The halted ones are few: shifting them keeps everyone's newest bar in the last column.
            halted = np.flatnonzero(~has)
            matrix[halted, 1 : stop + 1] = matrix[halted, :stop]
            matrix[halted, 0] = empty
        self._ends[has, stop] = new.bar_ends[has, 0]
        for name, matrix in self._fields.items():
            matrix[has, stop] = new.fields[name][has, 0]
        self._lengths = self._lengths + has
        self._stop += 1
        self.times = np.append(self.times, upto)

    def packed(self) -> Packed:
        """The bars as they stand; views, good until the next `advance`."""
        longest = int(self._lengths.max(initial=0))
        first = self._stop - longest
        fields = {name: matrix[:, first : self._stop] for name, matrix in self._fields.items()}
        return Packed(self.frame, self.symbols, self._ends[:, first : self._stop], self._lengths, fields)

    def _grow(self) -> None:
        longest = int(self._lengths.max(initial=0))
        first = self._stop - longest
        shape = (len(self.symbols), longest + SPARE)
        for name, matrix in self._fields.items():
            grown = np.full(shape, np.nan)
            grown[:, :longest] = matrix[:, first:]
            self._fields[name] = grown
        ends = np.full(shape, NO_BAR)
        ends[:, :longest] = self._ends[:, first:]
        self._ends = ends
        self._stop = longest


_residents: OrderedDict[tuple[object, ...], Resident] = OrderedDict()
_names: dict[str, dict[str, tuple[str, str]]] = {}
_lock = threading.Lock()


def run_shard(task: ShardTask) -> ShardAnswer:
    """Do one shard's part of a scan. Idempotent: asked again, it answers the same."""
    with _lock:
        resident = _residents.get(task.key)
        if resident is None or not _bring_upto(resident, task):
            store = BarStore(task.root)
            table = store.table(
                task.frame,
                after=task.origin - 1,
                upto=task.bar_end,
                symbols=task.symbols,
                columns=COLUMNS,
                adjusted=task.adjusted,
            )
            resident = Resident(Packed.from_table(table, task.frame, task.symbols), task.bar_end)
            _names[task.root] = store.names()
            _residents[task.key] = resident
            while len(_residents) > MOST:
                _residents.popitem(last=False)
        _residents.move_to_end(task.key)
        engine, _ = choose(task.engine)
        return scan_shard(
            task.plan,
            resident.packed(),
            task.bar_end,
            engine,
            origin=task.origin,
            names=_names.get(task.root),
            times=resident.times,
        )


def _bring_upto(resident: Resident, task: ShardTask) -> bool:
    """Whether the resident bars are, or could be brought, up to the task's bar end."""
    if resident.upto == task.bar_end:
        return True
    if resident.upto != task.previous or task.batch is None:
        return False
    resident.advance(pa.ipc.open_stream(task.batch).read_all(), task.bar_end)
    return True


def to_ipc(bars: pa.Table | pa.RecordBatch) -> bytes:
    """Bars as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, bars.schema) as writer:
        writer.write(bars)
    return bytes(sink.getvalue())


def split(symbols: Sequence[str], n_shards: int) -> list[tuple[str, ...]]:
    """Symbols -> shards of nearly equal size; none is empty. Neighbours are dealt out, since codes cluster by age."""
    ordered = sorted(symbols)
    return [tuple(ordered[first::n_shards]) for first in range(min(n_shards, len(ordered)))]

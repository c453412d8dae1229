"""A shard's bars, kept where they are scanned: read from the store once, then advanced by the newest micro-batch."""

import copy
import functools
import logging
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.adjust import Basis, basis, unmoved
from data.calendar import local_day
from data.errors import EngineError
from data.factors import FactorStore, applied
from data.names import Names, NameTable
from data.panel import FIELDS, NO_BAR, PRICES, Packed
from data.store import BarStore, ReadFile
from data.symbols import board
from scanner.engines.base import Engine, choose
from scanner.engines.machine import machine_of
from scanner.engines.parquet import reader
from scanner.fields import Source
from scanner.following import Following, News
from scanner.scan import Computed, Mask, Plan, ShardAnswer, evaluated, scan_shard
from scanner.tasks import COLUMNS, ShardTask

log = logging.getLogger(__name__)

SPARE = 256
"""Rows that a shard holds ready for new bars."""
DERIVED = (*(f"adjusted {name}" for name in PRICES), "reference", "gap")
"""Matrices of the basis."""
MOST = 16
"""Shards that one process keeps."""


class Resident:
    """The bars of some symbols and the basis of their prices, as in `Packed`, in matrices with room for more.

    All newest bars stand in one row; a new bar end moves on by one row, and a symbol that has no bar there is shifted
    along, so that its own newest bar stays in the last row.
    """

    def __init__(self, packed: Packed, upto: int, origin: int, revision: int = 0) -> None:
        self.upto, self.origin, self.revision = upto, origin, revision
        self.symbols, self.frame = packed.symbols, packed.frame
        self.times = np.unique(packed.bar_ends[packed.bar_ends != NO_BAR])
        self._stop = packed.length
        self._lengths = packed.lengths
        self._matrices = _matrices(packed, basis(packed, origin))
        self._gapped: npt.NDArray[np.bool_] = np.any(self._matrices["gap"], axis=0)
        self._boards = np.array([board(symbol) for symbol in self.symbols])
        self._dictionary: pa.Array | None = None
        self._places = np.empty(0, dtype=np.intp)
        self.memo: dict[str, Any] = {}
        self.following: Following | None = None
        """The plan's terms, from the second bar on: one scan alone computes less."""
        self.news: News | None = None
        """What came last, if `following` has not heard of it."""
        self.revised = np.empty(0, dtype=np.intp)
        """Symbols whose bars were changed, if `following` has not heard of it: places."""

    def advance(self, table: pa.Table, upto: int) -> None:
        """Take the bars of one later bar end, `upto`; other symbols' rows are left out."""
        has, rows = self._parsed(table, upto)
        self.upto = upto
        if self.news is not None:
            self.following = None  # nobody asked at the bar before
        self.news = News(has, np.empty(0, dtype=np.intp))
        if not has.any():
            return
        if self._stop == len(self._matrices["bar_end"]):
            self._grow()
        stop, matrices = self._stop, self._matrices
        # The halted ones are few: shifting them keeps everyone's newest bar in the last row.
        if len(halted := np.flatnonzero(~has)):
            for matrix in matrices.values():
                matrix[1 : stop + 1, halted] = matrix[:stop, halted]
                matrix[0, halted] = _empty(matrix.dtype)
        stored = rows["prev_close"]
        last, before = matrices["bar_end"][stop - 1], matrices["close"][stop - 1]  # at first the empty rows beyond
        opens = local_day(np.array(upto)) != local_day(last)
        derived = opens & (last != NO_BAR) & unmoved(stored, rows["open"], before, self._boards, upto)
        unknown = np.isnan(stored)
        carried = ~opens & unknown & np.isnan(matrices["prev_close"][stop - 1])
        moved = ~derived & ~carried & (opens | unknown)
        # Within a session a bar stands on the basis of the one before.
        rows |= {f"adjusted {name}": rows[name] for name in PRICES}
        rows["reference"] = np.where(derived & unknown, before, stored)
        np.copyto(rows["reference"], matrices["reference"][stop - 1], where=carried)
        matrices["bar_end"][stop, has] = upto
        columns: Any = slice(None) if has.all() else has  # a mask is far slower
        for name, row in rows.items():
            matrices[name][stop, columns] = row[columns]
        self._lengths = self._lengths + has
        self._stop += 1
        self.times = np.append(self.times, upto)
        self.news = News(has, self._rebase(np.flatnonzero(has & moved)))

    def copy(self) -> "Resident":
        """Another that goes its own way, with room for one bar more."""
        other = copy.copy(self)
        first, spare = self._first, (1, len(self.symbols))
        other._matrices = {
            name: np.concatenate([matrix[first : self._stop], np.full(spare, _empty(matrix.dtype))])
            for name, matrix in self._matrices.items()
        }
        other._stop = self._stop - first
        other._gapped = self._gapped.copy()
        other.memo, other.following, other.news = {}, None, None
        return other

    def revise(self, table: pa.Table, end: int) -> bool:
        """Take changes to bars of one end, of those that stand behind another of their session; other symbols' rows are
        left out. Where one of them is not here, or older than the last two, nothing is changed: False."""
        has, rows = self._parsed(table, end)
        columns = np.flatnonzero(has)
        newest, ends = self._stop - 1, self._matrices["bar_end"]
        row = np.where(ends[newest, columns] == end, newest, newest - 1)
        if newest < 2 or (ends[row, columns] != end).any():
            return False
        before = ends[row - 1, columns]
        if (before == NO_BAR).any() or (local_day(before) != local_day(np.array([end]))).any():
            return False  # what opens a session moves what its prices stand on
        for name, values in rows.items():
            self._matrices[name][row, columns] = values[columns]
        self._rebase(columns)
        self.revised = np.union1d(self.revised, columns)
        return True

    def _parsed(self, table: pa.Table, upto: int) -> tuple[npt.NDArray[np.bool_], dict[str, npt.NDArray[np.float64]]]:
        """Who has a bar among the rows of a table, and each field's values, (symbols,)."""
        n = len(self.symbols)
        column = table["symbol"].combine_chunks()
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        if self._dictionary is None or not column.dictionary.equals(self._dictionary):
            places = {symbol: j for j, symbol in enumerate(self.symbols)}
            self._dictionary = column.dictionary
            self._places = np.array([places.get(symbol, n) for symbol in column.dictionary.to_pylist()], dtype=np.intp)
        code = self._places[column.indices.to_numpy(zero_copy_only=False)] if len(column) else np.empty(0, np.intp)
        if (table["bar_end"].cast(pa.int64()).to_numpy()[code < n] != upto).any():
            raise ValueError(f"a resident shard advances by one bar end, {upto}, at a time")
        count = np.bincount(code, minlength=n + 1)[:n]
        if len(code) == n and (code == np.arange(n)).all():
            return np.ones(n, dtype=bool), {name: table[name].cast(pa.float64()).to_numpy() for name in FIELDS}
        rows = {name: np.full(n + 1, np.nan) for name in FIELDS}  # the last is nobody's
        if count.max(initial=0) > 1:  # revisions
            new = Packed.from_table(table, self.frame, self.symbols)
            return new.lengths == 1, {name: matrix[0] for name, matrix in new.fields.items()}
        for name, row in rows.items():
            row[code] = table[name].cast(pa.float64()).to_numpy()
        return count == 1, {name: row[:n] for name, row in rows.items()}

    def packed(self) -> Packed:
        """The bars as they stand; views, good until the next `advance`."""
        bar_ends, *matrices = (self._matrices[name][self._first : self._stop] for name in ("bar_end", *FIELDS))
        fields = dict(zip(FIELDS, matrices, strict=True))
        return Packed(self.frame, self.symbols, bar_ends, self._lengths, fields)

    def basis(self) -> Basis:
        """The basis of their prices; views, good until the next `advance`."""
        views = {name: matrix[self._first : self._stop] for name, matrix in self._matrices.items()}
        prices = {name: views[f"adjusted {name}"] for name in PRICES}
        return Basis(prices, views["reference"], views["gap"], np.flatnonzero(self._gapped))

    @property
    def _first(self) -> int:
        return self._stop - int(self._lengths.max(initial=0))

    def _rebase(self, columns: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Compute the basis of some symbols anew; those of them whose older prices it changes."""
        if len(columns) == 0:
            return columns
        whole = self.packed()
        fields = {name: matrix[:, columns] for name, matrix in whole.fields.items()}
        symbols = tuple(self.symbols[j] for j in columns)
        some = Packed(self.frame, symbols, whole.bar_ends[:, columns], whole.lengths[columns], fields)
        changed = np.zeros(len(columns), dtype=bool)
        matrices = _matrices(some, basis(some, self.origin))
        self._gapped[columns] = matrices["gap"].any(axis=0)
        found = {name: matrices[name] for name in DERIVED}
        kept = {name: self._matrices[name][self._first : self._stop] for name in found}
        for name, values in found.items():
            changed |= differ(kept[name][:-1, columns], values[:-1]).any(axis=0)
            kept[name][-1, columns] = values[-1]
        if changed.any():
            for name, values in found.items():
                kept[name][:, columns[changed]] = values[:, changed]
        return columns[changed]

    def _grow(self) -> None:
        first, longest = self._first, self._stop - self._first
        for name, matrix in self._matrices.items():
            grown = np.full((longest + SPARE, matrix.shape[1]), _empty(matrix.dtype))
            grown[:longest] = matrix[first : self._stop]
            self._matrices[name] = grown
        self._stop = longest


def _matrices(packed: Packed, known: Basis) -> dict[str, npt.NDArray[Any]]:
    """Every matrix of a resident shard by name."""
    adjusted = {f"adjusted {name}": values for name, values in known.prices.items()}
    return {"bar_end": packed.bar_ends, **packed.fields, **adjusted, "reference": known.references, "gap": known.gaps}


def differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where two matrices of numbers differ; NaN is NaN."""
    found: npt.NDArray[np.bool_] = (one != other) & ~(np.isnan(one) & np.isnan(other))
    return found


def _empty(dtype: np.dtype[Any]) -> Any:
    """What stands where there is no bar."""
    return {"i": NO_BAR, "f": np.nan, "b": False}[dtype.kind]


_residents: OrderedDict[tuple[object, ...], Resident] = OrderedDict()
_names: dict[str, tuple[object, Names, NameTable]] = {}
"""Store -> the session of the names read last, those, and where they are from."""
_lock = threading.Lock()


def run_shard(task: ShardTask, ahead: ReadFile | None = None) -> ShardAnswer:
    """Do one shard's part of a scan. Idempotent: asked again, it answers the same.

    `ahead`: what reads the store's files, where the shard is the market and its files are being read already.
    """
    with _lock:
        resident = _resident(task, ahead)
        engine, _ = choose(task.engine)
        return scan_shard(
            task.plan,
            resident.packed(),
            task.bar_end,
            engine,
            origin=task.origin,
            names=_names_of(task),
            times=resident.times,
            known=resident.basis(),
            memo=resident.memo,
            compute=functools.partial(_computed, resident, task.plan, engine),
        )


def _resident(task: ShardTask, ahead: ReadFile | None) -> Resident:
    """The bars of a task: those that are kept, brought up to where it asks, or as they would be."""
    if task.revises is not None:
        return _kept(task, ahead) if _revise(_residents.get(task.key), task) else _read(task, ahead)
    if not task.once:
        return _kept(task, ahead)
    if task.batch is None or task.previous is None:
        return _read(task, ahead)
    closed = replace(task, bar_end=task.previous, previous=None, batch=None, once=False)
    look = _kept(closed, ahead).copy()
    if not _bring_upto(look, task):
        return _read(task, ahead)
    look.news = None  # it is looked at once: nothing follows it
    return look


def _kept(task: ShardTask, ahead: ReadFile | None) -> Resident:
    """The bars that stay in this process, up to the task's bar end."""
    key = task.key
    # Mostly it is the one that was asked last: a key of so many symbols takes long to hash.
    last, known = next(reversed(_residents.items()), (None, None))
    if last != key:
        known = _residents.get(key)
    resident = known if known is not None and _bring_upto(known, task) else _read(task, ahead)
    if last != key or resident is not known:
        _residents[key] = resident
        _residents.move_to_end(key)
        while len(_residents) > MOST:
            _residents.popitem(last=False)
    return resident


def _computed(resident: Resident, plan: Plan, engine: Engine, source: Source, current: Mask) -> Computed:
    """The plan's terms and hits: followed bar by bar where that can be, else evaluated from all bars."""
    news, resident.news = resident.news, None
    revised, resident.revised = resident.revised, np.empty(0, dtype=np.intp)
    following = resident.following
    try:
        if following is not None and following.serves(plan, engine):
            if news is not None:
                following.advance(source, news, resident.upto)
            if len(revised):
                following.open_anew(source, revised)
            return following.found(source, current)
        resident.following = None
        if news is not None and source.length and (machine := machine_of(engine.name)) is not None:
            resident.following = Following(plan, engine, machine, source)
            return resident.following.found(source, current)
    except EngineError:
        resident.following = None
        log.exception("%s cannot follow the bars; they are evaluated", engine.name)
    return evaluated(plan, engine, source, current)


def _bring_upto(resident: Resident, task: ShardTask) -> bool:
    """Whether the resident bars are, or could be brought, up to the task's bar end."""
    if (resident.origin, resident.revision) != (task.origin, task.revision):
        return False
    if resident.upto == task.bar_end:
        return True
    if resident.upto != task.previous or task.batch is None:
        return False
    table = _table(task.batch)
    if (table["bar_end"].cast(pa.int64()).to_numpy() != task.bar_end).any():
        return False  # a revision of older bars is among them
    resident.advance(table, task.bar_end)
    return True


def _revise(resident: Resident | None, task: ShardTask) -> bool:
    """Whether the task's changes are in the resident bars, and those end where it asks."""
    if resident is None or task.batch is None or resident.origin != task.origin:
        return False
    if resident.revision != task.revision:
        if resident.revision != task.revises or not resident.revise(_table(task.batch), task.bar_end):
            return False
        resident.revision = task.revision
    return resident.upto == task.bar_end


def _names_of(task: ShardTask) -> Names:
    """The names of symbols as of the scanned session, read at its first scan: special treatment changes overnight."""
    session = local_day(np.array(task.bar_end)).item()
    known = _names.get(task.root)
    if known is None or known[0] != session:
        table = NameTable(Path(task.root) / "names") if known is None else known[2]
        names = table.newest(upto=task.bar_end)
        if known is not None and known[1] == names:
            names = known[1]  # what was made of them holds as long as they are the same
        known = _names[task.root] = session, names, table
    return known[1]


def _read(task: ShardTask, ahead: ReadFile | None) -> Resident:
    """The bars as the store has them, and those of the batch, which it may not have yet."""
    store = BarStore(task.root, read=ahead or reader(task.engine))
    table = store.table(
        task.frame,
        after=task.origin - 1,
        upto=task.bar_end,
        symbols=None if ahead else task.symbols,  # packing leaves out the few others
        columns=COLUMNS,
        adjusted=task.adjusted,
    )
    if task.batch is not None:
        table = pa.concat_tables([table, _table(task.batch).select(COLUMNS)], promote_options="permissive")
    packed = Packed.from_table(table, task.frame, task.symbols)
    del table  # as large as what follows
    if task.adjusted is None:
        packed = applied(packed, FactorStore(task.root).table())
    return Resident(packed, task.bar_end, task.origin, task.revision)


def _table(bars: pa.Table | pa.RecordBatch) -> pa.Table:
    return bars if isinstance(bars, pa.Table) else pa.Table.from_batches([bars])

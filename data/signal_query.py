"""SignalReader: questions to the history of signals, answered by opening only what can hold the answer.

A file's name says which bar ends it spans. Of a file that is opened the columns that decide are read first, and the
others only where a row is wanted: most of a file's bytes are ids and values.
"""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import StoreError
from data.schema import SIGNAL, TIME
from data.signal import EARLIER, completed
from data.signal_files import SignalFile, SignalFolder

T = TypeVar("T")
OnDamage = Callable[[StoreError], None]
ORDER = ("bar_end", "epoch", "seq")
FILES_AT_ONCE = 16
"""Read before it is looked whether a limit is reached."""
_TOGETHER = {"revokes": "id", "seq": "epoch"}
"""Column -> another that its condition looks at too."""
_THREADS = min(4, os.cpu_count() or 1)


class Asked(TypedDict, total=False):
    """Which signals are asked for; None lets all pass. `after` < bar_end <= `upto`, UTC ns. `behind`: published after
    this (epoch, seq).

    `developing`: of bars that were still open (True), or of closed ones. `standing`: True leaves out those that were
    taken back and those that take them back; False leaves only these.
    """

    after: int | None
    upto: int | None
    behind: tuple[str, int] | None
    symbols: Iterable[str] | None
    strategies: Iterable[str] | None
    actions: Iterable[str] | None
    frames: Iterable[str] | None
    epochs: Iterable[str] | None
    min_confidence: float | None
    developing: bool | None
    standing: bool | None


class SignalReader:
    """Reads the signals of one store; safe while others write. Opening reads nothing.

    Errors: StoreError naming the file that is damaged or of another shape.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._folder = SignalFolder(self.root)

    def query(
        self,
        *,
        columns: Collection[str] | None = None,
        limit: int | None = None,
        newest_first: bool = True,
        on_damage: OnDamage | None = None,
        **asked: Unpack[Asked],
    ) -> pa.Table:
        """The signals that are asked for, by bar end, then in the order of publication: `columns` of
        `data.schema.SIGNAL`, all by default.

        With a `limit`, files that cannot hold the first `limit` rows are not opened. `on_damage` is told of each file
        that cannot be read, and the others answer; without it a damaged file raises StoreError.
        """
        names = [name for name in SIGNAL.names if columns is None or name in columns or name in ORDER]
        way = "descending" if newest_first else "ascending"
        told = set[Path]()
        conditions: dict[str, pc.Expression] = {}

        def survive(path: Path, error: StoreError) -> None:
            if on_damage is None:
                raise error
            if path not in told:
                told.add(path)
                on_damage(error)

        def rows(file: SignalFile) -> list[pa.Table]:
            try:
                return self._matching(file.path, conditions, names)
            except StoreError as error:
                survive(file.path, error)
                return []

        def last_place(file: SignalFile) -> tuple[str, int]:
            try:
                return max((batch.epoch, batch.last) for batch in self._folder.batches(file))
            except StoreError as error:
                survive(file.path, error)
                return "", 0

        def read() -> pa.Table:
            nonlocal conditions
            files = [f for f in self._folder.files(survive if on_damage else None) if _may_hold(f, asked)]
            if (behind := asked.get("behind")) is not None:
                files = [file for file in files if last_place(file) > behind]
            revoked = None if asked.get("standing") is None else self._revoked(files, survive)
            conditions = _conditions(asked, revoked)
            files.sort(key=lambda file: -file.last if newest_first else file.first)
            table = pa.schema([SIGNAL.field(name) for name in names]).empty_table()
            step = 1 if limit is not None and not conditions else FILES_AT_ONCE  # of few files all rows count
            for start in range(0, len(files), step):
                if limit is not None and table.num_rows >= limit:
                    edge, next_file = table["bar_end"][-1].value, files[start]
                    if next_file.last < edge if newest_first else next_file.first > edge:
                        break
                found = list(pool.map(rows, files[start : start + step]))
                table = pa.concat_tables([table, *(part for parts in found for part in parts)])
                if limit is not None:
                    table = sorted_by(table, way, *ORDER).slice(0, limit)
            return sorted_by(table, way, *ORDER) if limit is None else table

        with ThreadPoolExecutor(_THREADS) as pool:
            table = self._reading(read)
        return table.select([name for name in names if columns is None or name in columns])

    def _matching(self, path: Path, conditions: dict[str, pc.Expression], names: Sequence[str]) -> list[pa.Table]:
        """The rows of a file that meet the conditions, in tables that are not empty."""
        if not conditions:
            return [self._read(path, names)]
        needed = set(conditions) | {with_it for name, with_it in _TOGETHER.items() if name in conditions}
        keys = [name for name in SIGNAL.names if name in needed]
        deciding = self._read(path, keys)
        place = pa.array(np.arange(deciding.num_rows))
        chosen = deciding.append_column("place", place).filter(reduce(and_, conditions.values()))["place"]
        if not len(chosen):
            return []
        others = self._read(path, [name for name in names if name not in keys])
        found = [(deciding if name in keys else others)[name].take(chosen) for name in names]
        return [pa.Table.from_arrays(found, schema=pa.schema([SIGNAL.field(name) for name in names]))]

    def _revoked(self, files: Iterable[SignalFile], survive: Callable[[Path, StoreError], None]) -> pa.Array:
        """The ids that signals of some files take back: who takes one back has its bar end."""
        found = [pa.array([], pa.string())]
        for file in files:
            try:
                found += self._read(file.path, ["revokes"])["revokes"].drop_null().chunks
            except StoreError as error:
                survive(file.path, error)
        return pa.concat_arrays(found)

    def _reading(self, read: Callable[[], T]) -> T:
        """Read, and read again where a file was compacted between the listing and the reading."""
        for _ in range(5):
            try:
                return read()
            except FileNotFoundError:
                continue
        raise StoreError(f"files of {self.root} vanish while they are read")

    def _read(self, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if file.schema_arrow.equals(SIGNAL):
                    names = None if columns is None else list(columns)
                    return file.read(names, use_threads=False).replace_schema_metadata(None)
                if not file.schema_arrow.remove_metadata().equals(EARLIER):
                    raise StoreError(f"{path}: its columns are not those of a signal: {file.schema_arrow.names}")
                return completed(file.read()).select(columns or SIGNAL.names)
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{path}: {error}") from error


def sorted_by(table: pa.Table, way: str, *keys: str) -> pa.Table:
    """A table by some columns, all `ascending` or all `descending`."""
    return table.sort_by([(key, way) for key in keys])


def _may_hold(file: SignalFile, asked: Asked) -> bool:
    """Whether a file spans a bar end that is asked for."""
    after, upto = asked.get("after"), asked.get("upto")
    return (after is None or file.last > after) and (upto is None or file.first <= upto)


def _conditions(asked: Asked, revoked: pa.Array | None) -> dict[str, pc.Expression]:
    """Column -> what must hold of it; `revoked`: the ids that were taken back, where `standing` is said."""
    found: dict[str, pc.Expression] = {}
    if (after := asked.get("after")) is not None:
        found["bar_end"] = pc.field("bar_end") > bar_end(after)
    if (upto := asked.get("upto")) is not None:
        before = pc.field("bar_end") <= bar_end(upto)
        found["bar_end"] = found["bar_end"] & before if after is not None else before
    if (behind := asked.get("behind")) is not None:
        epoch, seq = behind
        found["seq"] = (pc.field("epoch") > epoch) | ((pc.field("epoch") == epoch) & (pc.field("seq") > seq))
    if (least := asked.get("min_confidence")) is not None:
        found["confidence"] = pc.field("confidence") >= least
    if (developing := asked.get("developing")) is not None:
        found["developing"] = pc.field("developing") == developing
    for column, values in (
        ("symbol", asked.get("symbols")),
        ("strategy", asked.get("strategies")),
        ("action", asked.get("actions")),
        ("frame", asked.get("frames")),
        ("epoch", asked.get("epochs")),
    ):
        if values is not None:
            found[column] = pc.field(column).isin(pa.array(list(values), pa.string()))
    if (standing := asked.get("standing")) is not None:
        stands = pc.field("revokes").is_null() & ~pc.field("id").isin(revoked)
        found["revokes"] = stands if standing else ~stands
    return found


def bar_end(ns: int) -> pa.Scalar:
    """UTC ns as the column `bar_end` has them."""
    return pa.scalar(ns, pa.int64()).cast(TIME)

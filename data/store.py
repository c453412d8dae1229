"""BarStore: bars as Parquet files that are there whole or not at all.

    STORE/store.json                         format and origin (which market this is)
    STORE/bars/1d/20240102T070000-20240131T070000-4f0c2a9b1d3e.parquet
    STORE/names/...                          the names of symbols by session
    STORE/after_hours/...                    what was traded at fixed prices after a session's close

A closed interval is one file, a micro-batch; `compact` turns the micro-batches of a day into one. The name says
which bar ends a file spans, so a reader opens only what it needs; the hash of the content makes appending twice the
same file. There is no manifest to fall out of step: the files that are there are the truth. A compacted file names in
its metadata the files it replaces, and readers leave those out, so that a crash between writing it and deleting them
costs nothing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.bar_files import BarFile, apart, counting, file_name, listed, replaces, together
from data.errors import FrameError, StoreError, StoreOriginError
from data.files import sweep, write_parquet, write_text
from data.names import Names, NameTable
from data.panel import Panel
from data.schema import AFTER_HOURS, BAR, FRAMES, NAME, SYMBOL, TIME

FORMAT = 1
KNOWN_AT = pa.field("known_at", TIME, nullable=False, metadata={"unit": "UTC ns: when the row was stored"})
STORED = BAR.append(KNOWN_AT)
ADJUSTMENTS = ("qfq", "hfq")

ReadFile = Callable[[Path, Sequence[str]], pa.Table]
"""Columns of a Parquet file of bars, in the types of STORED."""


class BarStore:
    """The bars of one market under one folder. Readers need no lock; appending is safe from several processes.

    Errors: StoreOriginError where the folder holds another market; StoreError where a file is damaged.
    """

    def __init__(self, root: Path | str, *, origin: str | None = None, read: ReadFile | None = None) -> None:
        """Open the store at `root`, making it where there is none. `origin`: the market it must hold (`market`, `sim`);
        None takes what is there and makes nothing. `read`: what reads its files for `table` in place of pyarrow."""
        self.root = Path(root)
        self._read_file = read or read_file
        self._names = NameTable(self.root / "names")
        about = self.root / "store.json"
        if about.exists():
            try:
                known = json.loads(about.read_text())
            except (OSError, ValueError) as error:
                raise StoreError(f"{about} is not readable as JSON: {error}") from error
            if known.get("format") != FORMAT:
                raise StoreError(f"{about} says format {known.get('format')!r}; this version reads format {FORMAT}")
            self.origin = str(known["origin"])
            if origin is not None and origin != self.origin:
                raise StoreOriginError(
                    f"the store {self.root} holds the market {self.origin!r}, not {origin!r}: fiction and a real market"
                    " never mix. Name another folder with --store DIR"
                )
        elif origin is None:
            raise StoreOriginError(
                f"there is no store at {self.root}. Make one with 'mystocks-scan import PATH...' or"
                " 'mystocks-scan run', or name another folder with --store DIR"
            )
        else:
            self.origin = origin
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(about, json.dumps({"format": FORMAT, "origin": origin}))

    def append(self, bars: pa.Table | pa.RecordBatch, frame: str, *, adjusted: str | None = None) -> Path | None:
        """Make `bars` (of `data.schema.BAR`, any order) durable as one file; None where there are none.

        Appending the same bars again leaves one file. Raises OSError where the disk refuses; nothing is half-written
        then.
        """
        table = pa.Table.from_batches([bars]) if isinstance(bars, pa.RecordBatch) else bars
        if table.num_rows == 0:
            return None
        table = _sorted(table.select(BAR.names).cast(BAR))
        digest = _digest(table)
        stamp = pa.array(np.full(table.num_rows, time.time_ns()), pa.int64()).cast(TIME)
        return self._write(table.append_column(KNOWN_AT, stamp), self._folder(frame, adjusted), digest)

    def frames(self) -> list[str]:
        """The frames that have bars, shortest first."""
        return [frame for frame in FRAMES if self.files(frame)]

    def files(self, frame: str, *, adjusted: str | None = None) -> list[BarFile]:
        """The files that hold a frame's bars, by first bar end; those that a compacted file replaces are left out."""
        return counting(listed(self._folder(frame, adjusted)))

    def last_bar_end(self, frame: str, *, upto: int | None = None, adjusted: str | None = None) -> int | None:
        """The newest bar end (UTC ns), at or before `upto` if given; None where there is none."""
        files = self.files(frame, adjusted=adjusted)
        if upto is None:
            return max((file.last for file in files), default=None)
        whole = max((file.last for file in files if file.last <= upto), default=None)
        astride = [file for file in files if file.first <= upto < file.last]
        ends = [end for end in self._bar_ends(astride) if end <= upto]
        return max([*ends, *([whole] if whole is not None else [])], default=None)

    def bar_ends(
        self, frame: str, *, upto: int | None = None, newest: int | None = None, adjusted: str | None = None
    ) -> list[int]:
        """The bar ends of a frame (UTC ns), ascending: all, those at or before `upto`, and of them the `newest` ones.

        Files that can add nothing to the newest are not opened.
        """
        files = [file for file in self.files(frame, adjusted=adjusted) if upto is None or file.first <= upto]
        ends = list[int]()
        for group in [files] if newest is None else apart(files):
            ends = [end for end in self._bar_ends(group) if upto is None or end <= upto] + ends
            if newest is not None and len(ends) >= newest:
                return ends[len(ends) - newest :]
        return ends

    def symbols(self, frame: str, *, adjusted: str | None = None) -> list[str]:
        """Every symbol that has a bar of this frame, sorted."""
        column = self.table(frame, columns=["symbol"], adjusted=adjusted)["symbol"]
        own = [chunk.unique().dictionary_decode() for chunk in column.chunks]
        return sorted(pa.chunked_array(own, pa.string()).unique().to_pylist())

    def table(
        self,
        frame: str,
        *,
        after: int | None = None,
        upto: int | None = None,
        known_by: int | None = None,
        symbols: Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
        adjusted: str | None = None,
    ) -> pa.Table:
        """Stored rows with `after` < bar_end <= `upto` (UTC ns), all revisions, in no promised order.

        `known_by`: leave out what was stored later (UTC ns). `symbols`: only these. Raises StoreError naming a damaged
        file.
        """
        for _ in range(3):
            files = [
                file
                for file in self.files(frame, adjusted=adjusted)
                if (after is None or file.last > after) and (upto is None or file.first <= upto)
            ]
            try:
                return _read(files, after, upto, known_by, symbols, columns, self._read_file)
            except FileNotFoundError:
                continue  # compacted between the listing and the reading: list again
        raise StoreError(f"files of {self._folder(frame, adjusted)} vanish while they are read")

    def panel(
        self,
        frame: str,
        *,
        after: int | None = None,
        upto: int | None = None,
        known_by: int | None = None,
        symbols: Sequence[str] | None = None,
        adjusted: str | None = None,
    ) -> Panel:
        """The market as a panel: the highest revision of each bar with `after` < bar_end <= `upto`."""
        table = self.table(frame, after=after, upto=upto, known_by=known_by, symbols=symbols, adjusted=adjusted)
        return Panel.from_table(table, frame, symbols)

    def compact(self, frame: str, *, adjusted: str | None = None) -> int:
        """Turn the micro-batches of each day into one sorted file; returns how many files went. Readers may go on.

        Daily bars: those of each month. So memory holds a session's bars at most.
        """
        folder = self._folder(frame, adjusted)
        if not folder.is_dir():
            return 0
        sweep(folder)
        files = listed(folder)
        kept = counting(files)
        gone = sorted({file.path for file in files} - {file.path for file in kept})
        for group in together(kept, frame):
            if len(group) < 2:
                continue
            table = _sorted(_read(group, None, None, None, None, None, read_file).select(STORED.names))
            replaced = {name for file in group for name in (file.path.name, *replaces(file.path))}
            table = table.replace_schema_metadata({b"replaces": json.dumps(sorted(replaced)).encode()})
            self._write(table, folder, _digest(table), compacted=True)
            gone += [file.path for file in group]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def append_names(self, names: pa.Table) -> Path | None:
        """Keep (symbol, day, name) rows of `data.schema.NAME`."""
        return self._append_plain(names, NAME, "names")

    def append_after_hours(self, trades: pa.Table) -> Path | None:
        """Keep what symbols traded after the close, rows of `data.schema.AFTER_HOURS`."""
        return self._append_plain(trades, AFTER_HOURS, "after_hours")

    def after_hours(self) -> pa.Table:
        """What was traded after the close, by session and symbol; of two totals of one session the larger counts."""
        folder = self.root / "after_hours"
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        table = pa.concat_tables(
            [AFTER_HOURS.empty_table(), *(pq.read_table(path).cast(AFTER_HOURS) for path in files)]
        )
        table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
        totals = table.group_by(["day", "symbol"]).aggregate([("volume", "max"), ("amount", "max")])
        columns = [totals["symbol"].cast(SYMBOL), totals["day"], totals["volume_max"], totals["amount_max"]]
        return pa.Table.from_arrays(columns, schema=AFTER_HOURS).sort_by("day")

    def names(self, *, upto: int | None = None) -> Names:
        """symbol -> (newest known name, the day it was seen on as YYYY-MM-DD), of days not after `upto` (UTC ns)."""
        return self._names.newest(upto=upto)

    def _append_plain(self, rows: pa.Table, schema: pa.Schema, folder_name: str) -> Path | None:
        """Keep rows that are no bars in a file named by its content."""
        if rows.num_rows == 0:
            return None
        table = rows.select(schema.names).cast(schema).combine_chunks()
        folder = self.root / folder_name
        folder.mkdir(exist_ok=True)
        path = folder / f"{_digest(table)}.parquet"
        if not path.exists():
            write_parquet(path, table)
        return path

    def _folder(self, frame: str, adjusted: str | None) -> Path:
        if frame not in FRAMES:
            raise FrameError(f"frame must be one of {', '.join(FRAMES)}; got {frame!r}")
        if adjusted is not None and adjusted not in ADJUSTMENTS:
            raise FrameError(f"adjusted must be one of {', '.join(ADJUSTMENTS)}; got {adjusted!r}")
        return self.root / "bars" / (frame if adjusted is None else f"{frame}-{adjusted}")

    def _bar_ends(self, files: Iterable[BarFile]) -> list[int]:
        ends = set[int]()
        for file in files:
            if file.first == file.last:
                ends.add(file.first)
            else:
                ends |= set(read_file(file.path, ["bar_end"])["bar_end"].unique().cast(pa.int64()).to_pylist())
        return sorted(ends)

    def _write(self, table: pa.Table, folder: Path, digest: str, *, compacted: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        ends = table["bar_end"].cast(pa.int64())
        span = pc.min_max(ends).as_py()
        path = folder / file_name(span["min"], span["max"], digest, compacted=compacted)
        if not path.exists():
            write_parquet(path, table, row_group_size=250_000)
        return path


def read_file(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a Parquet file. Raises FileNotFoundError, or what pyarrow says of a damaged one."""
    # Without checksums three in four flipped bytes read as other numbers; with them it takes no longer.
    return pq.ParquetFile(path, page_checksum_verification=True).read(columns=list(columns))


def _read(
    files: Sequence[BarFile],
    after: int | None,
    upto: int | None,
    known_by: int | None,
    symbols: Sequence[str] | None,
    columns: Iterable[str] | None,
    read_columns: ReadFile,
) -> pa.Table:
    """The rows of `files` within the bounds."""
    names = STORED.names if columns is None else list(columns)
    tables = []
    for file in files:
        bounds = {
            "bar_end": (
                after if after is not None and file.first <= after else None,
                upto if _past(file, upto) else None,
            ),
            "known_at": (None, known_by),
        }
        bounded = [name for name, bound in bounds.items() if bound != (None, None)]
        read = dict.fromkeys([*names, *bounded, *(["symbol"] if symbols is not None else [])])
        try:
            table = read_columns(file.path, list(read))
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{file.path}: {error}") from error
        for name, (above, most) in bounds.items():
            if above is not None:
                table = table.filter(pc.greater(table[name], _time(above)))
            if most is not None:
                table = table.filter(pc.less_equal(table[name], _time(most)))
        # File by file: of one symbol, memory holds no more than a file of the others.
        tables.append(table.select(names) if symbols is None else _of_symbols(table, symbols).select(names))
    return pa.concat_tables(tables or [STORED.empty_table().select(names)]).cast(
        pa.schema([STORED.field(name) for name in names])
    )


def _past(file: BarFile, upto: int | None) -> bool:
    return upto is not None and file.last > upto


def _of_symbols(table: pa.Table, symbols: Sequence[str]) -> pa.Table:
    """The rows of `symbols`, told by their codes: as texts, millions of rows take a second."""
    wanted = pa.array(symbols, pa.string())
    masks = [
        pc.is_in(chunk.dictionary, wanted).take(chunk.indices) if len(chunk.dictionary) else chunk.is_valid()
        for chunk in table["symbol"].chunks
    ]
    return table.filter(pa.chunked_array(masks, pa.bool_()))


def _sorted(table: pa.Table) -> pa.Table:
    """By bar end, symbol, revision, with one dictionary of symbols."""
    symbol = table["symbol"].cast(pa.string())
    keys = pa.table({"bar_end": table["bar_end"], "symbol": symbol, "revision": table["revision"]})
    order = pc.sort_indices(
        keys, sort_keys=[("bar_end", "ascending"), ("symbol", "ascending"), ("revision", "ascending")]
    )
    return table.take(order).unify_dictionaries().combine_chunks()


def _digest(table: pa.Table) -> str:
    """Twelve hexadecimal digits of the content's SHA-256."""
    digest = hashlib.sha256()
    for column in table.combine_chunks().columns:
        plain = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for chunk in plain.chunks:
            for buffer in chunk.buffers():
                if buffer is not None:
                    digest.update(buffer)
    return digest.hexdigest()[:12]


def _time(ns: int) -> pa.Scalar:
    return pa.scalar(ns, pa.int64()).cast(TIME)

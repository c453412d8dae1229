"""Vendors' files -> bars in a store, and a report of what became of every row.

    find_files -> read_rows -> check -> compare with what is stored -> one file a month

Rows are gathered from many files before they are stored, so that thousands of small files become one file a
month. A month is stored in one atomic step: killed at any moment, an import leaves a whole store, and the same command
finds what is there to be duplicates and stores the rest.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import TradingCalendar, bar_start, local_day
from data.checks import Batch, Bounds, Checked, Symbols, batch_of, check
from data.errors import StoreError
from data.gaps import list_gaps
from data.merge import Bars, Verdicts, differing, judge, keys_of, read_stored, sorted_names
from data.panel import Floats, Times
from data.reading import Rows, find_files, read_rows
from data.recognise import VALUES
from data.refusals import CODE, REASONS, Refusals, write_listing
from data.schema import BAR, NAME, TIME
from data.store import BarStore

log = logging.getLogger(__name__)

FLUSH_ROWS = 3_000_000
"""So many rows are gathered before they are stored."""

Progress = Callable[[str, int, int], None]
"""(what is done, how far, of how many)."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `read` = `stored` + `duplicates` + the sum of `refused`, in rows."""

    files: int
    read: int
    stored: int
    duplicates: int
    refused: dict[str, int]
    """Reason -> rows, in the order of `refusals.REASONS`."""
    symbols: int
    """Known symbols among the rows read."""
    unverified: int
    """Bars of files that nothing tells the units of: they are taken for shares and CNY."""
    rejects: Path | None
    """The file that lists the refused rows."""
    ex_gap: int = 0
    """Bars of these symbols, stored now or before, at which the basis of prices changed unseen (`data.adjust`)."""
    gaps: Path | None = None
    """The file that lists them."""


def import_files(
    paths: Iterable[Path],
    store: BarStore,
    calendar: TradingCalendar,
    *,
    now: int,
    adjusted: str | None = None,
    revise: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import the files and folders of `paths` into `store`, as of `now` (UTC ns).

    `adjusted` (`qfq`, `hfq`): into the series of adjusted prices; their units are checked by the raw bars stored.
    `revise`: a row that differs from a stored one is its next revision, in place of being refused.
    Raises UsageError for a path that is not there, StoreError where the store cannot be written.
    """
    files = find_files(paths)
    run = _Import(store, calendar, now, adjusted, revise, progress or (lambda what, done, total: None))
    for place, file in enumerate(files):
        run.progress("reading", place, len(files))
        for rows in read_rows(file, adjusted):
            run.take(rows)
    run.progress("reading", len(files), len(files))
    run.flush()
    return run.report(len(files))


@dataclass
class _Import:
    """One import under way: the rows gathered and not yet stored, and the counts so far."""

    store: BarStore
    calendar: TradingCalendar
    now: int
    adjusted: str | None
    revise: bool
    progress: Progress
    symbols: Symbols = field(default_factory=Symbols)
    refusals: Refusals = field(default_factory=Refusals)
    read: int = 0
    stored: int = 0
    duplicates: int = 0
    unverified: int = 0
    gathered: dict[str, list[Rows]] = field(default_factory=dict)
    n_gathered: int = 0
    frames: set[str] = field(default_factory=set)
    began: int = field(default_factory=time.time_ns)

    def take(self, rows: Rows) -> None:
        """Gather rows, and store what is gathered where it becomes much."""
        log.info("%s: %d rows, frame %s", rows.path, len(rows), rows.frame)
        if len(rows):
            self.gathered.setdefault(rows.frame, []).append(rows)
        self.n_gathered += len(rows)
        if self.n_gathered >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Check, compare and store what is gathered."""
        gathered, self.gathered, self.n_gathered = self.gathered, {}, 0
        self.frames |= set(gathered)
        for frame, parts in gathered.items():
            batch = batch_of(parts, self.symbols)
            self.read += len(batch.ids)
            bounds = None if self.adjusted is None else self._raw_bounds(frame)
            checked = check(batch, self.symbols, self.calendar, self.now, bounds)
            self.unverified += checked.unverified
            refused = np.flatnonzero(checked.reasons)
            self._refuse(batch, refused, checked.reasons[refused], batch.fields)
            with self._writing():
                self._store(batch, checked)
                self.store.append_names(names_seen(batch, checked, self.symbols))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Where the disk may refuse."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the store {self.store.root} cannot be written: {error}. What was stored is whole: make room or name"
                " another folder with --store DIR, and run the same import again"
            ) from error

    def _store(self, batch: Batch, checked: Checked) -> None:
        """Compare the bars with each other and with the store, and store the new ones month by month."""
        names, ranks = sorted_names(self.symbols.names)
        rows = np.flatnonzero(checked.reasons == 0)
        keys = keys_of(checked.ends[rows], ranks[batch.ids[rows]])
        order = np.argsort(keys, kind="stable")
        rows, keys = rows[order], keys[order]
        ends = checked.ends[rows]
        dictionary = pa.array(names, pa.string())
        places = {name: rank for rank, name in enumerate(names)}
        starts = _month_starts(ends)
        for done, (start, stop) in enumerate(pairwise(starts)):
            self.progress("storing", done, len(starts) - 1)
            month = rows[start:stop]
            none = np.zeros(len(month), dtype=np.int64)
            fields = {name: values[month] for name, values in checked.fields.items()}
            bars = Bars(keys[start:stop], fields, checked.coarse[month], none, none)
            stored = read_stored(self.store, batch.frame, self.adjusted, int(ends[start]), int(ends[stop - 1]), places)
            verdicts = judge(bars, stored, revise=self.revise, began=self.began)
            self.duplicates += int(verdicts.duplicate.sum())
            kept = np.flatnonzero(verdicts.store)
            symbol = ranks[batch.ids[month[kept]]].astype(np.int32)
            table = _table(
                batch.frame, symbol, dictionary, ends[start:stop][kept], verdicts.bars[kept], checked.flags[month[kept]]
            )
            self.store.append(table, batch.frame, adjusted=self.adjusted)
            self.stored += len(kept)
            self._conflicts(batch, month, verdicts)
        if len(rows):
            self.progress("storing", len(starts) - 1, len(starts) - 1)

    def _conflicts(self, batch: Batch, month: npt.NDArray[np.int64], verdicts: Verdicts) -> None:
        """Refuse what differs from a stored bar or from an earlier row."""
        at = np.flatnonzero(verdicts.conflict)
        if len(at) == 0:
            return
        values = {name: np.full(len(batch.ids), np.nan) for name in VALUES}
        for name in VALUES:
            values[name][month[at]] = verdicts.bars.fields[name][at]
        other = np.where(verdicts.earlier[at], "an earlier row", "the stored bar")
        what = {bits: differing(int(bits)) for bits in np.unique(verdicts.differs[at])}
        texts: list[str | None] = [
            f"differs from {whose} in {what[bits]}" for bits, whose in zip(verdicts.differs[at], other, strict=True)
        ]
        reasons = np.full(len(at), CODE["conflicting duplicate"], dtype=np.uint8)
        self._refuse(batch, month[at], reasons, values, texts)

    def _refuse(
        self,
        batch: Batch,
        rows: npt.NDArray[np.int64],
        reasons: npt.NDArray[np.uint8],
        values: dict[str, Floats],
        texts: list[str | None] | None = None,
    ) -> None:
        """List rows of a batch as refused; `texts` are what the files say unless others are given."""
        if len(rows) == 0:
            return
        files = [str(part.path) for part in batch.parts]
        numbers = {name: values[name][rows] for name in VALUES}
        lines = batch.lines[rows]
        if texts is None:
            texts = [None] * len(rows)
            for place in np.flatnonzero(batch.bad[rows]):
                texts[place] = batch.parts[batch.part[rows[place]]].texts.get(int(lines[place]))
        self.refusals.add(
            reasons,
            pa.DictionaryArray.from_arrays(batch.part[rows], files),
            lines,
            pa.DictionaryArray.from_arrays(batch.codes[rows], list(batch.spellings)),
            batch.local[rows],
            numbers,
            texts,
        )

    def _raw_bounds(self, frame: str) -> Bounds:
        """Low and high of the raw bars stored, by which the units of adjusted rows are checked."""

        def bounds(ids: npt.NDArray[np.int32], ends: Times) -> tuple[Floats, Floats]:
            names, ranks = sorted_names(self.symbols.names)
            places = {name: rank for rank, name in enumerate(names)}
            raw = read_stored(self.store, frame, None, int(ends.min()), int(ends.max()), places)
            if raw is None:
                return np.full(len(ids), np.nan), np.full(len(ids), np.nan)
            keys = keys_of(ends, np.append(ranks, -1)[ids])
            place = np.searchsorted(raw.keys, keys).clip(max=len(raw.keys) - 1)
            found = (ids >= 0) & (raw.keys[place] == keys)
            low, high = raw.fields["low"][place], raw.fields["high"][place]
            return np.where(found, low, np.nan), np.where(found, high, np.nan)

        return bounds

    def report(self, n_files: int) -> ImportReport:
        """What the import did; the refused rows are listed now."""
        refused = {reason: n for reason in REASONS if (n := self.refusals.counts[reason])}
        with self._writing():
            rejects = self.refusals.write(self.store.root / "rejects", self.now)
            n_gaps, gaps = self._list_gaps()
        return ImportReport(
            n_files,
            self.read,
            self.stored,
            self.duplicates,
            refused,
            len(self.symbols.names),
            self.unverified,
            rejects,
            n_gaps,
            gaps,
        )

    def _list_gaps(self) -> tuple[int, Path | None]:
        """Count and list the gaps of the symbols read; adjusted prices have none by their nature."""
        if self.adjusted is not None or not self.frames:
            return 0, None
        symbols = sorted(self.symbols.names)
        table = pa.concat_tables([list_gaps(self.store, frame, symbols) for frame in sorted(self.frames)])
        return table.num_rows, write_listing(table, self.store.root / "gaps", self.now) if table.num_rows else None


def names_seen(batch: Batch, checked: Checked, symbols: Symbols) -> pa.Table:
    """The names in a batch as rows of `data.schema.NAME`: first and last day of each."""
    nameless = [CODE[reason] for reason in ("unreadable", "unknown symbol", "not a session", "future")]
    rows: list[npt.NDArray[np.int64]] = []
    texts: list[npt.NDArray[np.object_]] = []
    for start, part in zip(batch.start, batch.parts, strict=True):
        if part.name_codes is not None:
            own = checked.reasons[start : start + len(part)]
            at = np.flatnonzero((part.name_codes >= 0) & ~np.isin(own, nameless))
            rows.append(at + start)
            texts.append(np.array([*part.names, ""], dtype=object)[part.name_codes[at]])
    if not rows:
        return NAME.empty_table()
    row, text = np.concatenate(rows), np.concatenate(texts)
    row, text = row[text != ""], text[text != ""]
    ids, days = batch.ids[row], local_day(checked.ends[row])
    order = np.lexsort((days, ids))
    ids, days, text = ids[order], days[order], text[order]
    change = np.append(True, (np.diff(ids) != 0) | (text[1:] != text[:-1]))[: len(ids)]
    edge = change | np.append(change[1:], True)[: len(ids)]
    symbol = pa.array(np.array(symbols.names, dtype=object)[ids[edge]], pa.string()).dictionary_encode()
    return pa.table([symbol, pa.array(days[edge]), pa.array(text[edge], pa.string())], schema=NAME)


def _table(
    frame: str,
    symbol: npt.NDArray[np.int32],
    dictionary: pa.Array,
    ends: Times,
    bars: Bars,
    flags: npt.NDArray[np.uint8],
) -> pa.Table:
    """Bars as rows of `data.schema.BAR`."""
    columns = {
        "symbol": pa.DictionaryArray.from_arrays(symbol, dictionary),
        "bar_start": pa.array(bar_start(ends, frame)).cast(TIME),
        "bar_end": pa.array(ends).cast(TIME),
        **{name: pa.array(bars.fields[name], from_pandas=True) for name in VALUES},
        "flags": flags,
        "revision": bars.revisions.astype(np.int32),
    }
    return pa.table({name: columns[name] for name in BAR.names}, schema=BAR)


def _month_starts(ends: Times) -> list[int]:
    """Where each month (UTC) of ascending bar ends starts, and where the last one stops."""
    months = ends.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
    return [0, *(np.flatnonzero(np.diff(months)) + 1).tolist(), len(ends)] if len(ends) else [0]

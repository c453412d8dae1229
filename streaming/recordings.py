"""Recordings: quotes that can be read again, from a tape, from stored bars, or from ticks in a CSV file.

    2026-06-30.tape, or a folder of them    what a live service received, batch for batch
    a store's folder                        each bar as ticks that fold back into that very bar: open, extremes, close
    FILE.csv                                rows of ticks, those of one time a batch

The CSV has a header. Columns: `symbol` (any spelling), `quote_time` (ISO 8601; in Shanghai where it says no zone),
`last`, `volume` (shares, cumulative for the day), and if they are there `open`, `high`, `low` (the day's), `prev_close`
and `amount` (CNY, cumulative for the day). A row without one of the first four, or whose symbol is none, is left out.

A bar comes back to the bit where its volume is a whole number and its amount has at most three decimals; minutes
without a trade come from the fold itself. Null amounts stay null where none of a symbol's day has one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from data.calendar import MINUTE, bar_ends, bar_start, local_day
from data.columns import column, symbol_column
from data.errors import MarketDataError, UnknownSymbolError, UsageError
from data.panel import Panel
from data.schema import FRAMES, SYMBOL, TICK, TIME
from data.store import BarStore
from data.symbols import canonical
from streaming.segment import Segment, segments

_NEEDED = ("symbol", "quote_time", "last", "volume")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Recording(Protocol):
    """Quotes that can be read again and again."""

    def symbols(self) -> list[str]:
        """Whose quotes they are, sorted."""
        ...

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of `data.schema.TICK`, in the order in which they came."""
        ...


class TapeRecording:
    """Segments of a tape, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def symbols(self) -> list[str]:
        """See `Recording`."""
        found = set[str]()
        for path in self.paths:
            segment = Segment(path)
            for _ in segment.frames():
                pass
            found |= {name for name in segment.symbols if name is not None}
        return sorted(found)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Recording`; their metadata are those on the tape."""
        for path in self.paths:
            yield from Segment(path).batches()


class BarRecording:
    """The bars of one frame of a store, as ticks."""

    def __init__(self, store: BarStore, frame: str) -> None:
        self.store, self.frame = store, frame

    def symbols(self) -> list[str]:
        """See `Recording`."""
        return self.store.symbols(self.frame)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Recording`: full snapshots, four a bar, one before the session and one after it."""
        for day in np.unique(local_day(np.array(self.store.bar_ends(self.frame), dtype=np.int64))):
            ends = bar_ends(day, self.frame)
            yield from ticks_of(self.store.panel(self.frame, after=int(ends[0]) - 1, upto=int(ends[-1])))


class CsvRecording:
    """Ticks of a CSV file. Raises UsageError where it lacks a column or cannot be read."""

    def __init__(self, path: Path) -> None:
        self._ticks = read_ticks(path)

    def symbols(self) -> list[str]:
        """See `Recording`."""
        return sorted(self._ticks["symbol"].unique().to_pylist())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Recording`: the rows of one time, by time."""
        times = self._ticks["quote_time"].view(pa.int64()).to_numpy()
        edges = np.flatnonzero(np.diff(times)) + 1
        for start, stop in zip([0, *edges], [*edges, len(times)], strict=True):
            if stop > start:
                yield self._ticks.slice(start, stop - start)


def open_recording(path: str | Path, frame: str) -> Recording:
    """What lies at `path`; `frame`: of a store's bars. Raises UsageError where it is no recording."""
    return _opened(Path(path) if str(path) else None, frame, CsvRecording)


def check_recording(path: str | Path, frame: str) -> None:
    """Raise UsageError where `open_recording` would, or where there is no tick; reads no more than the first."""
    found = _opened(Path(path) if str(path) else None, frame, _first_ticks)
    if found is None:
        raise UsageError(f"{path} holds no ticks: give --feed replay:PATH another file")
    if isinstance(found, TapeRecording):
        try:
            if not any(batch.num_rows for batch in found.batches()):
                raise UsageError(f"{path} holds no quotes: give --feed replay:PATH another tape")
        except (OSError, MarketDataError, ValueError) as error:
            raise UsageError(
                f"the tape {path} is not readable: {error}. Give --feed replay:PATH another one"
            ) from error


def _opened(place: Path | None, frame: str, read_csv: Callable[[Path], T]) -> "TapeRecording | BarRecording | T":
    if place is None or not place.exists():
        raise UsageError(
            f"the feed replay needs a tape, a store or a CSV file, as replay:PATH; there is no {str(place or '')!r}"
        )
    if place.suffix == ".tape":
        return TapeRecording([place])
    if (place / "store.json").exists():
        store = BarStore(place)
        if not store.files(frame):
            had = [name for name in FRAMES if store.files(name)]
            raise UsageError(f"the store {place} holds no {frame} bars to replay; it has {', '.join(had) or 'none'}")
        return BarRecording(store, frame)
    if found := list(segments(place).values()):
        return TapeRecording(found)
    if place.is_file() and ".csv" in place.suffixes:
        return read_csv(place)
    raise UsageError(f"{place} is no tape (*.tape, or a folder of them), no store and no CSV file (*.csv, *.csv.gz)")


def ticks_of(panel: Panel) -> Iterator[pa.RecordBatch]:
    """Full snapshots of one session that fold back into its bars: four a bar, at quarters of its time."""
    symbols = pa.array(panel.symbols, pa.string())
    n = len(symbols)
    symbol = symbol_column(np.arange(n, dtype=np.int32), symbols)
    last, opened, high, volume, amount = np.zeros((5, n))
    low = np.full(n, np.inf)
    prev_close = np.zeros(n)
    for row in panel["prev_close"][::-1] if "prev_close" in panel.fields else []:
        prev_close = np.where(row > 0, row, prev_close)

    def snapshot(at: int) -> pa.RecordBatch:
        shown = (last, opened, high, np.where(np.isinf(low), 0.0, low), prev_close, volume, amount)
        times = column(np.full(n, at), TIME)
        return pa.RecordBatch.from_arrays(
            [symbol, times, *(column(values.copy(), pa.float64()) for values in shown)], schema=TICK
        )

    day = local_day(panel.times[:1])[0]
    # Everybody is seen before the first trade, so that no first quote is taken for what came before it.
    yield snapshot(int(bar_ends(day, "1m")[0]) - 6 * MINUTE)
    for row, end in enumerate(panel.times):
        start = int(bar_start(np.array([end]), panel.frame)[0])
        new = np.nan_to_num(panel["volume"][row])
        traded = new > 0
        o, h, lo, c = (panel[name][row] for name in ("open", "high", "low", "close"))
        rises = c >= o
        more = panel["amount"][row]
        base_volume, base_amount = volume, amount
        for k, price in enumerate((o, np.where(rises, lo, h), np.where(rises, h, lo), c), 1):
            last = np.where(traded, price, last)
            opened = np.where(traded & (opened == 0), o, opened)
            high, low = np.where(traded, np.fmax(high, price), high), np.where(traded, np.fmin(low, price), low)
            volume = np.where(traded, base_volume + (new * (k / 4) if k < 4 else new), volume)
            amount = np.where(traded, base_amount + (more * (k / 4) if k < 4 else more), amount)
            yield snapshot(start + (int(end) - start) * k // 4)
    yield snapshot(int(panel.times[-1]) + MINUTE)


def read_ticks(path: Path) -> pa.RecordBatch:
    """The ticks of a CSV file, by time; how many rows were left out goes to the log. Raises UsageError."""
    tables, n_rows = [], 0
    for text in _texts(path):
        tables.append(_ticks_in(text))
        n_rows += text.num_rows
    ticks = pa.concat_tables(tables)
    if left_out := n_rows - ticks.num_rows:
        log.warning("%s: %d of %d rows are no ticks and were left out", path, left_out, n_rows)
    ticks = ticks.set_column(0, "symbol", ticks["symbol"].combine_chunks().dictionary_encode().cast(SYMBOL))
    times = ticks["quote_time"].cast(pa.int64()).to_numpy()
    ticks = ticks.take(pa.array(np.argsort(times, kind="stable"))).cast(TICK).combine_chunks()
    return ticks.to_batches()[0] if ticks.num_rows else pa.RecordBatch.from_pylist([], TICK)


def _first_ticks(path: Path) -> pa.Table | None:
    """Some of the ticks of a CSV file; None where it has none."""
    return next((ticks for text in _texts(path, 1 << 16) if (ticks := _ticks_in(text)).num_rows), None)


def _texts(path: Path, n_bytes: int = 1 << 24) -> Iterator[pa.Table]:
    """The cells of a CSV file as texts, so many bytes of it at once."""
    try:
        names = pacsv.open_csv(path).schema.names
        if missing := [name for name in _NEEDED if name not in names]:
            raise UsageError(f"{path} lacks the columns {', '.join(missing)}; ticks need {', '.join(_NEEDED)}")
        as_texts = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        with pacsv.open_csv(path, read_options=pacsv.ReadOptions(block_size=n_bytes), convert_options=as_texts) as file:
            for batch in file:
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} is not readable as CSV: {error}") from error


def _ticks_in(text: pa.Table) -> pa.Table:
    """The rows that are ticks, symbols as texts."""
    columns: dict[str, Any] = {
        "symbol": _each(text["symbol"], _symbol, pa.string()),
        "quote_time": _each(text["quote_time"], _moment, pa.int64()).cast(TIME),
    }
    for name in TICK.names[2:]:
        absent = np.nan if name == "amount" else 0.0
        if name not in text.column_names:
            columns[name] = pa.chunked_array([np.full(text.num_rows, absent)])
            continue
        cells = pc.utf8_trim_whitespace(text[name])
        good = pc.match_substring_regex(cells, _NUMBER)
        columns[name] = pc.if_else(good, cells, None).cast(pa.float64())
        if name not in _NEEDED:
            columns[name] = columns[name].fill_null(absent)
    return pa.table(columns).drop_null()


def _each(cells: pa.ChunkedArray, read: Callable[[str], Any], type_: pa.DataType) -> pa.ChunkedArray:
    """Every cell as `read` reads it, each distinct one once; null where it reads nothing."""
    codes = cells.combine_chunks().dictionary_encode()
    values = pa.array([None if text is None else read(text.strip()) for text in codes.dictionary.to_pylist()], type_)
    return pa.chunked_array([values.take(codes.indices)])


def _symbol(text: str) -> str | None:
    try:
        return canonical(text)
    except UnknownSymbolError:
        return None


def _moment(text: str) -> int | None:
    """UTC ns."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone(timedelta(hours=8)))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1000

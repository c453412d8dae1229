"""Panel: one frame's bars of many symbols as float64 matrices, and its packed form, where a halt is no bar.

A panel is time-major, (bars, symbols): row = a bar end at which anything traded, NaN where a symbol has no bar.
`Panel.pack()` gives the form in which indicators run: (length, symbols), every symbol's own bars at the bottom, so that
row -1 is each symbol's newest bar, -2 the one before, whatever halts lie between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.columns import numbers
from data.errors import MarketDataError

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume", "amount", "prev_close")
_DAILY_CLOSE_NS = 7 * 3600 * 10**9
"""A daily bar ends at 15:00 Asia/Shanghai, 07:00 UTC."""


NO_BAR = np.iinfo(np.int64).min
"""What stands for the time of a bar that does not exist."""


@dataclass(frozen=True)
class Packed:
    """Each symbol's own bars, the newest in the last row: (length, symbols), NaN before a symbol's first bar."""

    frame: str
    symbols: tuple[str, ...]
    bar_ends: Times
    """(length, symbols) UTC ns; `NO_BAR` where there is none."""
    lengths: npt.NDArray[np.int64]
    """(symbols,): how many bars a symbol has."""
    fields: Mapping[str, Floats]
    _known: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    _memos: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def length(self) -> int:
        """Bars of the longest symbol."""
        return len(self.bar_ends)

    def memo(self, name: str) -> dict[str, Any]:
        """Where what was found out about a field's matrix is kept, since it does not change."""
        return self._memos.setdefault(name, {})

    @classmethod
    def from_table(cls, table: pa.Table, frame: str, symbols: Sequence[str]) -> Self:
        """Rows of `data.schema.BAR` -> the packed bars of `symbols`; of one (symbol, bar_end) the highest revision."""
        index, own = _codes(table["symbol"])
        place = {symbol: j for j, symbol in enumerate(symbols)}
        lookup = np.array([place.get(symbol, len(symbols)) for symbol in own], dtype=np.uint16)
        code = lookup[index] if own else index.astype(np.uint16)
        ends = _ends(table)
        revision = numbers(table["revision"])
        if revision.any() or (len(ends) > 1 and (np.diff(ends) < 0).any()):
            order = np.lexsort((revision, ends, code))
        else:
            order = np.argsort(code, kind="stable")
        order = order[: np.searchsorted(code[order], len(symbols))]
        code, ends = code[order], ends[order]
        last = np.ones(len(order), dtype=bool)
        last[:-1] = (code[1:] != code[:-1]) | (ends[1:] != ends[:-1])
        if not last.all():
            order, code, ends = order[last], code[last], ends[last]
        lengths = np.bincount(code, minlength=len(symbols)).astype(np.int64)
        length = int(lengths.max(initial=0))
        start = np.cumsum(lengths) - lengths
        place = np.arange(len(code)) + np.repeat(length - lengths - start, lengths)
        # In the order of the table, which mostly is that of time: neighbours there are neighbours in the matrices.
        flat = np.full(table.num_rows, -1)
        flat[order] = place * len(symbols) + code
        kept: Any = slice(None) if len(order) == len(flat) else np.flatnonzero(flat >= 0)
        flat = flat[kept]
        del index, code, ends, order, last, place  # as large as half of what follows
        bar_ends = np.full((length, len(symbols)), NO_BAR)
        bar_ends.ravel()[flat] = _ends(table)[kept]
        fields = {}
        for name in FIELDS:
            matrix = np.full(bar_ends.shape, np.nan)
            matrix.ravel()[flat] = _floats(table[name])[kept]
            fields[name] = matrix
        return cls(frame, tuple(symbols), bar_ends, lengths, fields)

    def unpack(self, values: npt.NDArray[Any], times: Times, *, spent: bool = False) -> Floats:
        """(length, symbols) or its last rows -> (bars, symbols) on the rows `times`, NaN where there is no bar.

        Where every symbol has a bar at each of `times` it is `values` itself. `spent`: `values` may be written over,
        and are NaN before each symbol's first bar, as indicators are.
        """
        lost = self.length - len(values)
        if lost == 0 and len(times) == self.length and bool((self.lengths == len(times)).all()):
            return values
        moved, place, row = self._places(times)
        n = len(self.symbols)
        late = len(times) - self.length
        if lost:
            kept = slice(np.searchsorted(place, lost * n), None)
            place, row = place[kept] - lost * n, row[kept]
        flat = np.ascontiguousarray(values).reshape(-1)[place]
        if spent and late == lost == 0 and values.flags.c_contiguous:
            out = values
        else:
            out = np.empty((len(times), n))
            out[: late + lost] = np.nan
            out[late + lost :] = values
        if not spent:
            before = np.arange(self.length)[lost:, None] < self.length - self.lengths
            np.copyto(out[late + lost :], np.nan, where=before)
        out[:, moved] = np.nan
        out.reshape(-1)[row] = flat
        return out

    def _places(self, times: Times) -> tuple[npt.NDArray[np.int64], ...]:
        """The symbols whose bars are not the last of `times`, and where each of their bars stands, here and there.

        Kept, since many matrices are unpacked onto the same rows.
        """
        known: list[Any] = self._known
        if not known or known[0] is not times:
            exists = self.bar_ends != NO_BAR
            moved = np.flatnonzero(((self.bar_ends != times[len(times) - self.length :, None]) & exists).any(axis=0))
            place, column = np.nonzero(exists[:, moved])
            row = np.searchsorted(times, self.bar_ends[place, moved[column]])
            n = len(self.symbols)
            known[:] = [times, moved, place * n + moved[column], row * n + moved[column]]
        return known[1], known[2], known[3]


@dataclass(frozen=True)
class Panel:
    """Bars of one frame, time-major.

    `times`: (bars,) int64, bar ends in UTC ns, ascending. `fields`: name -> float64 (bars, symbols); prices and amount
    in CNY, volume in shares, NaN where a symbol has no bar.
    """

    frame: str
    times: Times
    symbols: tuple[str, ...]
    fields: Mapping[str, Floats] = field(repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.times), len(self.symbols))
        for name, matrix in self.fields.items():
            if matrix.shape != shape:
                raise MarketDataError(f"panel field {name!r} must have shape {shape}; got {matrix.shape}")

    def __getitem__(self, name: str) -> Floats:
        return self.fields[name]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(bars, symbols): whether a symbol has a bar."""
        return ~np.isnan(self.fields["close"])

    @classmethod
    def from_table(cls, table: pa.Table, frame: str = "1d", symbols: Sequence[str] | None = None) -> Self:
        """Bars as rows -> a panel.

        The table has `symbol`, `bar_end` (timestamp; without a zone it is UTC) or `date` (a daily bar of that day),
        open, high, low, close, volume and, if it likes, amount, prev_close and revision. Of several rows for one
        (symbol, bar_end) the one of the highest revision counts, the last of equals. `symbols` fixes the columns;
        without it they are the table's own, sorted.
        """
        names = set(table.column_names)
        missing = {"symbol", *PRICES, "volume"} - names
        if missing or not names & {"bar_end", "date"}:
            wanted = sorted(missing) or ["bar_end or date"]
            raise MarketDataError(
                f"a table of bars lacks the columns {', '.join(wanted)}; it has {', '.join(sorted(names))}"
            )
        codes, own = _codes(table["symbol"])
        if symbols is None:
            # A dictionary may hold symbols that no row of this table has.
            symbols = sorted(own[code] for code in np.flatnonzero(np.bincount(codes, minlength=len(own))))
        place = {symbol: j for j, symbol in enumerate(symbols)}
        columns = np.array([place.get(symbol, -1) for symbol in own], dtype=np.int64)[codes] if own else codes
        ends = _ends(table)
        keep = columns >= 0
        order: Any = slice(None)
        if "revision" in names:
            revision = numbers(table["revision"])
            if revision.any():
                order = np.argsort(revision, kind="stable")
        if not keep.all():
            order = np.flatnonzero(keep) if isinstance(order, slice) else order[keep[order]]
        columns, ends = columns[order], ends[order]
        times, rows = _unique_times(ends)
        fields: dict[str, Floats] = {}
        for name in FIELDS:
            if name in names:
                matrix = np.full((len(times), len(symbols)), np.nan)
                # Of equal keys the last assignment stays, and the rows stand in the order of their revisions.
                matrix[rows, columns] = _floats(table[name])[order]
                fields[name] = matrix
        return cls(frame, times, tuple(symbols), fields)

    def select(self, symbols: Iterable[str]) -> "Panel":
        """The panel of some of the symbols, in the order given; rows stay, even if nothing is left in one."""
        place = {symbol: j for j, symbol in enumerate(self.symbols)}
        chosen = tuple(symbols)
        index = [place[symbol] for symbol in chosen]
        return Panel(self.frame, self.times, chosen, {name: m[:, index] for name, m in self.fields.items()})

    def upto(self, bar_end: int) -> "Panel":
        """The panel up to and including `bar_end` (UTC ns)."""
        n = int(np.searchsorted(self.times, bar_end, side="right"))
        return Panel(self.frame, self.times[:n], self.symbols, {name: m[:n] for name, m in self.fields.items()})

    def pack(self, names: Iterable[str] | None = None) -> Packed:
        """Each symbol's own bars, the newest in the last row; `names`: the fields wanted, all by default.

        Where no symbol has a halt the matrices are views of the panel's.
        """
        wanted = list(self.fields if names is None else names)
        present = self.present
        lengths = np.count_nonzero(present, axis=0)
        length = int(lengths.max(initial=0))
        newest = slice(len(present) - length, None)
        bar_ends = np.where(present[newest], self.times[newest, None], NO_BAR)
        fields = {name: self.fields[name][newest] for name in wanted}
        halted = np.flatnonzero((present[:-1] & ~present[1:]).any(axis=0))
        if len(halted):
            symbol, row = np.nonzero(np.ascontiguousarray(present[:, halted].T))
            own = lengths[halted]
            place = np.arange(len(row)) + np.repeat(length - own - (np.cumsum(own) - own), own)

            def closed_up(matrix: npt.NDArray[Any], blank: Any) -> npt.NDArray[Any]:
                values = np.full((len(halted), length), blank)
                values[symbol, place] = matrix[row, halted[symbol]]
                return values.T

            bar_ends[:, halted] = closed_up(np.broadcast_to(self.times[:, None], present.shape), NO_BAR)
            for name in wanted:
                fields[name] = fields[name].copy()
                fields[name][:, halted] = closed_up(self.fields[name], np.nan)
        return Packed(self.frame, self.symbols, bar_ends, lengths, fields)


def _codes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A column of symbols -> (code of each row, symbol of each code)."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return np.empty(0, dtype=np.int64), []
    codes = np.concatenate([numbers(chunk.indices) for chunk in column.chunks])
    return codes.astype(np.int64), column.chunk(0).dictionary.to_pylist()


def _ends(table: pa.Table) -> Times:
    """Bar ends in UTC ns."""
    if "bar_end" in table.column_names:
        return np.asarray(numbers(table["bar_end"].cast(pa.timestamp("ns")).cast(pa.int64())), dtype=np.int64)
    days = table["date"]
    if pa.types.is_string(days.type) or pa.types.is_large_string(days.type):
        days = pc.strptime(pc.replace_substring(days, "-", ""), format="%Y%m%d", unit="s")
    return np.asarray(numbers(days.cast(pa.timestamp("ns")).cast(pa.int64())), dtype=np.int64) + _DAILY_CLOSE_NS


def _unique_times(ends: Times) -> tuple[Times, npt.NDArray[np.int64]]:
    """Sorted unique times and the row of each; cheap where equal times stand together."""
    if len(ends) == 0:
        return ends, ends
    change = np.flatnonzero(np.diff(ends, prepend=ends[0] - 1))
    runs = ends[change]
    times, rows = np.unique(runs, return_inverse=True)
    return times, np.repeat(rows, np.diff(change, append=len(ends)))


def _floats(column: pa.ChunkedArray) -> Floats:
    """A numeric column as float64, NaN for null."""
    return np.asarray(numbers(column.cast(pa.float64())), dtype=np.float64)

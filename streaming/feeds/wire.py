"""What vendors' frames have in common: lines of separated fields, read as columns, and ticks made of them.

A frame of the whole market is a megabyte and more every few seconds, so fields are found and numbers read for all lines
at once. A line that is not what it should be is left out and counted by its reason; its neighbours live.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import DAY, SECOND, SHANGHAI
from data.columns import column, symbol_column
from data.panel import Floats, Times
from data.schema import TICK, TIME
from data.symbols import board, kind

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

WIDTH = 24
"""No number of any vendor has more characters."""
_POWERS = 10.0 ** np.arange(23)
_EXACT = 2**53
_PLAIN = 15
"""So many characters spell no mantissa beyond it."""
_NUMERIC = np.isin(np.arange(256), np.frombuffer(b"0123456789.-", dtype=np.uint8))
_BEYOND = 0.005
"""How far amount / volume may lie outside the day's range: volumes are cut to lots, amounts rounded."""


@dataclass(frozen=True)
class Parsed:
    """What a frame held: ticks (`data.schema.TICK`), and how many lines were left out, by reason."""

    ticks: pa.RecordBatch
    dropped: Counter[str] = field(default_factory=Counter)
    spoiled: Places = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Places in the universe of those whose lines were left out, as far as the lines tell; -1 may be among them."""


class Universe:
    """The symbols that are asked of a vendor, by the vendor's own codes: what its frames are read against."""

    def __init__(self, codes: Mapping[str, str]) -> None:
        """`codes`: canonical symbol -> the vendor's code."""
        self.symbols = tuple(codes)
        self.codes = tuple(codes.values())
        self.dictionary = pa.array(self.symbols, pa.string())
        self.place = {code.encode(): j for j, code in enumerate(self.codes)}
        self.unit_free = np.array([kind(symbol) in ("b_share", "index") for symbol in self.symbols], dtype=bool)
        """Whose amount / volume says nothing: other currencies, and levels that are no price."""
        self.star = np.array([board(symbol) == "star" for symbol in self.symbols], dtype=bool)


class Lines:
    """The lines of a frame: their bytes, where each begins and ends, and the fields between separators."""

    def __init__(self, body: bytes, separator: bytes) -> None:
        self.buffer: Bytes = np.frombuffer(body + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(self.buffer == ord("\n"))
        starts = np.concatenate([[0], ends[:-1] + 1])
        filled = ends > starts
        self.starts, self.ends = starts[filled], ends[filled]
        separators = np.flatnonzero(self.buffer == ord(separator))
        self._first = np.searchsorted(separators, self.starts)
        self.n_separators = np.searchsorted(separators, self.ends) - self._first
        # Two more, for fields that are not there.
        self._separators = np.append(separators, [0, 0])

    def __len__(self) -> int:
        return len(self.starts)

    def keep(self, rows: Mask) -> None:
        """Leave out the other lines."""
        for name in ("starts", "ends", "_first", "n_separators"):
            setattr(self, name, getattr(self, name)[rows])

    def column(self, k: int | Places) -> tuple[Places, Places]:
        """Where the k-th field of each line begins and ends, from 1: the one after the k-th separator.

        `k` may differ by line. The last field ends with the line; lines that are too short have an empty field.
        """
        at = self._first + np.asarray(k) - 1
        there = np.asarray(k) <= self.n_separators
        last = len(self._separators) - 1
        begin = np.where(there, self._separators[np.minimum(at, last)] + 1, self.ends)
        follows = np.asarray(k) < self.n_separators
        end = np.where(follows, self._separators[np.minimum(at + 1, last)], self.ends)
        return begin, end

    def text(self, begin: Places, width: int) -> npt.NDArray[np.bytes_]:
        """(lines,) `width` bytes from each of the places."""
        at = np.minimum(begin[:, None] + np.arange(width), len(self.buffer) - 1)
        return np.ascontiguousarray(self.buffer[at]).view(f"S{width}")[:, 0]

    def numbers(self, *spans: tuple[Places, Places]) -> list[Floats]:
        """The decimal numbers between places, of each span exactly as `float` reads them; NaN where there is none.

        `spans`: (begin, end) of a number a line; in each line one behind the other.
        """
        found = self._plain(spans)
        return [self._any(*span) for span in spans] if found is None else found

    def _plain(self, spans: Sequence[tuple[Places, Places]]) -> list[Floats] | None:
        """All at once, where each is no more than a few digits, as they are of nearly every frame; else None."""
        edges = np.stack([edge for span in spans for edge in span], axis=1)
        lengths = np.diff(edges.ravel())
        if len(edges) == 0 or lengths.min() < 0 or lengths[::2].max() > _PLAIN:
            return None
        # Between two numbers lies what is none: as texts without gaps, every other one is wanted.
        size = edges.size - 1
        buffers = [None, pa.py_buffer(edges.astype(np.int32)), pa.py_buffer(self.buffer)]
        texts = pa.Array.from_buffers(pa.string(), size, buffers).take(pa.array(np.arange(0, size, 2, dtype=np.int32)))
        if not _NUMERIC[np.frombuffer(texts.buffers()[2], dtype=np.uint8)].all():
            return None
        try:
            values: Floats = texts.cast(pa.float64()).to_numpy().reshape(len(edges), len(spans))
        except pa.ArrowInvalid:
            return None
        return [column.copy() for column in values.T]

    def _any(self, begin: Places, end: Places) -> Floats:
        """Whatever there is, a byte of each at a time."""
        length = np.minimum(end - begin, WIDTH + 1)
        width = int(length.max(initial=0))
        mantissa = np.zeros(len(begin))
        decimals = np.zeros(len(begin), dtype=np.int64)
        digits = np.zeros(len(begin), dtype=np.int64)
        negative = np.zeros(len(begin), dtype=bool)
        point = np.zeros(len(begin), dtype=bool)
        good = (length > 0) & (length <= WIDTH)
        for i in range(min(width, WIDTH)):
            char = self.buffer[np.minimum(begin + i, len(self.buffer) - 1)]
            within = i < length
            digit = within & (char >= ord("0")) & (char <= ord("9"))
            mantissa = np.where(digit, mantissa * 10.0 + (char - np.float64(ord("0"))), mantissa)
            digits += digit
            decimals += digit & point
            dot = within & (char == ord(".")) & ~point
            minus = within & (char == ord("-")) & (i == 0)
            point |= dot
            negative |= minus
            good &= digit | dot | minus | ~within
        # A mantissa within 2**53 is exact, and so is the power of ten: the quotient is the nearest double.
        good &= (digits > 0) & (mantissa <= _EXACT) & (decimals < len(_POWERS))
        value = mantissa / _POWERS[np.minimum(decimals, len(_POWERS) - 1)]
        return np.where(good, np.where(negative, -value, value), np.nan)

    def digits(self, begin: Places, width: int, at: Sequence[int]) -> npt.NDArray[np.int64]:
        """(lines,) the number that the digits at some places of a text of `width` spell; -1 where one is no digit."""
        value = np.zeros(len(begin), dtype=np.int64)
        bad = np.zeros(len(begin), dtype=bool)
        for i in at:
            digit = self.buffer[np.minimum(begin + i, len(self.buffer) - 1)].astype(np.int64) - ord("0")
            bad |= (digit < 0) | (digit > 9)
            value = value * 10 + digit
        return np.where(bad, -1, value)


def moments(year: Places, month: Places, day: Places, seconds: Places) -> Times:
    """Dates and seconds of the day in Asia/Shanghai -> UTC ns; -1 where they are none."""
    good = (year >= 1990) & (year < 2200) & (month >= 1) & (month <= 12) & (day >= 1) & (seconds >= 0)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    lengths = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    good &= day <= lengths
    days = months.astype("datetime64[D]").astype(np.int64) + np.where(good, day - 1, 0)
    return np.where(good, days * DAY - SHANGHAI + seconds * SECOND, -1)


def clock(hour: Places, minute: Places, second: Places) -> Places:
    """Seconds from midnight; -1 where they are none."""
    good = (hour >= 0) & (hour < 24) & (minute >= 0) & (minute < 60) & (second >= 0) & (second < 61)
    return np.where(good, hour * 3600 + minute * 60 + second, -1)


def to_ticks(
    universe: Universe,
    place: Places,
    when: Times,
    numbers: Mapping[str, Floats],
    dropped: Iterable[tuple[str, int]],
    spoiled: Sequence[int] = (),
) -> Parsed:
    """Rows of ticks, without those that cannot be; what is left out is counted by reason, `dropped` and `spoiled` being
    what was left out before.

    `place`: (rows,) in the universe, -1 for codes that nobody asked for. `when`: UTC ns, -1 for none. Reasons: `code`,
    `time`, `number` (one is missing or no number), `range` (the last price lies outside the day's), `units`
    (amount / volume does: lots taken for shares, or the like).
    """
    counts = Counter(dict(dropped))
    last, high, low, opened = (numbers[name] for name in ("last", "high", "low", "open"))
    volume, amount = numbers["volume"], numbers["amount"]
    traded = volume > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = amount / volume
    # A lot more or less is a vendor's rounding.
    slack = _BEYOND + 100.0 / np.maximum(volume, 1.0)
    checks = {
        "code": place < 0,
        "time": when < 0,
        "number": ~np.all([np.isfinite(values) & (values >= 0) for values in numbers.values()], axis=0),
        "range": traded & ~((low > 0) & (low <= last) & (last <= high) & (low <= opened) & (opened <= high)),
        "units": traded
        & ~universe.unit_free[np.maximum(place, 0)]
        & ~((mean >= low * (1 - slack)) & (mean <= high * (1 + slack))),
    }
    good = np.ones(len(place), dtype=bool)
    for reason, bad in checks.items():
        fresh = good & bad
        if fresh.any():
            counts[reason] += int(np.count_nonzero(fresh))
            good &= ~bad
    rows = slice(None) if good.all() else good
    arrays = [symbol_column(place[rows].astype(np.int32), universe.dictionary), column(when[rows], TIME)]
    arrays += [column(numbers[name][rows], pa.float64()) for name in TICK.names[2:]]
    out = np.concatenate([np.array(spoiled, dtype=np.int64), place[~good]])
    return Parsed(pa.RecordBatch.from_arrays(arrays, schema=TICK), +counts, out)


def unseen(body: bytes, seen: dict[bytes, bytes], key: int) -> bytes:
    """The lines of a frame that differ from what `seen` has for their first `key` bytes, and keeps from now on."""
    fresh = []
    for line in body.split(b"\n"):
        code = line[:key]
        if seen.get(code) != line:
            seen[code] = line
            fresh.append(line)
    return b"\n".join(fresh)

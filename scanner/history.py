"""The bars that a stream has seen: those it was opened with and a log of those since, packed again when asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.panel import NO_BAR, Floats, Packed

Mask = npt.NDArray[np.bool_]
MOST = 512
"""Bars in the log: then they are packed."""


@dataclass(frozen=True)
class _Entry:
    """One bar end of some symbols."""

    end: int
    has: Mask
    rows: Mapping[str, Floats]


class History:
    """Appending is cheap; packing moves everything. Nothing that it has given out is changed afterwards."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._log: list[_Entry] = []
        self.lengths = packed.lengths.astype(np.int64)
        """(symbols,): how many bars each symbol has."""

    @property
    def fields(self) -> Sequence[str]:
        """The stored fields."""
        return tuple(self._packed.fields)

    def copy(self) -> "History":
        """Another of the same bars, which share their matrices."""
        other = History(self._packed)
        other._log, other.lengths = list(self._log), self.lengths
        return other

    def append(self, end: int, has: Mask, rows: Mapping[str, Floats]) -> None:
        """A bar, later than all they have, for the symbols of `has`; the arrays are kept, not copied.

        Fields that it was not opened with are left out.
        """
        self._log.append(_Entry(end, has, rows))
        self.lengths = self.lengths + has
        if len(self._log) == MOST:
            self.packed()

    def revise(self, has: Mask, rows: Mapping[str, Floats]) -> None:
        """Other values for the newest bars of some symbols."""
        if self._log and not (has & ~self._log[-1].has).any():
            entry = self._log[-1]
            fields = {name: np.where(has, rows[name], values) for name, values in entry.rows.items() if name in rows}
            self._log[-1] = _Entry(entry.end, entry.has, fields)
            return
        packed = self.packed()
        fields = {name: matrix.copy() for name, matrix in packed.fields.items()}
        for name, matrix in fields.items():
            matrix[-1, has] = rows[name][has]
        self._packed = Packed(packed.frame, packed.symbols, packed.bar_ends, packed.lengths, fields)

    def amend(self, end: int, columns: Sequence[int], rows: Mapping[str, Floats]) -> None:
        """Put a bar of some symbols in its place among theirs, or in that of the one they have."""
        packed = self.packed()
        grown = int((packed.lengths[list(columns)] == packed.length).any())
        ends = np.full((packed.length + grown, len(packed.symbols)), NO_BAR)
        ends[grown:] = packed.bar_ends
        fields = {name: np.full(ends.shape, np.nan) for name in packed.fields}
        for name, matrix in fields.items():
            matrix[grown:] = packed.fields[name]
        lengths = packed.lengths.copy()
        for j in columns:
            start = len(ends) - lengths[j]
            place = start + int(np.searchsorted(ends[start:, j], end))
            if place == len(ends) or ends[place, j] != end:
                for matrix in (ends, *fields.values()):
                    matrix[start - 1 : place - 1, j] = matrix[start:place, j]
                place -= 1
                lengths[j] += 1
            ends[place, j] = end
            for name, matrix in fields.items():
                matrix[place, j] = rows[name][j]
        self._packed, self.lengths = Packed(packed.frame, packed.symbols, ends, lengths, fields), lengths

    def packed(self) -> Packed:
        """All bars."""
        if self._log:
            self._packed = self._merged()
            self._log = []
        return self._packed

    def _merged(self) -> Packed:
        before, n = self._packed, len(self._packed.symbols)
        has = np.array([entry.has for entry in self._log])
        counts = has.sum(axis=0)
        length = int(self.lengths.max(initial=0))
        row = length - has[::-1].cumsum(axis=0)[::-1]
        place, column = row[has], np.nonzero(has)[1]

        def merged(old: npt.NDArray[Any], new: npt.NDArray[Any], empty: float) -> npt.NDArray[Any]:
            out = np.full((length, n), empty, dtype=old.dtype)
            for count in np.unique(counts):
                own: slice | npt.NDArray[np.intp] = slice(None) if (counts == count).all() else counts == count
                kept = min(before.length, length - int(count))
                out[length - count - kept : length - count, own] = old[before.length - kept :, own]
            out[place, column] = new[has]
            return out

        ends = np.broadcast_to(np.array([entry.end for entry in self._log])[:, None], has.shape)
        return Packed(
            before.frame,
            before.symbols,
            merged(before.bar_ends, ends, NO_BAR),
            self.lengths,
            {
                name: merged(matrix, np.array([entry.rows[name] for entry in self._log]), np.nan)
                for name, matrix in before.fields.items()
            },
        )


def part(packed: Packed, columns: npt.NDArray[np.intp], length: int) -> Packed:
    """Some symbols of packed bars, in matrices of `length` rows, which is no less than the longest of them has."""
    return Packed(
        packed.frame,
        tuple(packed.symbols[j] for j in columns),
        cut(packed.bar_ends, columns, length, NO_BAR),
        packed.lengths[columns],
        {name: cut(matrix, columns, length, np.nan) for name, matrix in packed.fields.items()},
    )


def cut(matrix: npt.NDArray[Any], columns: npt.NDArray[np.intp], length: int, empty: float) -> npt.NDArray[Any]:
    """The last `length` rows of some columns, `empty` above where there are fewer."""
    kept = min(length, len(matrix))
    out = np.full((length, len(columns)), empty, dtype=matrix.dtype)
    out[length - kept :] = matrix[len(matrix) - kept :, columns]
    return out

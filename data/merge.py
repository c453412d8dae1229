"""Checked rows against each other and against what a store holds: new bars, duplicates, revisions, conflicts.

Two rows for one key (symbol, bar end) say the same where they agree to the precision in which vendors publish: prices
to 1e-9 of their size; amounts to the yuan, or to 100 CNY where one of them is in whole hundreds (Shenzhen publishes
amounts in 10,000 CNY with two decimals); volumes exactly, or to the lot where the source counts in whole lots. A value
that only one of them has (amount, previous close) contradicts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.cells import words_of
from data.panel import PRICES, Floats, Times
from data.store import BarStore

PRICE_TOLERANCE = 1e-9
YUAN = 1.0
ROUND_YUAN = 100.0
COMPARED = (*PRICES, "volume", "amount", "prev_close")
OPTIONAL = ("amount", "prev_close")

_MINUTE_NS = 60 * 10**9
_RANK_BITS = 20

Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.int64]


def keys_of(ends: Times, ranks: npt.NDArray[np.int64]) -> Keys:
    """One number a (bar end, symbol), ordered as the store orders its rows. `ranks`: places in the sorted symbols."""
    return ends // _MINUTE_NS << _RANK_BITS | ranks


@dataclass(frozen=True)
class Bars:
    """Bars sorted by key; arrays are (bars,)."""

    keys: Keys
    fields: dict[str, Floats]
    coarse: Floats
    """Shares by which the volume may be off."""
    revisions: npt.NDArray[np.int64]
    known_at: Times
    """UTC ns; when it was stored."""

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> "Bars":
        fields = {name: values[rows] for name, values in self.fields.items()}
        return Bars(self.keys[rows], fields, self.coarse[rows], self.revisions[rows], self.known_at[rows])


def read_stored(
    store: BarStore, frame: str, adjusted: str | None, first: int, last: int, ranks: dict[str, int]
) -> Bars | None:
    """The highest revision of every stored bar with `first` <= bar end <= `last` (UTC ns) of the symbols in `ranks`."""
    columns = ("symbol", "bar_end", *COMPARED, "revision", "known_at")
    table = store.table(frame, after=first - 1, upto=last, columns=columns, adjusted=adjusted)
    if table.num_rows == 0:
        return None
    codes, names = words_of(table["symbol"])
    rank = np.array([ranks.get(name or "", -1) for name in names], dtype=np.int64)[codes]
    keys = keys_of(_integers(table["bar_end"]), rank)
    revisions = _integers(table["revision"])
    order = np.lexsort((revisions, keys))
    newest = np.append(np.diff(keys[order]) != 0, True)
    chosen = order[newest & (rank[order] >= 0)]
    if len(chosen) == 0:
        return None
    fields = {name: table[name].to_numpy().astype(np.float64, copy=False)[chosen] for name in COMPARED}
    known_at = _integers(table["known_at"])[chosen]
    return Bars(keys[chosen], fields, np.zeros(len(chosen)), revisions[chosen], known_at)


@dataclass(frozen=True)
class Verdicts:
    """What is done with sorted rows; arrays are (rows,)."""

    store: Mask
    duplicate: Mask
    conflict: Mask
    bars: Bars
    """The rows as they are stored: revisions counted on, values that they lack taken from the revision before."""
    differs: npt.NDArray[np.int64]
    """Of conflicts: bit i stands for `COMPARED[i]`."""
    earlier: Mask
    """Of conflicts: whether it is with an earlier row of the same import, in place of a stored one."""


def judge(rows: Bars, stored: Bars | None, *, revise: bool, began: int) -> Verdicts:
    """Compare sorted rows (stable: of one key, the first read stands first) with each other and with what is stored.

    `revise`: the first row of a key that differs from a bar stored before `began` (UTC ns) becomes its next revision.
    """
    n = len(rows.keys)
    first = np.append(True, np.diff(rows.keys) != 0)[:n]
    head = np.maximum.accumulate(np.where(first, np.arange(n), 0))
    known = np.zeros(n, dtype=bool)
    differs, adds = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    if stored is not None:
        place = np.searchsorted(stored.keys, rows.keys).clip(max=len(stored.keys) - 1)
        known = stored.keys[place] == rows.keys
        at = np.flatnonzero(known)
        differs[at], adds[at] = _compare(rows[at], stored[place[at]])
    store = first & ~known
    if revise and stored is not None and known.any():
        old = stored[place]
        again = first & known & ((differs != 0) | adds) & (old.known_at < began)
        store |= again
        fields = dict(rows.fields)
        for name in OPTIONAL:
            fields[name] = np.where(again & np.isnan(fields[name]), old.fields[name], fields[name])
        rows = Bars(rows.keys, fields, rows.coarse, np.where(again, old.revisions + 1, 0), rows.known_at)
    conflict = first & known & ~store & (differs != 0)
    later = np.flatnonzero(~first)
    if len(later):
        from_head, _ = _compare(rows[later], rows[head[later]])
        same = (from_head == 0) & ~conflict[head[later]] | known[later] & (differs[later] == 0)
        conflict[later] = ~same
        differs[later] = np.where(from_head != 0, from_head, differs[later])
    earlier = ~first & conflict & ~conflict[head]
    return Verdicts(store, ~store & ~conflict, conflict, rows, differs, earlier)


def differing(bits: int) -> str:
    """The names of the fields that differ."""
    return ", ".join(name for place, name in enumerate(COMPARED) if bits >> place & 1)


def _compare(new: Bars, old: Bars) -> tuple[npt.NDArray[np.int64], Mask]:
    """(which fields contradict each other, as bits; whether the new row has a value that the old one lacks)."""
    bits = np.zeros(len(new.keys), dtype=np.int64)
    adds = np.zeros(len(new.keys), dtype=bool)
    for place, name in enumerate(COMPARED):
        a, b = new.fields[name], old.fields[name]
        gap = np.abs(a - b)
        # A comparison with NaN is false, so what only one of them has does not differ.
        differs = gap > PRICE_TOLERANCE * np.maximum(np.abs(a), np.abs(b))
        if name == "volume":
            differs &= gap > np.maximum(new.coarse, old.coarse)
        elif name == "amount":
            whole = (a % ROUND_YUAN == 0) | (b % ROUND_YUAN == 0)
            differs &= gap >= np.where(whole, ROUND_YUAN, YUAN)
        bits |= differs.astype(np.int64) << place
        if name in OPTIONAL:
            adds |= np.isnan(b) & ~np.isnan(a)
    return bits, adds


def sorted_names(names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """(the names sorted, the place there of each as given)."""
    order = sorted(range(len(names)), key=names.__getitem__)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[order] = np.arange(len(names))
    return [names[i] for i in order], ranks


def _integers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    values: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values

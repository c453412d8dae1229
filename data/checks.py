"""Rows of vendors' files -> bars, or one reason each why not: the rules that need no store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.calendar import TradingCalendar, bar_ends, day_ns
from data.panel import PRICES, Floats, Times
from data.reading import Rows
from data.recognise import NO_MOMENT, VALUES
from data.refusals import CODE
from data.schema import FLAG_NO_TRADE
from data.symbols import board, canonical_or_none, kind
from data.units import recognise_units

_DAY_NS = 86400 * 10**9
Mask = npt.NDArray[np.bool_]
Bounds = Callable[[npt.NDArray[np.int32], Times], tuple[Floats, Floats]]
"""(symbol ids, bar ends) -> (low, high): the raw prices that adjusted rows' units are checked by, NaN where unknown."""


class Symbols:
    """Symbols by number, in the order they were first seen; grows as files name more."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.unit_free: list[bool] = []
        """Whose amount / volume says nothing: B shares (the currency varies) and indices (a level is no price)."""
        self.star: list[bool] = []
        self._ids: dict[str, int] = {}

    def id(self, text: str) -> int:
        """The number of a symbol in any spelling; -1 for an unknown one."""
        known = self._ids.get(text)
        if known is None:
            symbol = canonical_or_none(text)
            known = self._ids[text] = -1 if symbol is None else self._of(symbol)
        return known

    def _of(self, symbol: str) -> int:
        known = self._ids.get(symbol)
        if known is None:
            known = self._ids[symbol] = len(self.names)
            self.names.append(symbol)
            self.unit_free.append(kind(symbol) in ("b_share", "index"))
            self.star.append(board(symbol) == "star")
        return known


@dataclass(frozen=True)
class Batch:
    """Rows of one frame from several files, with the symbols by number; arrays are (rows,)."""

    frame: str
    parts: Sequence[Rows]
    part: npt.NDArray[np.int64]
    """Which of `parts` a row is from."""
    vendor: npt.NDArray[np.int64]
    """(parts,): equal for files that are alike: columns of the same names, in one folder."""
    start: npt.NDArray[np.int64]
    """(parts,): the first row of each part."""
    spellings: Sequence[str]
    """Symbols as the files spell them."""
    codes: npt.NDArray[np.int64]
    """Each row's place in `spellings`."""
    ids: npt.NDArray[np.int32]
    """Numbers in `Symbols`, -1 for unknown ones."""
    local: Times
    lines: npt.NDArray[np.int64]
    bad: Mask
    fields: dict[str, Floats]


def batch_of(parts: Sequence[Rows], symbols: Symbols) -> Batch:
    """Rows of one frame, joined."""
    spellings = [text for part in parts for text in part.symbols]
    first = np.cumsum([0, *(len(part.symbols) for part in parts)])
    codes = _joined([part.codes + start for part, start in zip(parts, first, strict=False)])
    sizes = np.array([len(part) for part in parts])
    kinds: dict[tuple[Path, tuple[str, ...]], int] = {}
    return Batch(
        parts[0].frame,
        parts,
        np.repeat(np.arange(len(parts)), sizes),
        np.array([kinds.setdefault((part.path.parent, part.columns), len(kinds)) for part in parts]),
        np.cumsum(sizes) - sizes,
        spellings,
        codes,
        np.array([symbols.id(text) for text in spellings], dtype=np.int32)[codes],
        _joined([part.local for part in parts]),
        _joined([part.lines for part in parts]),
        _joined([part.bad for part in parts]),
        {name: _joined([part.fields[name] for part in parts]) for name in VALUES},
    )


@dataclass(frozen=True)
class Checked:
    """What became of a batch's rows; arrays are (rows,) of the batch."""

    reasons: npt.NDArray[np.uint8]
    """`refusals.CODE` of a refused row, 0 of a bar."""
    ends: Times
    """Bar ends, UTC ns."""
    fields: dict[str, Floats]
    """`recognise.VALUES`; prices and amount in CNY, volume in shares; NaN where there is none."""
    coarse: Floats
    """Shares by which the volume may be off."""
    flags: npt.NDArray[np.uint8]
    unverified: int = field(default=0)
    """Bars of files that nothing tells the units of: they are taken for shares and CNY."""


def check(batch: Batch, symbols: Symbols, calendar: TradingCalendar, now: int, bounds: Bounds | None = None) -> Checked:
    """Judge every row by the rules in their order, as of `now` (UTC ns). `bounds`: where prices are adjusted."""
    reasons = np.zeros(len(batch.ids), dtype=np.uint8)

    def refuse(reason: str, rows: Mask) -> None:
        reasons[rows & (reasons == 0)] = CODE[reason]

    fields = dict(batch.fields)
    volume, amount = fields["volume"], fields["amount"]
    refuse("unreadable", batch.bad)
    refuse("unknown symbol", batch.ids < 0)
    ends, session = _ends(batch, calendar, now)
    refuse("not a session", ~session)
    refuse("future", ends > now)
    quiet = ~(volume != 0) | np.isnan(volume)
    refuse("no trade", quiet & ~_carried(batch, quiet, reasons == 0))
    prices = [fields[name] for name in PRICES]
    refuse("non-finite or non-positive price", ~np.logical_and.reduce([(p > 0) & (p < np.inf) for p in prices]))
    open_, high, low, close = prices
    refuse("inconsistent open/high/low/close", ~((low <= open_) & (open_ <= high) & (low <= close) & (close <= high)))
    refuse("negative volume or amount", (volume < 0) | (amount < 0))
    if bounds is not None:
        low, high = bounds(batch.ids, ends)
    checked = (reasons == 0) & ~quiet & ~np.isnan(amount) & ~np.isnan(low)
    checked &= ~np.array([*symbols.unit_free, True])[batch.ids]
    star = np.array([*symbols.star, False])[batch.ids]
    units = recognise_units(volume, amount, low, high, checked, star, batch.part, batch.vendor)
    refuse("units", units.wrong)
    fields |= {"volume": units.volume, "amount": units.amount}
    reference = fields["prev_close"]
    fields["prev_close"] = np.where((reference > 0) & (reference < np.inf), reference, np.nan)
    flags = np.where(quiet, FLAG_NO_TRADE, 0).astype(np.uint8)
    return Checked(reasons, ends, fields, units.coarse, flags, int(((reasons == 0) & units.unknown).sum()))


def _ends(batch: Batch, calendar: TradingCalendar, now: int) -> tuple[Times, Mask]:
    """(bar ends in UTC ns, whether each is the end of a bar of some session).

    Nobody can say whether a day past the calendar's horizon is a session: one after `now` passes, to be refused as
    future.
    """
    labels, place = np.unique(np.where(batch.local == NO_MOMENT, 0, batch.local), return_inverse=True)
    days = (labels // _DAY_NS).astype("datetime64[D]")
    offsets = bar_ends(days[:1], batch.frame) - day_ns(days[:1])
    if batch.frame == "1d":
        ends, fits = day_ns(days) + offsets[0], np.ones(len(days), dtype=bool)
    else:
        ends, fits = day_ns(days) + labels % _DAY_NS, np.isin(labels % _DAY_NS, offsets)
    vouched = (days >= np.datetime64(calendar.first)) & (days <= np.datetime64(calendar.last))
    session = (days > np.datetime64(calendar.last)) & (ends > now)
    session[vouched] = calendar.is_session_many(days[vouched])
    return ends[place], (fits & session)[place]


def _carried(batch: Batch, quiet: Mask, candidates: Mask) -> Mask:
    """Minutes without a trade on a day on which the symbol had traded before: bars that carry its last price."""
    flat = np.logical_and.reduce([batch.fields[name] == batch.fields["close"] for name in PRICES])
    carried = candidates & quiet & (batch.fields["volume"] == 0) & flat
    if batch.frame == "1d" or not carried.any():
        return np.zeros(len(quiet), dtype=bool)
    key = batch.ids.astype(np.int64) << 32 | batch.local // _DAY_NS
    _, group = np.unique(key, return_inverse=True)
    first = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)
    traded = candidates & ~quiet
    np.minimum.at(first, group[traded], batch.local[traded])
    return np.asarray(carried & (batch.local > first[group]))


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

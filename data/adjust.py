"""Reference closes, forward adjustment and ex-rights gaps, on packed bars.

Prices are stored raw. On an ex-rights day the exchange's own previous close, which quotes and some vendors' files
carry, differs from the close that was traded, and their quotient is the day's adjustment factor. Where no such
reference is known, an open beyond the widest limit that any security of the board has on that day betrays that the
basis of prices changed (or that trading resumed): an `ex_gap`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.calendar import local_day
from data.limits import widest_ratio
from data.panel import NO_BAR, PRICES, Floats, Packed, Times
from data.symbols import board

Mask = npt.NDArray[np.bool_]

SAME_PRICE = 0.0005
"""CNY: half the smallest tick there is; a previous close this near to the close that was traded is that close."""
FAR = 0.05
"""No board's limit is less: only what moved further is looked at more closely."""
LISTING_SESSIONS = 5
"""No board has had more limit-free days after a listing."""


@dataclass(frozen=True)
class Basis:
    """What the prices of packed bars are compared by; matrices are (length, symbols)."""

    prices: Mapping[str, Floats]
    """open, high, low, close in CNY, forward-adjusted: a symbol's newest are as they were stored."""
    references: Floats
    """CNY, raw: `reference_closes`."""
    gaps: Mask
    """`ex_gaps`."""
    gapped: npt.NDArray[np.intp] | None = None
    """The places of the symbols that may have any; None: of all."""


def basis(packed: Packed, origin: int | None = None) -> Basis:
    """References, adjusted prices and gaps of packed bars; `origin` as in `ex_gaps`."""
    starts = session_starts(packed.frame, packed.bar_ends)
    gaps = ex_gaps(packed, starts, origin)
    return Basis(adjusted_prices(packed, starts), reference_closes(packed, starts, gaps), gaps)


def unmoved(stored: Floats, opens: Floats, before: Floats, boards: npt.NDArray[np.str_], bar_end: int) -> Mask:
    """(symbols,): whether a session's first bar, at `bar_end`, leaves older prices as they are and opens without a gap.

    `stored`: its previous close, NaN where unknown; `opens`: its open; `before`: the last close, CNY, raw.
    """
    unknown = np.isnan(stored)
    moved = np.abs(stored - before) > SAME_PRICE
    far = np.flatnonzero(unknown & (np.abs(opens - before) > FAR * before))
    moved[far] = _beyond(boards[far], np.full(len(far), bar_end), opens[far], before[far])
    return ~moved


def session_starts(frame: str, bar_ends: Times) -> Mask:
    """(length, symbols): whether a bar is its symbol's first of a session; the first known bar is."""
    exists: Mask = bar_ends != NO_BAR
    if frame == "1d":
        return exists
    day = np.where(exists, local_day(np.where(exists, bar_ends, 0)).astype(np.int64), -1)
    starts = exists.copy()
    starts[1:] &= day[1:] != day[:-1]
    return starts


def reference_closes(packed: Packed, starts: Mask, gaps: Mask) -> Floats:
    """(length, symbols), CNY: the previous close that a bar's session is measured by.

    The exchange's, where it was stored; else the last close of the symbol's session before; NaN in the first session
    and in one that opens with a gap.
    """
    stored = packed.fields.get("prev_close")
    if stored is not None and not np.isnan(stored[packed.bar_ends != NO_BAR]).any():
        return stored
    close = packed.fields["close"]
    derived = np.full(close.shape, np.nan)
    derived[1:] = close[:-1]
    derived[gaps] = np.nan
    if packed.frame != "1d":
        place = np.where(starts, np.arange(len(close))[:, None], 0)
        np.maximum.accumulate(place, axis=0, out=place)
        derived = np.take_along_axis(derived, place, axis=0)
    return derived if stored is None else np.where(np.isnan(stored), derived, stored)


def adjusted_prices(packed: Packed, starts: Mask) -> Mapping[str, Floats]:
    """open, high, low, close, (length, symbols): as they would read on the newest bar's basis."""
    raw = {name: packed.fields[name] for name in PRICES}
    stored = packed.fields.get("prev_close")
    if stored is None or packed.length < 2:
        return raw
    last = raw["close"][:-1]
    differs = (np.abs(stored[1:] - last) > SAME_PRICE) & starts[1:]
    touched = np.flatnonzero(differs.any(axis=0))
    if len(touched) == 0:
        return raw
    step = np.where(differs[:, touched], stored[1:, touched] / last[:, touched], 1.0)
    factors = np.ones((packed.length, len(touched)))
    factors[:-1] = np.cumprod(step[::-1], axis=0)[::-1]
    adjusted = {name: values.copy() for name, values in raw.items()}
    for values in adjusted.values():
        values[:, touched] *= factors
    return adjusted


def ex_gaps(packed: Packed, starts: Mask, origin: int | None = None) -> Mask:
    """(length, symbols): where a session opens beyond any legal limit of the close before it and no factor covers it.

    A symbol's first five sessions are left out where its first bar is later than `origin` (UTC ns; the earliest bar by
    default): it was listed then, and has no limit.
    """
    exists = packed.bar_ends != NO_BAR
    gaps = np.zeros(exists.shape, dtype=bool)
    if packed.length < 2:
        return gaps
    before = packed.fields["close"][:-1]
    opens = packed.fields["open"][1:]
    far = starts[1:] & (np.abs(opens - before) > FAR * before)
    if (stored := packed.fields.get("prev_close")) is not None:
        far &= np.isnan(stored[1:])
    place, symbol = np.nonzero(far)
    if len(symbol) == 0:
        return gaps
    boards = np.array([board(name) for name in packed.symbols])
    beyond = _beyond(boards[symbol], packed.bar_ends[place + 1, symbol], opens[place, symbol], before[place, symbol])
    listed_later = first_bar_ends(packed)[symbol] > (origin if origin is not None else packed.bar_ends[exists].min())
    ordinal = np.cumsum(starts, axis=0)[place + 1, symbol]
    beyond &= ~(listed_later & (ordinal <= LISTING_SESSIONS))
    gaps[place[beyond] + 1, symbol[beyond]] = True
    return gaps


def _beyond(boards: npt.NDArray[np.str_], bar_ends: Times, opens: Floats, before: Floats) -> Mask:
    """Whether sessions open further from the close before than any limit of their board allows."""
    # The limit itself is rounded to the tick: 0.01 covers every market's.
    beyond: Mask = np.abs(opens - before) > before * widest_ratio(boards, local_day(bar_ends)) + 0.01
    return beyond


def first_bar_ends(packed: Packed) -> npt.NDArray[np.int64]:
    """(symbols,) UTC ns: each symbol's first known bar end, the largest integer where it has none."""
    first = np.full(len(packed.symbols), np.iinfo(np.int64).max)
    has = np.flatnonzero(packed.lengths)
    first[has] = packed.bar_ends[packed.length - packed.lengths[has], has]
    return first

"""Reference closes, forward adjustment and ex-rights gaps, on packed bars.

Prices are stored raw. On an ex-rights day the exchange's own previous close, which quotes and some vendors' files carry,
differs from the close that was traded, and their quotient is the day's adjustment factor. Where no such reference is
known, an open beyond the widest limit the board has ever had on that day betrays that the basis of prices changed (or
that trading resumed): an `ex_gap`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data.calendar import local_day
from data.limits import widest_ratio
from data.panel import NO_BAR, PRICES, Floats, Packed
from data.symbols import board

HALF_TICK = 0.005
LISTING_BARS = 5
"""No board has had more limit-free days after a listing since 2020."""


def session_starts(packed: Packed) -> npt.NDArray[np.bool_]:
    """(symbols, length): whether a bar is its symbol's first of a session; the first known bar is."""
    exists = packed.bar_ends != NO_BAR
    if packed.frame == "1d":
        return exists
    day = np.where(exists, local_day(np.where(exists, packed.bar_ends, 0)).astype(np.int64), -1)
    starts = np.ones(day.shape, dtype=bool)
    starts[:, 1:] = day[:, 1:] != day[:, :-1]
    return starts & exists


def reference_closes(packed: Packed) -> Floats:
    """(symbols, length), CNY: the previous close that a bar's session is measured by.

    The exchange's, where it was stored; else the last close of the symbol's session before; NaN in the first session.
    """
    stored = packed.fields.get("prev_close")
    if stored is not None and not np.isnan(stored[packed.bar_ends != NO_BAR]).any():
        return stored
    close = packed.fields["close"]
    derived = np.full(close.shape, np.nan)
    derived[:, 1:] = close[:, :-1]
    if packed.frame != "1d":
        starts = session_starts(packed)
        place = np.where(starts, np.arange(close.shape[1]), 0)
        np.maximum.accumulate(place, axis=1, out=place)
        derived = np.take_along_axis(derived, place, axis=1)
    return derived if stored is None else np.where(np.isnan(stored), derived, stored)


def forward_factors(packed: Packed) -> Floats | None:
    """(symbols, length): what raw prices are multiplied by so that the newest stay as they are; None where all are 1."""
    stored = packed.fields.get("prev_close")
    if stored is None or packed.length < 2:
        return None
    last = packed.fields["close"][:, :-1]
    differs = np.abs(stored[:, 1:] - last) > HALF_TICK
    if packed.frame != "1d" and differs.any():
        differs &= session_starts(packed)[:, 1:]
    if not differs.any():
        return None
    step = np.where(differs, stored[:, 1:] / last, 1.0)
    factors = np.ones(stored.shape)
    factors[:, :-1] = np.cumprod(step[:, ::-1], axis=1)[:, ::-1]
    return factors


def adjusted(packed: Packed) -> Mapping[str, Floats]:
    """The packed fields with forward-adjusted prices."""
    factors = forward_factors(packed)
    if factors is None:
        return packed.fields
    return {name: values * factors if name in PRICES else values for name, values in packed.fields.items()}


def ex_gaps(packed: Packed, origin: int | None = None) -> npt.NDArray[np.bool_] | None:
    """(symbols, length): where a session opens beyond any legal limit of the close before it and no factor covers it.

    A symbol's first five bars are left out where its first is later than `origin` (UTC ns; the earliest bar by default):
    it was listed then, and has no limit. None where there is no gap.
    """
    stored = packed.fields.get("prev_close")
    exists = packed.bar_ends != NO_BAR
    if packed.length < 2 or (stored is not None and not np.isnan(stored[exists]).any()):
        return None
    before = packed.fields["close"][:, :-1]
    move = np.abs(packed.fields["open"][:, 1:] / before - 1.0)
    # No board's limit is under 5 %: only what moved further is looked at more closely.
    far = move > 0.05
    if stored is not None:
        far &= np.isnan(stored[:, 1:])
    if packed.frame != "1d":
        far &= session_starts(packed)[:, 1:]
    symbol, place = np.nonzero(far)
    if len(symbol) == 0:
        return None
    boards = np.array([board(name) for name in packed.symbols])
    days = local_day(packed.bar_ends[symbol, place + 1])
    ratio = widest_ratio(boards[symbol], days)
    close = before[symbol, place]
    beyond = np.abs(packed.fields["open"][symbol, place + 1] - close) > close * ratio + 2 * HALF_TICK
    first = np.where(exists, packed.bar_ends, np.iinfo(np.int64).max).min(axis=1)
    listed_later = first > (first.min() if origin is None else origin)
    ordinal = packed.lengths[symbol] - (packed.length - 2 - place)
    beyond &= ~(listed_later[symbol] & (ordinal <= LISTING_BARS))
    if not beyond.any():
        return None
    gaps = np.zeros(exists.shape, dtype=bool)
    gaps[symbol[beyond], place[beyond] + 1] = True
    return gaps

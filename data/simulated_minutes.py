"""One simulated session by the minute, and a minute by its snapshots.

The minutes are drawn first, within the day's open, high, low, close and volume; the snapshots of a minute are drawn
within that minute. So a history of bars needs no snapshots, and yet is what folding the snapshots would give.
Matrices are time-major, (240, listed symbols) or (snapshots, listed symbols); prices in cents, volume in lots.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from data.simulated_days import Day, generator

Cents = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

MINUTES = 240
SNAPSHOTS = 20
"""Snapshots a minute: one every 3 seconds."""
_CLOSING = MINUTES - 1
_SINGLE = 4
"""From this many lots on a minute has an open, a high, a low and a close of its own; below, one trade."""
_NEVER = np.iinfo(np.int32).max

_M = np.arange(MINUTES)
_SHAPE = (1 + 2.5 * np.exp(-_M / 12) + 0.6 * np.exp(-np.abs(_M - 120) / 8) + 1.2 * np.exp(-(236 - _M) / 10.0)) * (
    _M < 237
)
"""The day's U: busy at the open, around lunch and before the close; nothing while the closing auction fills."""
_SHAPE[0] *= 1.5
_SHAPE[_CLOSING] = 5.0


@dataclass(frozen=True)
class Minutes:
    """One session's minutes; columns are the listed symbols, in the order of `columns`."""

    day: Day
    columns: npt.NDArray[np.int64]
    """(listed,): place of each in the market's symbols."""
    first: npt.NDArray[np.int64]
    """(listed,): the minute of the first trade; 240 where there is none."""
    auction: Cents
    """(listed,): lots of the opening auction, part of minute 0."""
    lots: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    total_lots: Cents
    """Cumulative."""
    total_amount: Cents
    """Cumulative, in cents."""

    @property
    def exists(self) -> npt.NDArray[np.bool_]:
        """From its first trade on a symbol has every minute."""
        return _M[:, None] >= self.first

    @cached_property
    def highest(self) -> Ints:
        """The day's high up to each minute; 0 before the first trade."""
        return np.asarray(np.maximum.accumulate(np.where(self.exists, self.high, 0), axis=0))

    @cached_property
    def lowest(self) -> Ints:
        """The day's low up to each minute; a price that none reaches before the first trade."""
        return np.asarray(np.minimum.accumulate(np.where(self.exists, self.low, _NEVER), axis=0))


@dataclass(frozen=True)
class Snapshots:
    """Consecutive snapshots, (snapshots, listed): what a quote shows, all 0 before the first trade."""

    last: Cents
    open: Cents
    high: Cents
    low: Cents
    lots: Cents
    amount: Cents


def draw_minutes(day: Day, seed: int) -> Minutes:
    """The minutes of a day: exactly its open, high, low, close and lots."""
    columns = np.flatnonzero(day.listed)
    trading = day.trading[columns]
    k = len(columns)
    rng = generator(seed, day.index, 1)
    u = rng.random((5, k))
    total = day.lots[columns]
    first = np.where(total < 3000, (u[0] ** 4 * 60).astype(np.int64), 0)
    lots = _lots(total, first, u, rng)
    lots *= trading
    first = np.where(trading, first, MINUTES)
    low, high = (p[columns].astype(np.int32) for p in (day.low, day.high))
    opening, closing = (p[columns].astype(np.int32) for p in (day.open, day.close))

    path, loose = _path(opening, high, low, closing, _hits(day, columns, u[3]), rng)
    full = lots >= _SINGLE
    full[_CLOSING] = False
    # Between trades the price stays.
    traded_at = np.maximum.accumulate(np.where(lots > 0, _M[:, None], 0), axis=0)
    close = np.take_along_axis(path, traded_at, axis=0)
    before = np.vstack([opening, close[:-1]])
    step = rng.integers(-1, 2, (MINUTES, k), dtype=np.int8) * loose
    start = np.where(full, np.clip(before + step, low, high), close)
    here = np.arange(k)
    began = np.minimum(first, _CLOSING)
    start[began, here] = opening
    width = rng.random((2, MINUTES, k), dtype=np.float32) * ((high - low) / np.float32(25)) * loose * full
    top = np.minimum(np.maximum(start, close) + width[0].astype(np.int32), high)
    bottom = np.maximum(np.minimum(start, close) - width[1].astype(np.int32), low)
    top[np.argmax(np.where(full, path, -1), axis=0), here] = high
    bottom[np.argmin(np.where(full, path, _NEVER), axis=0), here] = low

    auction = np.where((first == 0) & (lots[0] >= 12), lots[0] // 3, 0).astype(np.int64)
    amount = (lots * 100).astype(np.int64) * _mean(start, top, bottom, close)
    amount[0] += auction * 100 * (opening - _mean(start, top, bottom, close)[0])
    return Minutes(
        day=day,
        columns=columns,
        first=first,
        auction=auction,
        lots=lots,
        open=start,
        high=top,
        low=bottom,
        close=close,
        total_lots=np.cumsum(lots, axis=0, dtype=np.int64),
        total_amount=np.cumsum(amount, axis=0),
    )


def draw_opening(minutes: Minutes) -> Snapshots:
    """Two equal snapshots: the opening auction's result, as it stands at 09:25:00 and 09:30:00."""
    price = np.where(minutes.auction > 0, minutes.day.open[minutes.columns], 0)
    lots = minutes.auction
    return Snapshots(*(np.tile(a, (2, 1)) for a in (price, price, price, price, lots, lots * 100 * price)))


def draw_after_hours(minutes: Minutes) -> Snapshots:
    """One snapshot after the close: the day's last values, once more."""
    alive = minutes.exists[_CLOSING]
    opening = minutes.day.open[minutes.columns]
    shown = (minutes.close[_CLOSING], opening, minutes.highest[_CLOSING], minutes.lowest[_CLOSING])
    prices = [np.where(alive, price, 0)[None, :].astype(np.int64) for price in shown]
    last, began, high, low = prices
    return Snapshots(last, began, high, low, minutes.total_lots[_CLOSING:], minutes.total_amount[_CLOSING:])


def draw_snapshots(minutes: Minutes, minute: int, seed: int) -> Snapshots:
    """The 20 snapshots of a minute, the last of them at its end."""
    k = len(minutes.columns)
    rng = generator(seed, minutes.day.index, 2 + minute)
    opening = minutes.day.open[minutes.columns]
    o, h, lo, c = (p[minute].astype(np.float32) for p in (minutes.open, minutes.high, minutes.low, minutes.close))
    lots = minutes.lots[minute].astype(np.int64)
    before = minutes.auction if minute == 0 else np.zeros(k, dtype=np.int64)
    new = lots - before
    full = (lots >= _SINGLE) & (minute != _CLOSING)

    # Four snapshots show the open, one extreme, the other, the close; the price runs straight from each to the next.
    place = rng.integers(0, 6, (4, k), dtype=np.int8)
    at = np.stack([place[0] // 2, 4 + place[1], 10 + place[2], 19 - place[3] // 2])
    if minute == _CLOSING:
        at[0] = SNAPSHOTS - 1
    up_first = rng.random(k, dtype=np.float32) < 0.5
    marks = (o, np.where(up_first, h, lo), np.where(up_first, lo, h), c)
    n = np.arange(SNAPSHOTS, dtype=np.int8)[:, None]
    line = _line(n, at[2], at[3], marks[2], marks[3])
    for part in (1, 0):
        line = np.where(n <= at[part + 1], _line(n, at[part], at[part + 1], marks[part], marks[part + 1]), line)
    price = np.where(full, np.rint(line), c).astype(np.int64)

    weight = rng.random((SNAPSHOTS, k), dtype=np.float32)
    weight *= (weight > 0.25) & (n >= at[0]) & (n <= at[3])
    weight[at[3], np.arange(k)] = 1.0
    share = np.cumsum(weight, axis=0, dtype=np.float64)
    spread = np.floor((new - 4) * (share / share[-1])).astype(np.int64) + sum((n >= a).astype(np.int64) for a in at)
    total = np.where(full, spread, new * (n >= at[0]))
    moved = np.diff(total, axis=0, prepend=0) > 0

    newest = np.maximum.accumulate(np.where(moved, n, np.int8(-1)), axis=0)
    previous = np.where(minutes.first < minute, minutes.close[minute - 1], np.where(before > 0, opening, 0))
    last = np.take_along_axis(price, np.maximum(newest, 0).astype(np.int64), axis=0)
    last = np.where(newest >= 0, last, previous)
    # The auction's price is among the minute's own, as its open.
    top = minutes.highest[minute - 1] if minute else np.where(before > 0, opening, 0)
    bottom = minutes.lowest[minute - 1] if minute else np.where(before > 0, opening, _NEVER)
    high = np.maximum(np.maximum.accumulate(last, axis=0), top)
    low = np.minimum.accumulate(np.minimum(np.where(last > 0, last, _NEVER), bottom), axis=0)
    p = _mean(minutes.open[minute], minutes.high[minute], minutes.low[minute], minutes.close[minute])
    lots_before = minutes.total_lots[minute - 1] if minute else before
    amount_before = minutes.total_amount[minute - 1] if minute else before * 100 * opening
    traded = last > 0
    return Snapshots(
        last=last,
        open=np.where(traded, opening, 0),
        high=np.where(traded, high, 0),
        low=np.where(traded, low, 0),
        lots=lots_before + total,
        amount=amount_before + total * 100 * p,
    )


def _lots(total: Cents, first: Cents, u: npt.NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """(240, listed): the day's lots over its minutes; at least 8 in the first minute, 1 in the closing auction."""
    k = len(total)
    weight = np.exp(rng.standard_normal((MINUTES, k), dtype=np.float32) * np.float32(0.7))
    weight *= _SHAPE.astype(np.float32)[:, None]
    late = np.flatnonzero(first)
    weight[:, late] *= _M[:, None] >= first[late]
    # A temporary halt: ten minutes, or thirty.
    halted = np.flatnonzero(u[1] < 0.002)
    start = 60 + (u[2][halted] * 140).astype(np.int64)
    length = np.where(u[1][halted] < 0.001, 10, 30)
    weight[:, halted] *= (_M[:, None] < start) | (_M[:, None] >= start + length)
    share = np.cumsum(weight, axis=0, dtype=np.float64)
    share /= share[-1]
    reached = np.floor(np.maximum(total - 9, 0) * share).astype(np.int32)
    lots = np.diff(reached, axis=0, prepend=np.int32(0))
    lots[first, np.arange(k)] += 8
    lots[_CLOSING] += 1
    return lots


def _hits(day: Day, columns: npt.NDArray[np.int64], u: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(listed,): the minute from which on the price is pinned at its limit; 240 where it is not."""
    close, up, down = (p[columns] for p in (day.close, day.limit_up, day.limit_down))
    return np.where((close == up) | (close == down), (u * 200).astype(np.int64), MINUTES)


def _path(
    opening: Ints, high: Ints, low: Ints, closing: Ints, hits: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.int8]]:
    """(240, listed): a bridge from open to close within [low, high], and where it is loose, not pinned at a limit."""
    tau = ((_M + 1) / MINUTES).astype(np.float32)[:, None]
    walk = np.cumsum(rng.standard_normal((MINUTES, len(opening)), dtype=np.float32), axis=0)
    walk -= tau * walk[-1]
    walk *= (high - low).astype(np.float32) * np.float32(0.04)
    walk += opening + (closing - opening) * tau
    path = np.clip(np.rint(walk).astype(np.int32), low, high)
    path[_CLOSING] = closing
    loose = np.ones(path.shape, dtype=np.int8)
    pinned = np.flatnonzero(hits < MINUTES)
    path[:, pinned] = np.where(_M[:, None] >= hits[pinned], closing[pinned], path[:, pinned])
    loose[:, pinned] = _M[:, None] <= hits[pinned]
    return path, loose


def _mean(open_: Ints, high: Ints, low: Ints, close: Ints) -> Cents:
    """A minute's mean price, in whole cents."""
    return (open_.astype(np.int64) + high + low + close) // 4


def _line(n: Any, start: Any, end: Any, from_: Any, to: Any) -> npt.NDArray[np.float32]:
    """The straight line from (start, from_) to (end, to) at n."""
    return np.asarray(from_ + (to - from_) * ((n - start) / (end - start).astype(np.float32)), dtype=np.float32)

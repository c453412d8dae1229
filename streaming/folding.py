"""One session's trades by the minute: the whole market in matrices of (240 minutes, symbols).

Every longer frame is a reduction of these minutes, so a bar of five minutes is the same whether it is made of minutes
or of ticks. What a symbol had shown before any minute can be read off the matrices, so quotes that come late are
entered by folding the symbol's recent quotes again, in their order, from that minute on.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.calendar import CLOSE, DAY, LUNCH, MINUTE, OPEN, RESUME, SHANGHAI, minute_index
from data.panel import Floats, Times
from data.schema import FLAG_INCOMPLETE, FLAG_NO_TRADE

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MINUTES = 240
_LOSSES = 32
"""So many are kept before those that are of no account go."""
_AUCTION_RESULT = (9 * 60 + 25) * MINUTE
_CLOSING_AUCTION = CLOSE - 3 * MINUTE
"""From midnight in Shanghai; from the closing auction's beginning to its result nothing is traded."""


@dataclass(frozen=True)
class Quotes:
    """Rows of ticks, (rows,) each; `at` is the symbol's place in the universe."""

    at: Places
    time: Times
    last: Floats
    open: Floats
    high: Floats
    low: Floats
    prev_close: Floats
    volume: Floats
    amount: Floats

    def __getitem__(self, rows: Any) -> "Quotes":
        return Quotes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def joined(parts: list[Quotes]) -> Quotes:
    """The rows of several, one after the other."""
    return Quotes(*(np.concatenate([getattr(part, name) for part in parts]) for name in Quotes.__dataclass_fields__))


def one_a_symbol(quotes: Quotes) -> list[Quotes]:
    """Parts without a symbol twice, to be folded one after the other: a symbol's rows by time, then volume."""
    rows = np.bincount(quotes.at)
    if rows.max(initial=0) <= 1:
        return [quotes]
    ordered = quotes[np.lexsort((quotes.volume, quotes.time, quotes.at))]
    starts = np.cumsum(rows) - rows
    nth = np.arange(len(ordered.at)) - starts[ordered.at]
    return [ordered[nth == k] for k in range(rows.max())]


class Session:
    """What one day's quotes have shown so far, by the minute; 56 bytes a minute and symbol.

    `midnight`: of the day in Shanghai, UTC ns. `first`: the minute of the first bar wanted; what was traded before it
    is a symbol's base. `whole`: whether the session is followed from its beginning, so that what a symbol shows first
    has been traded in it all the same. `cadence_ns`: how far apart two quotes of a symbol may be without a loss; None
    where the feed leaves out quotes that say nothing new. `counts`: rows left out, by reason.
    """

    def __init__(
        self, n_symbols: int, midnight: int, first: int, *, whole: bool, cadence_ns: int | None, counts: Counter[str]
    ) -> None:
        n = n_symbols
        self.midnight, self.first, self.whole = midnight, first, whole
        self.cadence_ns, self.counts = cadence_ns, counts
        self.open, self.high, self.low, self.close, self.total_volume, self.total_amount = np.full(
            (6, MINUTES, n), np.nan
        )
        """NaN where a symbol did not trade; the close also stands where it was first seen."""
        self.stamp = np.zeros((MINUTES, n), dtype=np.int64)
        """The newest quote's time in each minute."""
        self.incomplete = np.zeros((MINUTES, n), dtype=bool)
        self.prev_close = np.full(n, np.nan)
        self.after_volume, self.after_amount = np.zeros((2, n))
        self._losses: list[tuple[int, Times]] = []
        """Quotes of (since, until] (UTC ns) may be missing, `until` by symbol; 0 where none is."""
        self._seen = np.zeros(n, dtype=np.int64)
        self._volume, self._amount = np.zeros((2, n))
        self._high, self._low = np.zeros(n), np.full(n, np.inf)
        self._base_at = np.full(n, -1)
        self._base_volume, self._base_amount, self._base_high = np.zeros((3, n))
        self._base_low = np.full(n, np.inf)

    def seed(self, bars: Quotes, minute: Places, incomplete: Mask) -> None:
        """Take closed bars for what was folded, each in its last minute; their volume and amount are their own.

        `bars`: `time` is the bar's end, `last` its close. Of one symbol and minute the last row counts.
        """
        at = bars.at
        volume, amount = np.zeros((2, MINUTES, len(self.prev_close)))
        volume[minute, at], amount[minute, at] = bars.volume, bars.amount
        self.close[minute, at], self.stamp[minute, at] = bars.last, bars.time
        self.incomplete[minute, at] = incomplete
        for matrix, values in ((self.open, bars.open), (self.high, bars.high), (self.low, bars.low)):
            matrix[minute, at] = values
            matrix[volume == 0] = np.nan
        self.total_volume[:], self.total_amount[:] = volume.cumsum(axis=0), amount.cumsum(axis=0)
        self._volume, self._amount = self.total_volume[-1].copy(), self.total_amount[-1].copy()
        self.total_volume[volume == 0] = self.total_amount[volume == 0] = np.nan
        self._high = np.fmax.reduce(self.high, axis=0, initial=0)
        self._low = np.fmin.reduce(self.low, axis=0, initial=np.inf)
        self._seen = self.stamp.max(axis=0)
        known = bars.prev_close > 0
        self.prev_close[at[known]] = bars.prev_close[known]

    def older(self, quotes: Quotes) -> Mask:
        """(rows,): which are not newer than the symbol's newest."""
        seen: Mask = quotes.time < self._seen[quotes.at]
        return seen

    def fold(self, quotes: Quotes, closed: int) -> None:
        """Enter rows of distinct symbols; trades of the minutes before `closed` are left out as late."""
        seen, volume = self._seen[quotes.at], self._volume[quotes.at]
        older, fell = quotes.time < seen, quotes.volume < volume
        same = (quotes.time == seen) & (quotes.volume == volume)
        out = older | fell | same
        if out.any():
            self.counts["older"] += int(np.count_nonzero(older))
            self.counts["volume_fell"] += int(np.count_nonzero(fell & ~older))
            self.counts["duplicate"] += int(np.count_nonzero(same))
            quotes, volume = quotes[~out], volume[~out]
        minute = minute_index(quotes.time)
        # Nothing can have traded before the auction's result: such a volume is yesterday's, not reset yet.
        early = (minute < 0) | ((quotes.time < self.midnight + _AUCTION_RESULT) & (quotes.volume > 0))
        quotes, minute, volume = self._without(quotes, "early", early), minute[~early], volume[~early]
        known = quotes.prev_close > 0
        self.prev_close[quotes.at[known]] = quotes.prev_close[known]
        idle = ~(quotes.volume > volume)
        self._note(quotes[idle], minute[idle])
        quotes, minute = quotes[~idle], minute[~idle]
        unpriced = ~((quotes.last > 0) & np.isfinite(quotes.last) & np.isfinite(quotes.volume))
        quotes, minute = self._without(quotes, "no_price", unpriced), minute[~unpriced]
        base = (self._seen[quotes.at] == 0) & ((minute > 0) & (not self.whole) | (minute < self.first))
        if base.any():
            self._take_base(quotes[base], minute[base])
            quotes, minute = quotes[~base], minute[~base]
        over = minute >= MINUTES
        if over.any():
            at = quotes.at[over]
            self.after_volume[at] = quotes.volume[over] - self._volume[at]
            self.after_amount[at] = quotes.amount[over] - self._amount[at]
        quotes, minute = self._without(quotes, "after_hours", over), minute[~over]
        late = minute < closed
        quotes, minute = self._without(quotes, "late", late), minute[~late]
        self._flag(quotes, minute)
        for m in np.unique(minute):
            self._trade(int(m), quotes[minute == m])
        self._note(quotes, minute)

    def gaps(self, quotes: Quotes) -> tuple[Mask, Places]:
        """(whether other quotes of the symbol may be missing before a row, the first minute that lacks them then)."""
        seen = self._seen[quotes.at]
        before = np.where(seen > 0, seen, self.midnight + OPEN)
        gap = (seen == 0) & (quotes.time > before + MINUTE)
        if self.cadence_ns is not None:
            gap |= _market_time(quotes.time) - _market_time(before) > self.cadence_ns
            # From the closing auction's beginning to its result nothing is lost, for nothing is traded.
            gap &= ~((before >= self.midnight + _CLOSING_AUCTION) & (seen > 0))
        for since, until in self._losses:
            gap |= (before < until[quotes.at]) & (quotes.time > since)
        return gap & (quotes.volume > self._volume[quotes.at]), np.maximum(minute_index(before + 1), 0)

    def lose(self, since: int, until: Times, settled: int) -> None:
        """Quotes of (`since`, `until`] (UTC ns) may be missing, `until` being (symbols,), 0 for none.

        What was lost up to `settled`, and has been followed by a quote of its symbol, is of no account any more.
        """
        for known_since, known in self._losses:
            if known_since == since:
                np.maximum(known, until, out=known)
                return
        self._losses.append((since, until))
        if len(self._losses) > _LOSSES:
            self._losses = [loss for loss in self._losses if (loss[1] > np.minimum(self._seen, settled)).any()]

    def rewind(self, at: Places, minute: int) -> None:
        """Forget what the symbols `at` showed from `minute` on."""
        for matrix in (self.open, self.high, self.low, self.close, self.total_volume, self.total_amount):
            matrix[minute:, at] = np.nan
        self.stamp[minute:, at] = 0
        self.incomplete[minute:, at] = False
        unbased = at[self._base_at[at] >= minute]
        self._base_at[unbased] = -1
        self._base_volume[unbased] = self._base_amount[unbased] = self._base_high[unbased] = 0
        self._base_low[unbased] = np.inf
        _, self._volume[at], self._amount[at] = self.before(minute, at)
        self._high[at] = np.fmax.reduce(self.high[:minute, at], axis=0, initial=0)
        self._high[at] = np.maximum(self._high[at], self._base_high[at])
        self._low[at] = np.fmin.reduce(self.low[:minute, at], axis=0, initial=np.inf)
        self._low[at] = np.minimum(self._low[at], self._base_low[at])
        self._seen[at] = self.stamp[:minute, at].max(axis=0, initial=0)

    def before(self, minute: int, at: Places) -> tuple[Floats, Floats, Floats]:
        """(close, cumulative volume, cumulative amount) of the symbols `at` as they stood when `minute` began."""
        close, volume, amount = np.full(len(at), np.nan), self._base_volume[at], self._base_amount[at]
        missing = np.arange(len(at))
        # Most symbols traded in the last minute or two; only for the others one looks further back.
        for first, end in ((minute - 1, minute), (max(minute - 5, 0), minute - 1), (0, minute - 5)):
            if end <= max(first, 0) or len(missing) == 0:
                continue
            where = at[missing]
            shown = self.close[first:end, where]
            row, any_shown = _last(~np.isnan(shown))
            unset = np.isnan(close[missing]) & any_shown
            close[missing[unset]] = shown[row[unset], np.flatnonzero(unset)]
            row, traded = _last(~np.isnan(self.open[first:end, where]))
            place, column = first + row[traded], where[traded]
            volume[missing[traded]] = self.total_volume[place, column]
            amount[missing[traded]] = self.total_amount[place, column]
            missing = missing[~traded]
        return close, volume, amount

    def bars(self, first: int, end: int, places: Places | None = None) -> Floats:
        """(7, symbols): open, high, low, close, volume, amount and flags of the minutes [first, end) as one bar.

        `places`: of which symbols, all by default. Minutes without a trade count only where there is no other; the
        close is NaN where a symbol has no bar.
        """
        at: Any = slice(None) if places is None else places
        column = np.arange(len(self.prev_close) if places is None else len(places))
        close, volume, amount = self.before(first, column if places is None else places)
        opens = self.open[first:end, at]
        trades = ~np.isnan(opens)
        row, traded = _last(trades)
        shown = self.close[first:end, at]
        newest, any_shown = _last(~np.isnan(shown))
        close = np.where(any_shown, shown[newest, column], close)
        bar = np.empty((7, len(column)))
        bar[0] = np.where(traded, opens[trades.argmax(axis=0), column], close)
        bar[1] = np.where(traded, np.fmax.reduce(self.high[first:end, at], axis=0), close)
        bar[2] = np.where(traded, np.fmin.reduce(self.low[first:end, at], axis=0), close)
        bar[3] = close
        bar[4] = np.where(traded, self.total_volume[first:end, at][row, column] - volume, 0.0)
        # Amounts are quoted to at most three decimals; the rest is the subtraction's.
        bar[5] = np.where(traded, np.round(self.total_amount[first:end, at][row, column] - amount, 3), 0.0)
        based = (self._base_at[at] >= first) & (self._base_at[at] < end)
        lacking = self.incomplete[first:end, at].any(axis=0) | based
        bar[6] = np.where(traded, 0, FLAG_NO_TRADE) + np.where(lacking, FLAG_INCOMPLETE, 0)
        return bar

    def _trade(self, minute: int, quotes: Quotes) -> None:
        """Enter trades of distinct symbols in a minute."""
        at, last = quotes.at, quotes.last
        # The day's first trade has the day's open, though the first snapshot may show a later one.
        first = np.where((self._volume[at] == 0) & (quotes.open > 0), quotes.open, last)
        # A new extreme of the day lies in this minute, though no snapshot showed it as a last price.
        high = np.where(quotes.high > self._high[at], np.maximum(quotes.high, last), last)
        low = np.where((quotes.low > 0) & (quotes.low < self._low[at]), np.minimum(quotes.low, last), last)
        high, low = np.maximum(high, first), np.minimum(low, first)
        self.high[minute, at] = np.fmax(self.high[minute, at], high)
        self.low[minute, at] = np.fmin(self.low[minute, at], low)
        opened = self.open[minute, at]
        self.open[minute, at] = np.where(np.isnan(opened), first, opened)
        self.close[minute, at] = last
        self.total_volume[minute, at], self.total_amount[minute, at] = quotes.volume, quotes.amount
        self._high[at] = np.maximum(self._high[at], high)
        self._low[at] = np.minimum(self._low[at], low)
        self._volume[at], self._amount[at] = quotes.volume, quotes.amount

    def _take_base(self, quotes: Quotes, minute: Places) -> None:
        """Start symbols in the midst of a session: totals and extremes so far, and a close to carry."""
        at = quotes.at
        self._base_at[at] = minute
        self._base_volume[at], self._base_amount[at] = quotes.volume, quotes.amount
        self._base_high[at] = np.fmax(quotes.high, quotes.last)
        self._base_low[at] = np.where(quotes.low > 0, np.minimum(quotes.low, quotes.last), quotes.last)
        self._volume[at], self._amount[at] = quotes.volume, quotes.amount
        self._high[at], self._low[at] = self._base_high[at], self._base_low[at]
        during = minute < MINUTES
        self.close[minute[during], at[during]] = quotes.last[during]
        self._note(quotes, minute)

    def _note(self, quotes: Quotes, minute: Places) -> None:
        """Remember when symbols were seen."""
        self._seen[quotes.at] = quotes.time
        during = minute < MINUTES
        self.stamp[minute[during], quotes.at[during]] = quotes.time[during]

    def _flag(self, quotes: Quotes, minute: Places) -> None:
        """Flag the minutes in which the trades since the last quote may lie, where quotes are missing between."""
        gap, since = self.gaps(quotes)
        if not gap.any():
            return
        since, until, at = since[gap], minute[gap], quotes.at[gap]
        first, end = int(since.min()), int(until.max()) + 1
        m = np.arange(first, end)[:, None]
        self.incomplete[first:end, at] |= (m >= since) & (m <= until)

    def _without(self, quotes: Quotes, reason: str, out: Mask) -> Quotes:
        """The rows that are not `out`; how many are is counted under `reason`."""
        n_out = int(np.count_nonzero(out))
        if n_out == 0:
            return quotes
        self.counts[reason] += n_out
        return quotes[~out]


def _last(marks: Mask) -> tuple[Places, Mask]:
    """(rows, columns) -> (the last row that is marked, whether there is one), (columns,) each."""
    any_marked: Mask = np.asarray(marks.any(axis=0))
    return len(marks) - 1 - marks[::-1].argmax(axis=0), any_marked


def _market_time(ns: Times) -> Times:
    """Time as the market counts it: nights before the open and the lunch break take none."""
    time = (ns + SHANGHAI) % DAY
    return np.where(time < RESUME, np.clip(time, OPEN, LUNCH), time - (RESUME - LUNCH))

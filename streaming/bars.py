"""Bars: ticks folded into bars, the whole market at once.

A tick is a snapshot whose volume and amount are cumulative for the day, so a bar's volume is a difference, and a
snapshot lost costs nothing but resolution. A snapshot counts only where it is newer than the symbol's last, by time,
then volume: duplicates, and the older snapshots of a source that lags, fall out. A trade is a volume that has grown.

Which bar a quote belongs to is `data.calendar.minute_index`: the opening auction to 09:31, the lunch break to 11:30,
the closing auction to 15:00. A bar closes once a quote, or the clock, is past its end by more than the grace; what
comes for it later is counted, and its volume goes to the next bar. A symbol has bars from its first trade of the day
on; a bar without a trade carries the close with volume 0. A symbol first seen in the midst of a session (or a service
that starts there) has what was traded before as its base, not in a bar.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import DAY, MINUTE, SECOND, bar_ends, bar_start, local_day, minute_index
from data.columns import column, symbol_column
from data.panel import Floats, Times
from data.schema import BAR, FLAG_NO_TRADE, SYMBOL, TIME

Places = npt.NDArray[np.int64]

_AHEAD = MINUTE
"""A quote stamped this much later than its batch's newest hundredth is refused: one bad stamp must close no bar."""
_AUCTION_RESULT = (9 * 60 + 25) * MINUTE
"""From midnight in Shanghai."""
_NUMBERS = ("last", "open", "high", "low", "prev_close", "volume", "amount")
_MINUTES = 240


@dataclass(frozen=True)
class _Quotes:
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

    def __getitem__(self, rows: Any) -> "_Quotes":
        return _Quotes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class _OpenBar:
    """One bar of every symbol, still open; NaN where a symbol is not in it, `open` also where it has not traded."""

    def __init__(self, n_symbols: int) -> None:
        self.open, self.high, self.low, self.close, self.volume, self.amount = np.full((6, n_symbols), np.nan)


class BarBuilder:
    """Folds ticks (`data.schema.TICK`) of `symbols` into bars (`data.schema.BAR`); holds one session, no clock.

    `grace_s`: how long past its end a bar waits for late quotes; `closing_grace_s`: the day's last bar, which waits for
    the closing auction's result. `after` (UTC ns): bars up to this end are closed already, as when a service goes on
    from its store. The metadata of the bars have the `frame`, and as `received_ns` that of the batch (or the clock's
    time) that closed them. `counts` says how many rows were left out, by reason:

    `unknown` (symbol), `other_day` (older than the session), `early` (before 09:15, or with a volume before 09:25),
    `ahead`, `duplicate`, `older`, `volume_fell`, `no_price` (price or volume is no positive number), `late` (its bar is
    closed), `after_hours`.

    Raises FrameError where there is no such frame.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        frame: str = "1m",
        *,
        grace_s: float = 3.5,
        closing_grace_s: float = 30.0,
        after: int | None = None,
    ) -> None:
        self.frame = frame
        self.symbols = tuple(symbols)
        self.counts: Counter[str] = Counter()
        self._place = {symbol: j for j, symbol in enumerate(self.symbols)}
        self._dictionary = pa.array(self.symbols, pa.string())
        # Whose places were looked up last: a feed's batches share one dictionary.
        self._known: tuple[pa.Array, Places] = (self._dictionary, np.arange(len(self.symbols)))
        n_bars = len(bar_ends(np.datetime64(0, "D"), frame))
        self._step = _MINUTES // n_bars
        self._grace = np.full(n_bars, round(grace_s * SECOND))
        self._grace[-1] = round(max(grace_s, closing_grace_s) * SECOND)
        self._after = np.iinfo(np.int64).min if after is None else after
        self._session: np.datetime64[Any] | None = None
        self._watermark = 0
        self._received = b"0"

    @property
    def watermark(self) -> int:
        """The newest quote's time, UTC ns; 0 before the first."""
        return self._watermark

    def add(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Fold one batch of ticks; the bars that it closes, one batch a bar end, oldest first."""
        quotes = self._read(batch)
        if len(quotes.at) == 0:
            return []
        self._received = (batch.schema.metadata or {}).get(b"received_ns", b"0")
        newest = quotes.time.max(keepdims=True)
        day = local_day(newest)[0]
        closed: list[pa.RecordBatch] = []
        if self._session is None or day > self._session:
            closed = self.end_session()
            self._begin(day)
        for part in _one_a_symbol(quotes):
            self._fold(part)
        if day == self._session:
            self._watermark = max(self._watermark, int(newest[0]))
        return closed + self._close(self._due(self._watermark))

    def close_upto(self, now_ns: int) -> list[pa.RecordBatch]:
        """Close by the clock: the bars that ended, with their grace, before `now_ns` (UTC ns) and that quotes reached.

        Where the feed is mute there are no bars: its silence is not the market's.
        """
        if self._session is None:
            return []
        self._received = str(now_ns).encode()
        return self._close(min(self._due(now_ns), self._reached()))

    def end_session(self) -> list[pa.RecordBatch]:
        """Close the session's bars that quotes have reached; later ones nobody has seen, and they do not come to be."""
        return [] if self._session is None else self._close(self._reached())

    def _begin(self, day: np.datetime64[Any]) -> None:
        n = len(self.symbols)
        self._session, self._watermark = day, 0
        self._ends = bar_ends(day, self.frame)
        self._next = int(np.searchsorted(self._ends, self._after, side="right"))
        self._joined = self._next
        self._open: dict[int, _OpenBar] = {}
        self._seen = np.zeros(n, dtype=np.int64)
        """Time of a symbol's newest quote, and the totals it showed."""
        self._volume, self._amount = np.zeros((2, n))
        self._closed_volume, self._closed_amount = np.zeros((2, n))
        self._high, self._low, self._prev_close = np.zeros(n), np.full(n, np.inf), np.full(n, np.nan)
        self._close_price = np.full(n, np.nan)

    def _read(self, batch: pa.RecordBatch) -> _Quotes:
        """The batch's rows of known symbols and believable stamps."""
        symbol = batch.column(batch.schema.get_field_index("symbol"))
        if not pa.types.is_dictionary(symbol.type):
            symbol = symbol.cast(SYMBOL)
        if not self._known[0].equals(symbol.dictionary):
            places = [self._place.get(name, -1) for name in symbol.dictionary.to_pylist()]
            self._known = (symbol.dictionary, np.array(places, dtype=np.int64))
        at = self._known[1][symbol.indices.to_numpy()]
        time = batch.column(batch.schema.get_field_index("quote_time")).view(pa.int64()).to_numpy()
        numbers = [batch.column(batch.schema.get_field_index(name)).to_numpy() for name in _NUMBERS]
        quotes = _Quotes(at, time, *numbers)
        quotes = self._without(quotes, "unknown", at < 0)
        if len(quotes.time) < 100:
            return quotes
        rank = -1 - len(quotes.time) // 100
        newest = np.partition(quotes.time, rank)[rank]
        return self._without(quotes, "ahead", quotes.time > newest + _AHEAD)

    def _without(self, quotes: _Quotes, reason: str, out: npt.NDArray[np.bool_]) -> _Quotes:
        """The rows that are not `out`; how many are is counted under `reason`."""
        n_out = int(np.count_nonzero(out))
        if n_out == 0:
            return quotes
        self.counts[reason] += n_out
        return quotes[~out]

    def _fold(self, quotes: _Quotes) -> None:
        """Fold rows of distinct symbols."""
        begins = self._midnight()
        quotes = self._without(quotes, "other_day", (quotes.time < begins) | (quotes.time >= begins + DAY))
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
        early = (minute < 0) | ((quotes.time < begins + _AUCTION_RESULT) & (quotes.volume > 0))
        quotes, minute, volume = self._without(quotes, "early", early), minute[~early], volume[~early]
        known = quotes.prev_close > 0
        self._prev_close[quotes.at[known]] = quotes.prev_close[known]
        idle = ~(quotes.volume > volume)
        self._seen[quotes.at[idle]] = quotes.time[idle]
        quotes, minute = quotes[~idle], minute[~idle]
        unpriced = ~((quotes.last > 0) & np.isfinite(quotes.last) & np.isfinite(quotes.volume))
        quotes, minute = self._without(quotes, "no_price", unpriced), minute[~unpriced]
        bar = minute // self._step
        # What a symbol had traded before it was first seen is in no bar of ours.
        base = (self._seen[quotes.at] == 0) & ((minute > 0) | (bar < self._joined))
        if base.any():
            self._take_base(quotes[base], bar[base])
            quotes, bar = quotes[~base], bar[~base]
        over = bar >= len(self._ends)
        quotes, bar = self._without(quotes, "after_hours", over), bar[~over]
        late = bar < self._next
        quotes, bar = self._without(quotes, "late", late), bar[~late]
        for k in np.unique(bar):
            self._trade(self._bar(int(k)), quotes[bar == k])

    def _trade(self, bar: _OpenBar, quotes: _Quotes) -> None:
        """Enter trades of distinct symbols in a bar."""
        at, last = quotes.at, quotes.last
        # The day's first trade has the day's open, though the first snapshot may show a later one.
        first = np.where((self._volume[at] == 0) & (quotes.open > 0), quotes.open, last)
        # A new extreme of the day lies in this bar, though no snapshot showed it as a last price.
        high = np.where(quotes.high > self._high[at], np.maximum(quotes.high, last), last)
        low = np.where((quotes.low > 0) & (quotes.low < self._low[at]), np.minimum(quotes.low, last), last)
        bar.high[at] = np.fmax(bar.high[at], np.maximum(high, first))
        bar.low[at] = np.fmin(bar.low[at], np.minimum(low, first))
        bar.open[at] = np.where(np.isnan(bar.open[at]), first, bar.open[at])
        bar.close[at], bar.volume[at], bar.amount[at] = last, quotes.volume, quotes.amount
        self._high[at] = np.maximum(self._high[at], high)
        self._low[at] = np.minimum(self._low[at], low)
        self._seen[at], self._volume[at], self._amount[at] = quotes.time, quotes.volume, quotes.amount

    def _take_base(self, quotes: _Quotes, bars: Places) -> None:
        """Start symbols in the midst of a session: totals and extremes so far, and a close to carry."""
        at = quotes.at
        self._seen[at], self._volume[at], self._amount[at] = quotes.time, quotes.volume, quotes.amount
        self._closed_volume[at], self._closed_amount[at] = quotes.volume, quotes.amount
        self._high[at] = np.fmax(quotes.high, quotes.last)
        self._low[at] = np.where(quotes.low > 0, np.minimum(quotes.low, quotes.last), quotes.last)
        for k in np.unique(bars[bars < len(self._ends)]):
            which = bars == k
            closes = self._close_price if k < self._next else self._bar(int(k)).close
            closes[at[which]] = quotes.last[which]

    def _bar(self, k: int) -> _OpenBar:
        bar = self._open.get(k)
        if bar is None:
            bar = self._open[k] = _OpenBar(len(self.symbols))
        return bar

    def _midnight(self) -> int:
        return int(self._ends[-1]) - 15 * 60 * MINUTE

    def _reached(self) -> int:
        """How many bars of the session quotes have reached."""
        newest = int(minute_index(np.array([self._watermark]))[0]) // self._step
        return min(newest + 1, len(self._ends))

    def _due(self, now_ns: int) -> int:
        """How many bars of the session have ended, with their grace, before `now_ns`."""
        return int(np.searchsorted(self._ends + self._grace, now_ns))

    def _close(self, upto: int) -> list[pa.RecordBatch]:
        """Close the bars before place `upto`; those without any symbol are nothing."""
        closed = []
        while self._next < upto:
            batch = self._finish(self._open.pop(self._next, None), int(self._ends[self._next]))
            self._next += 1
            if batch is not None:
                closed.append(batch)
        return closed

    def _finish(self, bar: _OpenBar | None, end: int) -> pa.RecordBatch | None:
        if bar is None:
            bar = _OpenBar(len(self.symbols))
        traded = ~np.isnan(bar.open)
        close = np.where(np.isnan(bar.close), self._close_price, bar.close)
        self._close_price = close
        rows = np.flatnonzero(~np.isnan(close))
        if len(rows) == 0:
            return None
        prices = [np.where(traded, price, close)[rows] for price in (bar.open, bar.high, bar.low)]
        volume = np.where(traded, bar.volume - self._closed_volume, 0.0)
        # Amounts are quoted to at most three decimals; the rest is the subtraction's.
        amount = np.round(np.where(traded, bar.amount - self._closed_amount, 0.0), 3)
        self._closed_volume = np.where(traded, bar.volume, self._closed_volume)
        self._closed_amount = np.where(traded, bar.amount, self._closed_amount)
        ends = np.full(len(rows), end)
        flags = np.where(traded[rows], 0, FLAG_NO_TRADE).astype(np.uint8)
        numbers = [column(values, pa.float64()) for values in (*prices, close[rows], volume[rows])]
        maybe = [
            column(values, pa.float64(), missing=np.isnan(values)) for values in (amount[rows], self._prev_close[rows])
        ]
        arrays = [
            symbol_column(rows.astype(np.int32), self._dictionary),
            column(bar_start(ends, self.frame), TIME),
            column(ends, TIME),
            *numbers,
            *maybe,
            column(flags, pa.uint8()),
            column(np.zeros(len(rows), dtype=np.int32), pa.int32()),
        ]
        schema = BAR.with_metadata({b"frame": self.frame.encode(), b"received_ns": self._received})
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _one_a_symbol(quotes: _Quotes) -> list[_Quotes]:
    """Parts without a symbol twice, to be folded one after the other: a symbol's rows by time, then volume."""
    rows = np.bincount(quotes.at)
    if rows.max(initial=0) <= 1:
        return [quotes]
    ordered = quotes[np.lexsort((quotes.volume, quotes.time, quotes.at))]
    starts = np.cumsum(rows) - rows
    nth = np.arange(len(ordered.at)) - starts[ordered.at]
    return [ordered[nth == k] for k in range(rows.max())]

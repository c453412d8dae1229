"""Bars: ticks folded into bars of several frames, the whole market at once.

A tick is a snapshot whose volume and amount are cumulative for the day, so a bar's volume is a difference, and a
snapshot lost costs nothing but resolution. A snapshot counts only where it is newer than the symbol's last, by time,
then volume: duplicates, and the older snapshots of a source that lags, fall out, unless they come within the late
window. A trade is a volume that has grown.

Which bar a quote belongs to is `data.calendar.minute_index`: the opening auction to 09:31, the lunch break to 11:30,
the closing auction to 15:00. A bar closes once a quote, or the clock, is past its end by more than the grace. What
comes for it later, but within the late window, is entered where it belongs, and gives revisions of the bars that it
changes; what comes later still is counted, and its volume goes to the next bar. A symbol has bars from its first trade
of the day on; a bar without a trade carries the close with volume 0. A symbol first seen in the midst of a session in
which the service started has what was traded before as its base, not in a bar.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import DAY, MINUTE, SECOND, bar_ends, bar_start, day_ns, local_day, minute_index
from data.columns import Lookup, column, symbol_column
from data.panel import Floats
from data.schema import AFTER_HOURS, BAR, FLAG_INCOMPLETE, FRAMES, SYMBOL, TIME
from streaming.folding import MINUTES, Mask, Places, Quotes, Session, joined, one_a_symbol
from streaming.gaps import losses_of

_AHEAD = MINUTE
"""A quote stamped this much later than its batch's newest hundredth is refused: one bad stamp must close no bar."""
_NEVER = np.iinfo(np.int64).min
_NUMBERS = ("last", "open", "high", "low", "prev_close", "volume", "amount")


class MarketBars:
    """Folds ticks (`data.schema.TICK`) of `symbols` into bars (`data.schema.BAR`) of `frames` in one pass; holds one
    session, no clock. At a boundary shared by several frames the shorter ones close first.

    `grace_s`: how long past its end a bar waits for late quotes; `closing_grace_s`: the day's last bar, which waits for
    the closing auction's result. `late_s`: how much older than the newest quote one may be and still be entered where
    it belongs, giving revisions; 0: none may. `cadence_s`: how far apart two quotes of a symbol are at most if none is
    lost; None where the feed leaves out quotes that say nothing new: losses are then known by `lost` alone. `after`:
    frame -> the end (UTC ns) up to which its bars are closed already, as when a service goes on from its store;
    `closed`: those of the shortest frame (`data.schema.BAR`), of the session in which it goes on, so that longer bars
    that began before are whole. Without them such bars are flagged incomplete.

    A batch of bars says in its metadata, as texts: `frame`, `bar_end`, `revision` (0: its bars have closed; n: the n-th
    batch of changes to them), `developing` (`1` where they are still open), as `received_ns` that of the batch (or the
    clock's time) that made it, and as `quote_ns` the newest quote's time then. `counts` says how many rows were left
    out, by reason:

    `unknown` (symbol), `other_day` (older than the session), `early` (before 09:15, or with a volume before 09:25),
    `ahead`, `duplicate`, `older`, `volume_fell`, `no_price` (price or volume is no positive number), `late` (its bar is
    closed), `after_hours` (they are in `after_hours`); and under `delayed` those that came late and were entered.

    Raises FrameError where there is no such frame.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        frames: Sequence[str] = FRAMES,
        *,
        grace_s: float = 3.5,
        closing_grace_s: float = 30.0,
        late_s: float = 0.0,
        cadence_s: float | None = None,
        after: Mapping[str, int | None] | None = None,
        closed: pa.Table | None = None,
    ) -> None:
        day = np.datetime64(0, "D")
        self._step = dict(sorted(((f, MINUTES // len(bar_ends(day, f))) for f in frames), key=lambda item: item[1]))
        """Frame -> minutes a bar, the shortest first."""
        self.symbols, self.frames = tuple(symbols), tuple(self._step)
        self.counts: Counter[str] = Counter()
        self._place = {symbol: j for j, symbol in enumerate(self.symbols)}
        self._dictionary = pa.array(self.symbols, pa.string())
        self._lookup = Lookup(self._place)
        self._grace = np.full(MINUTES, round(grace_s * SECOND))
        self._grace[-1] = round(max(grace_s, closing_grace_s) * SECOND)
        self._late = round(late_s * SECOND)
        self._cadence = None if cadence_s is None else round(cadence_s * SECOND)
        self._after, self._before = after or {}, closed
        self._day: np.datetime64[Any] | None = None
        self._watermark = 0
        self._received = b"0"

    @property
    def session(self) -> np.datetime64[Any] | None:
        """The day whose quotes are folded; None before the first."""
        return self._day

    @property
    def watermark(self) -> int:
        """The newest quote's time, UTC ns; 0 before the first."""
        return self._watermark

    def add(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Fold one batch of ticks; the revisions that it makes, then the bars that it closes, one batch a frame and bar
        end, oldest first."""
        quotes = self._read(batch)
        if len(quotes.at) == 0:
            for loss in losses_of(batch):
                self._lose(loss.since_ns, loss.until_ns, loss.symbols)
            return []
        self._received = (batch.schema.metadata or {}).get(b"received_ns", b"0")
        newest = quotes.time.max(keepdims=True)
        day = local_day(newest)[0]
        made: list[pa.RecordBatch] = []
        if self._day is None or day > self._day:
            made = self.end_session()
            self._begin(day, int(quotes.time.min()))
        for loss in losses_of(batch):
            self._lose(loss.since_ns, loss.until_ns, loss.symbols, quotes)
        begins = self._session.midnight
        quotes = self._without(quotes, "other_day", (quotes.time < begins) | (quotes.time >= begins + DAY))
        for part in one_a_symbol(quotes):
            made += self._enter(part)
        if day == self._day:
            self._watermark = max(self._watermark, int(newest[0]))
        return made + self._close(self._due(self._watermark))

    def close_upto(self, now_ns: int) -> list[pa.RecordBatch]:
        """Close by the clock: the bars that ended, with their grace, before `now_ns` (UTC ns) and that quotes reached.

        Where the feed is mute there are no bars: its silence is not the market's.
        """
        if self._day is None:
            return []
        self._received = str(now_ns).encode()
        return self._close(min(self._due(now_ns), self._reached()))

    def end_session(self) -> list[pa.RecordBatch]:
        """Close the session's bars that quotes have reached; later ones nobody has seen, and they do not come to be."""
        return [] if self._day is None else self._close(self._reached(), partly=True)

    def lost(self, since_ns: int, until_ns: int, symbols: Sequence[str] | None = None) -> None:
        """Say that quotes of (`since_ns`, `until_ns`] (UTC ns) may be missing, of some symbols or of all.

        Where a symbol's volume turns out to have grown meanwhile, the minutes concerned are flagged incomplete. What
        a batch's metadata says of losses (`streaming.gaps`) is heeded without it.
        """
        self._lose(since_ns, until_ns, self.symbols if symbols is None else symbols)

    def _lose(self, since: int, until: int, symbols: Sequence[str], shown: Quotes | None = None) -> None:
        """`shown`: what the frame that comes after the loss says; of its symbols nothing later is missing."""
        if self._day is None:
            return
        ends = np.zeros(len(self.symbols), dtype=np.int64)
        ends[[self._place[symbol] for symbol in symbols if symbol in self._place]] = until
        if shown is not None:
            newest = np.zeros(len(self.symbols), dtype=np.int64)
            np.maximum.at(newest, shown.at, shown.time)
            ends = np.where(newest > 0, np.minimum(ends, newest), ends)
        kept = self._minute_at(self._watermark - self._late - (self._cadence or 0))
        self._session.lose(since, ends, int(self._minute_ends[max(kept - 1, 0)]) if kept > 0 else 0)

    def developing(self, frame: str = "1d") -> pa.RecordBatch | None:
        """The bar of `frame` that is still open, from its beginning to now, under the end that it will have.

        Its metadata say `developing`: `1`. None where no bar is open or no symbol is in it.
        """
        if self._day is None or (k := self._next[frame]) * self._step[frame] >= MINUTES:
            return None
        return self._batch(frame, k, self._image(frame, k), developing=True)

    def after_hours(self) -> pa.Table:
        """What the session's symbols traded after the close, at fixed prices (`data.schema.AFTER_HOURS`)."""
        if self._day is None:
            return AFTER_HOURS.empty_table()
        session = self._session
        rows = np.flatnonzero(session.after_volume > 0)
        amount = np.round(session.after_amount[rows], 3)
        arrays = [
            symbol_column(rows.astype(np.int32), self._dictionary),
            pa.array(np.full(len(rows), self._day), pa.date32()),
            column(session.after_volume[rows], pa.float64()),
            column(amount, pa.float64(), missing=np.isnan(amount)),
        ]
        return pa.Table.from_arrays(arrays, schema=AFTER_HOURS)

    def _begin(self, day: np.datetime64[Any], earliest: int) -> None:
        self._day, self._watermark = day, 0
        self._ends = {frame: bar_ends(day, frame) for frame in self.frames}
        self._minute_ends = bar_ends(day, "1m")
        closed = {frame: _NEVER if (end := self._after.get(frame)) is None else end for frame in self.frames}
        self._next = {f: int(np.searchsorted(ends, closed[f], side="right")) for f, ends in self._ends.items()}
        self._joined = dict(self._next)
        first = self._closed_minutes()
        self._session = Session(
            len(self.symbols),
            int(day_ns(np.array([day]))[0]),
            first,
            whole=first == 0 and int(minute_index(np.array([earliest]))[0]) <= 0,
            cadence_ns=self._cadence,
            counts=self.counts,
        )
        if first and self._before is not None:
            self._seed(self._before)
        self._recent: list[Quotes] = []
        """What may have to be folded again."""
        self._revisions: dict[tuple[str, int], Places] = {}
        self._changes = Counter[tuple[str, int]]()

    def _seed(self, bars: pa.Table) -> None:
        """Enter what the session's bars say that had closed before the first quote."""
        bars = bars.sort_by("revision")
        at = np.array([self._place.get(symbol, -1) for symbol in bars["symbol"].to_pylist()], dtype=np.int64)
        ends = bars["bar_end"].cast(pa.int64()).to_numpy()
        own = (at >= 0) & (local_day(ends) == self._day)
        names = ("close", "open", "high", "low", "prev_close", "volume", "amount")
        numbers = (bars[name].cast(pa.float64()).to_numpy() for name in names)
        lacking = (bars["flags"].to_numpy() & FLAG_INCOMPLETE) != 0
        self._session.seed(Quotes(at, ends, *numbers)[own], minute_index(ends[own]), lacking[own])

    def _read(self, batch: pa.RecordBatch) -> Quotes:
        """The batch's rows of known symbols and believable stamps."""
        symbol = batch.column(batch.schema.get_field_index("symbol"))
        if not pa.types.is_dictionary(symbol.type):
            symbol = symbol.cast(SYMBOL)
        at = self._lookup(symbol.dictionary)[symbol.indices.to_numpy()]
        time = batch.column(batch.schema.get_field_index("quote_time")).view(pa.int64()).to_numpy()
        numbers = [batch.column(batch.schema.get_field_index(name)).to_numpy() for name in _NUMBERS]
        quotes = Quotes(at, time, *numbers)
        quotes = self._without(quotes, "unknown", at < 0)
        if len(quotes.time) < 100:
            return quotes
        rank = -1 - len(quotes.time) // 100
        newest = np.partition(quotes.time, rank)[rank]
        return self._without(quotes, "ahead", quotes.time > newest + _AHEAD)

    def _without(self, quotes: Quotes, reason: str, out: Mask) -> Quotes:
        """The rows that are not `out`; how many are is counted under `reason`."""
        n_out = int(np.count_nonzero(out))
        if n_out == 0:
            return quotes
        self.counts[reason] += n_out
        return quotes[~out]

    def _enter(self, quotes: Quotes) -> list[pa.RecordBatch]:
        """Fold rows of distinct symbols; the revisions of closed bars that come of it."""
        session, closed = self._session, self._closed_minutes()
        if self._late == 0:
            session.fold(quotes, closed)
            return []
        minute = minute_index(quotes.time)
        # What lies before the first bar wanted cannot be folded again: its quotes are not there.
        oldest = max(self._minute_at(self._watermark - self._late), session.first)
        kept = max(self._minute_at(self._watermark - self._late - (self._cadence or 0)), session.first)
        self._recent = [part for part in self._recent if self._minute_at(int(part.time.max(initial=0))) >= kept]
        self._recent.append(quotes)
        delayed = (session.older(quotes) | (minute < closed)) & (minute >= oldest) & (minute < MINUTES)
        gap, start = session.gaps(quotes)
        touched = delayed | gap & (start < closed)
        if not touched.any():
            session.fold(quotes, closed)
            return []
        # A quote that comes late may fill a gap that had begun before it.
        begun = minute_index(quotes.time - (self._cadence or 0)).clip(kept, minute.clip(kept))
        start = np.where(delayed, np.where(gap, np.minimum(begun, start.clip(kept)), begun), start)
        at = quotes.at[touched]
        before = {bar: self._image(*bar, at) for bar in self._closed_bars(int(start[touched].min()))}
        session.fold(quotes[~delayed], closed)
        if delayed.any():
            self.counts["delayed"] += int(np.count_nonzero(delayed))
            self._fold_again(quotes.at[delayed], int(start[delayed].min()))
        return [batch for bar, old in before.items() if (batch := self._revision(*bar, at, old)) is not None]

    def _fold_again(self, at: Places, minute: int) -> None:
        """Fold what the symbols `at` showed from `minute` on once more, in its order."""
        session = self._session
        session.rewind(at, minute)
        concerned = np.zeros(len(self.symbols), dtype=bool)
        concerned[at] = True
        own = joined([part[concerned[part.at]] for part in self._recent])
        own = own[minute_index(own.time) >= minute]
        session.counts = Counter()  # they are counted already
        for part in one_a_symbol(own):
            session.fold(part, 0)
        session.counts = self.counts

    def _revision(self, frame: str, k: int, at: Places, old: Floats) -> pa.RecordBatch | None:
        """The bars of the symbols `at` that are not as they were published."""
        new = self._image(frame, k, at)
        differs = ~((new == old) | (np.isnan(new) & np.isnan(old))).all(axis=0)
        if not differs.any():
            return None
        counts = self._revisions.setdefault((frame, k), np.zeros(len(self.symbols), dtype=np.int64))
        counts[at[differs & ~np.isnan(old[3])]] += 1
        self._changes[frame, k] += 1
        order = np.argsort(at[differs])
        return self._batch(frame, k, new[:, differs][:, order], at[differs][order], revision=counts)

    def _image(self, frame: str, k: int, at: Places | None = None) -> Floats:
        step = self._step[frame]
        return self._session.bars(k * step, (k + 1) * step, at)

    def _closed_bars(self, minute: int) -> list[tuple[str, int]]:
        """(frame, place) of the closed bars that begin at `minute` or reach into it, in the order of their closing."""
        bars = [
            ((k + 1) * step, frame, k)
            for frame, step in self._step.items()
            for k in range(max(minute // step, self._joined[frame]), self._next[frame])
        ]
        return [(frame, k) for _, frame, k in sorted(bars, key=lambda bar: bar[0])]

    def _closed_minutes(self) -> int:
        """How many minutes lie in closed bars of the shortest frame."""
        return self._next[self.frames[0]] * self._step[self.frames[0]]

    def _minute_at(self, ns: int) -> int:
        return int(minute_index(np.array([ns]))[0])

    def _reached(self) -> int:
        """How many minutes of the session quotes have reached."""
        return min(self._minute_at(self._watermark) + 1, MINUTES)

    def _due(self, now_ns: int) -> int:
        """How many minutes of the session have ended, with their grace, before `now_ns`."""
        return int(np.searchsorted(self._minute_ends + self._grace, now_ns))

    def _close(self, minutes: int, *, partly: bool = False) -> list[pa.RecordBatch]:
        """Close the bars within the first `minutes`, and `partly` those that reach into them; those without any symbol
        are nothing."""
        due = [
            ((k + 1) * step, frame, k)
            for frame, step in self._step.items()
            for k in range(self._next[frame], (minutes + (step - 1 if partly else 0)) // step)
        ]
        closed = []
        # Sorting keeps the shorter frames first at a boundary that they share.
        for _, frame, k in sorted(due, key=lambda bar: bar[0]):
            self._next[frame] = k + 1
            batch = self._batch(frame, k, self._image(frame, k))
            if batch is not None:
                closed.append(batch)
        return closed

    def _batch(
        self,
        frame: str,
        k: int,
        image: Floats,
        at: Places | None = None,
        *,
        revision: Places | None = None,
        developing: bool = False,
    ) -> pa.RecordBatch | None:
        """Bars of one end as rows; `at`: the symbols' places, all by default."""
        rows = np.flatnonzero(~np.isnan(image[3]))
        if len(rows) == 0:
            return None
        image = image[:, rows]
        at = rows if at is None else at[rows]
        ends = np.full(len(rows), self._ends[frame][k])
        maybe = [image[5], self._session.prev_close[at]]
        arrays = [
            symbol_column(at.astype(np.int32), self._dictionary),
            column(bar_start(ends, frame), TIME),
            column(ends, TIME),
            *(column(values, pa.float64()) for values in image[:5]),
            *(column(values, pa.float64(), missing=np.isnan(values)) for values in maybe),
            column(image[6].astype(np.uint8), pa.uint8()),
            column((np.zeros(len(at)) if revision is None else revision[at]).astype(np.int32), pa.int32()),
        ]
        about = {
            b"frame": frame.encode(),
            b"bar_end": str(ends[0]).encode(),
            b"revision": str(0 if revision is None else self._changes[frame, k]).encode(),
            b"developing": str(int(developing)).encode(),
            b"received_ns": self._received,
            b"quote_ns": str(self._watermark).encode(),
        }
        schema = BAR.with_metadata(about)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

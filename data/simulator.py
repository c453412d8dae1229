"""A seeded market of any size: the feed and the history of whoever has configured nothing.

It has listings, halts of whole days and of minutes, days at the limit, ST names, dividends and splits, auctions, and
volume that follows the day's shape. It runs on declared past sessions, never by the clock, and stores nothing: any
session of any seed can be computed again, and each opens where the one before closed.
"""

from collections.abc import Iterator
from functools import lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import MINUTE, SECOND, bar_ends, bar_start
from data.columns import column, symbol_column
from data.errors import FrameError, UsageError
from data.panel import Times
from data.schema import BAR, FLAG_NO_TRADE, FRAMES, TICK, TIME
from data.simulated_days import SESSIONS, Day, Session, make_listings, next_day
from data.simulated_minutes import (
    MINUTES,
    SNAPSHOTS,
    Cents,
    Minutes,
    Snapshots,
    draw_after_hours,
    draw_minutes,
    draw_opening,
    draw_snapshots,
)

_RECENT, _LANDMARK = 8, 50
"""Of the days computed so far are held: this many before the last, and every so many-th."""
_LOT = 100
_OPENING = np.array([-5 * MINUTE, 0])
"""From 09:30: when the opening auction's result is shown."""
_AFTER_HOURS = 6 * MINUTE
"""From 15:00: the last snapshot, too late for any bar."""
_STEPS = np.arange(1, SNAPSHOTS + 1) * 3 * SECOND


class SimulatedMarket:
    """A market that follows from `n_symbols` and `seed`. Raises UsageError where `n_symbols` is out of bounds.

    Holds a few of the days computed so far, from which any other follows soon, and the minutes of the two sessions
    asked for last; safe to use from several threads.
    """

    def __init__(self, n_symbols: int = 5000, seed: int = 7) -> None:
        self._listings = make_listings(n_symbols, seed)
        self._days: dict[int, Day] = {}
        # A feed's thread and others may ask for days at once.
        self._turn = Lock()
        self._dictionary = pa.array(self._listings.symbols, pa.string())
        self._minutes = lru_cache(maxsize=2)(self._draw)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that is listed on some session, sorted."""
        return self._listings.symbols

    @property
    def sessions(self) -> list[Session]:
        """The sessions (datetime64[D]) on which the market exists."""
        return list(SESSIONS)

    def names(self, session: Session) -> dict[str, str]:
        """Symbol -> short name, of what is listed on a session; ST stands in front. Raises UsageError."""
        return self._listings.named(_index(session))

    def day(self, session: Session) -> Day:
        """One session of the whole market, in cents and lots. Raises UsageError where there is no such session."""
        index = _index(session)
        with self._turn:
            held = max((known for known in self._days if known <= index), default=-1)
            for later in range(held + 1, index + 1):
                self._days[later] = next_day(self._listings, self._days.get(later - 1), later)
                wanted = range(later - _RECENT, later + 1)
                self._days = {k: day for k, day in self._days.items() if k in wanted or k % _LANDMARK == 0}
            return self._days[index]

    def bars(self, frame: str, *sessions: Session) -> pa.Table:
        """The bars of some sessions (`data.schema.BAR`, by bar end, then symbol), revision 0.

        Frames of minutes are exactly what folding the snapshots gives; so is 1d, but for `amount`, which is estimated.
        """
        if frame not in FRAMES:
            raise FrameError(f"frame must be one of {', '.join(FRAMES)}; got {frame!r}")
        schema = BAR.with_metadata({"frame": frame})
        batches = [
            self._daily(session, schema) if frame == "1d" else self._intraday(session, frame, schema)
            for session in sessions
        ]
        return pa.Table.from_batches(batches, schema)

    def snapshots(self, session: Session, since: int | None = None) -> Iterator[pa.RecordBatch]:
        """The quotes of a session (`data.schema.TICK`), the whole listed market every 3 seconds of market time.

        First the opening auction's result at 09:25:00 and 09:30:00, then 20 snapshots a minute, the last at 15:00:00
        with the closing auction's, and one more at 15:06:00. `since` (UTC ns) leaves out the minutes that end before.
        """
        for batches in self.minutes_of_snapshots(session, since):
            yield from batches

    def minutes_of_snapshots(self, session: Session, since: int | None = None) -> Iterator[list[pa.RecordBatch]]:
        """`snapshots`, a minute at a time, as they are made."""
        minutes = self._minutes(_index(session))
        ends = bar_ends(session, "1m")
        fixed = (
            symbol_column(minutes.columns.astype(np.int32), self._dictionary),
            column(minutes.day.reference[minutes.columns] / 100, pa.float64()),
        )
        opens_at = int(ends[0]) - MINUTE
        if since is None or opens_at >= since:
            yield _batches(draw_opening(minutes), opens_at + _OPENING, *fixed)
        for minute, end in enumerate(ends):
            if since is None or end >= since:
                yield _batches(draw_snapshots(minutes, minute, self._listings.seed), end - MINUTE + _STEPS, *fixed)
        yield _batches(draw_after_hours(minutes), ends[-1:] + _AFTER_HOURS, *fixed)

    def _draw(self, index: int) -> Minutes:
        return draw_minutes(self.day(SESSIONS[index]), self._listings.seed)

    def _daily(self, session: Session, schema: pa.Schema) -> pa.RecordBatch:
        day = self.day(session)
        columns = np.flatnonzero(day.trading)
        prices = [p[columns] / 100 for p in (day.open, day.high, day.low, day.close)]
        volume = (day.lots[columns] * _LOT).astype(np.float64)
        mean = (prices[0] + prices[1] + prices[2] + prices[3]) / 4
        amount = np.round(volume * mean, 2)
        ends = np.repeat(bar_ends(session, "1d"), len(columns))
        return self._batch(schema, "1d", columns, ends, prices, volume, amount, day.reference[columns] / 100)

    def _intraday(self, session: Session, frame: str, schema: pa.Schema) -> pa.RecordBatch:
        minutes = self._minutes(_index(session))
        ends = bar_ends(session, frame)
        step = MINUTES // len(ends)
        last = slice(step - 1, None, step)
        row, place = np.nonzero(minutes.exists[last])
        prices = [p[row, place] / 100 for p in _joined(minutes, step)]
        volume = np.diff(minutes.total_lots[last], axis=0, prepend=0)[row, place] * float(_LOT)
        amount = np.diff(minutes.total_amount[last], axis=0, prepend=0)[row, place] / 100
        columns = minutes.columns[place]
        reference = minutes.day.reference[columns] / 100
        return self._batch(schema, frame, columns, ends[row], prices, volume, amount, reference)

    def _batch(
        self,
        schema: pa.Schema,
        frame: str,
        columns: npt.NDArray[np.int64],
        ends: Times,
        prices: list[npt.NDArray[np.float64]],
        *rest: npt.NDArray[np.float64],
    ) -> pa.RecordBatch:
        """`rest`: volume, amount, prev_close."""
        numbers = [column(values, pa.float64()) for values in (*prices, *rest)]
        flags = np.where(rest[0] > 0, 0, FLAG_NO_TRADE).astype(np.uint8)
        revision = np.zeros(len(columns), dtype=np.int32)
        times = [column(bar_start(ends, frame), TIME), column(ends, TIME)]
        symbol = symbol_column(columns.astype(np.int32), self._dictionary)
        tail = [column(flags, pa.uint8()), column(revision, pa.int32())]
        return pa.RecordBatch.from_arrays([symbol, *times, *numbers, *tail], schema=schema)


def _index(session: Session) -> int:
    place = int(np.searchsorted(SESSIONS, session))
    if place == len(SESSIONS) or SESSIONS[place] != session:
        raise UsageError(
            f"the simulated market has no session {session}; it has the trading days {SESSIONS[0]} to {SESSIONS[-1]}"
        )
    return place


def _joined(minutes: Minutes, step: int) -> tuple[npt.NDArray[np.int32], ...]:
    """Open, high, low, close of bars of `step` minutes; minutes without a trade count only where all are such."""
    open_, high, low, close = minutes.open, minutes.high, minutes.low, minutes.close
    if step == 1:
        return open_, high, low, close
    shape = (MINUTES // step, step, len(minutes.columns))
    traded = minutes.lots.reshape(shape) > 0
    any_, first = traded.any(axis=1), traded.argmax(axis=1)
    close = close[step - 1 :: step]
    began = np.take_along_axis(open_.reshape(shape), first[:, None], axis=1)[:, 0]
    top = np.where(traded, high.reshape(shape), 0).max(axis=1)
    bottom = np.where(traded, low.reshape(shape), np.iinfo(np.int32).max).min(axis=1)
    return np.where(any_, began, close), np.where(any_, top, close), np.where(any_, bottom, close), close


def _batches(
    shown: Snapshots, times: Times, symbol: pa.DictionaryArray, prev_close: pa.DoubleArray
) -> list[pa.RecordBatch]:
    """One RecordBatch a snapshot."""
    prices: list[Cents] = [shown.last, shown.open, shown.high, shown.low]
    numbers = [price / 100 for price in prices]
    totals = [shown.lots * float(_LOT), shown.amount / 100]

    def batch(k: int) -> pa.RecordBatch:
        time = column(np.full(len(symbol), times[k]), TIME)
        quoted = [column(values[k], pa.float64()) for values in numbers]
        traded = [column(values[k], pa.float64()) for values in totals]
        return pa.RecordBatch.from_arrays([symbol, time, *quoted, prev_close, *traded], schema=TICK)

    return [batch(k) for k in range(len(times))]

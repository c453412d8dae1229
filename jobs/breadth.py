"""Market breadth: how many symbols rose and fell, and how many closed at their limit, told from closed bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.aggregate import newest
from data.calendar import local_day
from data.columns import Lookup, numbers
from data.limits import is_st_name, limit_prices, limit_ratio, price_tick
from data.store import BarStore
from data.symbols import board
from jobs.readiness import bars_had

Floats = npt.NDArray[np.float64]
LISTED_BARS = 12
"""Daily bars looked back at for who was listed just now; more than any board has days without a limit."""


@dataclass(frozen=True)
class Breadth:
    """At one closed bar, against the previous session's close. `symbols`: that have traded this session, of `of` that
    are watched. `limits`: symbols whose price limits are known."""

    frame: str
    bar_end: int
    up: int
    down: int
    unchanged: int
    limit_up: int
    limit_down: int
    limits: int
    symbols: int
    of: int


class BreadthCount:
    """Counts closed bars (`data.schema.BAR`); holds each symbol's limits of the session. Not for several
    threads at once."""

    def __init__(self, store: BarStore, symbols: Sequence[str]) -> None:
        self._store = store
        self._symbols = list(symbols)
        self._place = Lookup({symbol: j for j, symbol in enumerate(symbols)})
        self._boards = np.array([board(symbol) for symbol in symbols])
        self._ticks = np.array([price_tick(symbol) for symbol in symbols])
        self._day: np.datetime64 | None = None
        self._ratio: npt.NDArray[np.float64] = np.empty(0)

    def stored(self, frame: str) -> Breadth | None:
        """At the newest stored bar of a frame; None where there is none."""
        bar_end = self._store.last_bar_end(frame)
        if bar_end is None:
            return None
        bars = newest(self._store.table(frame, after=bar_end - 1, upto=bar_end))
        return self.count(bars.unify_dictionaries().combine_chunks().to_batches()[0], frame, bar_end)

    def count(self, bars: pa.RecordBatch, frame: str, bar_end: int) -> Breadth:
        """Of all symbols' bars of one frame and end (UTC ns)."""
        day = local_day(np.array([bar_end]))[0]
        if day != self._day:
            self._open(day, bar_end)
        symbol = bars["symbol"]
        at = self._place(symbol.dictionary)[symbol.indices.to_numpy()]
        known = at >= 0
        at, close, before = at[known], numbers(bars["close"])[known], numbers(bars["prev_close"])[known]
        up, down = limit_prices(before, self._ratio[at], self._ticks[at])
        return Breadth(
            frame,
            bar_end,
            up=_n(close > before),
            down=_n(close < before),
            unchanged=_n(close == before),
            limit_up=_n(close >= up - 1e-9),
            limit_down=_n(close <= down + 1e-9),
            limits=_n(np.isfinite(up)),
            symbols=len(at),
            of=len(self._symbols),
        )

    def _open(self, day: np.datetime64, bar_end: int) -> None:
        """The limits of a session: by board, by whether the name says ST, and by how long a symbol is listed."""
        names: Mapping[str, tuple[str, str]] = self._store.names(upto=bar_end)
        st = [float(is_st_name(names[symbol][0])) if symbol in names else np.nan for symbol in self._symbols]
        ends = self._store.bar_ends("1d", upto=bar_end - 1, newest=LISTED_BARS)
        known = len(ends) == LISTED_BARS  # else nobody can tell who is new
        had = bars_had(self._store, "1d", self._symbols, after=ends[0] - 1, upto=ends[-1]) if known else np.nan
        self._ratio = limit_ratio(self._boards, np.array([day]), st, np.asarray(had) + 1)
        self._day = day


def _n(which: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(which))

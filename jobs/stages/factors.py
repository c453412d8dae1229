"""Corporate actions that a session's first quotes tell, kept in the store's factor table."""

import logging

import numpy as np
import pyarrow as pa

from data.calendar import day_ns, local_day
from data.factors import FactorStore, quoted_factors
from data.panel import Floats
from data.store import BarStore

log = logging.getLogger(__name__)


class QuotedFactors:
    """Compares each symbol's first previous close of a session with the last close that was stored before it."""

    def __init__(self, store: BarStore, frame: str) -> None:
        self._store, self._frame = store, frame
        self._table = FactorStore(store.root)
        self._day: np.datetime64 | None = None
        self._closes: dict[str, tuple[int, float]] = {}
        """Symbols -> the newest bar end (UTC ns) stored before this session, and its close, CNY."""
        self._before: dict[str, float] = {}
        """Symbols not seen yet in this session -> their last close before it, CNY."""

    def take(self, bars: pa.RecordBatch) -> int:
        """One batch of bars; how many factors it told that were not known."""
        if bars.num_rows == 0:
            return 0
        end = bars["bar_end"].cast(pa.int64())[0].as_py()
        day = local_day(np.array([end]))[0]
        if day != self._day:
            self._read_closes(day)
            self._day, self._before = day, {symbol: close for symbol, (_, close) in self._closes.items()}
        if not self._before:
            return 0
        symbols = bars["symbol"].cast(pa.string()).to_pylist()
        rows = [row for row, symbol in enumerate(symbols) if symbol in self._before]
        if not rows:
            return 0
        fresh = [symbols[row] for row in rows]
        last = np.array([self._before.pop(symbol) for symbol in fresh])
        quoted: Floats = bars["prev_close"].to_numpy(zero_copy_only=False)[rows]
        factors = quoted_factors(fresh, quoted, last, day)
        if factors.num_rows == 0 or self._table.append(factors) is None:
            return 0
        log.info("%d symbols stand on another basis from %s on", factors.num_rows, day)
        return int(factors.num_rows)

    def _read_closes(self, day: np.datetime64) -> None:
        """Each symbol's last stored close before a session: of its days, and of the frame's newest session.

        Once all days are read, and from then on those since the session before.
        """
        before = int(day_ns(np.array([day]))[0])
        for frame in dict.fromkeys(("1d", self._frame)):
            last = self._store.last_bar_end(frame, upto=before - 1)
            if last is None:
                continue
            since = self._day if frame == "1d" else local_day(np.array([last]))[0]
            after = None if since is None else int(day_ns(np.array([since]))[0]) - 1
            table = self._store.table(
                frame, after=after, upto=before - 1, columns=("symbol", "bar_end", "revision", "close")
            )
            order = [("bar_end", "ascending"), ("revision", "ascending")]
            newest = (
                table.sort_by(order)
                .group_by("symbol", use_threads=False)
                .aggregate([("bar_end", "last"), ("close", "last")])
            )
            columns = (
                newest["symbol"].cast(pa.string()),
                newest["bar_end_last"].cast(pa.int64()),
                newest["close_last"],
            )
            for symbol, end, close in zip(*(column.to_pylist() for column in columns), strict=True):
                self._closes[symbol] = max(self._closes.get(symbol, (0, 0.0)), (end, close))

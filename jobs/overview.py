"""Overview: how the live service is, kept from what goes by: breadth, scans, the feed, latency by stage."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import SECOND
from data.columns import numbers
from data.schema import FRAMES
from data.signal import iso
from jobs.breadth import Breadth, BreadthCount
from jobs.latency import STAMPS, stages_of
from jobs.sources import to_json
from jobs.stages.scanning import Interval
from streaming.bus import SIGNALS, bar_topic
from streaming.health import TradingClock
from streaming.ports import Bus, Policy, Subscription
from streaming.status import Status

INTERVALS = 500
"""Whose stamps latency is told from."""
PATIENCE_S = 60.0
"""Quotes of which none is younger, in seconds of trading, are stale."""
BAR_PATIENCE_S = 150.0
"""The same of one-minute bars, where quotes themselves are not seen."""
_RECEIVED = STAMPS.index("received_ns")


class Overview:
    """What a process of the live service knows of itself; asked by the page, and by nobody who would wait for it.

    `feed`: the feed's name. `pause_s`: wall seconds between two bars of a feed that has a time of its own, as
    simulations and replays have; None of a live one. `elsewhere`: whether feed and scan are another process's.
    `trading`, `clock` (UTC ns): the market's time.
    """

    def __init__(
        self,
        feed: str,
        *,
        pause_s: float | None = None,
        elsewhere: bool = False,
        trading: TradingClock | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.feed, self.pause_s, self.elsewhere = feed, pause_s, elsewhere
        self._trading = trading if trading is not None else TradingClock() if pause_s is None else None
        self._clock = clock
        self._status: Callable[[], Status] | None = None
        self._breadth: Breadth | None = None
        self._scans: dict[str, Interval] = {}
        self._stamps: deque[tuple[int, ...]] = deque(maxlen=INTERVALS)
        self._bar_end: int | None = None
        self._heard_ns = clock()

    @asynccontextmanager
    async def watching(
        self,
        bus: Bus,
        frame: str = "1m",
        *,
        breadth: BreadthCount | None = None,
        status: Callable[[], Status] | None = None,
    ) -> AsyncIterator[None]:
        """Within the block, keep what goes over the bus: signals and, where they are counted, the bars of `frame`.

        `status`: of the feed's providers, where it has some. Nobody who publishes waits for this.
        """
        self._status, self._heard_ns = status, self._clock()
        signals = bus.subscribe(SIGNALS, policy=Policy.DROP_OLDEST, name="page")
        tasks = [asyncio.create_task(self._follow_signals(signals))]
        if breadth is not None:
            bars = bus.subscribe(bar_topic(frame), policy=Policy.DROP_OLDEST, size=4, name="page")
            tasks.append(asyncio.create_task(self._follow_bars(bars, frame, breadth)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def scanned(self, interval: Interval) -> None:
        """A scan is over."""
        self._scans[interval.frame] = interval

    def signals_kept(self, signals: pa.Table) -> None:
        """What the history has of before this process: latency is told from it until there is more."""
        self._keep_stamps(signals.sort_by("published_ns"))

    def to_json(self) -> dict[str, Any]:
        """All of it, as it is now; what is not known, or not of this process, is null."""
        return {
            "elsewhere": self.elsewhere,
            "market": self._market(),
            "stale": self._stale(),
            "breadth": None
            if self._breadth is None
            else asdict(self._breadth) | {"bar_end": iso(self._breadth.bar_end)},
            "scans": [_scan(one) for _, one in sorted(self._scans.items(), key=lambda item: FRAMES.index(item[0]))],
            "feed": None if self.elsewhere else self._feed(),
            "latency": self._latency(),
        }

    def _market(self) -> dict[str, Any]:
        bar_end = None if self._bar_end is None else iso(self._bar_end)
        if self._trading is None:
            kind = "simulated market" if self.feed == "sim" else "replay"
            return {"state": "own time", "text": kind, "bar_end": bar_end}
        state = "open" if self._trading.trades(self._clock()) else "closed"
        return {"state": state, "text": f"market {state}", "bar_end": bar_end}

    def _stale(self) -> dict[str, str] | None:
        """Since when nothing new came that was due; None where all is well, and while the market is closed."""
        now = self._clock()
        if self.elsewhere:
            return None
        if self._trading is None or self.pause_s is not None:
            if now - self._heard_ns > max(30.0, 5 * (self.pause_s or 0)) * SECOND:
                return {"text": "no bars from the feed", "since": iso(self._heard_ns)}
            return None
        if not self._trading.trades(now):
            return None
        if self._status is None:
            if self._trading.age_s(self._heard_ns, now) > BAR_PATIENCE_S:
                return {"text": "no bars from the feed", "since": iso(self._heard_ns)}
            return None
        ages = [one.quote_age_s for one in self._status().providers if one.quote_age_s is not None]
        age = min(ages, default=self._trading.age_s(self._heard_ns, now))
        return {"text": "no new quotes", "since": iso(now - int(age * SECOND))} if age > PATIENCE_S else None

    def _feed(self) -> dict[str, Any]:
        if self._status is None:
            pace = "" if not self.pause_s else f"a minute of the market takes {self.pause_s:g} s"
            return {
                "name": self.feed,
                "said": pace,
                "symbols": None if self._breadth is None else self._breadth.of,
                "bar_end": None if self._bar_end is None else iso(self._bar_end),
                "received_s": round((self._clock() - self._heard_ns) / SECOND, 1),
                "providers": [],
            }
        found = to_json(self._status())
        uncovered = f", {found['uncovered']:,} that no provider has" if found["uncovered"] else ""
        said = f"{found['served']:,} of {found['symbols']:,} symbols served{uncovered}"
        return {"name": self.feed, "said": said, **found}

    def _latency(self) -> dict[str, Any]:
        stamps = np.array(list(self._stamps), dtype=np.int64).reshape(-1, len(STAMPS))
        return {"intervals": len(stamps), "stages": [stage.as_dict() for stage in stages_of(stamps)]}

    async def _follow_signals(self, events: Subscription) -> None:
        async for event in events:
            self._keep_stamps(pa.Table.from_batches([event.batch]))

    async def _follow_bars(self, events: Subscription, frame: str, breadth: BreadthCount) -> None:
        self._breadth = await asyncio.to_thread(breadth.stored, frame)
        self._bar_end = None if self._breadth is None else self._breadth.bar_end
        async for event in events:
            about = event.batch.schema.metadata
            if about[b"developing"] == b"0" and about[b"revision"] == b"0":
                self._heard_ns, self._bar_end = self._clock(), int(about[b"bar_end"])
                self._breadth = await asyncio.to_thread(breadth.count, event.batch, frame, self._bar_end)

    def _keep_stamps(self, signals: pa.Table) -> None:
        """One row for all signals of an interval."""
        rows = np.column_stack([numbers(signals[name].cast(pa.int64())) for name in STAMPS])
        self._stamps.extend(dict.fromkeys(map(tuple, rows[rows[:, _RECEIVED] > 0].tolist())))


def _scan(interval: Interval) -> dict[str, Any]:
    result, coverage = interval.scanned.result, interval.scanned.coverage
    return {
        "frame": interval.frame,
        "bar_end": iso(interval.bar_end),
        "developing": interval.developing,
        "scan_ms": round(interval.scan_ms, 3),
        "latency_ms": round(interval.latency_ms, 3),
        "engine": result.engine,
        "symbols": interval.n_bars,
        "signals": len(interval.signals),
        "silent": interval.scanned.silent,
        "indicators": result.n_indicators,
        "ready": None if coverage is None else {"ready": coverage.ready, "symbols": coverage.symbols},
        "fallbacks": list(result.fallbacks),
        "failed": dict(result.failed),
    }

"""Monitor: what a process of the live service shows of itself, its metrics and whether it does its work."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

import numpy as np

from data import metrics
from data.calendar import TradingCalendar, local_day
from data.settings import Settings
from data.store import BarStore
from jobs.figures import Figures
from jobs.health import Check, check_feed, check_scan, check_store, check_strategies
from jobs.notify import notify
from jobs.scanning import MarketScan
from jobs.stages.feeding import Feeding
from jobs.stages.scanning import Scanning
from scanner.cluster import Cluster, DaskCluster
from streaming.health import TradingClock
from streaming.manager import StreamManager
from streaming.ports import Bus, SharedBus
from streaming.status import Status

TICK_S = 0.5
"""How often the event loop's lag is measured."""
LOOK_S = 5.0
"""How often the checks are made and the cluster is asked for its figures, though nobody wants to know."""
READY_S = 2.0
"""So long an answer of /readyz is given again: whoever asks writes to the store's disk."""

log = logging.getLogger(__name__)


class Monitor:
    """Watches the parts of one process, while it is `at_work`; what is not named there is not checked.

    `live`: whether the feed's time is the clock's, so that quotes are due by the exchange's calendar; else they always
    are. `clock`: UTC ns.
    """

    def __init__(
        self, settings: Settings, store: BarStore, *, live: bool, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._settings, self._store, self._live, self._clock = settings, store, live, clock
        self._calendar = TradingCalendar(settings.calendar_overlay)
        self._trading = TradingClock(self._calendar.is_session)
        self._figures = Figures()
        self._bus: Bus | None = None
        self._feeding: Feeding | None = None
        self._scanning: Scanning | None = None
        self._scans: Sequence[MarketScan] = ()
        self._cluster: Cluster | None = None
        self._loaded = 0
        self._started_ns = clock()
        self._answer: tuple[float, Mapping[str, Check]] | None = None
        self._asking = asyncio.Lock()

    @property
    def due(self) -> bool:
        """Whether quotes are due now."""
        return not self._live or self._trading.trades(self._clock())

    @asynccontextmanager
    async def at_work(
        self,
        bus: Bus,
        *,
        feeding: Feeding | None = None,
        scanning: Scanning | None = None,
        scans: Sequence[MarketScan] = (),
        cluster: Cluster | None = None,
    ) -> AsyncIterator[None]:
        """Watch these parts from now to the end of the block."""
        if feeding is not None and isinstance(feeding.feed, StreamManager):
            self._clock = feeding.feed.clock
        self._bus, self._feeding, self._scanning, self._cluster = bus, feeding, scanning, cluster
        self._scans, self._loaded = scans, sum(len(scan.strategies) for scan in scans)
        metrics.build.labels(version("mystocks-scan"), self._settings.run.role).set(1)
        tasks = [asyncio.create_task(self._measure_lag()), asyncio.create_task(self._look())]
        notify("READY=1")
        try:
            with metrics.read_by(self._read):
                yield
        finally:
            notify("STOPPING=1")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def checks(self) -> Mapping[str, Check]:
        """Each check by its name, as it stands now or stood a moment ago."""
        async with self._asking:
            if self._answer is None or time.monotonic() - self._answer[0] > READY_S:
                self._answer = time.monotonic(), await self._check()
                self._figures.ready(self._answer[1])
            return self._answer[1]

    async def ready(self) -> tuple[bool, bytes]:
        """Whether all checks pass, and as JSON each with its reason."""
        checks = await self.checks()
        ready = bool(checks) and all(check.ok for check in checks.values())
        told = {"ready": ready, "checks": {name: check._asdict() for name, check in checks.items()}}
        return ready, json.dumps(told, ensure_ascii=False).encode()

    async def _check(self) -> dict[str, Check]:
        if self._bus is None:
            return {"start": Check(False, "the service is starting")}
        found: dict[str, Check] = {}
        tape = None
        if self._feeding is not None:
            found["feed"] = check_feed(self._feeding, self._status(), due=self.due)
            tape = self._feeding.tape
        if self._scanning is not None:
            found["scan"] = check_scan(
                self._scanning,
                self._scans[0].frame,
                now_s=time.monotonic(),
                now_ns=self._clock(),
                since_ns=self._started_ns if self._live and self.due else 0,
                patience_s=self._settings.feed.grace_s,
            )
            found["strategies"] = check_strategies(self._scans, self._loaded)
        if isinstance(self._bus, SharedBus):
            away = getattr(self._bus, "away", False)
            found["bus"] = Check(not away, "Redis is away" if away else "Redis answers")
        if self._feeding is not None or self._scanning is not None:
            found["store"] = await asyncio.to_thread(check_store, self._store.root, tape)
        return found

    def _status(self) -> Status | None:
        feed = None if self._feeding is None else self._feeding.feed
        return feed.status() if isinstance(feed, StreamManager) else None

    def _read(self) -> None:
        metrics.market_open.set(self.due)
        today = local_day(np.array([self._clock()]))[0].astype(object)
        self._figures.machine(self._store.root, self._calendar, today)
        if self._feeding is not None:
            self._figures.feed(self._feeding, self._status())
            if self._feeding.tape is not None:
                self._figures.tape(self._feeding.tape)
        if (stats := getattr(self._bus, "stats", None)) is not None:
            self._figures.bus(
                stats(), reconnects=getattr(self._bus, "reconnects", 0), resent=getattr(self._bus, "resent", 0)
            )
        self._figures.scans(self._scans)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            metrics.loop_lag.observe(max(0.0, loop.time() - due))
            notify("WATCHDOG=1")

    async def _look(self) -> None:
        while True:
            try:
                failed = [f"{name}: {check.why}" for name, check in (await self.checks()).items() if not check.ok]
                notify(f"STATUS={'; '.join(failed) or 'ready'}")
                if isinstance(self._cluster, DaskCluster):
                    self._figures.cluster(await asyncio.to_thread(self._cluster.figures))
            except Exception:
                # Whatever a scheduler says that is going: the scan will say it too, and does more about it.
                log.debug("the service could not be looked at", exc_info=True)
            await asyncio.sleep(LOOK_S)

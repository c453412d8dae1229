"""What is read off the parts of a running service when somebody asks for its metrics: figures that those keep anyway.

Nothing here is done for a quote or a bar, and what ages, as quotes do, is as old as it is when it is asked for.
"""

import shutil
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from prometheus_client import Counter, Gauge

from data import metrics
from data.calendar import TradingCalendar
from jobs.health import Check
from jobs.scanning import MarketScan
from jobs.stages.feeding import Feeding
from scanner.cluster import ClusterFigures
from streaming.bus import BusStats
from streaming.status import Status
from streaming.tape import Tape


class Totals:
    """Sets counters to totals that somebody else counts; holds what they were set to last."""

    def __init__(self) -> None:
        self._known: dict[tuple[Counter, tuple[str, ...]], float] = {}

    def set(self, counter: Counter, total: float, *labels: str) -> None:
        """Let the counter have grown by as much as the total has."""
        before = self._known.get((counter, labels), 0.0)
        (counter.labels(*labels) if labels else counter).inc(max(0.0, total - before))
        self._known[counter, labels] = max(total, before)


class Levels:
    """Sets gauges that have labels, and takes back what is no more; holds which there were."""

    def __init__(self) -> None:
        self._known: dict[Gauge, set[tuple[str, ...]]] = {}

    def set(self, gauge: Gauge, levels: Mapping[tuple[str, ...], float]) -> None:
        """These and no others."""
        for gone in self._known.get(gauge, set()) - levels.keys():
            gauge.remove(*gone)
        for labels, level in levels.items():
            gauge.labels(*labels).set(level)
        self._known[gauge] = set(levels)


class Figures:
    """Of one process."""

    def __init__(self) -> None:
        self._totals, self._levels = Totals(), Levels()
        self._strategies: dict[str, int] = {}
        """Frame -> how many were loaded."""

    def feed(self, feeding: Feeding, status: Status | None) -> None:
        """`status`: of a feed that has vendors."""
        dropped = Counts({reason: n for reason, n in feeding.left_out.items() if reason != "delayed"})
        if status is None:
            name = feeding.feed.name
            self._totals.set(metrics.feed_frames, feeding.intake.frames, name)
            self._totals.set(metrics.feed_ticks, feeding.intake.ticks, name)
        else:
            self._vendors(status)
            for provider in status.providers:
                dropped += Counts(provider.dropped) - Counts(provider.unread)
        for reason, n in dropped.items():
            self._totals.set(metrics.tick_dropped, n, reason)
        self._totals.set(metrics.tick_delayed, feeding.left_out.get("delayed", 0))

    def _vendors(self, status: Status) -> None:
        known = {(provider.name,): provider for provider in status.providers}
        for (name,), provider in known.items():
            self._totals.set(metrics.feed_frames, provider.frames, name)
            self._totals.set(metrics.feed_ticks, provider.rows, name)
            self._totals.set(metrics.feed_bytes, provider.received_bytes, name)
            for reason, n in provider.reconnects.items():
                self._totals.set(metrics.feed_reconnects, n, name, reason)
            for reason, n in provider.unread.items():
                self._totals.set(metrics.parse_errors, n, name, reason)
        self._levels.set(metrics.feed_connections, {key: provider.connections for key, provider in known.items()})
        self._levels.set(metrics.feed_connected, {key: provider.connected for key, provider in known.items()})
        self._levels.set(metrics.feed_symbols, {key: provider.symbols for key, provider in known.items()})
        self._levels.set(metrics.feed_symbols_stale, {key: provider.symbols_stale for key, provider in known.items()})
        ages = {key: provider.quote_age_s for key, provider in known.items()}
        self._levels.set(metrics.feed_quote_age, {key: age for key, age in ages.items() if age is not None})

    def tape(self, tape: Tape) -> None:
        """What is written ahead."""
        metrics.wal_lag.set(tape.waiting)
        self._totals.set(metrics.wal_bytes, tape.bytes)
        self._totals.set(metrics.wal_lost, tape.lost)

    def bus(self, stats: BusStats, *, reconnects: int, resent: int) -> None:
        """Its queues in this process; how often it was away, and what was sent again, between processes."""
        depth: Counts[tuple[str, ...]] = Counts()
        lost: Counts[tuple[str, ...]] = Counts()
        failed: Counts[str] = Counts()
        for place in stats.subscribers:
            depth[place.name,] += place.depth
            lost[place.name, str(place.policy)] += place.lost
            failed[place.name] += place.errors
        self._levels.set(metrics.bus_queue_depth, depth)
        for labels, n in lost.items():
            self._totals.set(metrics.bus_dropped, n, *labels)
        for name, n in failed.items():
            self._totals.set(metrics.bus_errors, n, name)
        for topic, n in stats.unheard.items():
            self._totals.set(metrics.bus_unheard, n, topic)
        self._totals.set(metrics.bus_reconnects, reconnects)
        self._totals.set(metrics.bus_resent, resent)

    def scans(self, scans: Sequence[MarketScan]) -> None:
        """Which strategies run, and which have been switched off."""
        levels: dict[tuple[str, ...], float] = {}
        for scan in scans:
            running = len(scan.strategies)
            loaded = self._strategies.setdefault(scan.frame, running)
            levels |= {(scan.frame, "running"): running, (scan.frame, "failed"): loaded - running}
        self._levels.set(metrics.strategies, levels)

    def cluster(self, figures: ClusterFigures) -> None:
        """Its workers."""
        metrics.dask_workers.set(figures.workers)
        metrics.dask_memory.set(figures.memory_bytes)
        self._levels.set(metrics.dask_tasks, {(state,): n for state, n in figures.tasks.items()})
        self._totals.set(metrics.scan_late, figures.late)

    def ready(self, checks: Mapping[str, Check]) -> None:
        """What /readyz has found."""
        self._levels.set(metrics.readiness, {(name,): check.ok for name, check in checks.items()})

    def machine(self, root: Path, calendar: TradingCalendar, today: date) -> None:
        """The store's disk, and how long the calendar reaches."""
        metrics.disk_free.set(shutil.disk_usage(root).free)
        metrics.calendar_days_left.set(calendar.days_left(today))

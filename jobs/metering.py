"""What scans return becomes metrics here, and only here."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

from data import metrics
from data.signal import Signal
from scanner.engines.report import DeviceMemory, Report, growth
from scanner.market import ScanResult

log = logging.getLogger(__name__)

WARM_UP = 5
"""Scans before a GPU's memory is watched: they fill caches."""
READINGS = 300
"""How many are kept; beyond them every other one goes, so that they reach back to the first."""
SLACK_BYTES = 1 << 20


_WHAT = attrgetter("strategy", "action")


def meter(result: ScanResult, published: Sequence[Signal]) -> None:
    """Count one scan and the new signals of it."""
    metrics.scan_seconds.labels(result.frame, result.engine).observe(result.elapsed_s)
    metrics.scan_fallbacks.inc(len(result.fallbacks))
    metrics.gpu_retries.inc(sum(report.retries for report in result.reports))
    gpu_memory.take(result.reports)
    for what, n in Counter(map(_WHAT, published)).items():
        metrics.signals.labels(*what).inc(n)
    for signal in published:
        if signal.received_ns:
            metrics.signal_latency.labels(signal.frame).observe((signal.published_ns - signal.received_ns) / 1e9)


class GpuMemory:
    """Watches what GPUs hold from scan to scan: as metrics, and with a warning where it grows and is not given back."""

    def __init__(self) -> None:
        self._watched: dict[str, _Readings] = {}

    def take(self, reports: Iterable[Report]) -> None:
        """The readings around one scan, those of the shards of one card taken together."""
        after: dict[str, DeviceMemory] = {}
        for report in reports:
            for when, memory in (("before", report.before), ("after", report.after)):
                if memory is not None:
                    _show(memory, when)
            if report.after is not None:
                after[report.after.device] = report.after
        for device, memory in after.items():
            grown = self._watched.setdefault(device, _Readings()).add(memory)
            metrics.gpu_memory_growth.labels(device).set(grown)


class _Readings:
    """One card's, a reading a scan."""

    def __init__(self) -> None:
        self._seen = 0
        self._every = 1
        self._used: list[int] = []
        self._held: list[int] = []
        self._told = 0

    def add(self, memory: DeviceMemory) -> int:
        """Bytes by which its memory has grown until now."""
        self._seen += 1
        if self._seen > WARM_UP and self._seen % self._every == 0:
            self._used.append(memory.used_bytes)
            self._held.append(memory.held_bytes)
            if len(self._used) > READINGS:
                self._used, self._held = self._used[::2], self._held[::2]
                self._every *= 2
        grown = max(growth(self._used, SLACK_BYTES), growth(self._held, SLACK_BYTES))
        if grown > 2 * self._told:
            self._told = grown
            log.warning(
                "the memory of the GPU %s has grown by %d KiB over %d scans and was not given back",
                *(memory.device, grown >> 10, self._seen),
            )
        return grown


def _show(memory: DeviceMemory, when: str) -> None:
    for kind, n_bytes in (("used", memory.used_bytes), ("held", memory.held_bytes), ("free", memory.free_bytes)):
        metrics.gpu_memory.labels(memory.device, when, kind).set(n_bytes)


gpu_memory = GpuMemory()
"""Of this process: a GPU has one memory, whoever scans on it."""

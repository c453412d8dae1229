"""What scans return and bars that close become metrics here; what can be read at any time, in `jobs.figures`."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data import metrics
from data.schema import FLAG_INCOMPLETE, FLAG_NO_TRADE
from jobs.latency import spent
from scanner.engines.report import DeviceMemory, Report, growth

if TYPE_CHECKING:
    from jobs.stages.scanning import Interval

log = logging.getLogger(__name__)

WARM_UP = 5
"""Scans before a GPU's memory is watched: they fill caches."""
READINGS = 300
"""How many are kept; beyond them every other one goes, so that they reach back to the first."""
SLACK_BYTES = 1 << 20


_WHAT = attrgetter("strategy", "action")


_STARTED_NS = time.time_ns()
PROMISED = "quote to signal"


def meter(interval: "Interval") -> None:
    """Count one scan, and the new signals of it."""
    scanned, frame = interval.scanned, interval.frame
    result = scanned.result
    metrics.scan_seconds.labels(frame, result.engine).observe(result.elapsed_s)
    metrics.scan_last.labels(frame).set_to_current_time()
    metrics.scan_fallbacks.inc(len(result.fallbacks))
    metrics.gpu_retries.inc(sum(report.retries for report in result.reports))
    gpu_memory.take(result.reports)
    for what, n in Counter(map(_WHAT, scanned.published)).items():
        metrics.signals.labels(*what).inc(n)
    ready = scanned.coverage
    silent = {
        "cooldown": scanned.silent,
        "ex_gap": len(result.gapped),
        "not_ready": 0 if ready is None else ready.silent,
    }
    for reason, n in silent.items():
        metrics.signals_suppressed.labels(reason).inc(n)
    if interval.revision:
        return
    metrics.scan_symbols.labels(frame).set(result.n_current)
    metrics.symbols_ready.labels(frame).set(result.n_symbols if ready is None else ready.ready)
    # What a killed service had received says nothing of the speed of the one that folds it again.
    if scanned.stamps.received_ns >= _STARTED_NS and not interval.developing:
        _meter_stages(interval)


def _meter_stages(interval: "Interval") -> None:
    scanned = interval.scanned.stamps
    newest = interval.signals[-1] if interval.signals else None
    published = scanned.scanned_ns if newest is None else newest.published_ns
    stamps = (interval.bar_end, *scanned, published)
    shares = {name: ns[0] / 1e9 for name, ns in spent(*(np.array([stamp]) for stamp in stamps)).items() if len(ns)}
    del shares[PROMISED]
    if newest is None:
        del shares["publish"]
    else:
        latency = interval.latency_ms / 1e3
        shares["send"] = latency - (published - scanned.received_ns) / 1e9
        metrics.signal_latency.labels(interval.frame).observe(latency, {"signal": newest.id[:16]})
    for stage, seconds in shares.items():
        metrics.stage_seconds.labels(stage.replace(" ", "_"), interval.frame).observe(seconds)


def meter_bars(batch: pa.RecordBatch, about: Mapping[bytes, bytes], *, by_receipt: bool) -> None:
    """Count one batch of bars, as it goes to the bus. `by_receipt`: whether the time of receipt is the market's own."""
    if about[b"developing"] == b"1":
        return
    frame = about[b"frame"].decode()
    if about[b"revision"] != b"0":
        metrics.bar_revisions.labels(frame).inc(batch.num_rows)
        return
    flags = batch["flags"].to_numpy()
    metrics.bars.labels(frame).inc(batch.num_rows)
    metrics.bars_incomplete.labels(frame).inc(int(np.count_nonzero(flags & FLAG_INCOMPLETE)))
    metrics.bars_no_trade.labels(frame).inc(int(np.count_nonzero(flags & FLAG_NO_TRADE)))
    end, quote, received = (int(about[name]) for name in (b"bar_end", b"quote_ns", b"received_ns"))
    if received >= _STARTED_NS and (quote > end or by_receipt):
        waited = (quote if quote > end else received) - end
        metrics.bar_emit_delay.labels(frame).observe(waited / 1e9 + float(about[b"fold_ms"]) / 1e3)


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

"""The registry of metrics: every name, once, with its labels and unit. `jobs` sets them, `/metrics` shows them.

Names begin with `mystocks_`, units are seconds and bytes, and nothing is labelled by symbol: five thousand series a
metric help nobody. What every process has (`process_...`) is prometheus_client's own. docs/monitoring.md says what an
operator does with them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client import generate_latest as as_text
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `exposition` returns."""
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The same, with `exemplars`."""

_LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 3)
"""Seconds; close together around what is promised, 0.2, and reaching beyond what is alerted on."""
_WAITS = (0.001, 0.0025, 0.005, *_LATENCIES, 4, 5, 10, 30, 60)
"""Seconds, from what a computer does to what waits for the exchange."""
_DISK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3)

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began doubles the series, and nobody asks
registry = CollectorRegistry()
ProcessCollector(registry=registry)

log = logging.getLogger(__name__)
_readers: list[Callable[[], None]] = []


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"mystocks_{name}_total", text, labels, registry=registry)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"mystocks_{name}", text, labels, registry=registry)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _LATENCIES) -> Histogram:
    return Histogram(f"mystocks_{name}_seconds", text, labels, registry=registry, buckets=buckets)


# This process
build = _gauge("build_info", "Always 1; its labels say what runs here.", "version", "role")
loop_lag = _histogram("loop_lag", "How much later than it asked for a task of the event loop had its turn.")
readiness = _gauge("ready", "1 where a check of /readyz passes, 0 where it fails.", "check")

# The feed
feed_frames = _counter("feed_frames", "Frames received.", "provider")
feed_bytes = _counter("feed_bytes", "Bytes received from a vendor.", "provider")
feed_ticks = _counter("feed_ticks", "Quotes received.", "provider")
feed_reconnects = _counter("feed_reconnects", "Connections to a vendor that were lost.", "provider", "reason")
feed_connections = _gauge("feed_connections", "Connections to a vendor, open or to be opened.", "provider")
feed_connected = _gauge("feed_connected", "Of these, those that have given a frame.", "provider")
feed_symbols = _gauge("feed_symbols", "Symbols that a vendor is asked for.", "provider")
feed_symbols_stale = _gauge("feed_symbols_stale", "Of these, those whose quote is old, or that have none.", "provider")
feed_quote_age = _gauge("feed_quote_age_seconds", "Age of a vendor's newest quote, seconds of trading.", "provider")
parse_errors = _counter("parse_errors", "Lines, frames and requests that came to nothing.", "provider", "reason")
tick_dropped = _counter("tick_dropped", "Quotes that were left out.", "reason")
tick_delayed = _counter("tick_delayed", "Quotes that came late and were entered where they belong.")
market_open = _gauge("market_open", "1 while quotes are due, so that silence is a fault; else 0.")

# The tape, which is written ahead of everything else
wal_fsync = _histogram("wal_fsync", "Making quotes durable on the tape.", buckets=_DISK)
wal_lag = _gauge("wal_lag_batches", "Batches of quotes that wait for the tape.")
wal_bytes = _counter("wal_bytes", "Bytes written to the tape.")
wal_lost = _counter("wal_lost_batches", "Batches that are not on the tape, because the disk refused.")

# The bus
bus_queue_depth = _gauge("bus_queue_depth", "Events that wait for a subscriber of this process.", "sub")
bus_dropped = _counter("bus_dropped", "Events that a subscriber's full queue lost.", "sub", "policy")
bus_errors = _counter("bus_errors", "Events that a subscriber failed on.", "sub")
bus_unheard = _counter("bus_unheard", "Batches that nobody wanted.", "topic")
bus_reconnects = _counter("bus_reconnects", "How often the bus between processes was away and came back.")
bus_resent = _counter("bus_resent", "Events published again because the bus between processes had forgotten them.")

# Bars
bars = _counter("bars", "Bars that closed.", "frame")
bars_incomplete = _counter("bars_incomplete", "Of these, those that may lack trades.", "frame")
bars_no_trade = _counter("bars_no_trade", "Of these, those of a minute without a trade.", "frame")
bar_revisions = _counter("bar_revisions", "Closed bars that late quotes changed.", "frame")
bar_emit_delay = _histogram(
    "bar_emit_delay", "From a bar's end to the bus, in the exchange's time.", "frame", buckets=_WAITS
)

# The scan
scan_seconds = _histogram("scan", "One scan, shards and merging.", "frame", "engine")
scan_fallbacks = _counter("scan_fallbacks", "Shards that another engine computed than the one chosen.")
scan_late = _counter("scan_late", "Scans that the cluster failed, and this process finished.")
scan_last = _gauge("scan_last_timestamp_seconds", "When the newest scan ended.", "frame")
scan_symbols = _gauge("scan_symbols", "Symbols that have a bar in the newest scan.", "frame")
symbols_ready = _gauge("symbols_ready", "Symbols on which every strategy is ready.", "frame")
strategies = _gauge("strategies", "Strategies that run, and those switched off because they failed.", "frame", "state")
commit_seconds = _histogram("commit", "Making rows durable in the store.", "table", buckets=_DISK)

# Signals
signals = _counter("signals", "Signals published.", "strategy", "action")
signals_suppressed = _counter("signals_suppressed", "What fired and was kept silent.", "reason")
signal_latency = _histogram(
    "signal_latency",
    "From the receipt of the quotes that closed a bar to its signals in the subscribers' sockets (on the bus, where"
    " another process serves). Once a batch of signals.",
    "frame",
)
stage_seconds = _histogram(
    "stage", "The share of one stage between a bar's end and its signals.", "stage", "frame", buckets=_WAITS
)

# Subscribers
ws_refused = _counter(
    "ws_refused",
    "Connections, requests and messages that the server of signals refused (docs/security.md).",
    "reason",
)
ws_clients = _gauge("ws_clients", "Connections to /ws/signals, subscribed or not.")
ws_send_buffer = _gauge(
    "ws_send_buffer_bytes", "The most that one subscriber has been sent and its connection has not taken."
)
ws_messages = _counter("ws_messages", "Messages sent to subscribers.")
ws_evicted = _counter(
    "ws_evicted",
    "Subscribers cut off: slow, who left too much unread; gap, who lacks signals that are lost.",
    "reason",
)
ws_recoveries = _counter(
    "ws_recover",
    "Subscribers that came back and asked to go on where they were: whether all that they had missed was there.",
    "recovered",
)

# Alerts
alerts = _counter(
    "alerts",
    "What became of alerts: sent, held (over the cap, told by a digest), cooldown, expired (old at the start), failed.",
    "channel",
    "result",
)
alert_failures = _counter(
    "alert_failures",
    "Attempts to deliver a message that failed: hung, unreachable, limited, refused, error.",
    "channel",
    "reason",
)
alert_seconds = _histogram(
    "alert",
    "From a signal's place in the history to the channel's word that it has it.",
    "channel",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)

# The machine
influx_points = _counter("influx_points", "Points for InfluxDB: written, refused, dropped for want of room.", "result")
influx_failures = _counter(
    "influx_failures",
    "Requests to InfluxDB that failed: unreachable, timeout, denied, limited, refused, error.",
    "reason",
)
disk_free = _gauge("disk_free_bytes", "Free on the disk of the store.")
calendar_days_left = _gauge("calendar_days_left", "Days until the trading calendar ends.")
dask_workers = _gauge("dask_workers", "Workers of the Dask cluster.")
dask_tasks = _gauge("dask_tasks", "Tasks on the Dask cluster's workers.", "state")
dask_memory = _gauge("dask_memory_bytes", "Resident memory of the Dask cluster's workers.")
gpu_memory = _gauge(
    "gpu_memory_bytes",
    "A GPU's memory before and after the newest scan: used by our arrays, held by our pool, free on the card.",
    "device",
    "when",
    "kind",
)
gpu_memory_growth = _gauge(
    "gpu_memory_growth_bytes",
    "By how much a GPU's memory after the newest scans lies above that after the first; 0 where it comes and goes.",
    "device",
)
gpu_retries = _counter("gpu_retries", "Kernels tried again on fewer columns, the GPU's memory being full.")


@contextmanager
def read_by(reader: Callable[[], None]) -> Iterator[None]:
    """Have `reader` set, before each exposition, what is only worth reading then; in the thread that asks for it."""
    _readers.append(reader)
    try:
        yield
    finally:
        _readers.remove(reader)


def exposition(*, exemplars: bool = False) -> bytes:
    """All metrics as Prometheus reads them; with `exemplars`, as OpenMetrics.

    A reader that fails is logged, and what it did not set stays as it was.
    """
    for reader in _readers:
        try:
            reader()
        except Exception:
            log.exception("some metrics could not be read")
    return as_openmetrics(registry) if exemplars else as_text(registry)  # type: ignore[no-untyped-call]

"""The registry of metrics: every name, once, with its labels and unit. `jobs` sets them, `/metrics` shows them.

Names begin with `mystocks_`, units are seconds and bytes, and nothing is labelled by symbol: five thousand series a
metric help nobody.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `exposition` returns."""

_LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 3)
"""Seconds; close together around what is promised, 0.2, and reaching beyond what is alerted on."""

registry = CollectorRegistry()

scan_seconds = Histogram(
    "mystocks_scan_seconds", "One scan, shards and merging.", ["frame", "engine"], registry=registry, buckets=_LATENCIES
)
scan_fallbacks = Counter(
    "mystocks_scan_fallbacks_total", "Shards that another engine computed than the one chosen.", registry=registry
)
signals = Counter("mystocks_signals_total", "Signals published.", ["strategy", "action"], registry=registry)
signal_latency = Histogram(
    "mystocks_signal_latency_seconds",
    "From the receipt of the quotes that closed a bar to its signals in the history.",
    ["frame"],
    registry=registry,
    buckets=_LATENCIES,
)
alerts = Counter(
    "mystocks_alerts_total",
    "What became of alerts: sent, held (over the cap, told by a digest), cooldown, expired (old at the start), failed.",
    ["channel", "result"],
    registry=registry,
)
alert_failures = Counter(
    "mystocks_alert_failures_total",
    "Attempts to deliver a message that failed: hung, unreachable, limited, refused, error.",
    ["channel", "reason"],
    registry=registry,
)
alert_seconds = Histogram(
    "mystocks_alert_seconds",
    "From a signal's place in the history to the channel's word that it has it.",
    ["channel"],
    registry=registry,
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
gpu_memory = Gauge(
    "mystocks_gpu_memory_bytes",
    "A GPU's memory before and after the newest scan: used by our arrays, held by our pool, free on the card.",
    ["device", "when", "kind"],
    registry=registry,
)
gpu_memory_growth = Gauge(
    "mystocks_gpu_memory_growth_bytes",
    "By how much a GPU's memory after the newest scans lies above that after the first; 0 where it comes and goes.",
    ["device"],
    registry=registry,
)
gpu_retries = Counter(
    "mystocks_gpu_retries_total",
    "Kernels tried again on fewer columns, the GPU's memory being full.",
    registry=registry,
)


def exposition() -> bytes:
    """All metrics as Prometheus reads them."""
    return generate_latest(registry)

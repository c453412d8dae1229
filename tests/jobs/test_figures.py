"""What is read off a service's parts, as metrics."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from data import metrics
from data.calendar import TradingCalendar
from jobs.figures import Figures
from jobs.stages.feeding import Intake
from scanner.cluster import ClusterFigures
from streaming.bus import EventBus, tick_topic
from streaming.ports import Policy
from streaming.status import ProviderStatus, Status

SINA = ProviderStatus(
    name="sina-read",
    state="failed",
    connections=2,
    connected=1,
    covers=5490,
    symbols=5490,
    serves=800,
    frames=12,
    rows=900,
    received_bytes=70_000,
    quote_age_s=17.4,
    symbols_stale=120,
    reconnects={"mute": 1, "timeout": 3},
    dropped={"short": 7, "r-older": 5},
    unread={"short": 7},
    said="closed: mute",
)


def value(name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def status(*providers: ProviderStatus) -> Status:
    return Status(providers=providers, symbols=1, subscribers=1, uncovered=0, served=1)


def feeding(name: str = "x", **left_out: int) -> Any:
    """As much of a stage as figures read."""
    return SimpleNamespace(feed=SimpleNamespace(name=name), intake=Intake(), left_out=Counter(left_out))


def test_a_vendor_is_shown_as_it_is() -> None:
    figures = Figures()
    figures.feed(feeding(**{"r-late": 2, "r-older": 1, "delayed": 4}), status(SINA))
    shown = {name: value(f"mystocks_feed_{name}", provider="sina-read") for name in (
        "frames_total", "ticks_total", "bytes_total", "connections", "connected", "symbols", "symbols_stale",
        "quote_age_seconds",
    )}  # fmt: skip
    assert list(shown.values()) == [12, 900, 70_000, 2, 1, 5490, 120, 17.4]
    assert value("mystocks_feed_reconnects_total", provider="sina-read", reason="timeout") == 3
    assert value("mystocks_parse_errors_total", provider="sina-read", reason="short") == 7
    assert value("mystocks_tick_dropped_total", reason="short") is None, "no quote was read of it"
    assert value("mystocks_tick_dropped_total", reason="r-older") == 6, "before and after merging"
    assert value("mystocks_tick_dropped_total", reason="r-late") == 2
    assert value("mystocks_tick_dropped_total", reason="delayed") is None, "it was entered"


def test_counters_grow_as_totals_do_and_gauges_that_are_no_more_are_gone() -> None:
    figures = Figures()
    one = replace(SINA, name="sina-twice", dropped={}, unread={})
    figures.feed(feeding(), status(one))
    figures.feed(feeding(), status(replace(one, frames=20, quote_age_s=None)))
    assert value("mystocks_feed_frames_total", provider="sina-twice") == 20
    assert value("mystocks_feed_quote_age_seconds", provider="sina-twice") is None
    figures.feed(feeding(), status())
    assert value("mystocks_feed_connections", provider="sina-twice") is None
    assert value("mystocks_feed_frames_total", provider="sina-twice") == 20


def test_a_feed_without_vendors_counts_its_frames() -> None:
    stage = feeding("tape-read")
    batch = pa.record_batch({"x": [1, 2, 3]})
    stage.intake.take(batch)
    stage.intake.take(batch)
    Figures().feed(stage, None)
    assert value("mystocks_feed_frames_total", provider="tape-read") == 2
    assert value("mystocks_feed_ticks_total", provider="tape-read") == 6


def test_a_full_queue_is_seen() -> None:
    async def publish() -> EventBus:
        bus = EventBus()
        bus.subscribe("market.*", policy=Policy.DROP_OLDEST, size=2, name="slow-read")
        for _ in range(5):
            await bus.publish(tick_topic(), pa.record_batch({"x": [1]}))
        await bus.publish("nobody.read", pa.record_batch({"x": [1]}))
        return bus

    bus = asyncio.run(publish())
    figures = Figures()
    figures.bus(bus.stats(), reconnects=0, resent=0)
    assert value("mystocks_bus_queue_depth", sub="slow-read") == 2
    assert value("mystocks_bus_dropped_total", sub="slow-read", policy="drop_oldest") == 3
    assert value("mystocks_bus_unheard_total", topic="nobody.read") == 1
    figures.bus(EventBus().stats(), reconnects=0, resent=0)
    assert value("mystocks_bus_queue_depth", sub="slow-read") is None


def test_a_strategy_that_was_switched_off_is_seen() -> None:
    scan: Any = SimpleNamespace(frame="read", strategies=["a", "b", "c"])
    figures = Figures()
    figures.scans([scan])
    scan.strategies = ["a", "c"]
    figures.scans([scan])
    assert value("mystocks_strategies", frame="read", state="running") == 2
    assert value("mystocks_strategies", frame="read", state="failed") == 1


def test_the_disk_and_the_calendar(tmp_path: Path) -> None:
    calendar = TradingCalendar()
    Figures().machine(tmp_path, calendar, calendar.last.replace(day=1))
    assert value("mystocks_calendar_days_left") == calendar.last.day - 1
    free = value("mystocks_disk_free_bytes")
    assert free is not None
    assert free > 1 << 20
    Figures().machine(tmp_path, calendar, date(2030, 1, 1))
    assert (value("mystocks_calendar_days_left") or 0) < 0


def test_a_cluster_s_workers_are_shown() -> None:
    figures = Figures()
    figures.cluster(ClusterFigures(2, {"executing": 1, "ready": 0, "memory": 4}, 1500, 0))
    late = value("mystocks_scan_late_total") or 0
    figures.cluster(ClusterFigures(1, {"executing": 0}, 700, 1))
    assert value("mystocks_dask_workers") == 1
    assert value("mystocks_dask_memory_bytes") == 700
    assert value("mystocks_dask_tasks", state="executing") == 0
    assert value("mystocks_dask_tasks", state="memory") is None
    assert value("mystocks_scan_late_total") == late + 1


def test_metrics_are_shown_though_one_reader_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise OSError("no disk")

    read = []
    with metrics.read_by(fails), metrics.read_by(lambda: read.append(1)):
        assert b"mystocks_scan_seconds" in metrics.exposition()
    assert read == [1]
    assert "no disk" in caplog.text
    metrics.exposition()
    assert read == [1]
    assert caplog.records[0].message.startswith("some metrics")

"""A process of the live service as its operator sees it: /metrics, /healthz and /readyz of real stages."""

import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import metrics
from data.history import SignalHistory
from data.settings import Settings
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.health import Check, check_store
from jobs.live import LiveService
from jobs.metering import meter
from jobs.monitor import Monitor
from jobs.notify import notify
from jobs.routes import open_routes, routes
from jobs.scanning import MarketScan
from jobs.simulated import make_history
from jobs.stages.feeding import Feeding
from jobs.stages.scanning import Interval, Scanning
from scanner.cluster import InlineCluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies
from streaming.bus import EventBus
from streaming.feeds.simulated import SimulatedFeed
from streaming.tape import Tape

MARKET = SimulatedMarket(8, 7)


def value(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_service_is_ready_from_its_first_scan_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.monitor.READY_S", -1.0)
    store = BarStore(tmp_path / "sim", origin="sim")
    make_history(store, MARKET, ["1m", "1d"], 30)
    rules = tmp_path / "rules.yaml"
    rules.write_text("strategies:\n  - {name: monitored, when: close > 0, action: ALERT}\n")
    bus = EventBus()
    scan = MarketScan(
        store,
        "1m",
        load_strategies([rules]),
        symbols=MARKET.symbols,
        engine=load("talib"),
        cluster=InlineCluster(),
        history=SignalHistory(store.root / "signals"),
    )
    monitor = Monitor(Settings(), store, live=False)
    told: list[tuple[int, dict[str, Any]]] = []

    async def ask() -> None:
        answer = await open_routes(monitor)["/readyz"]({})
        told.append((answer.status, json.loads(answer.body)))

    def report(interval: Interval) -> None:
        meter(interval)
        asking.append(asyncio.get_running_loop().create_task(ask()))

    asking: list[asyncio.Task[None]] = []
    feed = SimulatedFeed(MARKET, interval_s=0, after=store.last_bar_end("1m"))
    feeding = Feeding(store, feed, bus, symbols=MARKET.symbols, frames=["1m", "1d"])
    scanning = Scanning(store, bus, [scan], frames=["1m", "1d"], history_bars=30, on_interval=report, intervals=3)
    before = value("mystocks_signals_total", strategy="monitored", action="ALERT")

    async def run() -> bytes:
        await ask()
        async with monitor.at_work(bus, feeding=feeding, scanning=scanning, scans=[scan]):
            await LiveService(bus, [feeding, scanning]).run()
            await asyncio.gather(*asking)
            return (await routes(monitor)["/metrics"]({})).body

    shown = asyncio.run(run()).decode()
    assert told[0] == (503, {"ready": False, "checks": {"start": {"ok": False, "why": "the service is starting"}}})
    assert told[1][0] == 503, "the first scan of stored bars is not over when it is reported"
    status, last = told[-1]
    assert (status, last["ready"]) == (200, True)
    assert {name: check["ok"] for name, check in last["checks"].items()} == dict.fromkeys(
        ("feed", "scan", "strategies", "store"), True
    )
    assert value("mystocks_signals_total", strategy="monitored", action="ALERT") >= before + 3 * 7
    for line in (
        'mystocks_feed_frames_total{provider="sim"}',
        'mystocks_bars_total{frame="1m"}',
        'mystocks_commit_seconds_count{table="bars"}',
        'mystocks_stage_seconds_count{frame="1m",stage="fold"}',
        'mystocks_strategies{frame="1m",state="running"} 1.0',
        "mystocks_market_open 1.0",
        "process_resident_memory_bytes",
    ):
        assert f"\n{line}" in shown, line


def test_an_answer_stands_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks, and however often, the disk is written to once in a while."""
    asked = []

    def check(root: Path, tape: Tape | None) -> Check:
        asked.append(root)
        return check_store(root, tape)

    monkeypatch.setattr("jobs.monitor.check_store", check)
    monkeypatch.setattr("jobs.monitor.READY_S", 600.0)
    monitor = Monitor(Settings(), BarStore(tmp_path / "sim", origin="sim"), live=False)
    bus = EventBus()
    feed = SimulatedFeed(MARKET, interval_s=0)
    feeding = Feeding(BarStore(tmp_path / "sim"), feed, bus, symbols=MARKET.symbols, frames=["1m"])

    async def run() -> None:
        async with monitor.at_work(bus, feeding=feeding):
            answers = await asyncio.gather(*(monitor.ready() for _ in range(5)))
            assert len(set(answers)) == 1
            assert len(asked) == 1
            monkeypatch.setattr("jobs.monitor.READY_S", -1.0)
            await monitor.ready()
            assert len(asked) == 2

    asyncio.run(run())


def test_the_loop_s_lag_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.monitor.TICK_S", 0.01)
    monitor = Monitor(Settings(), BarStore(tmp_path / "sim", origin="sim"), live=False)
    before = value("mystocks_loop_lag_seconds_count"), value("mystocks_loop_lag_seconds_bucket", le="0.1")

    async def run() -> None:
        bus = EventBus()
        async with monitor.at_work(bus):
            await asyncio.sleep(0)
            time.sleep(0.15)  # what must never be done on a loop
            while value("mystocks_loop_lag_seconds_count") == before[0]:
                await asyncio.sleep(0.001)

    asyncio.run(run())
    slow = value("mystocks_loop_lag_seconds_count") - before[0]
    assert slow - (value("mystocks_loop_lag_seconds_bucket", le="0.1") - before[1]) == 1


@pytest.mark.parametrize(("live", "clock", "due"), [
    (True, "2026-03-03T10:00", True),
    (True, "2026-03-03T12:00", False),
    (True, "2026-03-07T10:00", False),
    (False, "2026-03-07T10:00", True),
])  # fmt: skip
def test_quotes_are_due_while_the_exchange_trades(live: bool, clock: str, due: bool, tmp_path: Path) -> None:
    ns = int(np.datetime64(clock, "ns").astype(np.int64)) - 8 * 3600 * 10**9
    monitor = Monitor(Settings(), BarStore(tmp_path / "s", origin="x"), live=live, clock=lambda: ns)
    assert monitor.due is due


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.monitor.TICK_S", 0.01)
    place = f"@mystocks-{tmp_path.name}-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monitor = Monitor(Settings(), BarStore(tmp_path / "sim", origin="sim"), live=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place.replace("@", "\0"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", place)

        async def run() -> list[bytes]:
            loop = asyncio.get_running_loop()
            told = []
            async with monitor.at_work(EventBus()):
                while len(told) < 3:
                    told.append(await loop.sock_recv(manager, 4096))
            while told[-1] != b"STOPPING=1":
                told.append(await loop.sock_recv(manager, 4096))
            return told

        told = asyncio.run(run())
    assert told[0] == b"READY=1"
    assert {b"WATCHDOG=1", b"STATUS=ready"} <= set(told)


def test_without_a_service_manager_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")

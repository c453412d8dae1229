"""/metrics and /readyz of `mystocks-scan run --feed sina,tencent`, over real sockets; the vendors' time is not real."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs import backfilling
from jobs.cli import main
from jobs.simulated import make_history
from streaming import manager
from streaming.feeds import connections
from streaming.feeds.vendors import VENDORS, Budget
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.klines import quick_sources
from tests.streaming.feeds.fakes.servers import FakeSina, FakeTencent, Faults
from tests.streaming.feeds.fakes.town import FakeTown

MARKET = SimulatedMarket(20, 7)
LIVE = MARKET.sessions[250]


class Operator(threading.Thread):
    """Asks until the service has gone; keeps the newest metrics from while the vendor was connected."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics = ""
        self.ready: list[tuple[int, dict[str, str]]] = []
        self.over = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while not self.over.is_set():
                try:
                    answer = client.get("/readyz")
                    failed = {name: c["why"] for name, c in answer.json()["checks"].items() if not c["ok"]}
                    self.ready.append((answer.status_code, failed))
                    shown = client.get("/metrics").text
                    if 'mystocks_feed_connected{provider="sina"} 1.0' in shown:
                        self.metrics = shown
                except (httpx.HTTPError, KeyError):
                    time.sleep(0.01)


@pytest.fixture
def operator() -> Iterator[Operator]:
    one = Operator()
    one.start()
    yield one
    one.over.set()
    one.join(10)


def test_what_vendors_do_is_seen(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the first vendor's lines are broken."""
    store = BarStore(tmp_path / "market", origin="market")
    make_history(store, MARKET, ["1m"], 250)
    budget = Budget(per_s=1000, burst=1000)
    quick = {name: replace(vendor, cadence_s=0.01, budget=budget) for name, vendor in VENDORS.items()}
    monkeypatch.setattr(connections, "VENDORS", quick)
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setattr("jobs.monitor.READY_S", -1.0)
    monkeypatch.setenv("NO_PROXY", "*")
    day = FakeDay(MARKET, LIVE, minutes=6)
    sina = FakeSina(day, follow=True)
    sina.faults = Faults(garbage=True)
    town = FakeTown(day, sina=sina, tencent=FakeTencent(day))
    monkeypatch.setattr(manager, "open_stream", partial(manager.open_stream, clock=town.clock))
    arguments = ["run", "--feed", "sina,tencent", "--store", str(store.root), "--cluster", "inline", "--json"]
    arguments += ["--engine", "talib", "--intervals", "4", "--port", str(operator.port)]
    with town:
        settings = tmp_path / "settings.yaml"
        settings.write_text(json.dumps({"feed": {"urls": town.urls}}))
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "-c", str(settings)])
    operator.over.set()
    operator.join(10)
    assert ended.value.code == 0, capsys.readouterr().err
    assert operator.ready[0] == (503, {"start": "the service is starting"})
    assert (200, {}) in operator.ready

    shown = {
        (sample.name, sample.labels.get("provider")): sample.value
        for family in text_string_to_metric_families(operator.metrics)
        for sample in family.samples
    }
    for name in ("feed_frames_total", "feed_bytes_total", "feed_ticks_total", "feed_symbols", "feed_connected"):
        assert shown[f"mystocks_{name}", "sina"] > 0, name
    assert shown["mystocks_parse_errors_total", "sina"] > 0
    assert shown["mystocks_feed_quote_age_seconds", "sina"] >= 1
    assert shown["mystocks_market_open", None] == 1
    assert shown["mystocks_wal_fsync_seconds_count", None] > 0
    assert shown["mystocks_wal_bytes_total", None] > 1000
    assert shown["mystocks_bars_total", None] > 0

"""A feed of a vendor's quotes and a scan of its bars, one after the other: Redis keeps what is on its way."""

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.calendar import bar_ends
from data.panel import Panel
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs import backfilling
from jobs.cli import main
from jobs.screen import JsonScreen
from jobs.simulated import make_history
from streaming import manager
from streaming.feeds import connections
from streaming.feeds.vendors import VENDORS, Budget
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.klines import quick_sources
from tests.streaming.feeds.fakes.servers import FakeSina
from tests.streaming.feeds.fakes.town import FakeTown

MARKET = SimulatedMarket(20, 7)
LIVE = MARKET.sessions[250]


def test_a_scan_that_comes_when_the_feed_has_gone_has_every_bar_that_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redis_server: Any
) -> None:
    store = BarStore(tmp_path / "market", origin="market")
    make_history(store, MARKET, ["1m"], 250)
    sina = replace(VENDORS["sina"], cadence_s=0.01, budget=Budget(per_s=1000, burst=1000))
    monkeypatch.setattr(connections, "VENDORS", VENDORS | {"sina": sina})
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setenv("NO_PROXY", "*")
    day = FakeDay(MARKET, LIVE, minutes=5)
    fed = JsonScreen.fed

    def feed_four(screen: JsonScreen, topic: str, batch: Any) -> None:
        fed(screen, topic, batch)
        if topic.startswith("market.bar.") and batch["bar_end"][0].value >= bar_ends(LIVE, "1m")[3]:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(JsonScreen, "fed", feed_four)
    with FakeTown(day, sina=FakeSina(day, follow=True)) as town:
        monkeypatch.setattr(manager, "open_stream", partial(manager.open_stream, clock=town.clock))
        settings = tmp_path / "settings.yaml"
        settings.write_text(json.dumps({"feed": {"urls": town.urls}, "bus": {"url": redis_server.url}}))
        common = ["run", "-c", str(settings), "--feed", "sina", "--store", str(store.root), "--json", "--role"]
        for role in (["feed"], ["scan", "--cluster", "inline", "--engine", "talib", "--intervals", "3"]):
            with pytest.raises(SystemExit) as ended:
                main([*common, *role])
            out, err = capsys.readouterr()
            assert ended.value.code == 0, err
            lines = [json.loads(line) for line in out.splitlines()]
            if role == ["feed"]:
                assert sum(line["frame"] == "1m" for line in lines) >= 4
                assert lines[-1]["feed"]["providers"][0]["name"] == "sina"
                assert store.last_bar_end("1m") < bar_ends(LIVE, "1m")[0]
    stored = store.panel("1m", after=int(bar_ends(LIVE, "1m")[0]) - 1)
    expected = Panel.from_table(MARKET.bars("1m", LIVE), "1m", stored.symbols)
    assert len(stored.times) == 3
    for name in ("open", "high", "low", "close", "volume", "amount"):
        np.testing.assert_array_equal(stored[name], expected[name][:3], err_msg=name)

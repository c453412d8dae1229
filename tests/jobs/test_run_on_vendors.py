"""`mystocks-scan run --feed sina,tencent` as a user runs it, over real sockets; the vendors' time alone is not real."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.calendar import bar_ends
from data.history import SignalHistory
from data.panel import Panel
from data.signal import iso
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.cli import main
from jobs.simulated import make_history
from streaming import manager
from streaming.feeds import connections
from streaming.feeds.vendors import VENDORS, Budget
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.servers import FakeSina, FakeTencent
from tests.streaming.feeds.fakes.town import FakeTown

MARKET = SimulatedMarket(20, 7)
LIVE = MARKET.sessions[250]
ENDS = [iso(int(end)) for end in bar_ends(LIVE, "1m")]

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """A real market's store, with history up to the day before."""
    store = BarStore(tmp_path / "market", origin="market")
    make_history(store, MARKET, "1m", 250)
    return store


@pytest.fixture
def run(tmp_path: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command while fakes serve; gives its lines."""
    quick = {
        name: replace(vendor, cadence_s=0.01, budget=Budget(per_s=1000, burst=1000)) for name, vendor in VENDORS.items()
    }
    monkeypatch.setattr(connections, "VENDORS", quick)
    monkeypatch.setenv("NO_PROXY", "*")
    rules = tmp_path / "rules.yaml"
    rules.write_text("strategies:\n  - {name: up, frame: 1m, when: close > open, action: BUY}\n")

    def run(town: FakeTown, *options: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(manager, "open_stream", partial(manager.open_stream, clock=town.clock))
        settings = tmp_path / "settings.yaml"
        arguments = ["run", "--feed", ",".join(town.fakes), "-c", str(settings), "--store", str(store.root), "--json"]
        arguments += ["--strategies", str(rules), "--cluster", "inline", "--engine", "talib", "--port", "0", *options]
        with town:
            settings.write_text(json.dumps({"feed": {"urls": town.urls}}))
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        out, err = capsys.readouterr()
        assert ended.value.code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return run


def test_vendors_quotes_become_stored_bars_and_published_signals(run: Run, store: BarStore) -> None:
    day = FakeDay(MARKET, LIVE, minutes=4)
    lines = run(FakeTown(day, sina=FakeSina(day, follow=True), tencent=FakeTencent(day)), "--intervals", "3")

    assert [line["bar_end"] for line in lines[1:]] == ENDS[:3]
    stored = store.panel("1m", after=int(bar_ends(LIVE, "1m")[0]) - 1)
    expected = Panel.from_table(MARKET.bars("1m", LIVE), "1m", stored.symbols)
    for name in ("open", "high", "low", "close", "volume", "amount"):
        np.testing.assert_array_equal(stored[name], expected[name][:3], err_msg=name)
    published = [signal for line in lines for signal in line["signals"]]
    assert [signal["id"] for signal in published] == SignalHistory(store.root / "signals").query(newest_first=False)[
        "id"
    ].to_pylist()
    rose = {
        (symbol, ENDS[t])
        for t in range(3)
        for j, symbol in enumerate(stored.symbols)
        if stored["close"][t, j] > stored["open"][t, j]
    }
    assert {(s["symbol"], s["bar_end"]) for s in published if s["bar_end"] in ENDS} == rose
    assert rose

"""`mystocks-scan run --feed sina,tencent` as a user runs it, over real sockets; the vendors' time alone is not real."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import bar_ends
from data.history import SignalHistory
from data.panel import Panel
from data.schema import FLAG_INCOMPLETE
from data.signal import iso
from data.simulator import SimulatedMarket
from data.store import BarStore
from data.symbols import sina_code
from jobs import backfilling
from jobs.backfilling import Backfill
from jobs.cli import main
from jobs.scanning import MarketScan
from jobs.simulated import make_history
from scanner.cluster import InlineCluster
from scanner.engines.base import load as engine_named
from scanner.loading import load
from streaming import manager
from streaming.feeds import connections
from streaming.feeds.vendors import VENDORS, Budget
from streaming.health import TradingClock
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.klines import FakeTencentKlines, quick_sources
from tests.streaming.feeds.fakes.lists import FakeSinaList
from tests.streaming.feeds.fakes.servers import FakeSina, FakeTencent, Faults
from tests.streaming.feeds.fakes.town import FakeTown

MARKET = SimulatedMarket(20, 7)
LIVE = MARKET.sessions[250]
ALL = len(FakeDay(MARKET, LIVE, minutes=1).symbols)
ENDS = [iso(int(end)) for end in bar_ends(LIVE, "1m")]

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """A real market's store, with history up to the day before."""
    store = BarStore(tmp_path / "market", origin="market")
    make_history(store, MARKET, ["1m"], 250)
    return store


@pytest.fixture
def run(tmp_path: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command while fakes serve; gives its lines."""
    quick = {
        name: replace(vendor, cadence_s=0.01, budget=Budget(per_s=1000, burst=1000)) for name, vendor in VENDORS.items()
    }
    monkeypatch.setattr(connections, "VENDORS", quick)
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setenv("NO_PROXY", "*")
    rules = tmp_path / "rules.yaml"

    def run(
        town: FakeTown, *options: str, store: BarStore = store, when: str = "close > open", **outside: Any
    ) -> list[dict[str, Any]]:
        rules.write_text(f"strategies:\n  - {{name: mine, frame: 1m, when: {when!r}, action: BUY}}\n")
        monkeypatch.setattr(manager, "open_stream", partial(manager.open_stream, clock=town.clock, **outside))
        settings = tmp_path / "settings.yaml"
        feeds = ",".join(name for name in town.fakes if name in VENDORS)
        arguments = ["run", "--feed", feeds, "-c", str(settings), "--store", str(store.root), "--json"]
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
    feed = lines[-1]["feed"]
    assert (feed["symbols"], feed["served"], feed["uncovered"], feed["subscribers"]) == (ALL, ALL, 0, 1)
    sina, tencent = feed["providers"]
    assert (sina["name"], sina["state"], sina["connected"], sina["covers"], sina["serves"]) == (
        "sina",
        "live",
        1,
        ALL,
        ALL,
    )
    assert sina["frames"] > 60
    assert sina["quote_age_s"] >= 1
    assert sina["reconnects"] == {}
    assert (tencent["name"], tencent["state"], tencent["frames"], tencent["covers"]) == ("tencent", "idle", 0, ALL)


class FakeFailing(FakeSina):
    """Goes on with the day whatever it is asked; at a certain snapshot it begins to fail."""

    async def _handle(self, target: str, writer: asyncio.StreamWriter) -> None:
        if self.day.at == 30:
            self.faults = Faults(status=502)
        await super()._handle(target, writer)
        if self.faults.status:
            self.day.step()


def test_the_next_vendor_takes_over_and_the_minutes_between_are_flagged(
    run: Run,
    store: BarStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = FakeDay(MARKET, LIVE, minutes=6)
    town = FakeTown(day, sina=FakeFailing(day, follow=True), tencent=FakeTencent(day, follow=True))
    lines = run(town, "--intervals", "5", sleep=lambda _: asyncio.sleep(0.01))

    sina, tencent = lines[-1]["feed"]["providers"]
    assert (sina["state"], sina["serves"]) == ("failed", 0)
    assert sina["reconnects"]["http_502"] >= 1
    assert (tencent["state"], tencent["serves"]) == ("live", ALL)
    bars = store.table("1m", after=int(bar_ends(LIVE, "1m")[0]) - 1)
    incomplete = pc.not_equal(pc.bit_wise_and(bars["flags"], FLAG_INCOMPLETE), 0)
    assert iso(pc.min(bars.filter(incomplete)["bar_end"].cast(pa.int64())).as_py()) == ENDS[1]

    def plain(table: pa.Table) -> dict[Any, tuple[float, ...]]:
        return {(row["symbol"], row["bar_end"]): (row["close"], row["volume"]) for row in table.to_pylist()}

    whole, clean = plain(bars.filter(pc.invert(incomplete))), plain(MARKET.bars("1m", LIVE))
    assert whole == {key: clean[key] for key in whole}

    rules = str(tmp_path / "rules.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--verify", "--json", "--store", str(store.root), "--strategies", rules, "--engine", "talib"])
    said = json.loads(capsys.readouterr().out)
    assert (ended.value.code, said["differences"]) == (0, [])  # what was lost is on the tape, too
    assert said["1m_bars_stored"] == said["1m_bars_replayed"] > 80
    assert said["signals_stored"] == said["signals_replayed"] > 10

    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    with FakeTown(day, tencent_kline=FakeTencentKlines(day, [LIVE])) as later:
        evening = int(bar_ends(LIVE, "1d")[0]) + 10**9
        work = Backfill(
            *(store, MARKET.symbols, {"1m": 250}),
            n_bars=250,
            urls=later.urls,
            clock=lambda: evening,
            say=lambda _: None,
            trading=TradingClock(),
        )
        asyncio.run(work.run(upto=lambda: evening))
    # As revisions from a source that saw them, the minutes are the clean run's.
    stored = store.panel("1m", after=int(bar_ends(LIVE, "1m")[0]) - 1)
    expected = Panel.from_table(MARKET.bars("1m", LIVE), "1m", stored.symbols)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(stored[name], expected[name], err_msg=name)


def test_on_an_empty_store_the_vendors_list_says_who_is_watched(run: Run, tmp_path: Path) -> None:
    empty = BarStore(tmp_path / "new", origin="market")
    day = FakeDay(MARKET, LIVE, minutes=3)
    before = FakeTencentKlines(day, [MARKET.sessions[249]])
    town = FakeTown(day, sina=FakeSina(day, follow=True), sina_list=FakeSinaList(day), tencent_kline=before)
    lines = run(town, "--intervals", "2", store=empty)

    assert [line["bar_end"] for line in lines[-2:]] == ENDS[:2]
    assert lines[-1]["feed"]["symbols"] == len(MARKET.symbols)
    expected = MARKET.bars("1m", MARKET.sessions[249], LIVE)
    stored, expected = empty.panel("1m"), Panel.from_table(expected, "1m", empty.panel("1m").symbols)
    rows = np.searchsorted(expected.times, stored.times)
    assert len(rows) == 240 + 2
    assert stored.symbols == tuple(day.symbols)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(stored[name], expected[name][rows], err_msg=name)
    names = MARKET.names(LIVE)
    assert {symbol: name for symbol, (name, _) in empty.names().items()} == {s: names.get(s, s) for s in MARKET.symbols}


@pytest.mark.parametrize("backfill_s", ["60", "0"])
def test_a_strategy_looks_at_the_symbols_whose_warm_up_is_complete_and_says_at_how_many(
    run: Run, tmp_path: Path, backfill_s: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSTOCKS_SCAN__FEED__BACKFILL_S", backfill_s)
    empty = BarStore(tmp_path / "new", origin="market")
    day = FakeDay(MARKET, LIVE, minutes=3)
    before = FakeTencentKlines(day, [MARKET.sessions[249]])
    town = FakeTown(day, sina=FakeSina(day, follow=True), sina_list=FakeSinaList(day), tencent_kline=before)
    line = run(town, "--intervals", "2", store=empty, when="close > 0 and SMA(volume, 100) >= 0")[-1]

    traded = set(MARKET.bars("1m", MARKET.sessions[249])["symbol"].to_pylist())
    ready = len(traded) if backfill_s == "60" else 0
    assert line["ready"] == {"ready": ready, "symbols": 20, "by_strategy": {"mine": ready}, "silent": 0}
    assert {signal["symbol"] for signal in line["signals"]} == (traded & set(day.symbols) if ready else set())
    assert bool(before.asked) == bool(ready)


class FakeWaiting(FakeSina):
    """Goes on with the day, but at a certain snapshot waits until something is the case."""

    def __init__(self, day: FakeDay, until: Callable[[], bool], at: int) -> None:
        super().__init__(day)
        self._until, self._at = until, at

    async def _handle(self, target: str, writer: asyncio.StreamWriter) -> None:
        await super()._handle(target, writer)
        if self.day.at != self._at or self._until():
            self.day.step()


@pytest.mark.parametrize("history", [False, True])
def test_a_service_that_starts_in_the_midst_of_a_session_gets_what_was_before_and_scans_as_if_it_had_been_there(
    run: Run, tmp_path: Path, store: BarStore, history: bool
) -> None:
    began = store if history else BarStore(tmp_path / "new", origin="market")
    day = FakeDay(MARKET, LIVE, minutes=75)
    opened = bar_ends(LIVE, "1m")
    day.step(5 + next(k for k, batch in enumerate(day.batches) if batch["quote_time"][0].value > opened[59]))
    klines = FakeTencentKlines(day, [MARKET.sessions[249], LIVE])
    klines.live = True
    sina = FakeWaiting(day, lambda: opened[0] in began.bar_ends("1m"), day.at + 60)
    town = FakeTown(day, sina=sina, sina_list=FakeSinaList(day), tencent_kline=klines)
    lines = run(town, "--intervals", "10", store=began, when="close > 0 and EMA(close, 100) > 0")

    assert [line["bar_end"] for line in lines[-10:]] == ENDS[60:70]
    traded = set(MARKET.bars("1m", LIVE)["symbol"].to_pylist())
    ready = [line["ready"]["ready"] for line in lines]
    assert (ready[0], ready[-1]) == (len(traded) if history else 0, len(traded))
    assert all(bool(line["signals"]) == bool(line["ready"]["ready"]) for line in lines[-10:])
    assert {signal["bar_end"] for line in lines for signal in line["signals"]}.isdisjoint(ENDS[:60])
    asked = [codes[0] for codes in klines.asked]
    assert len(asked) == len(set(asked)), "each is asked once"
    assert set(asked) >= set(map(sina_code, traded))

    uninterrupted = BarStore(tmp_path / "uninterrupted", origin="market")
    uninterrupted.append(began.table("1m", upto=int(opened[0]) - 1), "1m")
    uninterrupted.append(MARKET.bars("1m", LIVE), "1m")
    stored = began.panel("1m")
    expected = uninterrupted.panel("1m", upto=int(opened[69]), symbols=stored.symbols)
    np.testing.assert_array_equal(stored.times, expected.times)
    whole = stored.times != opened[60]  # that of its start lacks the trades before it
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(stored[name][whole], expected[name][whole], err_msg=name)
    incomplete = pc.not_equal(pc.bit_wise_and(began.table("1m")["flags"], FLAG_INCOMPLETE), 0)
    assert set(began.table("1m").filter(incomplete)["bar_end"].cast(pa.int64()).to_pylist()) == {int(opened[60])}
    scan = MarketScan(
        *(uninterrupted, "1m", load([tmp_path / "rules.yaml"])),
        symbols=stored.symbols,
        engine=engine_named("talib"),
        cluster=InlineCluster(),
        history=None,
    )
    last = scan.scan(int(opened[69]), origin=int(expected.times[0])).signals
    found = {signal["symbol"]: signal["values"] for signal in lines[-1]["signals"]}
    assert found == {signal.symbol: signal.values for signal in last}
    assert found.keys() == traded


def test_what_passed_while_it_was_down_is_there_again_as_revisions_once_it_is_back(
    run: Run, tmp_path: Path, store: BarStore
) -> None:
    """It goes on from its tape and its store; the minutes between have bars of it then, which lack trades."""
    opened = bar_ends(LIVE, "1m")
    day = FakeDay(MARKET, LIVE, minutes=40)
    klines = FakeTencentKlines(day, [MARKET.sessions[249], LIVE])
    klines.live = True
    when = "close > 0 and EMA(close, 100) > 0"
    first = run(FakeTown(day, sina=FakeSina(day, follow=True), tencent_kline=klines), "--intervals", "10", when=when)
    assert first[-1]["bar_end"] == ENDS[9]
    assert klines.asked == []
    day.step(5 - day.at + next(k for k, quotes in enumerate(day.batches) if quotes["quote_time"][0].value > opened[24]))

    def healed() -> bool:
        table = store.table("1m", after=int(opened[10]) - 1, columns=["revision"])
        return bool(table.num_rows and pc.max(table["revision"]).as_py())

    sina = FakeWaiting(day, healed, day.at + 60)
    lines = run(FakeTown(day, sina=sina, tencent_kline=klines), "--intervals", "25", when=when)

    assert lines[-1]["bar_end"] == ENDS[34]
    stored = store.panel("1m", after=int(opened[0]) - 1)
    expected = Panel.from_table(MARKET.bars("1m", LIVE), "1m", stored.symbols)
    np.testing.assert_array_equal(stored.times, opened[:35])
    whole = stored.times != opened[25]
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(stored[name][whole], expected[name][:35][whole], err_msg=name)

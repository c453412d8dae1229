"""Who is ready: by the bars that a symbol has had."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import bar_ends
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.readiness import Readiness, bars_had, warm_ups
from scanner.decide import Hit
from scanner.loading import load
from scanner.scan import Plan, make_plan

MARKET = SimulatedMarket(12, seed=3)
DAY = MARKET.sessions[0]
ENDS = bar_ends(DAY, "1m")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "strategies:\n"
        "  - {name: now, frame: 1m, when: close > open, action: BUY}\n"
        "  - {name: mean, frame: 1m, when: 'close > SMA(close, 30)', action: BUY}\n"
        "  - {name: slow, frame: 1m, when: 'close > EMA(close, 200)', action: BUY}\n"
        "  - {name: endless, frame: 1m, when: 'bars_since(close > open) > 3', action: BUY}\n"
        "  - {name: across, frame: 1m, when: 'rank(SMA(close, 20)) < 3', action: BUY}\n"
    )
    return make_plan("1m", load([rules]).for_frame("1m"))


def test_what_a_strategy_needs_is_what_its_values_depend_on_as_far_as_indicators_see(plan: Plan) -> None:
    needs = warm_ups(plan, 250)
    assert needs["now"] == 1
    assert needs["mean"] in (30, 31)
    assert needs["across"] in (20, 21)
    assert needs["slow"] == needs["endless"] == 200  # four fifths of 250
    assert warm_ups(plan, None)["slow"] > 900


def hit(strategy: str, symbol: str) -> Hit:
    return Hit(strategy, symbol, "BUY", 1.0, 1.0, {}, 0)


def test_bars_are_counted_from_the_store_and_on(plan: Plan, tmp_path: Path) -> None:
    store = BarStore(tmp_path / "market", origin="market")
    bars = MARKET.bars("1m", DAY)
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    store.append(bars.filter(pa.array(ends <= ENDS[39])), "1m")
    store.append(bars.filter(pa.array(ends == ENDS[39])), "1m")  # the same again
    had = dict(zip(MARKET.symbols, bars_had(store, "1m", MARKET.symbols).tolist(), strict=True))
    names = np.array(bars["symbol"].cast(pa.string()).to_pylist())
    assert had == {s: int(np.count_nonzero((names == s) & (ends <= ENDS[39]))) for s in MARKET.symbols}

    ready = Readiness(plan, MARKET.symbols, 250)
    whole = [symbol for symbol in MARKET.symbols if had[symbol] == 40]
    hits = [hit("mean", symbol) for symbol in MARKET.symbols]
    for k in (37, 38, 39, 40, 41):
        batch = bars.filter(pa.array(ends == ENDS[k])).combine_chunks().to_batches()[0]
        ready.take(store, "1m", int(ENDS[10]), int(ENDS[k]), batch)
        kept, coverage = ready.only_ready(hits)
        expected = whole if k - 9 >= ready.needs["mean"] else []
        assert [one.symbol for one in kept if one.symbol in whole] == expected
        assert coverage.by_strategy["mean"] == len(kept)
        assert coverage.silent == len(hits) - len(kept)
        assert (coverage.ready, coverage.symbols) == (0, 12)  # `slow` and `endless` on none
    assert coverage.by_strategy["now"] == np.count_nonzero([n > 10 for n in had.values()])

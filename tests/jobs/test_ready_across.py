"""Who is not ready for a strategy that looks across the market has no place in what it sees of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import bar_ends
from data.history import SignalHistory
from data.panel import PRICES
from data.schema import BAR
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.scanning import MarketScan, Scanned
from scanner.cluster import InlineCluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies

MARKET = SimulatedMarket(24, seed=5)
DAY = MARKET.sessions[0]
ENDS = bar_ends(DAY, "1m")
BARS = MARKET.bars("1m", DAY)
TRADED = sorted(set(BARS["symbol"].cast(pa.string()).to_pylist()))
YOUNG = TRADED[1::3]
"""They have bars of the last ten minutes alone, and would be the first of all."""
OLD = [symbol for symbol in TRADED if symbol not in YOUNG]
LAST = 60
RULES = """
strategies:
  - {name: best, frame: 1m, when: 'rank(SMA(close, 20) * 0 + close) > 0.8', action: BUY}
  - {name: now, frame: 1m, when: 'rank(close) > 0.9', action: ALERT}
"""
PYTHON = """
import numpy as np
from scanner import BaseStrategy, Strategy, rank

class Strong(Strategy):
    indicators = {"mean": "SMA(volume, 20)", "close": "close", "bands": "TDX_BOLL(20, 2)"}

    def evaluate(self, market):
        assert not np.isfinite(market.indicators["close"][:, ~market.current]).any()
        assert not np.isfinite(market.indicators["bands"].mid[:, ~market.current]).any()
        return market.hits(rank(market.indicators["close"][-1]) > 0.8, action="BUY",
                           confidence=round(1 / np.count_nonzero(market.current), 6))

class Each(BaseStrategy):
    indicators = {"mean": "SMA(volume, 20)"}

    def evaluate(self, context):
        return context.signal("ALERT")
"""


def bars(symbols: list[str], first: int, last: int, revision: int = 0, times: float = 1.0) -> pa.Table:
    """Bars of some minutes, those of the young a hundred times as dear."""
    inside = pc.and_(
        pc.is_in(BARS["symbol"].cast(pa.string()), value_set=pa.array(symbols, pa.string())),
        pc.is_in(BARS["bar_end"].cast(pa.int64()), value_set=pa.array(ENDS[first : last + 1])),
    )
    table = BARS.filter(inside)
    dear = np.isin(table["symbol"].cast(pa.string()).to_pylist(), YOUNG)
    columns = {name: table[name].to_numpy() * np.where(dear, 100, 1) * times for name in (*PRICES, "prev_close")}
    columns["revision"] = np.full(table.num_rows, revision)
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, BAR.field(name), pa.array(values).cast(BAR.field(name).type))
    return table


def market_of(path: Path, symbols: list[str], n_shards: int, *, gated: bool) -> MarketScan:
    """A store with an hour of the old, and ten minutes of the young among `symbols`, and its scan."""
    path.mkdir()
    (path / "rules.yaml").write_text(RULES)
    (path / "mine.py").write_text(PYTHON)
    store = BarStore(path / "store", origin="market")
    store.append(bars([s for s in symbols if s in OLD], 0, LAST - 1), "1m")
    store.append(bars([s for s in symbols if s in YOUNG], LAST - 9, LAST - 1), "1m")
    return MarketScan(
        store,
        "1m",
        load_strategies([path / "rules.yaml", path / "mine.py"]),
        symbols=symbols,
        engine=load("vector"),
        cluster=InlineCluster(),
        history=SignalHistory(path / "signals"),
        n_shards=n_shards,
        gated=gated,
        history_bars=100,
    )


def said(scanned: Scanned) -> list[tuple[object, ...]]:
    return [(s.strategy, s.symbol, s.revision, s.revokes is not None, s.confidence) for s in scanned.published]


def both(scan: MarketScan, symbols: list[str]) -> list[list[tuple[object, ...]]]:
    """What a bar fires, and then its revision, in which an old one becomes the dearest of them."""
    end, origin = int(ENDS[LAST]), int(ENDS[0])
    batch = bars(symbols, LAST, LAST).combine_chunks().to_batches()[0]
    closed = scan.scan(end, origin=origin, batch=batch, previous=int(ENDS[LAST - 1]))
    scan.store.append(batch, "1m")
    assert not closed.result.failed
    revision = bars(OLD[:1], LAST, LAST, revision=1, times=50.0).combine_chunks().to_batches()[0]
    scan.store.append(revision, "1m")
    return [said(closed), said(scan.revise(revision, end, origin=origin))]


@pytest.mark.parametrize("n_shards", [1, 2, 7])
def test_strategies_find_what_they_find_in_a_market_of_those_who_are_ready(tmp_path: Path, n_shards: int) -> None:
    found = both(market_of(tmp_path / "whole", TRADED, n_shards, gated=True), TRADED)
    without = both(market_of(tmp_path / "without", OLD, 1, gated=False), OLD)
    for mine, other in zip(found, without, strict=True):
        warm = ("best", "Strong", "Each")
        assert [hit for hit in mine if hit[0] in warm] == [hit for hit in other if hit[0] in warm]
    assert {hit[0] for hit in found[0]} == {"best", "Strong", "Each", "now"}
    assert {hit[1] for hit in found[0] if hit[0] == "now"} <= set(YOUNG), "who needs one bar is ready at its first"
    moved = {(name, revoked) for name, _, _, revoked, _ in found[1]}
    assert moved >= {("best", False), ("best", True), ("Strong", False), ("Strong", True)}


def test_a_market_in_which_nobody_is_ready_is_empty(tmp_path: Path) -> None:
    scan = market_of(tmp_path / "young", YOUNG, 2, gated=True)
    batch = bars(YOUNG, LAST, LAST).combine_chunks().to_batches()[0]
    found = scan.scan(int(ENDS[LAST]), origin=int(ENDS[0]), batch=batch, previous=int(ENDS[LAST - 1]))
    assert {hit.strategy for hit in found.result.hits} == {"now"}
    assert not found.result.failed
    assert found.coverage is not None
    assert (found.coverage.ready, found.coverage.by_strategy["now"]) == (0, len(YOUNG))

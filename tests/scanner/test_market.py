"""What looks across the market, decided once from all shards: the same hits however the symbols are dealt out."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.panel import Packed
from data.simulator import SimulatedMarket
from scanner.decide import Hit
from scanner.engines.base import Engine
from scanner.language import parse
from scanner.market import ScanResult, merge, to_signals
from scanner.scan import make_plan, scan_shard
from scanner.tasks import split

DAY = 86400 * 10**9
RULES = """
strategies:
  - {name: strongest, when: rank(ROC(5)) > 0.9 and close > SMA(20), action: BUY, cooldown: 3}
  - {name: weakest, when: rank(-pct_change) > 0.95 or rank(volume) > 0.98, action: SELL}
  - {name: stars, when: "rank(close) > 0.5 and board in ['star', 'chinext'] and not at_limit_up", action: ALERT,
     universe: {min_bars_listed: 30, min_amount_cny: 5e6}}
  - {name: local, when: "cross_over(MACD.macd, MACD.signal)", action: BUY}
  - {name: ever, when: bars_since(RSI(6) > 80) < 3, action: ALERT}
"""
PYTHON = """
import numpy as np
from scanner import BaseStrategy, Strategy, Universe, cross_over, highest, rank

class Breadth(Strategy):
    '''Only while most of the market rises.'''
    indicators = {"up": "close > prev(close)", "roc": "ROC(5)", "board": "board"}

    def evaluate(self, market):
        up = market.indicators["up"][-1]
        if np.nanmean(up) < 0.3:
            return market.hits(up > 2, action="BUY")
        strong = rank(market.indicators["roc"][-1]) > 0.95
        return market.hits(strong & (market.indicators["board"][-1] != "bse"), action="BUY", confidence=0.5)

class Cross(Strategy):
    indicators = {"macd": "MACD(12, 26, 9)"}
    universe = Universe(boards=("main",))

    def evaluate(self, market):
        macd = market.indicators["macd"]
        return market.hits(cross_over(macd.diff, macd.dea), action="BUY", confidence=0.8)

class High(Strategy):
    bars = 21
    indicators = {"close": "close"}

    def evaluate(self, market):
        close = market.indicators["close"]
        return market.hits(close[-1] > highest(close, 20)[-2], action="ALERT")

class Old(BaseStrategy):
    indicators = ["MACD", "RSI(6)"]

    def evaluate(self, context):
        macd, rsi = context.indicators.get("MACD"), context.indicators["RSI(6)"]
        if macd.hist[-1] > 0 >= macd.hist[-2] and rsi[-1] > 50:
            return context.signal("BUY", 0.9)
"""


def scan(strategies: list[Any], table: pa.Table, symbols: tuple[str, ...], n_shards: int, engine: Engine) -> ScanResult:
    """All shards in this process, at the newest bar end."""
    plan = make_plan("1d", strategies)
    ends = table["bar_end"].cast(pa.int64()).to_numpy()
    answers = [
        scan_shard(plan, Packed.from_table(table, "1d", shard), int(ends.max()), engine, origin=int(ends.min()))
        for shard in split(symbols, n_shards)
    ]
    return merge(plan, strategies, answers, int(ends.max()), engine, names={"600519.SH": "贵州茅台"})


@pytest.fixture
def both(strategies: Any) -> list[Any]:
    return [*strategies(RULES).values(), *strategies(PYTHON, "mine.py").values()]


@pytest.mark.parametrize("session", [60, 90, 129])
def test_hits_are_the_same_for_1_2_and_7_shards(
    session: int, both: list[Any], simulated: SimulatedMarket, engine: Engine
) -> None:
    """300 symbols with listings, halts and dividends; one of them has no bar at all yet."""
    table = simulated.bars("1d", *simulated.sessions[: session + 1])
    run = functools.partial(scan, both, table, simulated.symbols, engine=engine)
    one, *others = (run(n_shards=n) for n in (1, 2, 7, 300))
    assert not one.failed
    assert {hit.strategy for hit in one.hits} >= {"strongest", "weakest", "stars", "Breadth", "High"}
    assert one.n_current < one.n_symbols <= 300
    for other in others:
        assert other == one


def test_a_python_strategy_finds_what_the_same_rule_does(both: list[Any], daily: pa.Table, engine: Engine) -> None:
    result = scan(both, daily, tuple(sorted(set(daily["symbol"].to_pylist()))), 2, engine)
    by_strategy: dict[str, set[str]] = {strategy.name: set() for strategy in both}
    for hit in result.hits:
        by_strategy[hit.strategy].add(hit.symbol)
    assert by_strategy["Cross"]
    assert by_strategy["Cross"] == {s for s in by_strategy["local"] if s[0] in "60" and not s.startswith("688")}


def test_rank_counts_only_who_has_a_bar(strategies: Any, pack: Any, engine: Engine) -> None:
    """Of five symbols one is halted, the highest of all: the best of the other four is the first of four."""
    rule = """
strategies:
  - {name: top, when: rank(close) >= 1, action: BUY}
  - {name: half, when: rank(close) > 0.5, action: BUY}
"""
    loaded = list(strategies(rule).values())
    whole = pack({f"60000{i}.SH": [10.0 + i, 10.0 + i] for i in range(5)})
    ends = whole.bar_ends.copy()
    ends[:, 4] -= 86400 * 10**9
    packed = Packed("1d", whole.symbols, ends, whole.lengths, whole.fields)
    plan = make_plan("1d", loaded)
    result = merge(plan, loaded, [scan_shard(plan, packed, int(ends[-1, 0]), engine)], int(ends[-1, 0]), engine)
    assert [(hit.strategy, hit.symbol) for hit in result.hits] == [
        ("top", "600003.SH"), ("half", "600002.SH"), ("half", "600003.SH"),
    ]  # fmt: skip
    assert result.hits[0].values == {"rank(close)": 1.0}


def test_a_python_strategy_sees_and_fires_only_who_has_a_bar(strategies: Any, pack: Any, engine: Engine) -> None:
    """A halted symbol is there, with nothing to compare; whoever writes its own Hits cannot fire it either."""
    python = """
import numpy as np
from scanner import Hits, Strategy, rank

class Top(Strategy):
    indicators = {"close": "close", "macd": "MACD(2, 3, 2)"}

    def evaluate(self, market):
        close = market.indicators["close"]
        assert np.isnan(close[:, ~market.current]).all() and np.isnan(market.indicators["macd"].hist[-1, -1])
        return market.hits(rank(close[-1]) == 1, action="BUY")

class All(Strategy):
    indicators = {}

    def evaluate(self, market):
        n = len(market.symbols)
        return Hits(np.arange(n), ("SELL",) * n, (0.5,) * n, ({},) * n)
"""
    loaded = list(strategies(python, "mine.py").values())
    whole = pack({f"60000{i}.SH": [10.0 + i] * 9 for i in range(3)})
    ends = whole.bar_ends.copy()
    ends[:, 2] -= DAY
    packed = Packed("1d", whole.symbols, ends, whole.lengths, whole.fields)
    plan, end = make_plan("1d", loaded), int(ends[-1, 0])
    result = merge(plan, loaded, [scan_shard(plan, packed, end, engine)], end, engine)
    assert not result.failed
    assert [(hit.strategy, hit.symbol) for hit in result.hits] == [
        ("Top", "600001.SH"),
        ("All", "600000.SH"),
        ("All", "600001.SH"),
    ]


def test_what_one_strategy_does_to_its_arrays_is_no_business_of_the_next(
    strategies: Any, daily: pa.Table, engine: Engine
) -> None:
    text = "from scanner import Strategy\n" + "".join(
        f"""
class {name}(Strategy):
    indicators = {{"close": "close", "macd": "MACD"}}
    def evaluate(self, market):
        hits = market.hits((market.indicators["macd"].macd > -99) & (market.indicators["close"] > 0), action="BUY")
        for array in (market.indicators["macd"].macd, market.indicators["close"], market.price):
            array[:] = -99
        market.current[:] = False
        return hits
"""
        for name in ("First", "Second")
    )
    loaded = list(strategies(text, "mine.py").values())
    result = scan(loaded, daily, tuple(sorted(set(daily["symbol"].to_pylist()))), 2, engine)
    hits = {name: [hit.symbol for hit in result.hits if hit.strategy == name] for name in ("First", "Second")}
    assert len(hits["First"]) > 200
    assert hits["First"] == hits["Second"]
    assert all(hit.price > 0 for hit in result.hits)


def test_a_gap_keeps_a_rank_and_a_python_strategy_silent(strategies: Any, pack: Any, engine: Engine) -> None:
    rule = "strategies: [{name: low, when: rank(ROC(1)) < 0.9, action: BUY}]"
    python = """
from scanner import Strategy
class Low(Strategy):
    indicators = {"roc": "ROC(1)"}
    def evaluate(self, market):
        return market.hits(market.indicators["roc"] < 0, action="SELL")
"""
    loaded = [*strategies(rule).values(), *strategies(python, "low.py").values()]
    packed = pack({"600519.SH": [10.0] * 7 + [5.0], "600000.SH": [10.0] * 7 + [9.9], "600004.SH": [10.0] * 7 + [10.1]})
    plan = make_plan("1d", loaded)
    end = int(packed.bar_ends[-1, 0])
    result = merge(plan, loaded, [scan_shard(plan, packed, end, engine)], end, engine)
    assert [(hit.strategy, hit.symbol) for hit in result.hits] == [("low", "600000.SH"), ("Low", "600000.SH")]
    assert result.gapped == (("Low", "600519.SH"), ("low", "600519.SH"))


def test_a_python_strategy_that_raises_is_reported_and_the_others_go_on(
    strategies: Any, daily: pa.Table, engine: Engine
) -> None:
    bad = {
        "Raises": "raise KeyError('roc')",
        "Wrong": "return 3",
        "Holds": "return market.hits(market.current, action='HOLD')",
        "Shape": "return market.hits(market.current[:3], action='BUY')",
        "Sure": "return market.hits(market.current, action='BUY', confidence=2)",
        "Short": "return market.hits(highest(market.indicators['c'], 60)[-1] > 0, action='BUY')",
        "Good": "return market.hits(market.current, action='ALERT')",
    }
    text = "from scanner import Strategy, highest\n" + "".join(
        f"class {name}(Strategy):\n    indicators = {{'c': 'close'}}\n    def evaluate(self, market):\n        {body}\n"
        for name, body in bad.items()
    )
    loaded = [*strategies(text, "bad.py").values(), *strategies(RULES).values()]
    symbols = tuple(sorted(set(daily["symbol"].to_pylist())))
    result = scan(loaded, daily, symbols, 2, engine)
    assert dict(result.failed) == {
        "Raises": "KeyError: 'roc'",
        "Wrong": "StrategyError: evaluate must return market.hits(...); got int",
        "Holds": "StrategyError: action must be one of BUY, SELL, ALERT; got 'HOLD'",
        "Shape": f"StrategyError: hits: mask must have shape ({len(symbols)},) or (bars, {len(symbols)}); got (3,)",
        "Sure": "StrategyError: confidence must be a number in [0, 1]; got 2.0",
        "Short": "ExpressionError: highest needs 60 bars; the array has 2."
        " Ask for more with `bars = 60` in the strategy",
    }
    assert {hit.strategy for hit in result.hits} >= {"Good", "strongest"}
    assert sum(hit.strategy == "Good" for hit in result.hits) == result.n_current


def signal_result(bar_end: int, silent_since: int) -> ScanResult:
    hit = Hit("s", "600519.SH", "BUY", 0.5, 10.0, {"x": 1.0}, silent_since, True, None)
    return ScanResult("1d", bar_end, "talib", 1, 1, 1, 1, (hit,), (), {})


@pytest.mark.parametrize(
    ("last", "silent"),
    [
        (None, False),
        (3, False),  # before the bar of five bars ago
        (5, True),
        (9, True),
        (10, False),  # the same bar scanned again
        (11, False),  # a later one is no reason to be silent about the past
    ],
)
def test_a_cooldown_keeps_silent_for_so_many_bars(last: int | None, silent: bool, strategies: Any) -> None:
    loaded = list(strategies("strategies: [{name: s, when: close > 0, action: BUY}]").values())
    fired = {} if last is None else {("s", "600519.SH", "BUY", "1d"): last * DAY}
    signals, n = to_signals(
        signal_result(10 * DAY, 5 * DAY), loaded, fired, origin=1, names={"600519.SH": "茅台"}, received_ns=7
    )
    assert (len(signals), n) == ((0, 1) if silent else (1, 0))
    if signals:
        (signal,) = signals
        assert (signal.name, signal.version, signal.origin) == ("茅台", loaded[0].version, 1)
        assert (signal.received_ns, signal.at_limit_up, signal.at_limit_down) == (7, True, None)


def test_a_cooldown_is_counted_in_the_symbols_own_bars(strategies: Any, pack: Any, engine: Engine) -> None:
    """Five bars ago of a symbol that was halted for a week is a longer time ago."""
    loaded = list(strategies("strategies: [{name: s, when: close > 0, action: BUY, cooldown: 2}]").values())
    whole = pack({"600519.SH": [10.0] * 5, "600000.SH": [10.0] * 5, "600004.SH": [10.0] * 2})
    ends = whole.bar_ends.copy()
    ends[:4, 1] -= 7 * DAY
    packed = Packed("1d", whole.symbols, ends, whole.lengths, whole.fields)
    plan = make_plan("1d", loaded)
    hits = scan_shard(plan, packed, int(ends[-1, 0]), engine).hits
    assert [hit.silent_since for hit in hits] == [ends[2, 0], ends[2, 1], np.iinfo(np.int64).min]


def test_extra_expressions_are_computed_and_change_no_hit(strategies: Any, daily: pa.Table, engine: Engine) -> None:
    loaded = list(strategies(RULES).values())
    plan = make_plan("1d", loaded, ["SAR()", "MACD()"])
    assert plan.n_indicators == make_plan("1d", loaded).n_indicators + 1
    assert parse("SAR()") in plan.terms

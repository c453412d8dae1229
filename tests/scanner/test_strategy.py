"""What a strategy is: its universe, how far it looks back, and what a Python strategy is handed."""

from typing import Any

import numpy as np
import pytest

from data.errors import StrategyError
from data.panel import Packed
from scanner import BaseStrategy, Hits, MarketContext, Strategy, SymbolContext, Universe
from scanner.fields import Source
from scanner.language import parse
from scanner.strategy import MEMORY, Outputs, Rule, session_amount, window

nan = np.nan


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"boards": ["mian"]}, "boards must be of main, chinext, star, .*; got 'mian'"),
        ({"boards": []}, r"boards must be one or a list of main, .*; got \[\]"),
        ({"boards": 3}, "boards must be one or a list of main, .*; got 3"),
        ({"exclude": ("ST",)}, "exclude must be of st, main, .*; got 'ST'"),
        ({"min_bars_listed": -1}, "min_bars_listed must be an integer of 0 or more; got -1"),
        ({"min_bars_listed": True}, "min_bars_listed must be an integer of 0 or more; got True"),
        ({"min_amount_cny": "2e7"}, "min_amount_cny must be a number of 0 or more; got '2e7'"),
        ({"min_amount_cny": nan}, "min_amount_cny must be a number of 0 or more; got nan"),
    ],
)
def test_a_universe_that_cannot_be(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        Universe(**declared)


def test_a_universe_takes_one_word_for_a_list() -> None:
    assert Universe(boards="star", exclude=["st", "st"]) == Universe(boards=("star",), exclude=("st",))  # type: ignore[arg-type]


@pytest.fixture
def four(pack: Any) -> Packed:
    """Main, ChiNext, STAR and a B share; the STAR one is new and trades little."""
    bars = {
        "600519.SH": {"close": [10.0] * 9, "amount": [5e7] * 9},
        "300750.SZ": {"close": [10.0] * 9, "amount": [nan] * 9},
        "688981.SH": {"close": [10.0] * 3, "amount": [9e7, 9e7, 1e6]},
        "900901.SH": {"close": [10.0] * 9, "amount": [5e7] * 9},
    }
    packed: Packed = pack(bars)
    return packed


@pytest.mark.parametrize(
    ("universe", "inside"),
    [
        (Universe(), [1, 1, 1, 1]),
        (Universe(boards=("main", "star")), [1, 0, 1, 0]),
        (Universe(exclude=("b_share",)), [1, 1, 1, 0]),
        (Universe(exclude=("a_share",)), [0, 0, 0, 1]),
        (Universe(exclude=("st",)), [0, 1, 1, 1]),  # of those whose status is known
        (Universe(min_bars_listed=3), [1, 1, 1, 1]),
        (Universe(min_bars_listed=4), [1, 1, 0, 1]),
        (Universe(min_amount_cny=2e7), [1, 0, 0, 1]),  # an unknown amount is not enough
        (Universe(boards=("star",), exclude=("st", "b_share"), min_bars_listed=2, min_amount_cny=1e6), [0, 0, 1, 0]),
    ],
)
def test_who_is_in_a_universe(four: Packed, universe: Universe, inside: list[int]) -> None:
    source = Source(four, names={"600519.SH": ("ST茅台", "2024-03-09"), "300750.SZ": ("ST时代", "2024-03-08")})
    assert universe.mask(source).astype(int).tolist() == inside


def test_the_amount_of_a_session_adds_up_to_the_scanned_bar(pack: Any) -> None:
    """Two sessions of minutes; the second symbol's last bar is the 100th of its session."""
    amounts = np.r_[np.full(240, 1000.0), np.full(100, 10.0)]
    packed = pack({"600519.SH": {"close": np.full(340, 10.0), "amount": amounts}}, frame="1m", first="2024-03-04")
    assert session_amount(Source(packed)).tolist() == [1000.0]


@pytest.mark.parametrize(
    ("expression", "bars"),
    [
        ("close > 3", 1),
        ("close > prev(close)", 2),
        ("cross_over(close, SMA(20))", 21),
        ("close > prev(highest(close, 60))", 61),
        ("volume > 3 * prev(SMA(volume, 20)) and close > prev(highest(high, 20))", 21),
        ("count(close > prev(close, 3), 10) > 5", 13),
        ("RSI(14) > 30", MEMORY * 15 + 1),
        ("SMA(RSI(14), 5) > 30", 4 + MEMORY * 15 + 1),
        ("bars_since(close > 3) < 5", None),
        ("OBV > 3", MEMORY + 1),
        ("CDLHAMMER > 0", 12),
    ],
)
def test_how_far_back_a_rule_looks(expression: str, bars: int | None) -> None:
    assert window({parse(expression): 1}) == bars


def test_two_bars_of_a_term_reach_one_further_back() -> None:
    assert window({parse("SMA(20)"): 2, parse("close"): 5}) == 21


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("cross_over(MACD.macd, MACD.signal) and volume > 1.5 * SMA(volume, 20)",
         ["MACD(12,26,9).macd", "MACD(12,26,9).signal", "volume", "SMA(volume,20)"]),
        ("close > prev(highest(close, 60)) and not at_limit_up", ["close", "prev(highest(close,60),1)"]),
        ("count(close > open, 5) >= 4 and rank(ROC(5)) > 0.9", ["count(close > open,5)", "rank(ROC(5))"]),
        ("abs(pct_change) > 5 and board == 'star'", ["pct_change"]),
        ("every(RSI(6) > 50, 3)", ["RSI(6)"]),
        ("close > close / 2", ["close"]),
    ],
)  # fmt: skip
def test_a_signal_shows_the_values_that_the_rule_compares(expression: str, shown: list[str]) -> None:
    rule = Rule("r", parse(expression), "BUY", "v")
    assert [str(term) for term in rule.shown] == shown


def context(**indicators: Any) -> MarketContext:
    symbols = ("300750.SZ", "600519.SH", "688981.SH")
    return MarketContext(
        "1d",
        5,
        symbols,
        {"600519.SH": "贵州茅台"},
        indicators,
        np.array([1.0, 2.0, 3.0]),
        np.array([True, True, False]),
    )


def test_hits_are_current_symbols_whose_newest_value_is_true() -> None:
    market = context(x=np.array([[0.0, 7.0, 8.0], [1.0, nan, 9.0]]))
    hits = market.hits(market.indicators["x"] > 0, action="BUY", confidence=0.8)
    assert (hits.places.tolist(), hits.action, hits.confidence, hits.values) == ([0], ("BUY",), (0.8,), ({"x": 1.0},))
    assert market.hits(np.array([1.0, nan, 1.0]), action="BUY").places.tolist() == [0], "NaN is never true"
    each = market.hits(np.array([True, True, True]), action="SELL", confidence=np.array([0.1, 0.2, 0.3]))
    assert (each.places.tolist(), each.confidence) == ([0, 1], (0.1, 0.2))
    both = hits + each
    assert (len(both), both.places.tolist(), both.action) == (3, [0, 0, 1], ("BUY", "SELL", "SELL"))


def test_hits_refuse_a_mask_of_another_shape() -> None:
    with pytest.raises(StrategyError, match=r"mask must have shape \(3,\) or \(bars, 3\); got \(2,\)"):
        context().hits(np.array([True, False]), action="BUY")


def test_outputs_are_attributes_and_entries_under_every_name() -> None:
    macd, signal = np.zeros((2, 3)), np.ones((2, 3))
    outputs = Outputs({"macd": macd, "signal": signal}, {"diff": "macd", "dea": "signal"})
    assert outputs.macd is outputs.diff is outputs["diff"] is macd
    assert outputs.dea is outputs["signal"] is signal
    assert list(outputs) == ["macd", "signal"]
    assert outputs.of(1).signal.tolist() == [1.0, 1.0]
    with pytest.raises(AttributeError, match="no output 'hist'; there are macd, signal"):
        _ = outputs.hist


class Watcher(BaseStrategy):
    """One symbol at a time."""

    def evaluate(self, context: SymbolContext) -> Any:
        assert (context.frame, context.bar_end) == ("1d", 5)
        if context.indicators["x"][-1] > 0.5:
            return context.signal("ALERT", 0.3)
        return None


def test_one_symbol_at_a_time() -> None:
    market = context(x=np.array([[0.0, 0.0, 9.0], [1.0, 0.2, 9.0]]), macd=Outputs({"hist": np.ones((2, 3))}, {}))
    hits = Watcher().run(market)
    assert (hits.places.tolist(), hits.action, hits.confidence) == ([0], ("ALERT",), (0.3,))
    assert hits.values == ({"x": 1.0, "macd.hist": 1.0},)


def test_what_a_strategy_returns_must_be_what_it_should() -> None:
    class Wrong(BaseStrategy):
        def evaluate(self, context: SymbolContext) -> Any:
            return "BUY"

    class Worse(Strategy):
        def evaluate(self, market: MarketContext) -> Hits:
            return [1, 2]  # type: ignore[return-value]

    with pytest.raises(StrategyError, match=r"must return context.signal\(...\) or None; got str"):
        Wrong().run(context())
    with pytest.raises(StrategyError, match=r"must return market.hits\(...\); got list"):
        Worse().run(context())

"""One shard: who fires, who is kept silent and why."""

from typing import Any

import numpy as np
import pytest

from data.errors import StrategyError
from data.panel import NO_BAR, Packed
from scanner.decide import Newest, Standing, decide
from scanner.engines.base import Engine
from scanner.language import parse
from scanner.scan import base_terms, make_plan, scan_shard
from scanner.strategy import Hits

RULES = """
strategies:
  - {name: up, when: close > prev(close), action: BUY, confidence: 0.7, cooldown: 2}
  - {name: above, when: "close > SMA(close, 3)", action: ALERT}
  - {name: calm, when: not pct_change > 5, action: ALERT}
"""


def fired(answer: Any) -> dict[str, list[str]]:
    """Strategy -> the symbols it fired on."""
    found: dict[str, list[str]] = {}
    for hit in answer.hits:
        found.setdefault(hit.strategy, []).append(hit.symbol)
    return found


def test_a_hit_says_what_made_it(strategies: Any, pack: Any, engine: Engine) -> None:
    packed = pack({"300750.SZ": [10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 12.0]})
    plan = make_plan("1d", strategies(RULES).values())
    answer = scan_shard(plan, packed, int(packed.bar_ends[-1, 0]), engine)
    up = answer.hits[0]
    assert (up.strategy, up.symbol, up.action, up.confidence, up.price) == ("up", "300750.SZ", "BUY", 0.7, 12.0)
    assert up.values == {"close": 12.0, "prev(close,1)": 10.0}
    assert (up.at_limit_up, up.at_limit_down) == (True, False)
    assert up.silent_since == packed.bar_ends[-3, 0]
    assert (answer.n_symbols, answer.n_current, len(answer.times)) == (1, 1, 7)
    assert fired(answer) == {"up": ["300750.SZ"], "above": ["300750.SZ"]}


def test_who_has_no_bar_at_the_scanned_end_fires_nothing(strategies: Any, pack: Any, engine: Engine) -> None:
    whole = pack({"300750.SZ": [10.0, 11.0, 12.0], "600519.SH": [10.0, 11.0, 12.0], "600000.SH": [10.0] * 3})
    ends = whole.bar_ends.copy()
    ends[:, 1] = np.r_[NO_BAR, ends[:-1, 1]]  # its newest bar is the day before's
    packed = Packed("1d", whole.symbols, ends, np.array([3, 2, 3]), whole.fields)
    answer = scan_shard(make_plan("1d", strategies(RULES).values()), packed, int(ends[-1, 0]), engine)
    assert fired(answer)["up"] == ["300750.SZ"]
    assert (answer.n_symbols, answer.n_current) == (3, 2)


def test_the_unknown_fires_nothing_and_neither_does_its_opposite(strategies: Any, pack: Any, engine: Engine) -> None:
    """On a first day nobody knows the previous close: `not pct_change > 5` is as unknown as `pct_change > 5`."""
    packed = pack({"300750.SZ": [10.0], "600519.SH": [10.0, 10.0]})
    answer = scan_shard(make_plan("1d", strategies(RULES).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert fired(answer) == {"calm": ["600519.SH"]}


GAP = [10.0] * 7 + [5.0, 5.1, 5.2, 5.3, 5.4]
"""An unseen split on the eighth day."""


@pytest.mark.parametrize(
    ("days", "silent", "loud"),
    [
        (8, ["above", "up"], []),  # both look across the gap
        (9, ["above"], ["up"]),  # today's and yesterday's close are of one basis; the mean of three is not
        (10, [], ["above", "up"]),  # the gap is the oldest bar of the window
    ],
)
def test_a_gap_keeps_silent_until_it_has_left_the_window(
    days: int, silent: list[str], loud: list[str], strategies: Any, pack: Any, engine: Engine
) -> None:
    rules = "strategies:\n" + "".join(
        f'  - {{name: {name}, when: "{when}", action: BUY}}\n'
        for name, when in (("above", "close != 0 * SMA(close, 3)"), ("up", "close != 0 * prev(close)"))
    )
    packed = pack({"300750.SZ": GAP[:days]})
    answer = scan_shard(make_plan("1d", strategies(rules).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert sorted(answer.gapped) == [(name, "300750.SZ") for name in silent]
    assert sorted(fired(answer)) == loud


def test_a_known_factor_covers_the_gap(strategies: Any, pack: Any, engine: Engine) -> None:
    prev = [np.nan] * 7 + [5.0, 5.0, 5.1, 5.2, 5.3]
    packed = pack({"300750.SZ": {"close": GAP[:9], "prev_close": prev[:9]}})
    answer = scan_shard(make_plan("1d", strategies(RULES).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert answer.gapped == []
    hit = next(hit for hit in answer.hits if hit.strategy == "above")
    assert hit.values == {"close": 5.1, "SMA(3)": pytest.approx((5 + 5 + 5.1) / 3)}
    assert hit.price == 5.1


def test_what_lies_behind_the_whole_history_is_never_forgotten(strategies: Any, pack: Any, engine: Engine) -> None:
    rule = "strategies: [{name: since, when: bars_since(close > 1) < 5, action: BUY}]"
    packed = pack({"300750.SZ": GAP})
    answer = scan_shard(make_plan("1d", strategies(rule).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert answer.gapped == [("since", "300750.SZ")]


def test_a_gap_in_what_would_not_have_fired_is_none(strategies: Any, pack: Any, engine: Engine) -> None:
    packed = pack({"300750.SZ": GAP[:8]})
    answer = scan_shard(make_plan("1d", strategies(RULES).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert answer.gapped == []


def test_a_universe_narrows_a_rule(strategies: Any, pack: Any, engine: Engine) -> None:
    rules = RULES.replace("cooldown: 2", "universe: {boards: [chinext], min_bars_listed: 3}")
    packed = pack({"300750.SZ": [10.0, 10, 11], "300751.SZ": [10.0, 11], "600519.SH": [10.0, 10, 11]})
    answer = scan_shard(make_plan("1d", strategies(rules).values()), packed, int(packed.bar_ends[-1, 0]), engine)
    assert fired(answer)["up"] == ["300750.SZ"]


def test_a_shard_without_any_bar_answers(strategies: Any, pack: Any, engine: Engine) -> None:
    rules = RULES + "  - {name: top, when: rank(close) > 0.9 and board == 'star' and MACD.hist > 0, action: BUY}\n"
    whole = pack({"300750.SZ": [10.0, 11.0]})
    nothing = Packed(
        "1d", ("600519.SH",), np.full((0, 1), NO_BAR), np.array([0]), {n: np.empty((0, 1)) for n in whole.fields}
    )
    answer = scan_shard(make_plan("1d", strategies(rules).values()), nothing, int(whole.bar_ends[-1, 0]), engine)
    assert (answer.n_symbols, answer.n_current, answer.hits, len(answer.times)) == (0, 0, [], 0)
    assert answer.newest is not None
    assert answer.newest.symbols == ("600519.SH",)
    assert not answer.standings["top"].eligible.any()


def test_a_plan_computes_what_its_strategies_share_once(strategies: Any) -> None:
    rules = """
strategies:
  - {name: a, when: "cross_over(MACD.macd, MACD.signal)", action: BUY}
  - {name: b, when: "MACD(12, 26, 9).hist > 0 and rank(ROC(5)) > 0.9", action: BUY}
"""
    plan = make_plan("1d", strategies(rules).values(), ["RSI()", "MACD()"])
    assert plan.n_indicators == 3
    assert [rule.name for rule, _ in plan.rules] == ["a"]
    assert [candidate.name for candidate in plan.candidates] == ["b"]


def test_what_a_rule_across_the_market_is_evaluated_from() -> None:
    term = parse("rank(prev(ROC(5), 1)) > 0.9 and RSI(14) > prev(RSI(14)) and 1 < 2")
    found = [str(part) for part in base_terms([term])]
    assert found == ["prev(ROC(5),1)", "RSI(14) > prev(RSI(14),1)", "1 < 2"]


def words(*actions: str, confidence: float = 1.0, places: tuple[int, ...] = (0, 1, 2)) -> Hits:
    return Hits(np.array(places), actions, (confidence,) * len(actions), ({"x": 1.0},) * len(actions))


STANDING = Standing(np.array([True, False, True]), np.array([False, False, True]), np.zeros(3, dtype=np.int64))
NEWEST = Newest(("a", "b", "c"), np.array([True] * 3), np.array([1.0, 2.0, 3.0]), np.full((2, 3), np.nan))


def test_a_strategy_decides_only_over_its_own() -> None:
    hits, gapped = decide("s", words("BUY", "BUY", "BUY"), STANDING, NEWEST)
    assert [hit.symbol for hit in hits] == ["a"]
    assert (hits[0].at_limit_up, hits[0].at_limit_down) == (None, None)
    assert gapped == [("s", "c")]
    twice, _ = decide("s", words("BUY", "BUY", "SELL", places=(0, 0, 0)), STANDING, NEWEST)
    assert [(hit.symbol, hit.action) for hit in twice] == [("a", "BUY"), ("a", "SELL")]


def test_a_word_that_is_none_is_refused() -> None:
    with pytest.raises(StrategyError, match="action must be one of BUY, SELL, ALERT; got 'HOLD'"):
        decide("s", words("HOLD", places=(0,)), STANDING, NEWEST)
    with pytest.raises(StrategyError, match=r"confidence must be a number in \[0, 1\]; got nan"):
        decide("s", words("BUY", confidence=np.nan, places=(0,)), STANDING, NEWEST)

"""Routing: rules, and cooldown by rule, symbol, strategy and action."""

from dataclasses import replace

from data.signal import Signal
from streaming.alerts.routing import Router, Rule
from streaming.filter import Filter

ONE = Signal("macd", "v1", "600519.SH", "1m", 0, "BUY", 0.8, 10.5, "talib", 0)


def test_a_signal_goes_once_to_each_channel_of_the_rules_that_want_it() -> None:
    rules = [
        Rule(("desk", "mail"), Filter.of(strategies=["macd"], min_confidence=0.5)),
        Rule(("mail", "own"), Filter.of(symbols=["600519"], actions=["buy"])),
        Rule(("never",), Filter.of(min_confidence=0.9)),
    ]
    sell = replace(ONE, action="SELL")
    other = replace(ONE, symbol="000001.SZ", strategy="rsi")
    routed = Router(rules).route([ONE, sell, other], 0)
    assert routed.signals == {"desk": [ONE, sell], "mail": [ONE, sell], "own": [ONE]}
    assert not routed.cooling
    assert Router(rules).channels(ONE) == {"desk", "mail", "own"}


def test_cooldown_is_by_rule_symbol_strategy_and_action() -> None:
    router = Router([Rule(("slow",), cooldown_s=300), Rule(("fast",), cooldown_s=10)])
    assert set(router.route([ONE], 0).signals) == {"slow", "fast"}
    others = [replace(ONE, symbol="000001.SZ"), replace(ONE, strategy="rsi"), replace(ONE, action="SELL")]
    routed = router.route([ONE, *others], 9.9)
    assert routed.signals == {"slow": others, "fast": others}
    assert routed.cooling == {"slow": 1, "fast": 1}
    routed = router.route([ONE], 10)
    assert (routed.signals, routed.cooling) == ({"fast": [ONE]}, {"slow": 1})
    assert set(router.route([ONE], 299).signals) == {"fast"}
    assert set(router.route([ONE], 300).signals) == {"slow"}  # which the fast one had at 299


def test_what_takes_a_signal_back_is_told_however_soon() -> None:
    router = Router([Rule(("desk",), cooldown_s=300)])
    router.route([ONE], 0)
    back = replace(ONE, revision=1, revokes=ONE.id)
    assert router.route([back], 1).signals == {"desk": [back]}


def test_what_has_cooled_down_is_forgotten() -> None:
    router = Router([Rule(("desk",), cooldown_s=30)])
    for n in range(1000):
        router.route([replace(ONE, symbol=f"{n:06d}.SZ")], n)
    assert len(router._until) <= 91

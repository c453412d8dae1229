"""Which signal goes to which channel, and which is told too soon after another like it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data.signal import Signal
from streaming.filter import Filter

Key = tuple[int, str, str, str]
"""(number of the rule, symbol, strategy, action)."""


@dataclass(frozen=True)
class Rule:
    """What passes `wants` goes to `channels`, and the same symbol, strategy and action not again for `cooldown_s`."""

    channels: tuple[str, ...]
    wants: Filter = field(default_factory=Filter)
    cooldown_s: float = 0.0


@dataclass(frozen=True)
class Routed:
    """Signals by channel, and how many of each channel were too soon after another."""

    signals: Mapping[str, Sequence[Signal]]
    cooling: Counter[str]


class Router:
    """Applies rules; holds until when each of a rule's signals cools down.

    A signal that several rules send to one channel goes there once. One that takes another back is never held: whoever
    was told the first must hear of it.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = list(rules)
        self._until: dict[Key, float] = {}
        self._swept = 0.0

    def route(self, signals: Sequence[Signal], now: float) -> Routed:
        """Signals of one scan at the time `now` (seconds, of any clock that does not go back)."""
        self._sweep(now)
        passed: dict[str, list[Signal]] = {}
        cooling: Counter[str] = Counter()
        for signal in signals:
            to, held = dict[str, None](), dict[str, None]()
            for number, rule in enumerate(self._rules):
                if rule.wants.wants(vars(signal)):
                    cools = self._cools(number, rule, signal, now)
                    (held if cools else to).update(dict.fromkeys(rule.channels))
            for channel in to:
                passed.setdefault(channel, []).append(signal)
            cooling.update(held.keys() - to.keys())
        return Routed(passed, cooling)

    def channels(self, signal: Signal) -> set[str]:
        """Where a signal would go if nothing cooled down."""
        return {name for rule in self._rules if rule.wants.wants(vars(signal)) for name in rule.channels}

    def _cools(self, number: int, rule: Rule, signal: Signal, now: float) -> bool:
        if signal.revokes is not None or not rule.cooldown_s:
            return False
        key = (number, signal.symbol, signal.strategy, signal.action)
        if self._until.get(key, now) > now:
            return True
        self._until[key] = now + rule.cooldown_s
        return False

    def _sweep(self, now: float) -> None:
        """Forget, once a minute, what has cooled down."""
        if now - self._swept >= 60:
            self._swept = now
            self._until = {key: until for key, until in self._until.items() if until > now}

"""Which signals a subscriber of /ws/signals wants: said when it subscribes, checked and applied by the server."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import UsageError
from data.signal import ACTIONS
from data.symbols import canonical

LISTS = ("symbols", "strategies", "actions")
FIELDS = (*LISTS, "min_confidence")


@dataclass(frozen=True)
class Filter:
    """Signals of these symbols, strategies and actions, with at least this confidence; None lets all pass."""

    symbols: frozenset[str] | None = None
    strategies: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    min_confidence: float | None = None

    @classmethod
    def of(
        cls,
        *,
        symbols: Iterable[str] | None = None,
        strategies: Iterable[str] | None = None,
        actions: Iterable[str] | None = None,
        min_confidence: float | None = None,
    ) -> "Filter":
        """From plain values; symbols in any spelling, actions in any case. Raises UsageError naming what is wrong."""
        names = None if actions is None else frozenset(action.upper() for action in actions)
        if names is not None and (wrong := names.difference(ACTIONS)):
            raise UsageError(f"actions must be among {', '.join(ACTIONS)}; got {', '.join(sorted(wrong))!r}")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence must be a number in [0, 1]; got {min_confidence!r}")
        return cls(
            None if symbols is None else frozenset(canonical(symbol) for symbol in symbols),
            None if strategies is None else frozenset(strategies),
            names,
            min_confidence,
        )

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> "Filter":
        """From the fields of a `subscribe` message. Raises UsageError naming the field, its value and the bound."""
        for name in LISTS:
            value = message.get(name)
            if value is not None and (
                not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value)
            ):
                raise UsageError(
                    f"{name} must be a list of texts, not empty (leave it out for all); got {short(value)}"
                )
        least = message.get("min_confidence")
        if least is not None and (isinstance(least, bool) or not isinstance(least, int | float) or math.isnan(least)):
            raise UsageError(f"min_confidence must be a number in [0, 1]; got {short(least)}")
        return cls.of(**{name: message.get(name) for name in FIELDS})

    def wants(self, signal: Mapping[str, Any]) -> bool:
        """Whether a signal, as `Signal.to_dict` gives it, passes."""
        return (
            (self.symbols is None or signal["symbol"] in self.symbols)
            and (self.strategies is None or signal["strategy"] in self.strategies)
            and (self.actions is None or signal["action"] in self.actions)
            and (self.min_confidence is None or signal["confidence"] >= self.min_confidence)
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields of a `subscribe` message that say the same."""
        lists = {name: sorted(value) for name in LISTS if (value := getattr(self, name)) is not None}
        return lists | ({} if self.min_confidence is None else {"min_confidence": self.min_confidence})


def short(value: Any) -> str:
    """A value in an error message, never long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

"""What strategies found at a bar -> hits: less the symbols that are not theirs, have no bar, or lie behind a gap."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.signal import finite
from scanner.strategy import Hits, check_action, check_confidence

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Hit(NamedTuple):
    """One strategy's word on one symbol, before it is a signal.

    `silent_since`: the bar end (UTC ns) of the bar `cooldown` bars ago: a signal at or after it keeps this one silent.
    """

    strategy: str
    symbol: str
    action: str
    confidence: float
    price: float
    values: Mapping[str, float | None]
    silent_since: int
    at_limit_up: bool | None = None
    at_limit_down: bool | None = None


@dataclass(frozen=True)
class Standing:
    """What symbols are to one strategy, each array (symbols,)."""

    eligible: Mask
    """Whether it has a bar at the scanned bar end and is in the strategy's universe."""
    gapped: Mask
    """Whether an ex-rights gap lies among the bars that the strategy looks at, with an older price."""
    silent_since: Array
    """As in `Hit`."""

    @functools.cached_property
    def clear(self) -> bool:
        """Whether all are the strategy's own, and behind no gap."""
        return bool(self.eligible.all()) and not self.gapped.any()

    @functools.cached_property
    def since(self) -> list[int]:
        """`silent_since` as a list."""
        found: list[int] = self.silent_since.tolist()
        return found


@dataclass(frozen=True)
class Newest:
    """The scanned bar of some symbols, each array (symbols,) but `at_limit`."""

    symbols: tuple[str, ...]
    current: Mask
    """Whether a symbol has a bar there."""
    price: Array
    """CNY, raw close of its newest bar."""
    at_limit: Array
    """(2, symbols): whether it closed at limit up, and down, as 1.0, 0.0 or NaN where unknown."""

    @functools.cached_property
    def rows(self) -> list[tuple[str, float, bool | None, bool | None]]:
        """Symbol, price and limits, symbol by symbol."""
        up, down = (map(_KNOWN.get, side.tolist()) for side in self.at_limit)
        return list(zip(self.symbols, self.price.astype(float).tolist(), up, down, strict=True))


_KNOWN = {1.0: True, 0.0: False}


def decide(name: str, found: Hits, standing: Standing, newest: Newest) -> tuple[list[Hit], list[tuple[str, str]]]:
    """What a strategy found, less the symbols that are not its own or have no bar; and those behind a gap.

    Raises StrategyError for an action or a confidence that is none.
    """
    places = np.asarray(found.places, dtype=np.intp).tolist()
    strengths: list[float] = []
    known: tuple[object, object] | None = None
    for action, confidence in zip(found.action, found.confidence, strict=True):
        if known is None or known[0] is not action or known[1] is not confidence:
            strength = check_confidence(confidence)
            check_action(action)
            known = action, confidence
        strengths.append(strength)
    gapped: list[tuple[str, str]] = []
    columns: list[Sequence[Any]] = [places, found.action, strengths, found.values]
    if not standing.clear or len(set(places)) < len(places):
        chosen = _chosen(places, found.action, standing)
        columns = [[column[k] for k in chosen] for column in columns]
        behind = dict.fromkeys(j for j in places if standing.eligible[j] and standing.gapped[j])
        gapped = [(name, newest.symbols[j]) for j in behind]
    places, rows, since = columns[0], newest.rows, standing.since
    # A sum is finite only if every number is.
    shown = [v if math.isfinite(sum(v.values())) else {k: finite(x) for k, x in v.items()} for v in columns[3]]
    words = zip([rows[j] for j in places], columns[1], columns[2], shown, [since[j] for j in places], strict=True)
    hits = [
        _new(Hit, (name, symbol, action, strength, price, values, silent, up, down))
        for (symbol, price, up, down), action, strength, values, silent in words
    ]
    return hits, gapped


_new: Callable[[type[Hit], tuple[Any, ...]], Hit] = tuple.__new__  # far sooner than by its constructor


def _chosen(places: Sequence[int], actions: Sequence[str], standing: Standing) -> list[int]:
    """Which of what was found counts: each action once, of symbols that are the strategy's own and behind no gap."""
    mine = (standing.eligible & ~standing.gapped).tolist()
    first: dict[tuple[int, str], int] = {}
    for k, (j, action) in enumerate(zip(places, actions, strict=True)):
        if mine[j]:
            first.setdefault((j, action), k)
    return list(first.values())

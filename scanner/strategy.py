"""Strategies: rules from YAML files and classes from Python files, checked the same way, in one registry.

A strategy that does not load is refused with its file, line, column and the remedy, before anything runs.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from data.errors import StrategyError
from data.signal import ACTIONS, Signal
from scanner.evaluate import needed
from scanner.fields import Source
from scanner.functions import FUNCTIONS
from scanner.terms import Term, order

BUILTIN = Path(__file__).parent / "strategies"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Universe:
    """Which symbols a strategy looks at, beyond those that the scan covers.

    `boards`: only these. `exclude`: `st` (where the status is known), a board or a kind. `min_bars_listed`: bars a symbol
    must have had. `min_amount_cny`: what must have been traded in the session of the scanned bar, up to it.
    """

    boards: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_bars_listed: int = 0
    min_amount_cny: float = 0.0

    def mask(self, source: Source) -> npt.NDArray[np.bool_]:
        """(symbols,): who is in, at the newest bars of `source`."""
        inside = np.ones(len(source.packed.symbols), dtype=bool)
        if self.boards:
            inside &= np.isin(source.boards.astype(str), self.boards)
        for excluded in self.exclude:
            if excluded == "st":
                inside &= source.st(1)[-1] != 1.0
            else:
                inside &= (source.boards != excluded) & (source.kinds != excluded)
        if self.min_bars_listed:
            inside &= source.listed(1)[-1] >= self.min_bars_listed
        if self.min_amount_cny:
            inside &= session_amount(source) >= self.min_amount_cny
        return inside


def session_amount(source: Source) -> Array:
    """(symbols,) CNY traded in the session of each symbol's newest bar, up to that bar; NaN where unknown."""
    if source.packed.frame == "1d":
        return source.raw("amount", 1)[-1]
    keep = min(source.length, 240)
    days = source.days(keep)
    return np.where(days == days[-1], source.raw("amount", keep), 0.0).sum(axis=0)


@dataclass(frozen=True)
class Rule:
    """A strategy written as an expression."""

    name: str
    when: Term
    action: str
    confidence: float
    version: str
    frames: tuple[str, ...] = ()
    """Empty: any frame."""
    universe: Universe = Universe()
    cooldown: int = 0
    """Bars after a signal during which the same symbol gives none."""
    title: str = ""
    place: str = ""
    """file:line"""

    @property
    def across(self) -> bool:
        """Whether it looks across the market, and so is evaluated once for all shards."""
        return any(term.op == "function" and FUNCTIONS[term.data[0]].across for term in order([self.when]))

    @property
    def shown(self) -> tuple[Term, ...]:
        """The values that a signal shows: every field, indicator output and function that the rule compares."""
        return tuple(dict.fromkeys(_shown(self.when)))

    def terms(self) -> dict[Term, int]:
        """What must be computed for it -> how many bars of it."""
        return {self.when: 1} | dict.fromkeys(self.shown, 1)


def _shown(term: Term) -> Iterator[Term]:
    if term.op in ("output", "indicator") or (term.op == "field" and term.kind == "number"):
        yield term
    elif term.op == "function" and term.data[0] not in ("cross_over", "cross_under", "every", "count", "abs"):
        yield term
    else:
        for arg in term.args:
            yield from _shown(arg)


MEMORY = 5
"""An indicator that feeds on its own past has forgotten a bar to about 1 % after this many times its lookback."""


def window(terms: Mapping[Term, int]) -> int | None:
    """How many of a symbol's newest bars the values of `terms` depend on; None: all of them."""
    length = 1 << 30
    need = needed(terms, length)
    depth: dict[Term, int] = dict.fromkeys(need, 0)
    for term in terms:
        depth[term] = max(depth[term], terms[term])
    for term in reversed(need):
        for arg in term.args:
            depth[arg] = max(depth[arg], depth[term] + _reach(term))
    deepest = max((depth[term] for term in need), default=1)
    return None if deepest >= length else deepest


def _reach(term: Term) -> int:
    if term.op == "indicator":
        indicator = term.indicator
        lookback = int(indicator.lookback(**term.parameters))
        return MEMORY * (lookback + 1) if indicator.recursive else lookback
    if term.op == "function":
        reach = FUNCTIONS[term.data[0]].reach(term.data[1] or 1)
        return 1 << 30 if reach is None else reach
    return 0


@dataclass(frozen=True)
class Hits:
    """What a Python strategy found: places among `market.symbols`, with the word on each."""

    places: npt.NDArray[np.int64]
    action: tuple[str, ...]
    confidence: tuple[float, ...]
    values: tuple[Mapping[str, float], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def __add__(self, other: "Hits") -> "Hits":
        return Hits(
            np.concatenate([self.places, other.places]),
            self.action + other.action,
            self.confidence + other.confidence,
            self.values + other.values,
        )


class Outputs(Mapping[str, Array]):
    """The outputs of one indicator by name, as attributes and as a mapping; each (bars, symbols), the newest last."""

    def __init__(self, outputs: Mapping[str, Array], aliases: Mapping[str, str]) -> None:
        self._outputs = outputs
        self._aliases = aliases

    def __getitem__(self, name: str) -> Array:
        return self._outputs[self._aliases.get(name, name)]

    def __getattr__(self, name: str) -> Array:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; there are {', '.join(self._outputs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def of(self, place: int) -> "Outputs":
        """The outputs of one symbol, each (bars,)."""
        return Outputs({name: values[:, place] for name, values in self._outputs.items()}, self._aliases)


@dataclass(frozen=True)
class MarketContext:
    """The whole market at one bar, as a Python strategy sees it.

    `indicators`: the strategy's own names -> float64 (bars, symbols), each symbol's own bars, the newest last; an
    indicator with several outputs has them as attributes. `price`: (symbols,) CNY, raw close. `current`: (symbols,)
    whether a symbol has a bar at `bar_end`: only those can fire.
    """

    frame: str
    bar_end: int
    symbols: tuple[str, ...]
    names: Mapping[str, str]
    indicators: Mapping[str, Any]
    price: Array
    current: npt.NDArray[np.bool_]

    def hits(self, mask: Array, *, action: str, confidence: float | Array = 1.0) -> Hits:
        """Symbols whose newest bar fulfils `mask`, (symbols,) or (bars, symbols); NaN is never true."""
        newest = np.asarray(mask)[-1] if np.ndim(mask) == 2 else np.asarray(mask)
        if newest.shape != (len(self.symbols),):
            raise StrategyError(
                f"hits: mask must have shape ({len(self.symbols)},) or (bars, {len(self.symbols)}); got {np.shape(mask)}"
            )
        met = newest == 1
        places = np.flatnonzero(met & self.current)
        strength = np.broadcast_to(confidence, newest.shape)[places]
        return Hits(
            places,
            (action,) * len(places),
            tuple(float(value) for value in strength),
            tuple(self._values(int(place)) for place in places),
        )

    def _values(self, place: int) -> dict[str, float]:
        shown = {}
        for name, values in self.indicators.items():
            if isinstance(values, Outputs):
                shown |= {f"{name}.{output}": float(values[output][-1, place]) for output in values}
            else:
                shown[name] = float(values[-1, place])
        return shown


@dataclass(frozen=True)
class SymbolContext:
    """One symbol at one bar; `indicators.get("MACD")` is an indicator's outputs, each (bars,), the newest last."""

    frame: str
    bar_end: int
    symbol: str
    name: str | None
    price: float
    indicators: Mapping[str, Any]

    def signal(self, action: str, confidence: float = 1.0) -> Signal:
        """A signal on this symbol at this bar."""
        return Signal("", "", self.symbol, self.frame, self.bar_end, action, confidence, self.price, "", 0)


class PythonStrategy(Protocol):
    """What a strategy of either Python kind shows to the scan."""

    name: str
    frames: tuple[str, ...]
    universe: Universe
    cooldown: int
    bars: int
    indicators: Mapping[str, str]
    version: str
    place: str
    title: str

    def run(self, market: MarketContext) -> Hits: ...


class _Python:
    """What both kinds of Python strategies declare."""

    name: ClassVar[str] = ""
    """The class's own name if empty."""
    frame: ClassVar[str | Sequence[str] | None] = None
    """One frame, several, or any."""
    universe: ClassVar[Universe] = Universe()
    cooldown: ClassVar[int] = 0
    bars: ClassVar[int] = 2
    """How many bars of each indicator are handed over."""
    indicators: ClassVar[Mapping[str, str] | Sequence[str]] = {}
    """Name -> expression of the rule language; a list of expressions names each by itself."""


class Strategy(_Python):
    """Base of strategies that see the whole market at once."""

    def evaluate(self, market: MarketContext) -> Hits:
        """The symbols that fire at `market.bar_end`: `market.hits(mask, action=..., confidence=...)`."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluate(self, market)")

    def run(self, market: MarketContext) -> Hits:
        """What the scan calls."""
        hits = self.evaluate(market)
        if not isinstance(hits, Hits):
            raise StrategyError(f"evaluate must return market.hits(...); got {type(hits).__name__}")
        return hits


class BaseStrategy(_Python):
    """Base of strategies that look at one symbol at a time."""

    def evaluate(self, context: SymbolContext) -> Signal | None:
        """A signal, by `context.signal(action, confidence)`, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluate(self, context)")

    def run(self, market: MarketContext) -> Hits:
        """What the scan calls: `evaluate` for every symbol with a bar."""
        places, actions, confidences, values = [], [], [], []
        for place in np.flatnonzero(market.current):
            at = int(place)
            symbol = market.symbols[at]
            indicators = {
                name: v.of(at) if isinstance(v, Outputs) else v[:, at] for name, v in market.indicators.items()
            }
            context = SymbolContext(
                market.frame, market.bar_end, symbol, market.names.get(symbol), float(market.price[at]), indicators
            )
            signal = self.evaluate(context)
            if signal is None:
                continue
            places.append(at)
            actions.append(signal.action)
            confidences.append(float(signal.confidence))
            values.append(market._values(at))
        return Hits(np.array(places, dtype=np.int64), tuple(actions), tuple(confidences), tuple(values))


def check_word(action: object, confidence: object) -> None:
    """Refuse an action or a confidence that is none, naming it, its value and the bound."""
    if action not in ACTIONS:
        raise StrategyError(f"action must be one of {', '.join(ACTIONS)}; got {action!r}")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise StrategyError(f"confidence must be a number in [0, 1]; got {confidence!r}")


def version_of(content: Any) -> str:
    """Twelve hexadecimal digits that change when the strategy's content does."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

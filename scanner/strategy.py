"""Strategies: rules from YAML files and classes from Python files, checked the same way, in one registry.

A strategy that does not load is refused with its file, line, column and the remedy, before anything runs.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from data.errors import StrategyError
from data.schema import FRAMES
from data.signal import ACTIONS, Signal
from data.symbols import BOARDS, KINDS
from scanner.fields import Source
from scanner.functions import FUNCTIONS
from scanner.terms import Term, order

BUILTIN = Path(__file__).parent / "strategies"
EXCLUDABLE = tuple(dict.fromkeys(("st", *BOARDS, *KINDS)))
BARS_A_SESSION = {"1m": 240, "5m": 48, "15m": 16, "30m": 8, "60m": 4, "1d": 1}
Array = npt.NDArray[Any]


def check_frames(value: object) -> tuple[str, ...]:
    """One frame or several -> frames, none meaning any; raises StrategyError, as all the checks do."""
    return () if value is None else _words("frame", value, FRAMES)


def check_action(value: object) -> str:
    """BUY, SELL or ALERT."""
    if value not in ACTIONS:
        raise StrategyError(f"action must be one of {', '.join(ACTIONS)}; got {value!r}")
    return str(value)


def check_confidence(value: object) -> float:
    """A share in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
        raise StrategyError(f"confidence must be a number in [0, 1]; got {value!r}")
    return float(value)


def check_cooldown(value: object) -> int:
    """Bars, 0 or more."""
    return _whole("cooldown", value, 0)


def check_bars(value: object) -> int:
    """Bars, 1 or more."""
    return _whole("bars", value, 1)


def _whole(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StrategyError(f"{what} must be an integer of {least} or more; got {value!r}")
    return value


def _words(what: str, value: object, known: Collection[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Sequence) or not value:
        raise StrategyError(f"{what} must be one or a list of {', '.join(known)}; got {value!r}")
    for word in value:
        if word not in known:
            raise StrategyError(f"{what} must be of {', '.join(known)}; got {word!r}")
    return tuple(dict.fromkeys(value))


@dataclass(frozen=True)
class Universe:
    """Which symbols a strategy looks at, beyond those that the scan covers; raises StrategyError for what cannot be.

    `boards`: only these. `exclude`: `st` (where the status is known), a board or a kind. `min_bars_listed`: bars a
    symbol must have had. `min_amount_cny`: what must have been traded in the session of the scanned bar, up to it.
    """

    boards: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_bars_listed: int = 0
    min_amount_cny: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("boards", BOARDS), ("exclude", EXCLUDABLE)):
            value = getattr(self, name)
            object.__setattr__(self, name, value if value == () else _words(name, value, known))
        _whole("min_bars_listed", self.min_bars_listed, 0)
        amount: object = self.min_amount_cny
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount >= 0:
            raise StrategyError(f"min_amount_cny must be a number of 0 or more; got {amount!r}")

    def mask(self, source: Source) -> npt.NDArray[np.bool_]:
        """(symbols,): who is in, at the newest bars of `source`, which has some."""
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
    keep = min(source.length, BARS_A_SESSION[source.packed.frame])
    days = source.days(keep)
    total: Array = np.where(days == days[-1], source.raw("amount", keep), 0.0).sum(axis=0)
    return total


@dataclass(frozen=True)
class Rule:
    """A strategy written as an expression."""

    name: str
    when: Term
    action: str
    version: str
    confidence: float = 1.0
    frames: tuple[str, ...] = ()
    """Empty: any frame."""
    universe: Universe = Universe()
    cooldown: int = 0
    """Bars after a signal during which the same symbol gives none."""
    title: str = ""
    place: str = ""
    """file:line"""

    @property
    def shown(self) -> tuple[Term, ...]:
        """The values that a signal shows: every field, indicator output and function that the rule compares."""
        return tuple(dict.fromkeys(_shown(self.when)))


def _shown(term: Term) -> Iterator[Term]:
    named = term.op in ("field", "indicator", "output", "function") and term.data != ("abs", None)
    if named and term.kind == "number":
        yield term
    else:
        for arg in term.args:
            yield from _shown(arg)


MEMORY = 5
"""An indicator that feeds on its own past has forgotten a bar to about 1 % after this many times its lookback."""


def window(terms: Mapping[Term, int]) -> int | None:
    """How many of a symbol's newest bars the values of `terms` depend on; None: all of them."""
    endless = 1 << 30
    depth = dict.fromkeys(order(terms), 0)
    for term, keep in terms.items():
        depth[term] = keep
    for term in reversed(depth):
        for arg in term.args:
            depth[arg] = max(depth[arg], depth[term] + _reach(term, endless))
    deepest = max(depth.values(), default=1)
    return None if deepest >= endless else deepest


def _reach(term: Term, endless: int) -> int:
    if term.op == "indicator":
        indicator = term.indicator
        lookback = int(indicator.lookback(**term.parameters))
        return MEMORY * (lookback + 1) if indicator.recursive else lookback
    if term.op == "function":
        reach = FUNCTIONS[term.data[0]].reach(term.data[1] or 1)
        return endless if reach is None else reach
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

    `current`: (symbols,) whether a symbol has a bar at `bar_end`, and has had those that the strategy needs where
    that is asked: only those can fire. `indicators`: the strategy's own names -> float64 (bars, symbols), each
    symbol's own bars, the newest last, conditions as 1.0 and 0.0, NaN where unknown and where a symbol is not
    current; an indicator with several outputs has them as attributes. `price`: (symbols,) CNY, raw close.
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
        n = len(self.symbols)
        if newest.shape != (n,):
            raise StrategyError(f"hits: mask must have shape ({n},) or (bars, {n}); got {np.shape(mask)}")
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
        shown: dict[str, float] = {}
        for name, values in self.indicators.items():
            if isinstance(values, Outputs):
                shown |= {f"{name}.{output}": float(values[output][-1, place]) for output in values}
            elif values.dtype != object:
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
    terms: Mapping[str, Term]
    """Its own names -> what they stand for."""
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
            if not isinstance(signal, Signal):
                raise StrategyError(f"evaluate must return context.signal(...) or None; got {type(signal).__name__}")
            places.append(at)
            actions.append(signal.action)
            confidences.append(float(signal.confidence))
            values.append(market._values(at))
        return Hits(np.array(places, dtype=np.int64), tuple(actions), tuple(confidences), tuple(values))


def version_of(content: Any) -> str:
    """Twelve hexadecimal digits that change when the strategy's content does."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""One scan: what is computed (Plan), what one shard answers (ShardAnswer), and how answers become hits.

A shard evaluates the rules that look at one symbol and returns the hits alone. What looks across the market, and every
Python strategy, is evaluated once, on the last bars of the terms it names, which the shards return. Which symbols share
a shard changes nothing.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data.panel import NO_BAR, Packed
from data.signal import Signal, finite
from scanner.engines.base import Engine
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.functions import FUNCTIONS
from scanner.strategy import Hits, MarketContext, Outputs, PythonStrategy, Rule, Universe, check_word, window
from scanner.terms import Term, order, parse

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Candidate:
    """What a shard must know of a strategy to say which symbols may fire it."""

    name: str
    universe: Universe
    cooldown: int
    window: int | None


@dataclass(frozen=True)
class Plan:
    """What one scan of one frame computes; travels to the shards.

    `rules`: those a shard can decide. `wanted`: terms of which it returns the last bars. `candidates`: the strategies
    decided from those, by name. `extra`: terms computed for their own sake.
    """

    frame: str
    rules: tuple[tuple[Rule, Candidate], ...] = ()
    wanted: tuple[tuple[Term, int], ...] = ()
    candidates: tuple[Candidate, ...] = ()
    extra: tuple[Term, ...] = ()

    @property
    def terms(self) -> dict[Term, int]:
        """Every term a shard computes -> how many bars of it."""
        found: dict[Term, int] = {}
        for rule, _ in self.rules:
            for term, keep in rule.terms().items():
                found[term] = max(found.get(term, 0), keep)
        for term, keep in (*self.wanted, *((term, 1) for term in self.extra)):
            found[term] = max(found.get(term, 0), keep)
        return found

    @property
    def n_indicators(self) -> int:
        """How many distinct indicators, their parameters and inputs included, a scan computes."""
        return sum(term.op == "indicator" for term in order(self.terms))


def make_plan(frame: str, strategies: Iterable[Rule | PythonStrategy], extra: Iterable[str] = ()) -> Plan:
    """The plan of a scan of `frame` by `strategies`; `extra`: expressions to compute besides."""
    rules, candidates = [], []
    wanted: dict[Term, int] = {}
    for strategy in strategies:
        if isinstance(strategy, Rule):
            terms = strategy.terms()
            if not strategy.across:
                rules.append((strategy, _candidate(strategy, terms)))
                continue
            terms = dict.fromkeys(base_terms(terms), 1)
        else:
            terms = {parse(text): strategy.bars for text in strategy.indicators.values()}
        candidates.append(_candidate(strategy, terms))
        for term, keep in terms.items():
            wanted[term] = max(wanted.get(term, 0), keep)
    return Plan(frame, tuple(rules), tuple(wanted.items()), tuple(candidates), tuple(parse(text) for text in extra))


def _candidate(strategy: Rule | PythonStrategy, terms: Mapping[Term, int]) -> Candidate:
    return Candidate(strategy.name, strategy.universe, strategy.cooldown, window(terms))


def base_terms(terms: Iterable[Term]) -> list[Term]:
    """The largest parts of `terms` that look at one symbol alone: what a rule across the market is evaluated from."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if any(node.op == "function" and FUNCTIONS[node.data[0]].across for node in order([term])):
            for arg in term.args:
                visit(arg)
        elif term.op != "const":
            found[term] = None

    for term in terms:
        visit(term)
    return list(found)


@dataclass(frozen=True)
class Hit:
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


@dataclass
class ShardAnswer:
    """What one shard returns; arrays are (symbols,) or (bars, symbols) in the order of `symbols`."""

    symbols: tuple[str, ...]
    n_symbols: int
    n_current: int
    times: Array
    """The distinct bar ends among its bars."""
    hits: list[Hit]
    gapped: list[tuple[str, str]]
    """(strategy, symbol) that would have fired but for an ex-rights gap in the rule's window."""
    wanted: list[Any] = field(default_factory=list)
    price: Array = field(default_factory=lambda: np.empty(0))
    current: Array = field(default_factory=lambda: np.empty(0, dtype=bool))
    limits: Array = field(default_factory=lambda: np.empty((2, 0)))
    eligible: dict[str, Array] = field(default_factory=dict)
    """Candidate -> whether a symbol may fire it."""
    gaps: dict[str, Array] = field(default_factory=dict)
    silent_since: dict[str, Array] = field(default_factory=dict)
    elapsed_s: float = 0.0


def scan_shard(
    plan: Plan,
    packed: Packed,
    bar_end: int,
    engine: Engine,
    *,
    origin: int | None = None,
    names: Mapping[str, tuple[str, str]] | None = None,
    times: Array | None = None,
) -> ShardAnswer:
    """Scan the symbols of `packed` at `bar_end` (UTC ns). A symbol without a bar there fires nothing."""
    start = time.perf_counter()
    source = Source(packed, names=names, origin=origin)
    current = packed.bar_ends[:, -1] == bar_end if packed.length else np.zeros(len(packed.symbols), dtype=bool)
    values = evaluate(plan.terms, source, engine) if packed.length else {}
    hits: list[Hit] = []
    gapped: list[tuple[str, str]] = []
    limits = _Limits(source)
    for rule, candidate in plan.rules if packed.length else ():
        met = np.broadcast_to(values[rule.when], (1, len(current)))[-1] == 1.0
        if not met.any():
            continue
        met = met & current & rule.universe.mask(source)
        gap = _gap(source, candidate.window)
        gapped += [(rule.name, packed.symbols[j]) for j in np.flatnonzero(met & gap)]
        silent = _silent_since(packed, rule.cooldown)
        shown = [(str(term), np.broadcast_to(values[term], (1, len(current)))[-1]) for term in rule.shown]
        for j in np.flatnonzero(met & ~gap):
            hits.append(
                Hit(
                    rule.name,
                    packed.symbols[j],
                    rule.action,
                    rule.confidence,
                    float(packed.fields["close"][j, -1]),
                    {name: finite(float(column[j])) for name, column in shown},
                    int(silent[j]),
                    *limits.at(j),
                )
            )
    answer = ShardAnswer(
        packed.symbols,
        int((packed.lengths > 0).sum()),
        int(current.sum()),
        np.unique(packed.bar_ends[packed.bar_ends != NO_BAR]) if times is None else times,
        hits,
        gapped,
    )
    if plan.candidates:
        _add_candidates(answer, plan, source, values, current, limits)
    answer.elapsed_s = time.perf_counter() - start
    return answer


def _add_candidates(
    answer: ShardAnswer, plan: Plan, source: Source, values: Mapping[Term, Any], current: Array, limits: "_Limits"
) -> None:
    """What the strategies that are decided for all shards together need of this one."""
    n = len(current)
    for term, keep in plan.wanted:
        value = values.get(term)
        if isinstance(value, tuple):
            answer.wanted.append(tuple(_rows(part, keep, n) for part in value))
        else:
            outputs = len(term.indicator.outputs) if term.kind == "outputs" else 0
            empty = _rows(np.nan, keep, n)
            answer.wanted.append(
                _rows(value, keep, n) if value is not None else (empty,) * outputs if outputs else empty
            )
    empty_bars = source.length == 0
    answer.current = current
    answer.price = np.full(n, np.nan) if empty_bars else source.packed.fields["close"][:, -1].copy()
    answer.limits = np.full((2, n), np.nan) if empty_bars else limits.both
    for candidate in plan.candidates:
        answer.eligible[candidate.name] = np.zeros(n, dtype=bool) if empty_bars else candidate.universe.mask(source)
        answer.gaps[candidate.name] = _gap(source, candidate.window)
        answer.silent_since[candidate.name] = _silent_since(source.packed, candidate.cooldown)


def _rows(value: Any, keep: int, n: int) -> Array:
    """The last `keep` bars as a matrix of their own, padded above where there are fewer."""
    rows = np.broadcast_to(value, (1, n)) if np.ndim(value) == 0 else value
    out = np.full((keep, n), np.nan, dtype=rows.dtype if rows.dtype == object else np.float64)
    if np.ndim(value) == 0:
        out[:] = value
    else:
        out[keep - min(keep, len(rows)) :] = rows[len(rows) - min(keep, len(rows)) :]
    return out


class _Limits:
    """Whether symbols stand at their limits, computed when the first hit asks."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._both: Array | None = None

    @property
    def both(self) -> Array:
        """(2, symbols): at limit up, at limit down, as 1.0, 0.0 or NaN."""
        if self._both is None:
            close = self._source.raw("close", 1)[-1]
            up, down = (limit[-1] for limit in self._source.limits(1))
            self._both = np.array(
                [
                    np.where(np.isnan(up), np.nan, close >= up - 1e-6),
                    np.where(np.isnan(down), np.nan, close <= down + 1e-6),
                ]
            )
        return self._both

    def at(self, j: int) -> tuple[bool | None, bool | None]:
        """Of one symbol, None where unknown."""
        up, down = self.both[:, j]
        return _flag(up), _flag(down)


def _flag(value: float) -> bool | None:
    return None if np.isnan(value) else bool(value)


def _gap(source: Source, window: int | None) -> npt.NDArray[np.bool_]:
    """(symbols,): whether an ex-rights gap lies within the newest `window` bars, so that an older price is among them."""
    gaps = source.gaps
    n = len(source.packed.symbols)
    if gaps is None:
        return np.zeros(n, dtype=bool)
    # A gap at the window's oldest bar has every price of the window on its own side.
    return np.asarray(
        gaps[:, 1:].any(axis=1) if window is None else gaps[:, max(source.length - window + 1, 0) :].any(axis=1)
    )


def _silent_since(packed: Packed, cooldown: int) -> Array:
    """(symbols,) UTC ns: the end of the bar `cooldown` bars ago; the smallest integer where there are fewer bars."""
    n = len(packed.symbols)
    if cooldown == 0:
        return np.full(n, np.iinfo(np.int64).max)
    if packed.length <= cooldown:
        return np.full(n, NO_BAR)
    return packed.bar_ends[:, packed.length - 1 - cooldown]


@dataclass(frozen=True)
class ScanResult:
    """What one scan found.

    `n_bars`: distinct bar ends among the scanned bars. `gapped`: what an ex-rights gap kept silent. `failed`: Python
    strategies that raised -> what they raised.
    """

    frame: str
    bar_end: int
    engine: str
    n_symbols: int
    n_current: int
    n_bars: int
    n_indicators: int
    hits: tuple[Hit, ...]
    gapped: tuple[tuple[str, str], ...]
    failed: Mapping[str, str]
    elapsed_s: float = 0.0


def merge(
    plan: Plan,
    strategies: Sequence[Rule | PythonStrategy],
    answers: Sequence[ShardAnswer],
    bar_end: int,
    engine: Engine,
    *,
    names: Mapping[str, str] | None = None,
) -> ScanResult:
    """The answers of all shards -> the result, with what looks across the market decided here."""
    hits = [hit for answer in answers for hit in answer.hits]
    gapped = [pair for answer in answers for pair in answer.gapped]
    failed: dict[str, str] = {}
    if plan.candidates:
        market = _Market(plan, answers, bar_end, names or {})
        by_name = {strategy.name: strategy for strategy in strategies}
        for candidate in plan.candidates:
            strategy = by_name[candidate.name]
            try:
                found = (
                    market.rule_hits(strategy, engine)
                    if isinstance(strategy, Rule)
                    else strategy.run(market.context(strategy))
                )
                more, silenced = market.decide(candidate, found)
            except Exception as error:  # a strategy of the user's own must not take the others down
                if isinstance(strategy, Rule):
                    raise
                log.exception("strategy %s raised at bar %d", candidate.name, bar_end)
                failed[candidate.name] = f"{type(error).__name__}: {error}"
                continue
            hits += more
            gapped += silenced
    place = {strategy.name: number for number, strategy in enumerate(strategies)}
    times = [answer.times for answer in answers if len(answer.times)]
    return ScanResult(
        plan.frame,
        bar_end,
        engine.name,
        sum(answer.n_symbols for answer in answers),
        sum(answer.n_current for answer in answers),
        len(np.unique(np.concatenate(times))) if times else 0,
        plan.n_indicators,
        tuple(sorted(hits, key=lambda hit: (place[hit.strategy], hit.symbol, hit.action))),
        tuple(sorted(gapped)),
        failed,
    )


class _Market:
    """All shards' last bars side by side, in the order of symbols."""

    def __init__(self, plan: Plan, answers: Sequence[ShardAnswer], bar_end: int, names: Mapping[str, str]) -> None:
        symbols = [symbol for answer in answers for symbol in answer.symbols]
        order_ = np.argsort(np.array(symbols)) if symbols else np.empty(0, dtype=np.int64)
        self.plan, self.bar_end, self.names = plan, bar_end, names
        self.symbols = tuple(symbols[j] for j in order_)

        def joined(parts: list[Array]) -> Array:
            return np.concatenate(parts, axis=-1)[..., order_]

        self.price = joined([answer.price for answer in answers])
        self.current = joined([answer.current for answer in answers])
        self.limits = joined([answer.limits for answer in answers])
        self.values: dict[Term, Any] = {}
        for number, (term, _) in enumerate(plan.wanted):
            parts = [answer.wanted[number] for answer in answers]
            if isinstance(parts[0], tuple):
                self.values[term] = tuple(joined([p[k] for p in parts]) for k in range(len(parts[0])))
            else:
                self.values[term] = joined(parts)
        self.eligible = {c.name: joined([a.eligible[c.name] for a in answers]) for c in plan.candidates}
        self.gaps = {c.name: joined([a.gaps[c.name] for a in answers]) for c in plan.candidates}
        self.silent = {c.name: joined([a.silent_since[c.name] for a in answers]) for c in plan.candidates}

    def context(self, strategy: PythonStrategy) -> MarketContext:
        indicators: dict[str, Any] = {}
        for name, expression in strategy.indicators.items():
            term = parse(expression)
            value = self.values[term]
            if isinstance(value, tuple):
                outputs = {o: v[-strategy.bars :] for o, v in zip(term.indicator.outputs, value, strict=True)}
                indicators[name] = Outputs(outputs, term.indicator.aliases)
            else:
                indicators[name] = value[-strategy.bars :]
        return MarketContext(
            self.plan.frame, self.bar_end, self.symbols, self.names, indicators, self.price, self.current
        )

    def rule_hits(self, rule: Rule, engine: Engine) -> Hits:
        """A rule across the market, on the newest bars of those that have one at the scanned bar end."""
        n = len(self.symbols)
        ends = np.where(self.current, self.bar_end, NO_BAR)[:, None]
        source = Source(Packed(self.plan.frame, self.symbols, ends, np.ones(n, dtype=np.int64), {}))
        known = {}
        for term in base_terms(rule.terms()):
            newest = self.values[term][-1:]
            known[term] = newest if newest.dtype == object else np.where(self.current, newest, np.nan)
        values = evaluate(rule.terms(), source, engine, known)
        places = np.flatnonzero(np.broadcast_to(values[rule.when], (1, n))[-1] == 1.0)
        shown = {str(term): np.broadcast_to(values[term], (1, n))[-1] for term in rule.shown}
        return Hits(
            places,
            (rule.action,) * len(places),
            (rule.confidence,) * len(places),
            tuple({name: float(column[j]) for name, column in shown.items()} for j in places),
        )

    def decide(self, candidate: Candidate, found: Hits) -> tuple[list[Hit], list[tuple[str, str]]]:
        """What a strategy found, less those that are not its own, have no bar, or stand behind a gap."""
        hits, gapped = [], []
        name = candidate.name
        for j, action, confidence, values in zip(
            found.places, found.action, found.confidence, found.values, strict=True
        ):
            check_word(action, confidence)
            if not (self.current[j] and self.eligible[name][j]):
                continue
            if self.gaps[name][j]:
                gapped.append((name, self.symbols[j]))
                continue
            up, down = self.limits[:, j]
            hits.append(
                Hit(
                    name,
                    self.symbols[j],
                    action,
                    confidence,
                    float(self.price[j]),
                    {key: finite(value) for key, value in values.items()},
                    int(self.silent[name][j]),
                    _flag(up),
                    _flag(down),
                )
            )
        return hits, gapped


def to_signals(
    result: ScanResult,
    strategies: Iterable[Rule | PythonStrategy],
    last_fired: Mapping[tuple[str, str, str, str], int],
    *,
    origin: int,
    names: Mapping[str, str],
    received_ns: int = 0,
    bar_closed_ns: int = 0,
    scanned_ns: int = 0,
) -> tuple[list[Signal], int]:
    """Hits -> signals, and how many a cooldown kept silent.

    `last_fired`: (strategy, symbol, action, frame) -> the newest bar end before this one at which it fired.
    """
    version = {strategy.name: strategy.version for strategy in strategies}
    signals = []
    silent = 0
    for hit in result.hits:
        last = last_fired.get((hit.strategy, hit.symbol, hit.action, result.frame))
        if last is not None and hit.silent_since <= last < result.bar_end:
            silent += 1
            continue
        signals.append(
            Signal(
                strategy=hit.strategy,
                version=version[hit.strategy],
                symbol=hit.symbol,
                frame=result.frame,
                bar_end=result.bar_end,
                action=hit.action,
                confidence=hit.confidence,
                price=hit.price,
                engine=result.engine,
                origin=origin,
                values=hit.values,
                name=names.get(hit.symbol),
                at_limit_up=hit.at_limit_up,
                at_limit_down=hit.at_limit_down,
                received_ns=received_ns,
                bar_closed_ns=bar_closed_ns,
                scanned_ns=scanned_ns,
            )
        )
    return signals, silent

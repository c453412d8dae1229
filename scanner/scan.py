"""One shard's part of a scan: what is computed (Plan), and what a shard answers (ShardAnswer).

A shard evaluates the rules that look at one symbol and returns the hits alone. For what looks across the market, and
for every Python strategy, it returns the last bars of the terms that they name; `scanner.market` decides those once.
Which symbols share a shard changes nothing.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data.adjust import Basis
from data.panel import NO_BAR, Packed
from scanner.decide import Hit, Newest, Standing, decide
from scanner.engines.base import Engine
from scanner.engines.report import Report, watched
from scanner.evaluate import evaluate
from scanner.fields import Source, tail
from scanner.language import parse
from scanner.strategy import Hits, PythonStrategy, Rule, Universe, window
from scanner.terms import Term, order

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """What a shard must know of a strategy to say which symbols may fire it."""

    name: str
    universe: Universe
    cooldown: int
    window: int | None
    """How many of a symbol's newest bars it depends on; None: all."""


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

    @functools.cached_property
    def terms(self) -> Mapping[Term, int]:
        """Every term a shard computes -> how many bars of it."""
        found: dict[Term, int] = {}
        rules = ((term, 1) for rule, _ in self.rules for term in (rule.when, *rule.shown))
        for term, keep in (*rules, *self.wanted, *((term, 1) for term in self.extra)):
            found[term] = max(found.get(term, 0), keep)
        return found

    @functools.cached_property
    def shown(self) -> tuple[Mapping[str, Term], ...]:
        """Of each rule the terms whose values a signal shows, by their text."""
        return tuple({str(term): term for term in rule.shown} for rule, _ in self.rules)

    @functools.cached_property
    def n_indicators(self) -> int:
        """How many distinct indicators, their parameters and inputs included, a scan computes."""
        return sum(term.op == "indicator" for term in order(self.terms))

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.frame, self.rules, self.wanted, self.candidates, self.extra))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without what follows from the rest.
        return Plan, (self.frame, self.rules, self.wanted, self.candidates, self.extra)


def make_plan(frame: str, strategies: Iterable[Rule | PythonStrategy], extra: Iterable[str] = ()) -> Plan:
    """The plan of a scan of `frame` by `strategies`; `extra`: expressions to compute besides."""
    rules, candidates = [], []
    wanted: dict[Term, int] = {}
    for strategy in strategies:
        if isinstance(strategy, Rule):
            terms = dict.fromkeys(base_terms([strategy.when, *strategy.shown]), 1)
        else:
            terms = dict.fromkeys(strategy.terms.values(), strategy.bars)
        candidate = Candidate(strategy.name, strategy.universe, strategy.cooldown, window(terms))
        if isinstance(strategy, Rule) and not strategy.when.across:
            rules.append((strategy, candidate))
            continue
        candidates.append(candidate)
        for term, keep in terms.items():
            wanted[term] = max(wanted.get(term, 0), keep)
    return Plan(frame, tuple(rules), tuple(wanted.items()), tuple(candidates), tuple(map(parse, extra)))


def base_terms(terms: Iterable[Term]) -> list[Term]:
    """The largest parts of `terms` that look at one symbol alone: what a rule across the market is evaluated from."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term.across:
            for arg in term.args:
                visit(arg)
        elif term.op != "const":
            found[term] = None

    for term in terms:
        visit(term)
    return list(found)


@dataclass
class ShardAnswer:
    """What one shard returns. `wanted`: as in the plan, each (bars, symbols), or of several outputs a tuple of such."""

    symbols: tuple[str, ...]
    n_symbols: int
    n_current: int
    times: Array
    """The distinct bar ends among its bars."""
    hits: list[Hit]
    gapped: list[tuple[str, str]]
    """(strategy, symbol) that would have fired but for an ex-rights gap in the rule's window."""
    wanted: list[Any] = field(default_factory=list)
    newest: Newest | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    """Candidate -> what the symbols are to it."""
    elapsed_s: float = 0.0
    report: Report | None = None
    """What came of the engine."""


Computed = tuple[Mapping[Term, Any], Sequence[Hits]]
"""The plan's wanted terms, and of each of its rules what it found."""


def scan_shard(
    plan: Plan,
    packed: Packed,
    bar_end: int,
    engine: Engine,
    *,
    origin: int | None = None,
    names: Mapping[str, tuple[str, str]] | None = None,
    times: Array | None = None,
    known: Basis | None = None,
    compute: Callable[[Source, Mask], Computed] | None = None,
    memo: dict[str, Any] | None = None,
) -> ShardAnswer:
    """Scan the symbols of `packed` at `bar_end` (UTC ns). A symbol without a bar there fires nothing.

    `times`, `known`: its distinct bar ends and the basis of its prices, where they are known. `compute`: of the bars,
    and of who has one at `bar_end`, where not all need be evaluated from all bars. `memo`: as of `Source`.
    """
    start = time.perf_counter()
    source = Source(packed, names=names, origin=origin, known=known, memo=memo)
    n = len(packed.symbols)
    current = packed.bar_ends[-1] == bar_end if packed.length else np.zeros(n, dtype=bool)
    with watched(engine) as report:
        values, found = evaluated(plan, engine, source, current) if compute is None else compute(source, current)
    hits: list[Hit] = []
    gapped: list[tuple[str, str]] = []
    fired = np.unique(np.concatenate([each.places for each in found])) if found else np.empty(0, dtype=np.intp)
    if len(fired):
        of_fired = _Standings(source, current, fired)
        newest = _newest(source, current, fired)
        place = np.empty(n, dtype=np.intp)
        place[fired] = np.arange(len(fired))
        for (rule, candidate), each in zip(plan.rules, found, strict=True):
            if len(each):
                there = Hits(place[each.places], each.action, each.confidence, each.values)
                more, silenced = decide(rule.name, there, of_fired.of(candidate), newest)
                hits += more
                gapped += silenced
    answer = ShardAnswer(
        packed.symbols,
        int((packed.lengths > 0).sum()),
        int(current.sum()),
        np.unique(packed.bar_ends[packed.bar_ends != NO_BAR]) if times is None else times,
        hits,
        gapped,
    )
    if plan.candidates:
        answer.wanted = [_rows(values[term], keep, n) for term, keep in plan.wanted]
        answer.newest = _newest(source, current, np.arange(n))
        standing = _Standings(source, current, np.arange(n))
        answer.standings = {c.name: standing.of(c) for c in plan.candidates}
    answer.report = report
    answer.elapsed_s = time.perf_counter() - start
    return answer


def evaluated(plan: Plan, engine: Engine, source: Source, current: Mask) -> Computed:
    """Every term of a plan from all bars, and where its rules fire."""
    values = evaluate(plan.terms, source, engine)
    return values, [
        rule_hits(rule, values, current, named) for (rule, _), named in zip(plan.rules, plan.shown, strict=True)
    ]


def _newest(source: Source, current: Mask, places: Array) -> Newest:
    """The scanned bar of the symbols at some places."""
    symbols = source.packed.symbols
    if len(places) < len(symbols):
        symbols = tuple([symbols[j] for j in places.tolist()])
    at_limit = np.full((2, len(places)), np.nan)
    if source.length:
        at_limit[:] = [side[-1] for side in source.at_limits(1, places if len(places) < len(current) else None)]
    return Newest(symbols, current[places], source.raw("close", 1)[-1][places], at_limit)


class _Standings:
    """What the symbols at some places are to strategies, each part of it computed once."""

    def __init__(self, source: Source, current: Mask, places: Array) -> None:
        self._source, self._current, self._places = source, current, places
        self._known: dict[tuple[str, object], Any] = {}

    def of(self, candidate: Candidate) -> Standing:
        found: Standing = self._once("all", (candidate.universe, candidate.window, candidate.cooldown), self._of)
        return found

    def _of(self, key: tuple[Universe, int | None, int]) -> Standing:
        universe, window, cooldown = key
        return Standing(
            self._once("eligible", universe, self._eligible),
            self._once("gapped", window, self._gapped),
            self._once("silent", cooldown, self._silent_since),
        )

    def _once(self, name: str, key: Any, compute: Callable[[Any], Any]) -> Any:
        if (name, key) not in self._known:
            self._known[name, key] = compute(key)
        return self._known[name, key]

    def _eligible(self, universe: Universe) -> Mask:
        eligible = self._current & universe.mask(self._source) if self._source.length else self._current
        return eligible[self._places]

    def _gapped(self, window: int | None) -> Mask:
        # A gap at the window's oldest bar has every price of the window on its own side.
        gapped: Mask = self._source.gap_age[self._places] < (np.inf if window is None else window - 1)
        return gapped

    def _silent_since(self, cooldown: int) -> Array:
        packed = self._source.packed
        if cooldown == 0:
            return np.full(len(self._places), np.iinfo(np.int64).max)
        if packed.length <= cooldown:
            return np.full(len(self._places), NO_BAR)
        since: Array = packed.bar_ends[packed.length - 1 - cooldown][self._places]
        return since


def _rows(value: Any, keep: int, n: int) -> Any:
    """The last `keep` bars as matrices of their own, padded above where there are fewer."""
    if isinstance(value, tuple):
        return tuple(_rows(part, keep, n) for part in value)
    return np.array(np.broadcast_to(value, (keep, n)) if np.ndim(value) == 0 else tail(value, keep))


def rule_hits(rule: Rule, values: Mapping[Term, Any], among: Mask, shown: Mapping[str, Term] | None = None) -> Hits:
    """Where a rule's newest value is true, among the symbols of `among`, with the values that made it so.

    `shown`: the rule's, by their text, where that is known.
    """

    def newest(term: Term) -> Array:
        value = values[term]
        if isinstance(value, np.ndarray) and value.ndim and len(value):
            row: Array = value[-1]
            return row
        return np.broadcast_to(value if np.ndim(value) == 0 else tail(value, 1)[-1], among.shape)

    fires = newest(rule.when)
    places = ((fires if fires.dtype == bool else fires == 1.0) & among).nonzero()[0]
    terms = {str(term): term for term in rule.shown} if shown is None else shown
    columns = [newest(term).take(places).tolist() for term in terms.values()] if len(places) else []
    return hits_of(rule, places, terms, columns)


def hits_of(rule: Rule | None, places: Array, names: Iterable[str], columns: Sequence[Sequence[float]]) -> Hits:
    """A rule's hits at some places, with the values of what it shows, a column each; without a rule there are none."""
    if rule is None or not len(places):
        return Hits(places[:0], (), (), ())
    n = len(places)
    rows: tuple[Mapping[str, float], ...] = ({},) * n
    if columns:
        rows = tuple([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
    return Hits(places, (rule.action,) * n, (rule.confidence,) * n, rows)

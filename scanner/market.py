"""The answers of all shards -> hits -> signals: what looks across the market is decided here, once."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data.notebook import html_table
from data.panel import NO_BAR, Packed
from data.signal import Signal
from scanner.decide import Hit, Newest, Standing, decide
from scanner.engines.base import Engine
from scanner.engines.report import Report
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.scan import Plan, ShardAnswer, base_terms, rule_hits
from scanner.strategy import Hits, MarketContext, Outputs, PythonStrategy, Rule
from scanner.terms import Term

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
SHOWN = 50
"""Hits that a notebook shows."""
Mask = npt.NDArray[np.bool_]
Ready = Callable[[str, Sequence[str]], Mask]
"""Strategy, symbols -> (symbols,) whether it may look at each."""


@dataclass(frozen=True)
class ScanResult:
    """What one scan found.

    `engine`: the one that computed, or several joined by "+". `n_bars`: distinct bar ends among the scanned bars.
    `gapped`: what an ex-rights gap kept silent. `failed`: Python strategies that raised -> what they raised.
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
    reports: tuple[Report, ...] = field(default=(), compare=False)
    """What came of the engine on each shard."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the first hits, and how many there are."""
        shown = self.hits[:SHOWN]
        rows = [(hit.strategy, hit.action, hit.symbol, hit.price, hit.confidence) for hit in shown]
        more = f", {len(shown)} of them here" if len(shown) < len(self.hits) else ""
        caption = f"{len(self.hits)} hits among {self.n_symbols} symbols ({self.frame}, engine {self.engine}){more}"
        return html_table(rows, ("strategy", "action", "symbol", "price", "confidence"), caption)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Why shards were computed by another engine than the one chosen; none where they were not."""
        return tuple(dict.fromkeys(reason for report in self.reports for reason in report.fallbacks))


def merge(
    plan: Plan,
    strategies: Sequence[Rule | PythonStrategy],
    answers: Sequence[ShardAnswer],
    bar_end: int,
    engine: Engine,
    *,
    names: Mapping[str, str] | None = None,
    ready: Ready | None = None,
) -> ScanResult:
    """The answers of all shards -> the result, in the order of strategies, then symbols.

    A Python strategy that raises gives no hits and stands in `failed`; the others go on. `ready`: who has no place in
    what a strategy sees of the market, as if halted; None: all have one.
    """
    hits = [hit for answer in answers for hit in answer.hits]
    gapped = [pair for answer in answers for pair in answer.gapped]
    failed: dict[str, str] = {}
    by_name = {strategy.name: strategy for strategy in strategies}
    if plan.candidates:
        market = _Market(plan, answers, bar_end, names or {}, ready)
    for candidate in plan.candidates:
        strategy = by_name[candidate.name]
        if isinstance(strategy, Rule):
            more, silenced = market.decide(candidate.name, market.rule_hits(strategy, engine))
        else:
            context = market.context(strategy)
            if not context.current.any():
                continue  # nobody can fire, and code that takes the best of none raises
            try:
                more, silenced = market.decide(candidate.name, strategy.run(context))
            except Exception as error:  # a strategy of the user's own must not take the others down
                log.exception("strategy %s raised at bar %d", candidate.name, bar_end)
                failed[candidate.name] = f"{type(error).__name__}: {error}"
                continue
        hits += more
        gapped += silenced
    place = {strategy.name: number for number, strategy in enumerate(strategies)}
    times = [answer.times for answer in answers if len(answer.times)]
    reports = tuple(answer.report for answer in answers if answer.report is not None)
    return ScanResult(
        plan.frame,
        bar_end,
        "+".join(dict.fromkeys(report.engine for report in reports)) or engine.name,
        sum(answer.n_symbols for answer in answers),
        sum(answer.n_current for answer in answers),
        len(np.unique(np.concatenate(times))) if times else 0,
        plan.n_indicators,
        tuple(sorted(hits, key=lambda hit: (place[hit.strategy], hit.symbol, hit.action))),
        tuple(sorted(gapped)),
        failed,
        reports=reports,
    )


class _Market:
    """All shards' last bars side by side, in the order of symbols."""

    def __init__(
        self,
        plan: Plan,
        answers: Sequence[ShardAnswer],
        bar_end: int,
        names: Mapping[str, str],
        ready: Ready | None,
    ) -> None:
        parts = [answer.newest for answer in answers if answer.newest is not None]
        symbols = [symbol for part in parts for symbol in part.symbols]
        order = np.argsort(np.array(symbols))

        def joined(arrays: Iterable[Array]) -> Array:
            joint: Array = np.concatenate(list(arrays), axis=-1)[..., order]
            return joint

        self.plan, self.bar_end, self.names = plan, bar_end, names
        self.newest = Newest(
            tuple(symbols[j] for j in order),
            joined(part.current for part in parts),
            joined(part.price for part in parts),
            joined(part.at_limit for part in parts),
        )
        self.standings = {
            candidate.name: Standing(
                joined(answer.standings[candidate.name].eligible for answer in answers),
                joined(answer.standings[candidate.name].gapped for answer in answers),
                joined(answer.standings[candidate.name].silent_since for answer in answers),
            )
            for candidate in plan.candidates
        }
        self._ready = ready
        self.values: dict[Term, Any] = {}
        for number, (term, _) in enumerate(plan.wanted):
            values = [answer.wanted[number] for answer in answers]
            if isinstance(values[0], tuple):
                self.values[term] = tuple(joined(part) for part in zip(*values, strict=True))
            else:
                self.values[term] = joined(values)

    def _current(self, strategy: str) -> Mask:
        """Who has a bar at the scanned bar end, and has had those that the strategy's values depend on."""
        current = self.newest.current
        return current.copy() if self._ready is None else current & self._ready(strategy, self.newest.symbols)

    def context(self, strategy: PythonStrategy) -> MarketContext:
        """The market as a Python strategy sees it."""
        current = self._current(strategy.name)
        indicators: dict[str, Any] = {}
        for name, term in strategy.terms.items():
            value = self.values[term]
            if isinstance(value, tuple):
                parts = zip(term.indicator.outputs, value, strict=True)
                outputs = {output: _among(current, part[-strategy.bars :]) for output, part in parts}
                indicators[name] = Outputs(outputs, term.indicator.aliases)
            else:
                indicators[name] = _among(current, value[-strategy.bars :])
        newest = self.newest
        # Copies: what one strategy does to its arrays is no business of the next.
        price = newest.price.copy()
        return MarketContext(self.plan.frame, self.bar_end, newest.symbols, self.names, indicators, price, current)

    def rule_hits(self, rule: Rule, engine: Engine) -> Hits:
        """A rule across the market, on the newest bars of those that have one at the scanned bar end."""
        current = self._current(rule.name)
        ends = np.where(current, self.bar_end, NO_BAR)[None]
        lengths = np.ones(len(current), dtype=np.int64)
        source = Source(Packed(self.plan.frame, self.newest.symbols, ends, lengths, {}))
        terms = [rule.when, *rule.shown]
        known = {term: _among(current, self.values[term][-1:]) for term in base_terms(terms)}
        return rule_hits(rule, evaluate(dict.fromkeys(terms, 1), source, engine, known), current)

    def decide(self, name: str, found: Hits) -> tuple[list[Hit], list[tuple[str, str]]]:
        """As `scanner.decide.decide`."""
        return decide(name, found, self.standings[name], self.newest)


def _among(current: Mask, values: Array) -> Array:
    """Values of one's own: a halted symbol's newest is an older bar's, and has no place among those of this one."""
    return values.copy() if values.dtype == object else np.where(current, values, np.nan)


def to_signals(
    result: ScanResult,
    strategies: Iterable[Rule | PythonStrategy],
    last_fired: Mapping[tuple[str, str, str, str], int],
    *,
    origin: int,
    names: Mapping[str, str],
    developing: bool = False,
    quote_ns: int = 0,
    received_ns: int = 0,
    bar_closed_ns: int = 0,
    scanned_ns: int = 0,
) -> tuple[list[Signal], int]:
    """Hits -> signals, and how many a cooldown kept silent.

    `last_fired`: (strategy, symbol, action, frame) -> the newest bar end before this one at which it fired.
    """
    version = {strategy.name: strategy.version for strategy in strategies}
    of_scan: dict[str, Any] = {
        "frame": result.frame,
        "bar_end": result.bar_end,
        "engine": result.engine,
        "origin": origin,
        "developing": developing,
        "quote_ns": quote_ns,
        "received_ns": received_ns,
        "bar_closed_ns": bar_closed_ns,
        "scanned_ns": scanned_ns,
    }
    signals: list[Signal] = []
    silent = 0
    for hit in result.hits:
        strategy, symbol, action, confidence, price, values, since, up, down = hit
        if last_fired:
            last = last_fired.get((strategy, symbol, action, result.frame))
            if last is not None and since <= last < result.bar_end:
                silent += 1
                continue
        of_hit: dict[str, Any] = {
            "strategy": strategy,
            "version": version[strategy],
            "symbol": symbol,
            "action": action,
            "confidence": confidence,
            "price": price,
            "values": values,
            "name": names.get(symbol),
            "at_limit_up": up,
            "at_limit_down": down,
        }
        signals.append(signals[0].like(of_hit) if signals else Signal(**of_hit, **of_scan))
    return signals, silent

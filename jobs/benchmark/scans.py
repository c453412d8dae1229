"""The case `scan`: one new bar, 55 indicators and 50 rules, as the live service scans."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import ScanError
from data.panel import Panel
from data.schema import BAR
from data.store import BarStore
from jobs.benchmark.bars import Bars
from jobs.benchmark.cases import Row, rows_of
from jobs.benchmark.checking import UnequalError
from jobs.benchmark.engines import Field, Way
from jobs.benchmark.loop import Call, Loop
from jobs.benchmark.share import LOOP
from jobs.scanning import MarketScan
from scanner.cluster import Cluster, InlineCluster
from scanner.engines.base import Engine, choose
from scanner.engines.ties import compare_engines, rules_of
from scanner.evaluate import evaluate, needed
from scanner.indicators import catalog
from scanner.language import parse
from scanner.loading import StrategyRegistry, load
from scanner.scan import rule_hits
from scanner.strategy import Rule
from scanner.terms import Term

FIRST = 2
"""Bars that are scanned before the clock runs: what is opened or compiled at the first one is no part of a scan."""
BUSY = "volume > prev(highest(volume, 60))"
Hits = frozenset[tuple[str, str, str]]
"""(strategy, symbol, action)."""


def indicators(number: int) -> list[str]:
    """So many distinct indicators: the catalogue at its defaults, then with longer first periods."""
    names = list(catalog)
    few = [names[k * len(names) // number] for k in range(min(number, len(names)))] if number < len(names) else names
    found: dict[str, None] = {}
    for step in range(number):
        for indicator in map(catalog.__getitem__, few):
            params = indicator.bind()
            first = next((p for p in indicator.params if p.kind is int), None)
            if step and first is not None:
                params[first.name] += step
            found[indicator.key(params)] = None
            if len(found) == number:
                return list(found)
    raise ValueError(f"there are not {number} indicators")


def rules(number: int, wanted: Iterable[str]) -> dict[str, str]:
    """So many conditions over these indicators, evenly taken from those that their declarations suggest.

    Each on a bar of much volume alone, as rules of traders are: what holds for every tenth stock tells them nothing.
    """
    used = {term.indicator.name: term.indicator for term in map(parse, wanted)}
    every = list(rules_of(used).values())
    chosen = [every[k * len(every) // number] for k in range(number)]
    return {f"rule_{k}": f"({text}) and {BUSY}" for k, text in enumerate(chosen)}


def strategies(conditions: Mapping[str, str], folder: Path) -> StrategyRegistry:
    """The rules, as a user writes them."""
    lines = [f'  - {{name: {name}, action: BUY, when: "{text}"}}' for name, text in conditions.items()]
    path = folder / "rules.yaml"
    path.write_text("\n".join(["strategies:", *lines]) + "\n", encoding="utf-8")
    return load([path])


def as_rows(panel: Panel) -> pa.Table:
    """A panel as rows of `data.schema.BAR`, by bar end, then symbol."""
    row, column = np.nonzero(panel.present)
    ends = panel.times[row]
    columns: dict[str, Any] = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(column.astype(np.int32)), pa.array(panel.symbols)),
        "bar_start": pa.array(ends - 1, pa.int64()),
        "bar_end": pa.array(ends, pa.int64()),
        **{name: panel[name][row, column] for name in ("open", "high", "low", "close", "volume")},
        "amount": pa.nulls(len(row), pa.float64()),
        "prev_close": pa.nulls(len(row), pa.float64()),
        "flags": pa.array(np.zeros(len(row), dtype=np.uint8)),
        "revision": pa.array(np.zeros(len(row), dtype=np.int32)),
    }
    return pa.table({name: columns[name] for name in BAR.names}).cast(BAR)


class _Scans:
    """One engine on one cluster with a store of its own, which scans bar after bar."""

    def __init__(
        self,
        bars: Bars,
        registry: StrategyRegistry,
        extra: Sequence[str],
        root: Path,
        engine: Engine,
        cluster: Cluster,
    ) -> None:
        store = BarStore(root)
        self._scan = MarketScan(
            store,
            "1d",
            registry,
            symbols=bars.panel.symbols,
            engine=engine,
            cluster=cluster,
            history=None,
            extra=extra,
        )
        self._engine = engine.name
        self._panel = bars.panel
        self._next = 0

    def open(self, at: int) -> None:
        """Scan what is stored up to a row of the panel."""
        self._scan.scan(int(self._panel.times[at]), origin=int(self._panel.times[0]))
        self._next = at + 1
        self._batch = self._rows()

    def _rows(self) -> pa.Table:
        row = slice(self._next, self._next + 1)
        fields = {name: matrix[row] for name, matrix in self._panel.fields.items()}
        return as_rows(Panel("1d", self._panel.times[row], self._panel.symbols, fields))

    def step(self) -> Hits:
        """Scan the next bar."""
        times = self._panel.times
        scanned = self._scan.scan(
            int(times[self._next]), origin=int(times[0]), batch=self._batch, previous=int(times[self._next - 1])
        )
        if scanned.result.engine != self._engine:
            raise ScanError(f"{scanned.result.engine} computed a scan that {self._engine} was asked for")
        return frozenset((hit.strategy, hit.symbol, hit.action) for hit in scanned.result.hits)

    def ready(self) -> None:
        """Have the next bar at hand, as a feed does."""
        self._next += 1
        if self._next < len(self._panel.times):
            self._batch = self._rows()


class _Baseline:
    """A program around TA-Lib's loop: at each bar all indicators anew, then the same rules on their last rows.

    What TA-Lib has no function for is given to it, computed before the clock runs.
    """

    def __init__(self, bars: Bars, registry: StrategyRegistry, extra: Sequence[str], own: str = "talib") -> None:
        """`own`: the engine that computes what TA-Lib lacks."""
        self._own = choose(own)[0]
        self._bars, self._rules = bars, [rule for rule in registry.values() if isinstance(rule, Rule)]
        self._terms = {term: 1 for rule in self._rules for term in (rule.when, *rule.shown)}
        self._terms |= dict.fromkeys(map(parse, extra), 1)
        self._engine = choose("talib")[0]

    def open(self, at: int) -> None:
        self._next = at
        self.ready()

    def ready(self) -> None:
        self._next += 1
        if self._next >= self._bars.length:
            return
        self._now = self._bars.first(self._next + 1)
        self._source = self._now.source
        need = {t: k for t, k in needed(self._terms, self._source.length).items() if t.op == "indicator"}
        ours = {term: keep for term, keep in need.items() if not term.indicator.talib}
        self._known: dict[Term, Any] = dict(evaluate(ours, self._source, self._own))
        self._calls = [term for term in need if term.indicator.talib]
        calls = [Call(term.indicator, term.parameters) for term in self._calls]
        self._loop = Loop(calls, self._now, max(need.values()))

    def step(self) -> Hits:
        self._loop()
        outputs = iter(self._loop.out)
        known = dict(self._known)
        for term in self._calls:
            values = tuple(next(outputs).T for _ in term.indicator.outputs)
            known[term] = values if len(values) > 1 else values[0]
        found = evaluate(self._terms, self._source, self._engine, known)
        current = np.ones(self._now.n_symbols, dtype=bool)
        symbols = self._now.panel.symbols
        return frozenset(
            (rule.name, symbols[j], rule.action)
            for rule in self._rules
            for j in rule_hits(rule, found, current).places.tolist()
        )


def scans(bars: Bars, field: Field, runs: int, folder: Path, n_indicators: int = 55, n_rules: int = 50) -> list[Row]:
    """The rows of `scan`; `bars`: a full rectangle, of which the last rows are the new bars. Raises UnequalError."""
    new = FIRST + runs
    before = bars.length - new - 1
    extra = indicators(n_indicators)
    registry = strategies(rules(n_rules, extra), folder)
    stored = folder / "store"
    BarStore(stored, origin="benchmark").append(as_rows(bars.panel), "1d")
    own = "talib" if "vector" in field.missing else "vector"
    every: list[tuple[str, int, _Scans | _Baseline]] = [(LOOP, 1, _Baseline(bars, registry, extra, own))]
    for name, engine, cluster in _places(field):
        root = folder / name
        shutil.copytree(stored, root)
        every.append((name, cluster.workers, _Scans(bars, registry, extra, root, choose(engine)[0], cluster)))
    found: dict[str, list[Hits]] = {}
    for name, _, scan in every:
        scan.open(before)
        found[name] = []
        for _ in range(new):
            found[name].append(scan.step())
            scan.ready()
    for k in range(new):
        _compare({name: hits[k] for name, hits in found.items()}, registry, bars.first(before + 2 + k))
    for _, _, scan in every:
        scan.open(before)
        for _ in range(FIRST):
            scan.step()
            scan.ready()
    seconds: list[list[float]] = [[] for _ in every]
    for _ in range(runs):
        for (_, _, scan), each in zip(every, seconds, strict=True):
            start = time.perf_counter()
            scan.step()
            each.append(time.perf_counter() - start)
            scan.ready()
    ways = [Way(name, threads, scan.step, list) for name, threads, scan in every]
    return rows_of("scan", bars, n_indicators, ways, seconds)


def _places(field: Field) -> Iterator[tuple[str, str, Cluster]]:
    """(name, engine, cluster) of every way to scan there is here."""
    inline = InlineCluster()
    if field.cluster is not None:
        yield "talib-dask", "talib", field.cluster
    if "vector" not in field.missing:
        yield "vector", "vector", inline
        if field.cluster is not None:
            yield "vector-dask", "vector", field.cluster
    if "cuda" not in field.missing:
        yield "cuda", "cuda", inline
        if field.gpus is not None:
            yield "cuda-dask", "cuda", field.gpus


def _compare(found: Mapping[str, Hits], registry: StrategyRegistry, bars: Bars) -> None:
    """Every engine fires the same; where kernels differ from TA-Lib, the values compared are a tie. UnequalError."""
    wanted = found[LOOP]
    kernels = None
    for name, hits in found.items():
        if name.startswith("talib"):
            same = hits == wanted
        else:
            kernels = hits if kernels is None else kernels
            same = hits == kernels
        if not same:
            raise UnequalError(f"{name} fires {len(hits)} where {len(wanted)} are right")
    differing = {(name, symbol) for name, symbol, _ in (wanted if kernels is None else kernels) ^ wanted}
    texts = {name: str(rule.when) for name, _ in sorted(differing) if isinstance(rule := registry[name], Rule)}
    source = Bars(bars.name, bars.panel.select(sorted({symbol for _, symbol in differing}))).source
    ties = {
        (compared.rule, difference.symbol)
        for compared in compare_engines(texts, source, choose("talib")[0], choose("vector")[0])
        for difference in compared.differences
        if difference.tie and difference.bar_end == bars.panel.times[-1]
    }
    if differing - ties:
        name, symbol = min(differing - ties)
        raise UnequalError(f"{texts[name]} at {symbol} fires on kernels or on TA-Lib alone, and is no tie")

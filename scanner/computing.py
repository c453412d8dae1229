"""Expressions over a whole panel: in this process, or split by symbols over a cluster, to the same bits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from data.adjust import Basis, basis, first_bar_ends
from data.errors import MystocksScanError, ScanError, UsageError
from data.panel import Panel
from scanner.cluster import Cluster, engine_for, make_cluster
from scanner.engines.base import ENGINES, Engine, choose
from scanner.engines.report import watched
from scanner.evaluate import evaluate, expressions_of
from scanner.fields import FIELDS, Source, tail
from scanner.scan import base_terms
from scanner.tasks import split
from scanner.terms import Term, order

DEADLINE_S = 600.0
Stored = npt.NDArray[Any]
"""Values as they were asked for: float64, or float32."""


Precision = Literal["float64", "float32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Values(Mapping[str, Stored]):
    """What `compute` returns: expression as it was written -> (bars, symbols) on the panel's rows."""

    def __init__(self, values: Mapping[str, Stored], engine: str) -> None:
        self._values = values
        self.engine = engine
        """The engine that computed it; several joined by "+"."""

    def __getitem__(self, expression: str) -> Stored:
        return self._values[expression]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def compute(
    expressions: Iterable[str] | str,
    panel: Panel,
    engine: str | Engine = "auto",
    *,
    cluster: str | Cluster | None = None,
    deadline_s: float = DEADLINE_S,
    precision: Precision = "float64",
) -> Values:
    """Compute expressions of the rule language over a whole panel, in this process unless there is a `cluster`.

    Each symbol is computed over its own bars: a halt is no bar. Returns expression -> (bars, symbols), rows =
    `panel.times`, NaN where there is no bar and during the lookback; a condition is 1.0, 0.0 or NaN where unknown.
    Prices are taken as they stand in the panel, without adjustment.

    `cluster`: "local", "cuda", "inline", the address of a Dask scheduler, each opened for this call alone, or one of
    `scanner.cluster.make_cluster`, which stays open; each of its workers computes a part of the symbols, within
    `deadline_s` seconds together. The values are the same to the bit. A script that names "local" needs a main guard,
    since the workers import it.

    `precision`: "float32" stores what was computed in float64 in half the memory, each value rounded once, to one part
    in 17 million; nothing is computed from rounded values.

    Raises ExpressionError, ParameterError, EngineError, UsageError, and ScanError where the cluster fails.
    """
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision must be {' or '.join(PRECISIONS)}; got {precision!r}. Leave it out for {PRECISIONS[0]}"
        )
    terms = expressions_of(expressions)
    source = Source(panel.pack(_stored(terms.values(), panel)), adjust=False)
    wanted = dict.fromkeys(terms.values(), source.length)
    results: Mapping[Term, Any]
    if cluster is None:
        chosen = choose(engine)[0] if isinstance(engine, str) else engine
        with watched(chosen) as report:
            results = evaluate(wanted, source, chosen)
        engines = report.engine
    else:
        with _opened(cluster) as opened:
            results, engines = _spread(wanted, panel, source, engine, opened, deadline_s)
    shape = (source.length, len(panel.symbols))
    fields = [_owner(matrix) for held in (panel, source.packed) for matrix in held.fields.values()]
    owners = Counter([*fields, *map(_owner, results.values())])
    unpacked: dict[Term, Stored] = {}
    held = dict(results)
    del results
    for term in dict.fromkeys(terms.values()):
        value = held.pop(term)
        value = value if np.ndim(value) else np.full(shape, value)
        # What the caller does to its values is no business of the panel's, nor of other values'.
        own = value.flags.writeable and owners[_owner(value)] <= 1
        full = source.packed.unpack(value, panel.times, spent=own and term.op in ("indicator", "output"))
        if precision == "float32":
            with np.errstate(over="ignore"):
                unpacked[term] = full.astype(np.float32)
        else:
            unpacked[term] = full if own or full is not value else full.copy()
    return Values({expression: unpacked[term] for expression, term in terms.items()}, engines)


def _stored(terms: Iterable[Term], panel: Panel) -> list[str]:
    """The fields of a panel from which terms are computed."""
    named = {term.data for term in order(terms) if term.op == "field"}
    every = any(FIELDS[name].deep for name in named)
    return [name for name in panel.fields if every or name in named]


def _owner(value: Any) -> int:
    """What tells the memory of an array from that of others."""
    while isinstance(getattr(value, "base", None), np.ndarray):
        value = value.base
    return id(value if getattr(value, "base", None) is None else value.base)


@contextmanager
def _opened(cluster: str | Cluster) -> Iterator[Cluster]:
    if not isinstance(cluster, str):
        if not callable(getattr(cluster, "map", None)):
            raise UsageError(
                "cluster must be local, cuda, inline, tcp://host:port, or what scanner.cluster.make_cluster gives; got"
                f" {cluster!r}. Leave it out to compute in this process"
            )
        yield cluster
        return
    if cluster == "auto":  # of the command line: there it depends on the work
        raise UsageError(
            "cluster must be local, cuda, inline or tcp://host:port; got 'auto'. Leave it out to compute in this"
            " process"
        )
    made = make_cluster(cluster, dashboard_port=0)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class _Part:
    """Some symbols of a panel, and what to compute of them."""

    terms: tuple[Term, ...]
    panel: Panel
    engine: str | Engine
    first: int
    """UTC ns: the panel's first bar end, these symbols' or not."""


class _Source(Source):
    """Some symbols of a panel, whose listings are told by the first bar of all."""

    first = 0

    @cached_property
    def basis(self) -> Basis:
        return basis(self.packed, self.first)


def _compute(part: _Part) -> tuple[list[Any], str]:
    """On a worker: each term's values, (bars, symbols) of the part's longest symbol, and the engine."""
    source = _Source(part.panel.pack(_stored(part.terms, part.panel)), adjust=False)
    source.first = part.first
    engine = choose(part.engine)[0] if isinstance(part.engine, str) else part.engine
    with watched(engine) as report:
        values = evaluate(dict.fromkeys(part.terms, source.length), source, engine)
    return [values[term] for term in part.terms], report.engine


def _spread(
    wanted: Mapping[Term, int],
    panel: Panel,
    source: Source,
    engine: str | Engine,
    cluster: Cluster,
    deadline_s: float,
) -> tuple[Mapping[Term, Any], str]:
    """As `evaluate`: what looks at one symbol by the workers, what looks across the market from that, here."""
    if not deadline_s > 0:
        raise UsageError(f"deadline_s must be above 0 seconds; got {deadline_s!r}. Leave it out for {DEADLINE_S:g}")
    if not isinstance(engine, str) and cluster.name != "inline":
        raise UsageError(
            f"engine must be a name with cluster {cluster.name!r}, since its workers make their own: auto,"
            f" {', '.join(ENGINES)}; got {engine!r}. Name one, or leave the cluster out"
        )
    here = engine_for(engine, cluster.name)[0] if isinstance(engine, str) else engine
    alone = tuple(term for term in base_terms(wanted) if term.op != "field")
    shards = split(panel.symbols, cluster.workers)
    known: dict[Term, Any] = {}
    engines = [here.name]
    if alone and shards:
        first = int(first_bar_ends(source.packed).min())
        sent = here.name if isinstance(engine, str) else engine
        parts = [_Part(alone, panel.select(shard), sent, first) for shard in shards]
        try:
            found = cluster.map(_compute, parts, deadline_s=deadline_s, gpu=here.name == "cuda")
        except MystocksScanError:
            raise
        except TimeoutError as error:
            raise ScanError(
                f"cluster {cluster.name!r} did not compute {len(alone)} terms of {len(panel.symbols)} symbols within"
                f" deadline_s={deadline_s:g}. Give it more, or more workers"
            ) from error
        except Exception as error:  # whatever Dask raises where its workers fail
            raise ScanError(
                f"cluster {cluster.name!r} failed: {type(error).__name__}: {error}. Try again, or leave the cluster out"
            ) from error
        engines = [name for _, name in found]
        place = {symbol: j for j, symbol in enumerate(panel.symbols)}
        columns = [np.array([place[symbol] for symbol in shard]) for shard in shards]
        for number, term in enumerate(alone):
            known[term] = _joined([values[number] for values, _ in found], columns, source)
    return evaluate(wanted, source, here, known), "+".join(dict.fromkeys(engines))


def _joined(parts: list[Any], columns: list[npt.NDArray[np.intp]], source: Source) -> Any:
    """Some symbols' values each -> those of all, (length, symbols), every symbol's newest in the last row."""
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(outputs), columns, source) for outputs in zip(*parts, strict=True))
    if np.ndim(parts[0]) == 0:
        return parts[0]
    whole = np.empty((source.length, len(source.packed.symbols)))
    for values, places in zip(parts, columns, strict=True):
        whole[:, places] = tail(values, source.length)
    return whole

"""What an engine is, and which one runs."""

import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from data.errors import EngineError
from data.panel import Floats
from scanner.indicators.spec import Indicator, suggestion

Counts = npt.NDArray[np.int64]

_TILE = 64

ENGINES = {
    "cuda": "scanner.engines.cuda",
    "vector": "scanner.engines.vector",
    "talib": "scanner.engines.talib",
}
"""Name -> module, whose `engine` it is; importing the module raises EngineError where the engine cannot run.

`auto` takes the first that can. The kernels of `vector` are compiled when they are first asked for, once a machine; who
must not wait for that asks `scanner.engines.warm` before."""


ON_CPU = ("vector", "talib")
"""The engines that need no GPU, the fastest first."""


class Series:
    """One input of an indicator for every symbol, in whichever layout an engine takes; made once, used by many.

    `rows`: float64 (bars, symbols), every symbol's own bars in one piece that ends at the last row (`Packed`), not to
    be changed afterwards; `lengths`: (symbols,) how many bars a symbol has. `memo`: where what is found out about
    these rows is kept, if that shall outlive the series.
    """

    def __init__(self, rows: Floats, lengths: Counts, memo: dict[str, Any] | None = None) -> None:
        self._rows = rows
        self.lengths = lengths
        self._memo = {} if memo is None else memo

    @property
    def bars(self) -> int:
        return len(self._rows)

    @cached_property
    def by_bar(self) -> Floats:
        """C-contiguous (bars, symbols)."""
        return self._rows if self._rows.flags.c_contiguous else transposed(self._rows.T)

    @cached_property
    def by_symbol(self) -> Floats:
        """C-contiguous (symbols, bars)."""
        return transposed(self._rows)

    @property
    def span(self) -> tuple[Counts, Counts]:
        """(symbols,) first and stop, see `spans`."""
        known = self.known
        if known is None:
            self.known = known = spans([self._rows], self.lengths)
        return known

    @property
    def known(self) -> tuple[Counts, Counts] | None:
        """`span`, if it has been computed; who computes it faster may set it."""
        return self._memo.get("span")

    @known.setter
    def known(self, span: tuple[Counts, Counts]) -> None:
        self._memo["span"] = span


def transposed(matrix: Floats) -> Floats:
    """The transpose, C-contiguous; copied in tiles, which caches like better than columns."""
    if matrix.T.flags.c_contiguous:
        return matrix.T
    out = np.empty(matrix.shape[::-1])
    for i in range(0, len(matrix), _TILE):
        out[:, i : i + _TILE] = matrix[i : i + _TILE].T
    return out


class Engine(Protocol):
    """Computes one indicator for every symbol."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """One (bars, symbols) float64 matrix per output, or the last `keep` rows of each.

        `inputs`: a series for each of the indicator's inputs; `params`: bound by `Indicator.bind`. A symbol's first bar
        is the first one at which every input is finite; outputs are NaN before it and during the lookback counted from
        it. Where an input is not finite later on, the symbol's outputs are NaN from that bar on: what recursions and
        running sums would make of it is a number, and wrong.
        """


@dataclass(frozen=True)
class Call:
    """One call of `Engine.run`."""

    indicator: Indicator
    params: Mapping[str, float]
    inputs: Sequence[Series]
    keep: int | None = None


@runtime_checkable
class Batching(Protocol):
    """An engine for which several indicators together are less work than one after the other."""

    def run_all(self, calls: Sequence[Call]) -> list[tuple[Floats, ...]]:
        """What `Engine.run` gives for each call; all series have one shape."""


def run_all(engine: Engine, calls: Sequence[Call]) -> list[tuple[Floats, ...]]:
    """What `engine.run` gives for each call; all series have one shape."""
    if isinstance(engine, Batching):
        return engine.run_all(calls)
    return [engine.run(call.indicator, call.params, call.inputs, keep=call.keep) for call in calls]


def by_symbol(
    engine: Engine,
    indicator: Indicator,
    params: Mapping[str, float],
    matrices: Sequence[Floats],
    lengths: Counts,
    *,
    keep: int | None = None,
) -> tuple[Floats, ...]:
    """`Engine.run` on (symbols, bars) matrices; the outputs are such too."""
    inputs = [Series(np.asarray(matrix, dtype=np.float64).T, lengths) for matrix in matrices]
    return tuple(output.T for output in engine.run(indicator, params, inputs, keep=keep))


def choose(name: str = "auto", among: Iterable[str] | None = None) -> tuple[Engine, str]:
    """An engine, and why this one; raises EngineError with the remedy for one that is unknown or cannot run here.

    `among`: those that `auto` may take.
    """
    if name != "auto":
        return load(name), "asked for"
    missing = []
    for candidate in ENGINES:
        if among is not None and candidate not in among:
            continue
        try:
            engine = load(candidate)
        except EngineError as error:
            missing.append(str(error).partition(". ")[0])  # the remedies are for who asks for it
        else:
            return engine, "; ".join([*missing, f"the first of {', '.join(ENGINES)} that runs here"])
    raise EngineError(f"no engine runs here: {'; '.join(missing)}")


def load(name: str) -> Engine:
    """The engine of that name; raises EngineError."""
    if name not in ENGINES:
        known = ("auto", *ENGINES)
        near = suggestion(name, known)
        raise EngineError(f"unknown engine {name!r}; {near + ' One' if near else 'one'} of {', '.join(known)}")
    return cast(Engine, importlib.import_module(ENGINES[name]).engine)


def check_inputs(indicator: Indicator, inputs: Sequence[Series]) -> None:
    """Raises ValueError where they are not as many as declared."""
    if len(inputs) != len(indicator.inputs):
        wanted = ", ".join(indicator.inputs)
        raise ValueError(f"{indicator.name} takes {len(indicator.inputs)} inputs ({wanted}); got {len(inputs)}")


def joint_span(indicator: Indicator, inputs: Sequence[Series]) -> tuple[Counts, Counts]:
    """(symbols,) first and stop of all inputs together; raises ValueError where they are not as many as declared."""
    check_inputs(indicator, inputs)
    if indicator.kernel is not None and indicator.kernel.total:
        bars = inputs[0].bars
        return bars - inputs[0].lengths, np.full(len(inputs[0].lengths), bars)
    firsts, stops = zip(*[series.span for series in inputs], strict=True)
    if all((stop == inputs[0].bars).all() for stop in stops):
        return functools.reduce(np.maximum, firsts), stops[0]
    return spans([series.by_bar for series in inputs], inputs[0].lengths)


def spans(inputs: Sequence[Floats], lengths: Counts) -> tuple[Counts, Counts]:
    """(symbols,) first and stop: the rows over which each symbol's indicator runs, of (bars, symbols) inputs.

    From the first bar at which every input is finite to the first later one at which one is not; the number of bars
    where there is no such bar.
    """
    bars, n_symbols = inputs[0].shape
    first, stop = bars - lengths, np.full(n_symbols, bars, dtype=np.int64)
    # A sum is finite only if every number is: reading is all that most matrices cost.
    with np.errstate(invalid="ignore", over="ignore"):
        doubtful = np.flatnonzero(~np.isfinite(sum(matrix.sum(axis=0) for matrix in inputs)))
    if len(doubtful) == 0:
        return first, stop
    finite = np.isfinite(inputs[0][:, doubtful])
    for matrix in inputs[1:]:
        finite &= np.isfinite(matrix[:, doubtful])
    finite &= np.arange(bars)[:, None] >= first[doubtful]
    finite = np.ascontiguousarray(finite.T)
    first[doubtful] = begin = first_true(finite)
    broken = np.flatnonzero(np.count_nonzero(finite, axis=1) < bars - begin)
    stop[doubtful[broken]] = [begin[i] + np.argmin(finite[i, begin[i] :]) for i in broken]
    return first, stop


def first_true(mask: npt.NDArray[np.bool_]) -> Counts:
    """(symbols,) the column of each row's first True, the number of columns where there is none."""
    first: Counts = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])
    return first

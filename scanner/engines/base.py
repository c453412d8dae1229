"""What an engine is, and which one runs."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from data.errors import EngineError
from data.panel import Floats
from scanner.indicators.spec import Indicator, suggestion

Counts = npt.NDArray[np.int64]

ENGINES = {"talib": "scanner.engines.talib"}
"""Name -> module, whose `engine` it is; importing the module raises EngineError where the engine cannot run.

`auto` takes the first that can."""


class Engine(Protocol):
    """Computes one indicator for every symbol."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Floats],
        lengths: Counts,
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """One (symbols, length) float64 matrix per output, or the last `keep` columns of each.

        `inputs`: one (symbols, length) float64 matrix for each of the indicator's inputs, every symbol's own bars
        right-aligned (`Packed`); `lengths`: (symbols,) how many bars a symbol has; `params`: bound by `Indicator.bind`.
        A symbol's first bar is the first one at which every input is finite; outputs are NaN before it and during the
        lookback counted from it. Where an input is not finite later on, the symbol's outputs are NaN from that bar on:
        what recursions and running sums would make of it is a number, and wrong.
        """


def choose(name: str = "auto") -> tuple[Engine, str]:
    """An engine, and why this one; raises EngineError with the remedy for one that is unknown or cannot run here."""
    if name != "auto":
        return _load(name), "asked for"
    missing = []
    for candidate in ENGINES:
        try:
            engine = _load(candidate)
        except EngineError as error:
            missing.append(str(error))
        else:
            return engine, "; ".join([*missing, f"the first of {', '.join(ENGINES)} that runs here"])
    raise EngineError(f"no engine runs here: {'; '.join(missing)}")


def _load(name: str) -> Engine:
    if name not in ENGINES:
        known = ("auto", *ENGINES)
        near = suggestion(name, known)
        raise EngineError(f"unknown engine {name!r}; {near + ' One' if near else 'one'} of {', '.join(known)}")
    return cast(Engine, importlib.import_module(ENGINES[name]).engine)


def spans(inputs: Sequence[Floats], lengths: Counts) -> tuple[Counts, Counts]:
    """(symbols,) first and stop: the columns over which each symbol's indicator runs.

    From the first bar at which every input is finite to the first later one at which one is not; the number of columns
    where there is no such bar.
    """
    finite = np.isfinite(inputs[0])
    for matrix in inputs[1:]:
        finite &= np.isfinite(matrix)
    n_symbols, length = finite.shape
    stop = np.full(n_symbols, length, dtype=np.int64)
    listed = length - lengths
    if length == 0 or (not listed.any() and finite.all()):
        return np.zeros(n_symbols, dtype=np.int64), stop
    first = first_true(finite)
    if (first < listed).any():
        finite &= np.arange(length) >= listed[:, None]
        first = first_true(finite)
    broken = np.flatnonzero(np.count_nonzero(finite, axis=1) < length - first)
    stop[broken] = [first[i] + np.argmin(finite[i, first[i] :]) for i in broken]
    return first, stop


def first_true(mask: npt.NDArray[np.bool_]) -> Counts:
    """(symbols,) the column of each row's first True, the number of columns where there is none."""
    first: Counts = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])
    return first

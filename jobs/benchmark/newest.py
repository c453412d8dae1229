"""The cases `bar` and `bar-halts`: one new bar of every symbol that trades, twenty indicators."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.benchmark.bars import FIELDS, Bars
from jobs.benchmark.cases import Row, rows_of, timed
from jobs.benchmark.checking import STREAM, check, equal_bits, warmed_up
from jobs.benchmark.engines import Field, Outputs, Way, Work
from jobs.benchmark.loop import Call, Handles, Loop
from scanner.stream import Stream

FIRST = 3
"""Bars that both sides take before the clock runs; their values are compared after the last of them."""
BARS_A_RUN = 10
"""Which a side takes one after the other, then the other side its own."""
COLD = "vector-cold"
"""The first bar of each turn: the other side has filled the caches with what is its own."""
SPARE = 8
"""Bars beyond the longest lookback that a symbol must have: TA-Lib opens no handle on fewer than it needs."""


class _Streamed:
    """A stream, fed bar after bar."""

    def __init__(self, calls: Sequence[Call], bars: Bars, opened: int, engine: str) -> None:
        self._terms = [term for call in calls for term in call.terms]
        self._stream = Stream(self._terms, bars.first(opened).panel, engine)
        self._rest = _rest(bars, opened)
        self._values: Any = None

    def __call__(self) -> None:
        end, rows, has = next(self._rest)
        self._values = None  # what nobody holds any more is not gathered before the next bar
        self._values = self._stream.advance(end, rows, has)

    def outputs(self) -> Outputs:
        return [self._values[term][None] for term in self._terms]


class _Handled:
    """TA-Lib's handles, fed bar after bar."""

    def __init__(self, calls: Sequence[Call], bars: Bars, opened: int) -> None:
        self._handles = Handles(calls, bars.first(opened))
        self._rest = _rest(bars, opened)

    def __call__(self) -> None:
        self._handles.update(next(self._rest)[1])

    def outputs(self) -> Outputs:
        return [row[None].copy() for row in self._handles.out]


def _rest(bars: Bars, opened: int) -> Any:
    """The bars after the first `opened`: (bar end, field -> (symbols,), who has a bar or None for all).

    Made before the clock runs, as a feed hands them over.
    """
    panel, rest = bars.panel, []
    present = panel.present
    for t in range(opened, len(panel.times)):
        has = None if present[t].all() else present[t]
        rest.append((int(panel.times[t]), {name: panel[name][t].copy() for name in FIELDS}, has))
    return iter(rest)


def long_listed(bars: Bars, calls: Sequence[Call], opened: int) -> Bars:
    """The symbols that have bars enough among the first `opened` rows for every first value."""
    least = max(call.lookback for call in calls) + SPARE
    listed = bars.panel.present[:opened].sum(axis=0) >= least
    return Bars(bars.name, bars.panel.select(np.array(bars.panel.symbols)[listed].tolist()))


def new_bars(runs: int) -> int:
    """How many of the last rows are new bars."""
    return FIRST + BARS_A_RUN * runs


def newest(case: str, bars: Bars, calls: Sequence[Call], field: Field, runs: int) -> list[Row]:
    """The rows of a case whose last rows of `bars` are the new ones; seconds are those of one bar. UnequalError."""
    n_new = new_bars(runs)
    opened = len(bars.panel.times) - n_new
    bars = long_listed(bars, calls, opened)
    sides: list[tuple[str, _Handled | _Streamed]] = [(STREAM, _Handled(calls, bars, opened))]
    sides += [(e, _Streamed(calls, bars, opened, e)) for e in ("vector", "cuda") if e not in field.missing]
    ways = [Way(name, 1, side, side.outputs) for name, side in sides]
    for _ in range(FIRST):
        for way in ways:
            way.run()
    _check(Work(tuple(calls), bars.first(opened + FIRST), keep=1), ways)
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(runs):
        for way, each in zip(ways, seconds, strict=True):
            each += timed([(way, way.run)], BARS_A_RUN)[0]
    for way, each in list(zip(ways, seconds, strict=True)):
        if way.engine == "vector":
            ways.append(Way(COLD, way.threads, way.run, way.outputs))
            seconds.append(each[::BARS_A_RUN])
    return rows_of(case, bars, len(calls), ways, seconds)


def _check(work: Work, ways: Sequence[Way]) -> None:
    """Every side's newest values against TA-Lib over the whole history."""
    loop = Loop(work.calls, work.bars, keep=1)
    loop()
    has = work.bars.panel.present[-1]
    wanted = [np.where(has, row, np.nan) for row in warmed_up(work, [matrix.T for matrix in loop.out])]
    for way in ways:
        check(work, wanted, way)
    values = [way.outputs() for way in ways if way.engine != STREAM]
    for other in values[1:]:
        equal_bits("cuda's stream against vector's", other, values[0])

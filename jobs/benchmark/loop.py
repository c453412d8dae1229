"""The other side: TA-Lib as a plain program uses it, one function for one symbol after the other.

Apart from the engine `talib` the only module that imports TA-Lib.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import talib
import talib.stream
from talib.abstract import Function  # type: ignore[attr-defined]  # its stub forgets it

from data.panel import Floats
from jobs.benchmark.bars import Bars
from scanner.indicators.spec import Indicator, Value
from scanner.language import parse


@dataclass(frozen=True)
class Call:
    """One function of TA-Lib with its parameters, and the indicator that it is."""

    indicator: Indicator
    params: dict[str, Value]

    @classmethod
    def of(cls, expression: str) -> "Call":
        """`RSI(14)` -> its call."""
        term = parse(expression)
        return cls(term.indicator, term.parameters)

    @property
    def key(self) -> str:
        return self.indicator.key(self.params)

    @property
    def terms(self) -> list[str]:
        """Its outputs, each an expression of its own."""
        names = self.indicator.outputs
        return [self.key] if len(names) == 1 else [f"{self.key}.{name}" for name in names]

    @property
    def arguments(self) -> list[Value]:
        """TA-Lib's parameters in TA-Lib's order."""
        given = {**self.indicator.fixed, **self.params}
        return [given[name] for name in Function(self.indicator.talib).parameters]

    @property
    def lookback(self) -> int:
        return self.indicator.lookback(**self.params)

    def function(self, *, bare: bool = False) -> Callable[..., Any]:
        """TA-Lib's function; `bare`: without the wrapper that looks at each call whether it was given pandas."""
        assert self.indicator.talib
        public: Callable[..., Any] = getattr(talib, self.indicator.talib)
        return inspect.unwrap(public) if bare else public


class Loop:
    """Every function for every symbol; outputs are stored in `out`, (outputs, symbols, last `keep` bars)."""

    def __init__(self, calls: Sequence[Call], bars: Bars, keep: int | None = None, *, bare: bool = False) -> None:
        self.calls = calls
        self.keep = bars.length if keep is None else min(keep, bars.length)
        self._work = [(call.function(bare=bare), call.indicator.inputs, call.arguments) for call in calls]
        lengths = bars.packed.lengths
        self._symbols = [
            {name: matrix[j, bars.length - n :] for name, matrix in bars.by_symbol.items()}
            for j, n in enumerate(lengths.tolist())
        ]
        n_outputs = sum(len(call.indicator.outputs) for call in calls)
        self.out = np.full((n_outputs, bars.n_symbols, self.keep), np.nan)

    def __call__(self) -> None:
        out, keep = self.out, self.keep
        for j, fields in enumerate(self._symbols):
            k = 0
            for function, inputs, arguments in self._work:
                result = function(*[fields[name] for name in inputs], *arguments)
                for values in result if isinstance(result, tuple) else (result,):
                    kept = values[-keep:]
                    out[k, j, keep - len(kept) :] = kept
                    k += 1


class Handles:
    """TA-Lib's stream handles, one a symbol and function, opened from history; outputs are stored in `out`.

    `out`: (outputs, symbols), NaN where a symbol has no bar. Each symbol needs more bars than the longest lookback.
    """

    def __init__(self, calls: Sequence[Call], history: Bars) -> None:
        self.calls = calls
        self.out = np.full((sum(len(call.indicator.outputs) for call in calls), history.n_symbols), np.nan)
        lengths = history.packed.lengths.tolist()
        self._updates = []
        for call in calls:
            stream = getattr(talib.stream, str(call.indicator.talib))
            matrices = [history.by_symbol[name] for name in call.indicator.inputs]
            own = [[matrix[j, history.length - n :] for matrix in matrices] for j, n in enumerate(lengths)]
            self._updates.append([stream(*series, *call.arguments).update for series in own])

    def update(self, bar: dict[str, Floats]) -> None:
        """Take one bar: field -> (symbols,), NaN where a symbol has none."""
        columns = {name: values.tolist() for name, values in bar.items()}
        self.out[:] = np.nan
        places = np.flatnonzero(~np.isnan(bar["close"])).tolist()
        whole = len(places) == self.out.shape[1]
        k = 0
        for call, updates in zip(self.calls, self._updates, strict=True):
            inputs = [columns[name] for name in call.indicator.inputs]
            n = len(call.indicator.outputs)
            if whole:
                found = list(map(operator.call, updates, *inputs))
            else:
                found = [updates[j](*[column[j] for column in inputs]) for j in places]
            values = np.array(found, dtype=np.float64).reshape(len(places), n)
            self.out[k : k + n, places] = values.T
            k += n

"""`IndicatorFactory`: an indicator by an id with its parameters, `macd.12.26.9`, over a table of bars."""

import math
from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np

from data.errors import EngineError
from data.panel import Panel
from scanner.engines.base import Engine, choose
from scanner.indicators.spec import Indicator, Value
from scanner.language import parse
from scanner.legacy.indicators import compute_terms, declaration
from scanner.stream import Stream

BACKENDS: Mapping[str, str] = {"gpu": "cuda", "numba": "vector", "talib": "talib", "cpu": "auto"}
"""What the earlier system called an engine -> the engine."""


def parsed(indicator_id: str) -> tuple[Indicator, dict[str, Value]]:
    """`rsi.14` -> the declaration and its parameters, in the declaration's order; what is left out has its default.

    Raises UnknownIndicatorError, and ParameterError for numbers out of bounds.
    """
    name, *numbers = indicator_id.split(".")
    indicator = declaration(name)
    return indicator, indicator.bind(*(int(number) if number.isdecimal() else number for number in numbers))


class BatchIndicator:
    """One indicator over whole tables."""

    def __init__(self, indicator_id: str, engine: Engine) -> None:
        self.indicator_id, self.engine = indicator_id, engine
        self.indicator, self.params = parsed(indicator_id)

    @property
    def backend(self) -> str:
        """The engine's name."""
        return self.engine.name

    def calculate(self, data: Any, **kwargs: Any) -> Any:
        """`data`: columns by name, a DataFrame or a mapping, oldest bar first; `kwargs`: parameters above the id's own.

        Returns what one of the columns is, aligned with it: a Series of a DataFrame, an array of a mapping of arrays;
        of an indicator with several outputs one such for each of them, as a DataFrame or a mapping. Raises
        ParameterError, KeyError for a missing column.
        """
        term = parse(self.indicator.key(self.indicator.bind(**{**self.params, **kwargs})))
        names = {*self.indicator.inputs, *(["close"] if "close" in data else [])}
        fields = {name: np.asarray(data[name], dtype=np.float64) for name in names}
        values = compute_terms([term], fields, self.engine)[term]
        outputs = dict(zip(self.indicator.outputs, values, strict=True))
        index = getattr(data, "index", None)
        if index is None:
            return outputs if len(outputs) > 1 else values[0]
        if len(outputs) > 1:
            return type(data)(outputs, index=index)
        return type(data[self.indicator.inputs[0]])(values[0], index=index, name=self.indicator_id)


class StreamingIndicator:
    """One indicator of one symbol, bar by bar: each value is what the batch over all bars so far ends with."""

    def __init__(self, indicator_id: str, engine: Engine) -> None:
        self.indicator_id = indicator_id
        self.indicator, params = parsed(indicator_id)
        key, outputs = self.indicator.key(params), self.indicator.outputs
        self._engine = engine
        self._terms = [key] if len(outputs) == 1 else [f"{key}.{output}" for output in outputs]
        self._bars: dict[str, list[float]] = {name: [] for name in {"close", *self.indicator.inputs}}
        self._open()

    def _open(self) -> None:
        fields = {name: np.array(values)[:, None] for name, values in self._bars.items()}
        times = np.arange(len(self._bars["close"]), dtype=np.int64)
        self._stream = Stream(self._terms, Panel("1d", times, ("",), fields), self._engine)

    def update(self, bar: Mapping[str, float]) -> Any:
        """Take the next bar, by field; returns the value, NaN during the lookback, or output -> value of several.

        A bar with NaN is a halt, and changes nothing. Raises KeyError for a missing field.
        """
        needed = [name for name in self._bars if name in self.indicator.inputs or name in bar]
        row = {name: float(bar[name]) for name in needed}
        row.setdefault("close", next(iter(row.values())))
        if any(map(math.isnan, row.values())):
            values = [math.nan] * len(self._terms)
        else:
            found = self._stream.advance(len(self._bars["close"]), {name: np.array([x]) for name, x in row.items()})
            values = [float(found[term][0]) for term in self._terms]
            for name, x in row.items():
                self._bars[name].append(x)
        return values[0] if len(values) == 1 else dict(zip(self.indicator.outputs, values, strict=True))

    def snapshot(self) -> dict[str, Any]:
        """All that it is, as plain values: the bars so far."""
        return {"indicator_id": self.indicator_id, "bars": {name: list(values) for name, values in self._bars.items()}}

    def load_snapshot(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from a snapshot of the same indicator. Raises ValueError for another's."""
        if snapshot["indicator_id"] != self.indicator_id:
            raise ValueError(f"the snapshot is of {snapshot['indicator_id']!r}; this is {self.indicator_id!r}")
        self._bars = {name: list(values) for name, values in snapshot["bars"].items()}
        self._open()


class IndicatorFactory:
    """Calculators by id; what can be computed is the catalogue and TA-Lib, no file of the user's."""

    @overload
    def get_calculator(
        self, indicator_id: str, backend: str | None = None, streaming: Literal[False] = False
    ) -> BatchIndicator: ...

    @overload
    def get_calculator(
        self, indicator_id: str, backend: str | None, streaming: Literal[True]
    ) -> StreamingIndicator: ...

    @overload
    def get_calculator(self, indicator_id: str, *, streaming: Literal[True]) -> StreamingIndicator: ...

    def get_calculator(
        self, indicator_id: str, backend: str | None = None, streaming: bool = False
    ) -> BatchIndicator | StreamingIndicator:
        """One indicator on a backend, gpu, numba, talib or cpu; without one, on the first that runs here.

        `streaming`: bar by bar. Raises UnknownIndicatorError, ParameterError, EngineError with the remedy.
        """
        if backend is not None and backend not in BACKENDS:
            raise EngineError(f"unknown backend {backend!r}; one of {', '.join(BACKENDS)}")
        engine, _ = choose("auto" if backend is None else BACKENDS[backend])
        return StreamingIndicator(indicator_id, engine) if streaming else BatchIndicator(indicator_id, engine)

    def calculate(self, indicator_id: str, data: Any, **kwargs: Any) -> Any:
        """`BatchIndicator.calculate` of `get_calculator(indicator_id)`."""
        return self.get_calculator(indicator_id).calculate(data, **kwargs)

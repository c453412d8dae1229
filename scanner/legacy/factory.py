"""`IndicatorFactory`: an indicator by an id with its parameters, `macd.12.26.9`, over a table of bars."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data.errors import EngineError
from scanner.engines.base import Engine, choose
from scanner.indicators.spec import Indicator, Value
from scanner.language import parse
from scanner.legacy.indicators import compute_terms, declaration

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


class IndicatorFactory:
    """Calculators by id; what can be computed is the catalogue and TA-Lib, no file of the user's."""

    def get_calculator(self, indicator_id: str, backend: str | None = None) -> BatchIndicator:
        """One indicator on a backend, gpu, numba, talib or cpu; without one, on the first that runs here.

        Raises UnknownIndicatorError, ParameterError, EngineError with the remedy.
        """
        if backend is not None and backend not in BACKENDS:
            raise EngineError(f"unknown backend {backend!r}; one of {', '.join(BACKENDS)}")
        engine, _ = choose("auto" if backend is None else BACKENDS[backend])
        return BatchIndicator(indicator_id, engine)

    def calculate(self, indicator_id: str, data: Any, **kwargs: Any) -> Any:
        """`BatchIndicator.calculate` of `get_calculator(indicator_id)`."""
        return self.get_calculator(indicator_id).calculate(data, **kwargs)

"""The catalogue as classes of the earlier system: every indicator, and any function of TA-Lib, for one symbol."""

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from data.errors import EngineError, ExpressionError, MystocksScanError, ParameterError
from data.panel import Floats, Panel
from scanner.engines.base import Engine, choose
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.indicators import catalog, find
from scanner.indicators.spec import Indicator, Value
from scanner.language import parse
from scanner.legacy.interface import (
    OHLCV,
    IndicatorInterface,
    IndicatorResult,
    InsufficientDataError,
    OHLCVData,
    ParameterValidationError,
)
from scanner.terms import Term

log = logging.getLogger(__name__)

GPU = "_GPU"
"""How the names of those end that run on a GPU where there is one."""
_GPU_PARAMETERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "MACD": {
        "fast_period": ("fastperiod",),
        "slow_period": ("slowperiod",),
        "signal_period": ("signalperiod",),
    },
    "RSI": {"period": ("timeperiod",)},
    "BBANDS": {"period": ("timeperiod",), "std_dev": ("nbdevup", "nbdevdn")},
}
_GPU_OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "MACD": {"histogram": "hist"},
    "BBANDS": {"upper": "upperband", "middle": "middleband", "lower": "lowerband"},
}
"""What the earlier adapter for GPUs called parameters and outputs -> what they are called elsewhere."""


class UnknownIndicatorError(ExpressionError, ValueError):
    """A name that neither the catalogue nor TA-Lib has."""


def declaration(name: str) -> Indicator:
    """The declaration behind a name of the earlier system, in any case, `_GPU` or not; raises UnknownIndicatorError."""
    try:
        return find(name.upper().removesuffix(GPU))
    except ExpressionError as error:
        raise UnknownIndicatorError(str(error)) from error


def compute_terms(terms: Iterable[Term], data: Mapping[str, Floats], engine: Engine) -> dict[Term, tuple[Floats, ...]]:
    """Term -> its outputs over one symbol's rows; equal parts are computed once.

    `data`: field -> (rows,); a row without a close is a halt and has NaN.
    """
    close = data.get("close", next(iter(data.values())))
    times = np.arange(len(close), dtype=np.int64)
    fields = {name: np.asarray(values, dtype=np.float64)[:, None] for name, values in {**data, "close": close}.items()}
    packed = Panel("1d", times, ("",), fields).pack()
    found = evaluate(dict.fromkeys(terms, packed.length), Source(packed, adjust=False), engine)

    def rows(values: Any) -> Floats:
        return packed.unpack(values, times)[:, 0]

    outputs: dict[Term, Any] = dict(found)
    return {term: tuple(map(rows, got if isinstance(got, tuple) else (got,))) for term, got in outputs.items()}


class CatalogIndicator(IndicatorInterface):
    """An indicator by its declaration; subclasses say by which engine. Raises UnknownIndicatorError for its name."""

    def __init__(self, abbreviation: str = "") -> None:
        super().__init__()
        self.ABBREVIATION = (abbreviation or self.ABBREVIATION).upper()
        self.indicator = declaration(self.ABBREVIATION)
        self.FULL_NAME, self.CHINESE_NAME = self.indicator.title, self.indicator.title_zh

    @abstractmethod
    def engine(self) -> Engine:
        """What computes it; raises EngineError."""

    def calculate(self, data: OHLCVData, parameters: dict[str, Any] | None = None) -> IndicatorResult:
        """Compute it over one symbol's bars. What is wrong with data, parameters or engine is the result's status."""
        given = dict(parameters or {})
        start = time.perf_counter()
        try:
            term = self.term(given)
            self.validate_data(data, self.min_data_points(given))
            values = self.named(self._compute(term, data))
        except InsufficientDataError as error:
            return self._create_insufficient_data_result(given, error.details["required"], error.details["actual"])
        except MystocksScanError as error:
            return self._create_error_result(given, str(error))
        return self._create_success_result(given, values, 1e3 * (time.perf_counter() - start))

    def _compute(self, term: Term, data: OHLCVData) -> tuple[Floats, ...]:
        fields = {name: getattr(data, name) for name in OHLCV}
        return compute_terms([term], fields, self.engine())[term]

    def bind(self, parameters: Mapping[str, Any]) -> dict[str, Value]:
        """Every parameter with its value; raises ParameterValidationError."""
        for name, value in parameters.items():
            try:
                self.indicator.bind(**{name: value})
            except ParameterError as error:
                reason = str(error).removeprefix(f"{self.indicator.name} {name} ")
                raise ParameterValidationError(self.ABBREVIATION, name, reason) from error
        return self.indicator.bind(**parameters)

    def term(self, parameters: Mapping[str, Any]) -> Term:
        """It, with these parameters, as a term of the rule language; raises ParameterValidationError."""
        return parse(self.indicator.key(self.bind(parameters)))

    def min_data_points(self, parameters: Mapping[str, Any]) -> int:
        """The bars that its first value needs; raises ParameterValidationError."""
        return self.indicator.lookback(**self.bind(parameters)) + 1

    def named(self, outputs: Iterable[Floats]) -> dict[str, Floats]:
        """Outputs by name."""
        return dict(zip(self.indicator.outputs, outputs, strict=True))

    def validate_parameters(self, parameters: Mapping[str, Any], valid_params: Mapping[str, Any] | None = None) -> None:
        """Raises ParameterValidationError for what the declaration, and `valid_params` where given, do not allow."""
        self.bind(parameters)
        if valid_params is not None:
            super().validate_parameters(parameters, valid_params)

    def get_parameter_defaults(self) -> dict[str, Any]:
        return dict(self.indicator.bind())

    def get_required_data_fields(self) -> list[str]:
        return list(self.indicator.inputs)


class TalibGenericIndicator(CatalogIndicator):
    """By TA-Lib, one symbol at a time; what TA-Lib lacks, by the declaration's own arithmetic."""

    def engine(self) -> Engine:
        return choose("talib")[0]


class GpuGenericIndicator(CatalogIndicator):
    """On a GPU where there is a usable one, else on the CPU, with the same values: `fallback_reason` says why.

    `use_gpu`: False does not look for one. The names that the earlier adapter for GPUs had for parameters and outputs
    (`fast_period`, `period`, `std_dev`; `histogram`, `upper`, `middle`, `lower`) are understood beside the usual ones.
    """

    def __init__(self, abbreviation: str = "", *, use_gpu: bool = True) -> None:
        super().__init__(abbreviation)
        self.use_gpu = use_gpu
        self.fallback_reason: str | None = None if use_gpu else "asked not to"

    def engine(self) -> Engine:
        if self.use_gpu:
            try:
                return choose("cuda")[0]
            except EngineError as error:
                self._fall_back(error)
        return choose()[0]

    def _fall_back(self, error: Exception) -> None:
        self.use_gpu, self.fallback_reason = False, str(error)
        log.info("%s runs on the CPU: %s", self.ABBREVIATION, error)

    def _compute(self, term: Term, data: OHLCVData) -> tuple[Floats, ...]:
        try:
            return super()._compute(term, data)
        except EngineError as error:
            if not self.use_gpu:
                raise
            self._fall_back(error)
            return super()._compute(term, data)

    def bind(self, parameters: Mapping[str, Any]) -> dict[str, Value]:
        known = _GPU_PARAMETERS.get(self.indicator.name, {})
        given: dict[str, Any] = {}
        for name, value in parameters.items():
            for ours in known.get(name, (name,)):
                if ours in given:
                    raise ParameterValidationError(self.ABBREVIATION, name, f"{ours} is given twice")
                given[ours] = value
        return super().bind(given)

    def named(self, outputs: Iterable[Floats]) -> dict[str, Floats]:
        values = super().named(outputs)
        theirs = _GPU_OUTPUTS.get(self.indicator.name, {})
        return values | {name: values[ours] for name, ours in theirs.items()}


class IndicatorPluginFactory:
    """Classes of indicators by name, in any case; those of the catalogue stand in it from the start, also as `X_GPU`.

    Registering under a name that is taken replaces what was there.
    """

    _plugins: ClassVar[dict[str, type[IndicatorInterface]]] = {}

    @classmethod
    def register(cls, abbreviation: str, plugin_class: type[IndicatorInterface]) -> None:
        """Have `abbreviation` mean that class, which is called without arguments."""
        cls._plugins[abbreviation.upper()] = plugin_class

    @classmethod
    def get_plugin(cls, abbreviation: str, *, use_gpu: bool = False) -> type[IndicatorInterface] | None:
        """The class, None where there is none; `use_gpu`: that of `X_GPU` before that of `X`."""
        name = abbreviation.upper()
        if use_gpu and name + GPU in cls._plugins:
            return cls._plugins[name + GPU]
        return cls._plugins.get(name)

    @classmethod
    def create_instance(cls, abbreviation: str, *, use_gpu: bool = False) -> IndicatorInterface | None:
        """One of the class, None where there is none."""
        plugin = cls.get_plugin(abbreviation, use_gpu=use_gpu)
        return None if plugin is None else plugin()

    @classmethod
    def list_plugins(cls) -> list[str]:
        """Their names."""
        return list(cls._plugins)

    @classmethod
    def clear(cls) -> None:
        """Forget all; `register_all_talib_indicators` brings the catalogue back."""
        cls._plugins.clear()


def register_all_talib_indicators() -> None:
    """Register the catalogue, each indicator by its name and with `_GPU`."""
    for base, suffix in ((TalibGenericIndicator, ""), (GpuGenericIndicator, GPU)):
        for indicator in catalog.values():
            names = {
                "ABBREVIATION": indicator.name + suffix,
                "FULL_NAME": indicator.title,
                "CHINESE_NAME": indicator.title_zh,
                "__doc__": f"{indicator.title}, as the catalogue declares it.",
                "__module__": __name__,
            }
            IndicatorPluginFactory.register(indicator.name + suffix, type(indicator.name + suffix, (base,), names))


register_all_talib_indicators()

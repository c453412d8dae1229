"""What the earlier system's indicators were made of: one symbol's bars in, a result out, errors as results."""

import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import MystocksScanError
from data.panel import Floats

OHLCV = ("open", "high", "low", "close", "volume")


class CalculationStatus(StrEnum):
    """How a calculation ended."""

    SUCCESS = "success"
    ERROR = "error"
    INSUFFICIENT_DATA = "insufficient_data"
    SKIPPED = "skipped"


@dataclass
class OHLCVData:
    """One symbol's bars, oldest first: arrays of one length, prices in CNY, volume in shares, NaN where no bar.

    Raises ValueError where lengths differ.
    """

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    timestamps: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in OHLCV:
            setattr(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        columns: dict[str, Any] = {name: getattr(self, name) for name in OHLCV}
        if self.timestamps is not None:
            columns["timestamps"] = self.timestamps
        for name, values in columns.items():
            if len(values) != self.length:
                raise ValueError(f"{name} has {len(values)} bars and close {self.length}; they must have as many")

    @property
    def length(self) -> int:
        """Rows."""
        return len(self.close)

    @property
    def n_bars(self) -> int:
        """Rows that are bars: a row without a close is a halt."""
        return int(np.count_nonzero(~np.isnan(self.close)))

    def slice(self, start: int, end: int | None = None) -> "OHLCVData":
        """The rows [start, end)."""
        columns = {name: getattr(self, name)[start:end] for name in OHLCV}
        return OHLCVData(**columns, timestamps=None if self.timestamps is None else self.timestamps[start:end])


@dataclass
class IndicatorResult:
    """One indicator of one symbol; `values`: output -> float64 array, NaN where the bars do not suffice."""

    status: CalculationStatus
    abbreviation: str
    parameters: dict[str, Any]
    values: dict[str, Floats]
    error_message: str | None = None
    data_points: int = 0
    calculation_time_ms: float = 0.0

    @property
    def success(self) -> bool:
        """Whether there are values."""
        return self.status is CalculationStatus.SUCCESS

    def get_output(self, name: str) -> Floats | None:
        """One output, None where there is none of that name."""
        return self.values.get(name)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values. NaN stays NaN, which JSON does not have."""
        return {
            "abbreviation": self.abbreviation,
            "status": self.status.value,
            "parameters": self.parameters,
            "values": {name: values.tolist() for name, values in self.values.items()},
            "error_message": self.error_message,
            "data_points": self.data_points,
            "calculation_time_ms": self.calculation_time_ms,
        }


class IndicatorError(MystocksScanError):
    """What `validate_data` and `validate_parameters` raise; `calculate` turns it into a result."""

    def __init__(self, message: str, abbreviation: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message, self.abbreviation, self.details = message, abbreviation, dict(details or {})


class InsufficientDataError(IndicatorError):
    """Fewer bars than the first value needs."""

    def __init__(self, abbreviation: str, required: int, actual: int) -> None:
        message = f"{abbreviation} needs {required} bars; got {actual}. Give it an earlier start"
        super().__init__(message, abbreviation, {"required": required, "actual": actual})


class ParameterValidationError(IndicatorError):
    """A parameter that is unknown, of the wrong type or out of bounds."""

    def __init__(self, abbreviation: str, param_name: str, reason: str) -> None:
        message = f"{abbreviation} {param_name}: {reason}"
        super().__init__(message, abbreviation, {"parameter": param_name, "reason": reason})


class IndicatorInterface(ABC):
    """The base of indicators written for the earlier system: one symbol at a time.

    What is written anew is an `Indicator` (docs/add-an-indicator.md), which computes the whole market at once.
    """

    ABBREVIATION: str = ""
    FULL_NAME: str = ""
    CHINESE_NAME: str = ""

    dependency_results: Mapping[str, IndicatorResult]
    """Node id -> result of what this one was said to depend on; `SmartScheduler` sets it before `calculate`."""

    def __init__(self) -> None:
        self.dependency_results = {}

    @abstractmethod
    def calculate(self, data: OHLCVData, parameters: dict[str, Any]) -> IndicatorResult:
        """Compute it. What is wrong with data or parameters is the result's status, not raised."""

    def validate_data(self, data: OHLCVData, min_required: int) -> None:
        """Raises InsufficientDataError where there are fewer bars; a row without a close is none."""
        if data.n_bars < min_required:
            raise InsufficientDataError(self.ABBREVIATION, min_required, data.n_bars)

    def validate_parameters(self, parameters: Mapping[str, Any], valid_params: Mapping[str, Any]) -> None:
        """Raises ParameterValidationError for a name, type or value that `valid_params` does not allow.

        `valid_params`: name -> {"type": "int" or "float", "min", "max"}; bounds may stand under "constraints" as
        "min_value" and "max_value" too. Truth values are no numbers.
        """
        for name, value in parameters.items():
            if name not in valid_params:
                known = ", ".join(valid_params) or "none"
                raise ParameterValidationError(self.ABBREVIATION, name, f"no such parameter; it takes {known}")
            allowed = valid_params[name]
            kind: Any = {"int": numbers.Integral, "float": numbers.Real}.get(allowed.get("type"), object)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
                reason = f"must be {'an integer' if kind is numbers.Integral else 'a number'}; got {value!r}"
                raise ParameterValidationError(self.ABBREVIATION, name, reason)
            bounds = allowed.get("constraints") or {}
            lo, hi = allowed.get("min", bounds.get("min_value")), allowed.get("max", bounds.get("max_value"))
            if (lo is not None and not value >= lo) or (hi is not None and not value <= hi):
                ends = "-inf" if lo is None else lo, "inf" if hi is None else hi
                reason = f"must be in [{ends[0]}, {ends[1]}]; got {value!r}"
                raise ParameterValidationError(self.ABBREVIATION, name, reason)

    def get_parameter_defaults(self) -> dict[str, Any]:
        """Parameter -> default."""
        return {}

    def get_required_data_fields(self) -> list[str]:
        """The fields of `OHLCVData` that it reads."""
        return ["close"]

    def _create_success_result(
        self, parameters: Mapping[str, Any], values: Mapping[str, Floats], calculation_time_ms: float = 0.0
    ) -> IndicatorResult:
        points = max(map(len, values.values()), default=0)
        given, found = dict(parameters), dict(values)
        status = CalculationStatus.SUCCESS
        return IndicatorResult(status, self.ABBREVIATION, given, found, None, points, calculation_time_ms)

    def _create_error_result(self, parameters: Mapping[str, Any], error_message: str) -> IndicatorResult:
        return IndicatorResult(CalculationStatus.ERROR, self.ABBREVIATION, dict(parameters), {}, error_message)

    def _create_insufficient_data_result(
        self, parameters: Mapping[str, Any], required: int, actual: int
    ) -> IndicatorResult:
        message = str(InsufficientDataError(self.ABBREVIATION, required, actual))
        status = CalculationStatus.INSUFFICIENT_DATA
        return IndicatorResult(status, self.ABBREVIATION, dict(parameters), {}, message, actual)

"""What the earlier system knew of an indicator, read off its declaration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Self

from scanner.indicators import catalog
from scanner.indicators.spec import Family, Indicator
from scanner.legacy.indicators import TalibGenericIndicator
from scanner.legacy.interface import ParameterValidationError

_CATEGORIES: Mapping[Family, str] = {"patterns": "candlestick", "other": "custom"}
"""The families that the earlier system called otherwise."""


@dataclass(frozen=True)
class ParameterConstraint:
    """Bounds, both allowed."""

    min_value: float
    max_value: float


@dataclass(frozen=True)
class IndicatorParameter:
    """One parameter."""

    name: str
    type: Literal["int", "float"]
    default: float
    constraints: ParameterConstraint


@dataclass(frozen=True)
class IndicatorOutput:
    """One output; `reference_lines` are those of the indicator's pane."""

    name: str
    reference_lines: tuple[float, ...] = ()


@dataclass(frozen=True)
class IndicatorMetadata:
    """One indicator as data."""

    abbreviation: str
    full_name: str
    chinese_name: str
    category: str
    description: str
    parameters: tuple[IndicatorParameter, ...]
    outputs: tuple[IndicatorOutput, ...]
    data_requirements: tuple[str, ...]
    panel_type: str
    indicator: Indicator = field(repr=False, compare=False)

    @classmethod
    def of(cls, indicator: Indicator) -> Self:
        """The metadata of a declaration."""
        return cls(
            indicator.name,
            indicator.title,
            indicator.title_zh,
            _CATEGORIES.get(indicator.family, indicator.family),
            indicator.doc,
            tuple(
                IndicatorParameter(
                    p.name, "int" if p.kind is int else "float", p.default, ParameterConstraint(p.lo, p.hi)
                )
                for p in indicator.params
            ),
            tuple(IndicatorOutput(name, indicator.reference_lines) for name in indicator.outputs),
            indicator.inputs,
            indicator.pane,
            indicator,
        )

    def get_parameter(self, name: str) -> IndicatorParameter | None:
        """One parameter, None where there is none of that name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def get_output(self, name: str) -> IndicatorOutput | None:
        """One output, None where there is none of that name."""
        return next((output for output in self.outputs if output.name == name), None)

    def get_min_data_points(self, params: Mapping[str, Any]) -> int:
        """The bars that its first value needs; raises ParameterValidationError."""
        return TalibGenericIndicator(self.abbreviation).min_data_points(params)

    def validate_parameters(self, params: Mapping[str, Any]) -> tuple[bool, str | None]:
        """Whether the declaration allows them, and if not, why."""
        try:
            TalibGenericIndicator(self.abbreviation).validate_parameters(params)
        except ParameterValidationError as error:
            return False, str(error)
        return True, None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "indicator"}


class IndicatorRegistry:
    """The catalogue by name, in any case. There is one of them, and it is read: what is added is a declaration."""

    _instance: ClassVar[Self | None] = None

    def __new__(cls) -> Self:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def get(self, abbreviation: str) -> IndicatorMetadata | None:
        """One indicator's metadata, None where the catalogue does not have it."""
        indicator = catalog.get(abbreviation.upper())
        return None if indicator is None else IndicatorMetadata.of(indicator)

    def get_all(self) -> dict[str, IndicatorMetadata]:
        """Name -> metadata."""
        return {name: IndicatorMetadata.of(indicator) for name, indicator in catalog.items()}

    def get_by_category(self, category: str) -> dict[str, IndicatorMetadata]:
        """Those of one category: trend, momentum, volatility, volume, candlestick."""
        return {name: metadata for name, metadata in self.get_all().items() if metadata.category == category}

    def exists(self, abbreviation: str) -> bool:
        """Whether the catalogue has it."""
        return abbreviation.upper() in catalog

    def validate_parameters(self, abbreviation: str, parameters: Mapping[str, Any]) -> tuple[bool, str | None]:
        """Whether there is such an indicator that takes these parameters, and if not, why."""
        metadata = self.get(abbreviation)
        if metadata is None:
            return False, f"there is no indicator {abbreviation!r}"
        return metadata.validate_parameters(parameters)

    validate_indicator = validate_parameters

    def get_min_data_points(self, abbreviation: str, parameters: Mapping[str, Any]) -> int:
        """The bars that its first value needs, 0 where there is no such indicator; raises ParameterValidationError."""
        metadata = self.get(abbreviation)
        return 0 if metadata is None else metadata.get_min_data_points(parameters)

    def export(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"indicators": {name: metadata.to_dict() for name, metadata in self.get_all().items()}}


def get_indicator_registry() -> IndicatorRegistry:
    """The one registry."""
    return IndicatorRegistry()

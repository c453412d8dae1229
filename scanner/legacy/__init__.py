"""The earlier system's names for the catalogue: code that was written for it runs, and computes the right numbers.

Nothing is computed here: one symbol becomes a panel of one, and the engines do the rest. What is new is written
against `scanner` itself. See docs/from-the-earlier-system.md.
"""

from scanner.legacy.factory import IndicatorFactory
from scanner.legacy.indicators import (
    GpuGenericIndicator,
    IndicatorPluginFactory,
    TalibGenericIndicator,
    UnknownIndicatorError,
    register_all_talib_indicators,
)
from scanner.legacy.interface import (
    CalculationStatus,
    IndicatorError,
    IndicatorInterface,
    IndicatorResult,
    InsufficientDataError,
    OHLCVData,
    ParameterValidationError,
)
from scanner.legacy.metadata import IndicatorMetadata, IndicatorRegistry, get_indicator_registry
from scanner.legacy.scheduler import CalculationMode, ScheduleResult, SmartScheduler, create_scheduler

__all__ = [
    "CalculationMode",
    "CalculationStatus",
    "GpuGenericIndicator",
    "IndicatorError",
    "IndicatorFactory",
    "IndicatorInterface",
    "IndicatorMetadata",
    "IndicatorPluginFactory",
    "IndicatorRegistry",
    "IndicatorResult",
    "InsufficientDataError",
    "OHLCVData",
    "ParameterValidationError",
    "ScheduleResult",
    "SmartScheduler",
    "TalibGenericIndicator",
    "UnknownIndicatorError",
    "create_scheduler",
    "get_indicator_registry",
    "register_all_talib_indicators",
]

"""The catalogue of indicators, and any other function of TA-Lib by its name."""

from collections.abc import Mapping
from types import MappingProxyType

from data.errors import ExpressionError
from scanner.indicators import (
    aroon,
    averages,
    channels,
    directional,
    dispersion,
    momentum,
    oscillators,
    patterns,
    stochastic,
    tdx_energy,
    tdx_lines,
    tdx_momentum,
    tdx_trend,
    trend,
    volatility,
    volume,
)
from scanner.indicators.spec import Indicator, suggestion
from scanner.indicators.window import WINDOWS

_FILES = (
    averages,
    trend,
    channels,
    aroon,
    directional,
    momentum,
    stochastic,
    oscillators,
    volatility,
    dispersion,
    volume,
    patterns,
    tdx_trend,
    tdx_lines,
    tdx_momentum,
    tdx_energy,
)

catalog: Mapping[str, Indicator] = MappingProxyType(
    {indicator.name: indicator for file in _FILES for indicator in file.INDICATORS}
)
"""Name -> declaration, in the order in which they are shown."""


def find(name: str) -> Indicator:
    """The indicator of that name: the catalogue's, or else TA-Lib's function, described by introspection.

    Names are upper case. Raises ExpressionError with the nearest name. TA-Lib is imported only for a name that the
    catalogue lacks.
    """
    if name in catalog:
        return catalog[name]
    from scanner.engines import talib

    names = talib.functions()
    if name in names:
        return talib.describe(name)
    near = suggestion(name, catalog) or suggestion(name, names)
    raise ExpressionError(f"unknown indicator {name!r}; {near or 'see `mystocks-scan indicators --all`'}")


def kernels() -> tuple[Indicator, ...]:
    """Every indicator with a row kernel: the catalogue's, then the window functions of rules."""
    return tuple(indicator for indicator in (*catalog.values(), *WINDOWS.values()) if indicator.kernel)

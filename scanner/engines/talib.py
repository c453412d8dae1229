"""The engine `talib`: TA-Lib, called for one symbol after the other; and TA-Lib described to the rest of the project.

The only module that imports TA-Lib, which imports pandas and takes a second. Its calls gain nothing from threads.
"""

import functools
import inspect
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import EngineError
from data.panel import Floats
from scanner.engines.base import Counts, spans
from scanner.indicators.spec import Family, Indicator, Param, Value

try:
    import talib
    from talib.abstract import Function  # type: ignore[attr-defined]  # its stub forgets it
except ImportError as error:
    raise EngineError(f"engine 'talib' needs TA-Lib: {error}. Install it with: pip install TA-Lib") from error

_FAMILY: dict[str, Family] = {
    "Overlap Studies": "trend",
    "Momentum Indicators": "momentum",
    "Volatility Indicators": "volatility",
    "Volume Indicators": "volume",
    "Pattern Recognition": "patterns",
}
_INTEGERS = (-(2**31) + 1, 2**31 - 1)
_REALS = (-3e37, 3e37)
"""TA-Lib's widest bounds; the numbers just below stand for "default"."""


class TalibEngine:
    """TA-Lib per symbol, and the declaration's numpy reference where TA-Lib lacks an indicator; holds no state."""

    name = "talib"

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Floats],
        lengths: Counts,
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`."""
        matrices = [np.ascontiguousarray(matrix, dtype=np.float64) for matrix in inputs]
        if len(matrices) != len(indicator.inputs):
            wanted = ", ".join(indicator.inputs)
            raise ValueError(f"{indicator.name} takes {len(indicator.inputs)} inputs ({wanted}); got {len(matrices)}")
        first, stop = spans(matrices, lengths)
        length = matrices[0].shape[1]
        width = length if keep is None else min(keep, length)
        begin = first + indicator.lookback(**params)
        if indicator.reference is not None:
            outside = _outside(first, stop, length, length)
            if outside is not None:
                matrices = [np.where(outside, np.nan, matrix) for matrix in matrices]
            full = indicator.reference(*matrices, **params)
            outputs = tuple(np.array(output[:, length - width :], order="C") for output in full)
        else:
            outputs = _call(indicator, params, matrices, first, stop, begin, width)
        outside = _outside(begin, stop, length, width)
        if outside is not None:
            for output in outputs:
                np.copyto(output, np.nan, where=outside)
        return outputs


engine = TalibEngine()


def _outside(begin: Counts, stop: Counts, length: int, width: int) -> Any:
    """(symbols, width) or (1, width): which of the last columns lie outside [begin, stop); None if none does."""
    columns = np.arange(length - width, length)
    if stop.size == 0 or (begin.max() <= length - width and stop.min() == length):
        return None
    if begin.min() == begin.max() and stop.min() == length:
        return (columns < begin[0])[None, :]
    return (columns < begin[:, None]) | (columns >= stop[:, None])


def _call(
    indicator: Indicator,
    params: Mapping[str, float],
    inputs: Sequence[Floats],
    first: Counts,
    stop: Counts,
    begin: Counts,
    width: int,
) -> tuple[Floats, ...]:
    """TA-Lib on each symbol's columns [first, stop); what it leaves out is any number."""
    assert indicator.talib is not None
    function = _function(indicator.talib)
    given = {**indicator.fixed, **params}
    arguments = [given[name] for name in Function(indicator.talib).info["parameters"]]
    n_symbols, length = inputs[0].shape
    outputs = tuple(np.empty((n_symbols, width)) for _ in indicator.outputs)
    skip = length - width
    several = len(outputs) > 1
    if n_symbols and first.max() == 0 and stop.min() == length:
        if begin[0] < length:
            for row in zip(zip(*outputs, strict=True), *inputs, strict=True):
                result = function(*row[1:], *arguments)
                for target, values in zip(row[0], result if several else (result,), strict=True):
                    target[:] = values[skip:]
        return outputs
    for i, (a, b, valid) in enumerate(zip(first.tolist(), stop.tolist(), begin.tolist(), strict=True)):
        if valid < b and b > skip:
            result = function(*[matrix[i, a:b] for matrix in inputs], *arguments)
            c = max(a, skip)
            for output, values in zip(outputs, result if several else (result,), strict=True):
                output[i, c - skip : b - skip] = values[c - a :]
    return outputs


def _function(name: str) -> Callable[..., Any]:
    """TA-Lib's own function, without the wrapper that looks for pandas in every call."""
    function: Callable[..., Any] = inspect.unwrap(getattr(talib, name))
    return function


@functools.cache
def functions() -> tuple[str, ...]:
    """Every function of the installed TA-Lib, sorted."""
    return tuple(sorted(talib.get_functions()))


@functools.cache
def describe(name: str) -> Indicator:
    """One of `functions()` as an indicator: inputs, parameters with bounds, outputs and lookback are TA-Lib's own."""
    info = Function(name).info
    inputs: list[str] = []
    for value in info["input_names"].values():
        inputs += [value] if isinstance(value, str) else value
    outputs = tuple(info["output_names"])
    if len(outputs) == 1:
        outputs = ("pattern",) if info["group"] == "Pattern Recognition" else (name.lower(),)
    overlay = "Output scale same as input" in (info["function_flags"] or ()) or info["group"] == "Pattern Recognition"
    return Indicator(
        name=name,
        title=info["display_name"],
        title_zh="",
        family=_FAMILY.get(info["group"], "other"),
        pane="overlay" if overlay else "oscillator",
        inputs=tuple(inputs),
        params=tuple(_param(name, param, default) for param, default in info["parameters"].items()),
        outputs=outputs,
        lookback=functools.partial(_lookback, name),
        talib=name,
        doc=f"{info['display_name']}: TA-Lib's {name}, of its {info['group'].lower()}.",
    )


def _lookback(name: str, **params: Value) -> int:
    """TA-Lib's lookback; negative where it refuses a parameter."""
    function = Function(name)
    function.parameters = params
    return int(function.lookback)


def _param(function: str, name: str, default: Value) -> Param:
    """A parameter with its bounds, which TA-Lib for Python does not tell: found by what its lookback refuses."""

    def accepts(value: Value) -> bool:
        return _lookback(function, **{name: value}) >= 0

    if isinstance(default, int):
        lo, hi = _INTEGERS
        return Param(name, int, default, _edge(default, lo, accepts), _edge(default, hi, accepts))
    start, lo, hi = map(_rank, (default, *_REALS))

    def at(rank: int) -> bool:
        return accepts(_unrank(rank))

    return Param(name, float, default, _unrank(_edge(start, lo, at)), _unrank(_edge(start, hi, at)))


def _edge(good: int, end: int, accepts: Callable[[int], bool]) -> int:
    """The last accepted integer on the way from `good`, which is, to `end`."""
    if accepts(end):
        return end
    bad = end
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if accepts(middle) else (good, middle)
    return good


def _rank(value: float) -> int:
    """Floats in their order as integers, neighbours as neighbours."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _unrank(rank: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", abs(rank)))[0]
    return value if rank >= 0 else -value

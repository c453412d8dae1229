"""The engine `talib`: TA-Lib, called for one symbol after the other; and TA-Lib described to the rest of the project.

The only module that imports TA-Lib, which imports pandas and takes a second. Its calls gain nothing from threads.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import EngineError, ParameterError
from data.panel import Floats
from scanner.engines.base import Counts, first_true, spans
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
_PATH_DEPENDENT = {"Function has an unstable period", "Output is path-dependent"}
_POSITIONS = {"MAXINDEX", "MININDEX", "MINMAXINDEX"}
"""Their values are places in the series: here, counted from a symbol's first bar."""
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
        """As `Engine.run`; raises ParameterError where TA-Lib refuses parameters that are within bounds one by one."""
        matrices = [np.ascontiguousarray(matrix, dtype=np.float64) for matrix in inputs]
        if len(matrices) != len(indicator.inputs):
            wanted = ", ".join(indicator.inputs)
            raise ValueError(f"{indicator.name} takes {len(indicator.inputs)} inputs ({wanted}); got {len(matrices)}")
        n_symbols, length = matrices[0].shape
        width = length if keep is None else min(keep, length)
        if matrices[0].size == 0:
            return tuple(np.empty((n_symbols, width)) for _ in indicator.outputs)
        first, stop = spans(matrices, lengths)
        blank = True
        if indicator.reference is not None:
            outside = _outside(first, stop, length, length)
            full = indicator.reference(*(np.where(outside, np.nan, matrix) for matrix in matrices), **params)
            outputs = tuple(np.array(output[:, length - width :], order="C") for output in full)
        else:
            outputs = tuple(np.empty((n_symbols, width)) for _ in indicator.outputs)
            call = _call(indicator, params)
            try:
                if _as_talib_sees(matrices, first, stop):
                    blank = not _fill(outputs, call, matrices)
                    origin = lengths - length
                else:
                    _fill_spans(outputs, call, matrices, first, stop)
                    origin = first + lengths - length
            except Exception as error:
                if type(error) is not Exception:  # TA-Lib raises nothing more precise
                    raise
                raise ParameterError(f"TA-Lib refuses {indicator.key(params)}: {error}") from error
            if indicator.talib in _POSITIONS:
                for output in outputs:
                    output += origin[:, None]
        if blank:
            outside = _outside(first + indicator.lookback(**params), stop, length, width)
            for output in outputs:
                np.copyto(output, np.nan, where=outside)
        return outputs


engine = TalibEngine()


def _outside(begin: Counts, stop: Counts, length: int, width: int) -> npt.NDArray[np.bool_]:
    """(symbols, width): which of the last columns lie outside [begin, stop)."""
    columns = np.arange(length - width, length)
    return (columns < begin[:, None]) | (columns >= stop[:, None])


def _call(indicator: Indicator, params: Mapping[str, float]) -> Callable[..., Iterator[Any]]:
    """TA-Lib's function mapped over rows of each input; without the wrapper that looks for pandas in every call."""
    assert indicator.talib is not None
    function = inspect.unwrap(getattr(talib, indicator.talib))
    given = {**indicator.fixed, **params}
    arguments = [given[name] for name in Function(indicator.talib).info["parameters"]]
    return lambda *inputs: map(function, *inputs, *map(itertools.repeat, arguments))


def _fill(outputs: Sequence[Floats], call: Callable[..., Iterator[Any]], inputs: Sequence[Floats]) -> bool:
    """Fills the outputs with TA-Lib of whole rows; whether they are NaN during the lookback (integers are 0)."""
    skip = inputs[0].shape[1] - outputs[0].shape[1]
    if len(outputs) == 1:
        for i, values in enumerate(call(*inputs)):
            outputs[0][i] = values[skip:] if skip else values
        result = (values,)
    else:
        for i, result in enumerate(call(*inputs)):
            for output, values in zip(outputs, result, strict=True):
                output[i] = values[skip:] if skip else values
    return all(values.dtype == np.float64 for values in result)


def _fill_spans(
    outputs: Sequence[Floats],
    call: Callable[..., Iterator[Any]],
    inputs: Sequence[Floats],
    first: Counts,
    stop: Counts,
) -> None:
    """Fills the outputs with TA-Lib of each symbol's columns [first, stop); elsewhere they hold any number."""
    skip = inputs[0].shape[1] - outputs[0].shape[1]
    for i, (a, b) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
        c = max(a, skip)
        if c < b:
            (result,) = call(*([matrix[i, a:b]] for matrix in inputs))
            for output, values in zip(outputs, result if len(outputs) > 1 else (result,), strict=True):
                output[i, c - skip : b - skip] = values[c - a :]


def _as_talib_sees(inputs: Sequence[Floats], first: Counts, stop: Counts) -> bool:
    """Whether TA-Lib itself would begin each symbol at `first`, as it skips leading NaN, and meet no gap after it."""
    if stop.size and stop.min() < inputs[0].shape[1]:
        return False
    if not first.any():
        return True
    known = ~np.isnan(inputs[0])
    for matrix in inputs[1:]:
        known &= ~np.isnan(matrix)
    return bool((first_true(known) == first).all())


@functools.cache
def functions() -> tuple[str, ...]:
    """Every function of the installed TA-Lib, sorted."""
    return tuple(sorted(talib.get_functions()))


@functools.cache
def describe(name: str) -> Indicator:
    """One of `functions()` as an indicator: inputs, parameters with bounds, outputs and lookback are TA-Lib's own."""
    info = Function(name).info
    pattern = info["group"] == "Pattern Recognition"
    flags = set(info["function_flags"] or ())
    family = _FAMILY.get(info["group"], "other")
    inputs: list[str] = []
    for value in info["input_names"].values():
        inputs += [value] if isinstance(value, str) else value
    outputs = tuple(info["output_names"])
    if len(outputs) == 1:
        outputs = ("pattern",) if pattern else (name.lower(),)
    return Indicator(
        name=name,
        title=info["display_name"],
        title_zh="",
        family=family,
        pane="overlay" if pattern or "Output scale same as input" in flags else "oscillator",
        inputs=tuple(inputs),
        params=tuple(_param(name, param, default) for param, default in info["parameters"].items()),
        outputs=outputs,
        lookback=functools.partial(_lookback, name),
        talib=name,
        # TA-Lib marks some; an average of averages it does not.
        recursive=bool(flags & _PATH_DEPENDENT) or family not in ("patterns", "other"),
        doc=f"{info['display_name']}: TA-Lib's {name}, of its {info['group'].lower()}.",
    )


def _lookback(name: str, **params: Value) -> int:
    """TA-Lib's own lookback."""
    function = Function(name)
    function.parameters = params
    bars: int = function.lookback
    return bars


def _param(function: str, name: str, default: Value) -> Param:
    """A parameter with its bounds, which TA-Lib for Python does not tell: found by what its lookback refuses."""
    probe = Function(function)

    def accepts(value: Value) -> bool:
        probe.parameters = {name: value}
        return bool(probe.lookback >= 0)

    lo, hi = _INTEGERS if isinstance(default, int) else _REALS
    return Param(name, type(default), default, _edge(default, lo, accepts), _edge(default, hi, accepts))


def _edge(good: Value, bad: Value, accepts: Callable[[Value], bool]) -> Value:
    """The last accepted value on the way from `good`, which is, to `bad`; exact for integers and for floats."""
    if accepts(bad):
        return bad
    while (middle := (good + bad) // 2 if isinstance(good, int) else (good + bad) / 2) not in (good, bad):
        good, bad = (middle, bad) if accepts(middle) else (good, middle)
    return good + 0  # -0.0 becomes 0.0

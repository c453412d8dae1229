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
from scanner.engines import plain
from scanner.engines.base import Counts, Series, first_true, joint_span
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
    """TA-Lib per symbol, and a kernel's numpy form where TA-Lib lacks an indicator; holds no state."""

    name = "talib"

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`; raises ParameterError where TA-Lib refuses parameters that are within bounds one by one."""
        if indicator.talib is None:
            return plain.run(indicator, params, inputs, keep=keep)
        first, stop = joint_span(indicator, inputs)
        matrices = [series.by_symbol for series in inputs]
        lengths = inputs[0].lengths
        n_symbols, length = matrices[0].shape
        width = length if keep is None else min(keep, length)
        if matrices[0].size == 0:
            return tuple(np.empty((width, n_symbols)) for _ in indicator.outputs)
        outputs = tuple(np.empty((n_symbols, width)) for _ in indicator.outputs)
        whole = _as_talib_sees_it(matrices, first, stop)
        blank = not _by_rows(indicator, params, matrices, np.flatnonzero(whole), outputs)
        if not whole.all():
            _by_spans(indicator, params, matrices, np.flatnonzero(~whole), first, stop, outputs)
            blank = True
        if indicator.talib in _POSITIONS:
            for output in outputs:
                output += (lengths - length)[:, None]
        if blank:
            outside = _outside(first + indicator.lookback(**params), stop, length, width)
            for output in outputs:
                np.copyto(output, np.nan, where=outside)
        return tuple(output.T for output in outputs)


engine = TalibEngine()


def _outside(begin: Counts, stop: Counts, length: int, width: int) -> npt.NDArray[np.bool_]:
    """(symbols, width): which of the last columns lie outside [begin, stop)."""
    columns = np.arange(length - width, length)
    return (columns < begin[:, None]) | (columns >= stop[:, None])


def _by_rows(
    indicator: Indicator,
    params: Mapping[str, float],
    inputs: Sequence[Floats],
    rows: npt.NDArray[np.intp],
    outputs: Sequence[Floats],
) -> bool:
    """Fills rows of the outputs with TA-Lib of whole rows; whether they are NaN before the first value."""
    n_symbols, length = inputs[0].shape
    skip = length - outputs[0].shape[1]
    results = _calls(indicator, params, inputs if len(rows) == n_symbols else [matrix[rows] for matrix in inputs])
    result: Sequence[npt.NDArray[Any]] = ()
    if len(outputs) == 1:
        for i, values in zip(rows.tolist(), results, strict=True):
            outputs[0][i] = values[skip:] if skip else values
            result = (values,)
    else:
        for i, result in zip(rows.tolist(), results, strict=True):
            for output, values in zip(outputs, result, strict=True):
                output[i] = values[skip:] if skip else values
    # Integers (candlesticks, places) are 0 there.
    return all(values.dtype == np.float64 for values in result)


def _by_spans(
    indicator: Indicator,
    params: Mapping[str, float],
    inputs: Sequence[Floats],
    rows: npt.NDArray[np.intp],
    first: Counts,
    stop: Counts,
    outputs: Sequence[Floats],
) -> None:
    """Fills rows of the outputs with TA-Lib of their columns [first, stop); elsewhere they hold any number."""
    skip = inputs[0].shape[1] - outputs[0].shape[1]
    for i in rows.tolist():
        a, b = int(first[i]), int(stop[i])
        c = max(a, skip)
        if c < b:
            (result,) = _calls(indicator, params, [matrix[[i], a:b] for matrix in inputs])
            place = a if indicator.talib in _POSITIONS else 0
            for output, values in zip(outputs, result if len(outputs) > 1 else (result,), strict=True):
                output[i, c - skip : b - skip] = values[c - a :] + place


def _calls(indicator: Indicator, params: Mapping[str, float], inputs: Sequence[Floats]) -> Iterator[Any]:
    """TA-Lib's results row by row, called without the wrapper that looks for pandas each time."""
    assert indicator.talib is not None
    function = inspect.unwrap(getattr(talib, indicator.talib))
    given = {**indicator.fixed, **params}
    arguments = [given[name] for name in _parameters(indicator.talib)]
    try:
        yield from map(function, *inputs, *map(itertools.repeat, arguments))
    except Exception as error:
        if type(error) is not Exception:  # TA-Lib raises nothing more precise
            raise
        raise ParameterError(f"TA-Lib refuses {indicator.key(params)}: {error}") from error


def _as_talib_sees_it(inputs: Sequence[Floats], first: Counts, stop: Counts) -> npt.NDArray[np.bool_]:
    """(symbols,) whether TA-Lib, which skips leading NaN, would itself begin at `first`, and meet no gap after it."""
    length = inputs[0].shape[1]
    plain: npt.NDArray[np.bool_] = (stop == length) & (first < length)
    if first.any():
        known = ~np.isnan(inputs[0])
        for matrix in inputs[1:]:
            known &= ~np.isnan(matrix)
        plain &= first_true(known) == first
    return plain


@functools.cache
def _parameters(name: str) -> tuple[str, ...]:
    """A function's parameters in its own order."""
    return tuple(Function(name).info["parameters"])


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

"""The functions of the rule language, for YAML rules and Python strategies alike.

Arrays are (bars, symbols): axis 0 holds each symbol's own bars, the newest last; a plain number stands for a constant.
NaN is unknown. A condition has three values inside, 1.0, 0.0 and NaN, so that `not` of something unknown stays unknown;
what a strategy gets is a bool array in which the unknown is False: NaN is never true.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from data.errors import ExpressionError

Array = npt.NDArray[Any]
Kind = Literal["number", "condition", "n"]


@dataclass(frozen=True)
class Function:
    """One function of the language: the kinds of its arguments, of its result, and how many bars back it looks."""

    name: str
    arguments: tuple[Kind, ...]
    result: Literal["number", "condition"]
    core: Callable[..., Array]
    """On float64 arrays; conditions are 1.0, 0.0, NaN."""
    reach: Callable[[int], int | None]
    """n -> how many bars before a bar its value depends on; None: all of them."""
    doc: str
    default_n: int | None = None
    across: bool = False
    """Whether it looks across the market, not along a symbol's bars."""


def compare(x: Array | float, y: Array | float, operator: Callable[[Any, Any], Array]) -> Array:
    """A comparison as a condition: unknown where either side is."""
    return np.where(np.isnan(x) | np.isnan(y), np.nan, operator(x, y))


def both(x: Array, y: Array) -> Array:
    """`and` of two conditions: false if either is, else unknown if either is."""
    return np.where((x == 0.0) | (y == 0.0), 0.0, x * y)


def either(x: Array, y: Array) -> Array:
    """`or` of two conditions: true if either is, else unknown if either is."""
    return np.where((x == 1.0) | (y == 1.0), 1.0, x + y)


def negated(x: Array) -> Array:
    """`not` of a condition."""
    return 1.0 - x


def _float(x: Any) -> Array:
    return np.asarray(x, dtype=np.float64)


def _prev(x: Array | float, n: int = 1) -> Array:
    values = _float(x)
    if values.ndim == 0:
        return values
    out = np.full_like(values, np.nan)
    if n < len(values):
        out[n:] = values[: len(values) - n]
    return out


def _cross_over(x: Array | float, y: Array | float) -> Array:
    x, y = _float(x), _float(y)
    return both(compare(x, y, np.greater), compare(_prev(x), _prev(y), np.less_equal))


def _cross_under(x: Array | float, y: Array | float) -> Array:
    x, y = _float(x), _float(y)
    return both(compare(x, y, np.less), compare(_prev(x), _prev(y), np.greater_equal))


def _windows(x: Array, n: int) -> Array | None:
    """Every window of n bars, (bars - n + 1, symbols, n); None where there are fewer bars."""
    return sliding_window_view(x, n, axis=0) if n <= len(x) else None


def _over_window(x: Array | float, n: int, reduce: Callable[[Array], Array]) -> Array:
    values = _float(x)
    out = np.full_like(values, np.nan)
    windows = _windows(values, n)
    if windows is not None:
        out[n - 1 :] = reduce(windows)
    return out


def _highest(x: Array, n: int) -> Array:
    return _over_window(x, n, lambda w: w.max(axis=-1))


def _lowest(x: Array, n: int) -> Array:
    return _over_window(x, n, lambda w: w.min(axis=-1))


def _count(condition: Array, n: int) -> Array:
    return _over_window(condition, n, lambda w: w.sum(axis=-1))


def _every(condition: Array, n: int) -> Array:
    def reduce(windows: Array) -> Array:
        known = np.fmin.reduce(windows, axis=-1)
        return np.where(known == 0.0, 0.0, windows.sum(axis=-1) / n)

    return _over_window(condition, n, reduce)


def _bars_since(condition: Array) -> Array:
    met = _float(condition) == 1.0
    place = np.arange(len(met)).reshape((-1,) + (1,) * (met.ndim - 1))
    last = np.maximum.accumulate(np.where(met, place, -1), axis=0)
    return np.where(last >= 0, place - last, np.nan)


def rank_within(x: Array, groups: Array) -> Array:
    """Each value's place among the values of its group, as a share in (0, 1]: 1 the highest, ties the mean of theirs.

    `x` and `groups` have one shape; a group is a bar end. NaN has no place and counts nowhere.
    """
    out = np.full(x.shape, np.nan)
    known = ~np.isnan(x)
    values, group = x[known], groups[known]
    if len(values) == 0:
        return out
    order = np.lexsort((values, group))
    v, g = values[order], group[order]
    new_group = np.r_[True, g[1:] != g[:-1]]
    new_value = new_group | np.r_[True, v[1:] != v[:-1]]
    start = np.flatnonzero(new_group)
    size = np.diff(np.r_[start, len(g)])
    which = np.cumsum(new_group) - 1
    first = np.flatnonzero(new_value)
    ties = np.diff(np.r_[first, len(v)])
    place = np.repeat(first + (ties + 1) / 2, ties) - start[which]
    share = np.empty(len(v))
    share[order] = place / size[which]
    out[known] = share
    return out


def _rank(x: Array) -> Array:
    values = np.atleast_2d(_float(x))
    return rank_within(values, np.broadcast_to(np.arange(len(values))[:, None], values.shape)).reshape(np.shape(x))


def _absolute(x: Array) -> Array:
    return np.abs(_float(x))


FUNCTIONS = {
    function.name: function
    for function in (
        Function("prev", ("number", "n"), "number", _prev, lambda n: n, "x, n bars ago (1 if n is not given)", 1),
        Function(
            "cross_over",
            ("number", "number"),
            "condition",
            _cross_over,
            lambda n: 1,
            "x is above y and was not a bar ago",
        ),
        Function(
            "cross_under",
            ("number", "number"),
            "condition",
            _cross_under,
            lambda n: 1,
            "x is below y and was not a bar ago",
        ),
        Function("highest", ("number", "n"), "number", _highest, lambda n: n - 1, "the highest x of n bars"),
        Function("lowest", ("number", "n"), "number", _lowest, lambda n: n - 1, "the lowest x of n bars"),
        Function("count", ("condition", "n"), "number", _count, lambda n: n - 1, "on how many of n bars it was true"),
        Function("every", ("condition", "n"), "condition", _every, lambda n: n - 1, "it was true on each of n bars"),
        Function(
            "bars_since", ("condition",), "number", _bars_since, lambda n: None, "bars since it was last true, 0 now"
        ),
        Function(
            "rank",
            ("number",),
            "number",
            _rank,
            lambda n: 0,
            "its place in the market at this bar, a share in (0, 1], 1 the highest",
            across=True,
        ),
        Function("abs", ("number",), "number", _absolute, lambda n: 0, "without its sign"),
    )
}
"""Name -> function. Adding one here adds it to YAML rules, to the linter and to the docs."""


def _bars(x: Any, needed: int, name: str) -> None:
    """Refuse an array that is too short to answer, where a silent False would hide the mistake."""
    if np.ndim(x) > 0 and len(x) < needed:
        raise ExpressionError(
            f"{name} needs {needed} bars; the array has {len(x)}. Ask for more with `bars = {needed}` in the strategy"
        )


def cross_over(x: Array | float, y: Array | float) -> npt.NDArray[np.bool_]:
    """Where x is above y and was not one bar ago; bool, False where unknown. Arrays (bars, symbols)."""
    _bars(x, 2, "cross_over")
    return _cross_over(x, y) == 1.0


def cross_under(x: Array | float, y: Array | float) -> npt.NDArray[np.bool_]:
    """Where x is below y and was not one bar ago; bool, False where unknown. Arrays (bars, symbols)."""
    _bars(x, 2, "cross_under")
    return _cross_under(x, y) == 1.0


def prev(x: Array, n: int = 1) -> Array:
    """x, n bars ago; NaN in the first n rows. Arrays (bars, symbols)."""
    _bars(x, n + 1, "prev")
    return _prev(x, n)


def highest(x: Array, n: int) -> Array:
    """The highest x of n bars; NaN in the first n - 1 rows. Arrays (bars, symbols)."""
    _bars(x, n, "highest")
    return _highest(x, n)


def lowest(x: Array, n: int) -> Array:
    """The lowest x of n bars; NaN in the first n - 1 rows. Arrays (bars, symbols)."""
    _bars(x, n, "lowest")
    return _lowest(x, n)


def count(condition: Array, n: int) -> Array:
    """On how many of n bars the condition was true; NaN in the first n - 1 rows. Arrays (bars, symbols)."""
    _bars(condition, n, "count")
    return _count(condition, n)


def every(condition: Array, n: int) -> npt.NDArray[np.bool_]:
    """Whether the condition was true on each of n bars; False in the first n - 1 rows. Arrays (bars, symbols)."""
    _bars(condition, n, "every")
    return _every(condition, n) == 1.0


def bars_since(condition: Array) -> Array:
    """Bars since the condition was last true within the array, 0 now, NaN if never. Arrays (bars, symbols)."""
    return _bars_since(condition)


def rank(x: Array) -> Array:
    """Each value's place in its row, a share in (0, 1], 1 the highest; ties share the mean of their places."""
    return _rank(x)

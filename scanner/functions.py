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

    @property
    def usage(self) -> str:
        """How it is written: `count(cond, n)`."""
        numbers = iter("xy")
        words = [{"n": "n", "condition": "cond"}.get(kind) or next(numbers) for kind in self.arguments]
        return f"{self.name}({', '.join(words)})"


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


def _over_window(x: Array | float, n: int, combine: Callable[[Array, Array], Array]) -> Array:
    """`combine` over each window of n bars, in log n steps: it must not mind meeting a bar twice."""
    values = _float(x)
    out = np.full_like(values, np.nan)
    if n <= len(values):
        width = 1
        while 2 * width <= n:
            values = combine(values[width:], values[:-width])
            width *= 2
        rest = n - width
        out[n - 1 :] = combine(values[rest:], values[: len(values) - rest])
    return out


def _highest(x: Array, n: int) -> Array:
    return _over_window(x, n, np.maximum)


def _lowest(x: Array, n: int) -> Array:
    return _over_window(x, n, np.minimum)


def _every(condition: Array, n: int) -> Array:
    return _over_window(condition, n, both)


def _count(condition: Array, n: int) -> Array:
    met = _float(condition)
    unknown = np.isnan(met)
    out = np.full_like(met, np.nan)
    if n <= len(met):
        total, gaps = (np.cumsum(np.where(unknown, 0.0, met), axis=0), np.cumsum(unknown, axis=0))
        for sums in (total, gaps):
            sums[n:] -= sums[:-n].copy()
        out[n - 1 :] = np.where(gaps[n - 1 :] == 0, total[n - 1 :], np.nan)
    return out


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
        Function("prev", ("number", "n"), "number", _prev, lambda n: n, "x, n bars ago; 1 if n is not given", 1),
        Function("cross_over", ("number",) * 2, "condition", _cross_over, lambda n: 1, "x > y, and x <= y a bar ago"),
        Function("cross_under", ("number",) * 2, "condition", _cross_under, lambda n: 1, "x < y, and x >= y a bar ago"),
        Function("highest", ("number", "n"), "number", _highest, lambda n: n - 1, "the highest x of n bars"),
        Function("lowest", ("number", "n"), "number", _lowest, lambda n: n - 1, "the lowest x of n bars"),
        Function("count", ("condition", "n"), "number", _count, lambda n: n - 1, "of how many of n bars it held"),
        Function("every", ("condition", "n"), "condition", _every, lambda n: n - 1, "it held on each of n bars"),
        Function(
            "bars_since",
            ("condition",),
            "number",
            _bars_since,
            lambda n: None,
            "bars since it last held, 0 now",
        ),
        Function(
            "rank",
            ("number",),
            "number",
            _rank,
            lambda n: 0,
            "x's place in the market at this bar, a share in (0, 1]: 1 is the highest, equals share the mean",
            across=True,
        ),
        Function("abs", ("number",), "number", _absolute, lambda n: 0, "x without its sign"),
    )
}
"""Name -> function. Adding one here adds it to YAML rules, to the linter and to the docs."""


def _bars(x: Any, needed: int, name: str) -> None:
    """Refuse an array that is too short to answer, where a silent False would hide the mistake."""
    if needed < 1:
        raise ExpressionError(f"{name} n must be an integer of 1 or more")
    if np.ndim(x) > 0 and len(x) < needed:
        raise ExpressionError(
            f"{name} needs {needed} bars; the array has {len(x)}. Ask for more with `bars = {needed}` in the strategy"
        )


def _met(condition: Array) -> npt.NDArray[np.bool_]:
    return np.equal(condition, 1.0)


def cross_over(x: Array | float, y: Array | float) -> npt.NDArray[np.bool_]:
    """Where x is above y and was not one bar ago; bool, False where unknown. Arrays (bars, symbols)."""
    _bars(x, 2, "cross_over")
    return _met(_cross_over(x, y))


def cross_under(x: Array | float, y: Array | float) -> npt.NDArray[np.bool_]:
    """Where x is below y and was not one bar ago; bool, False where unknown. Arrays (bars, symbols)."""
    _bars(x, 2, "cross_under")
    return _met(_cross_under(x, y))


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
    return _met(_every(condition, n))


def bars_since(condition: Array) -> Array:
    """Bars since the condition was last true within the array, 0 now, NaN if never. Arrays (bars, symbols)."""
    return _bars_since(condition)


def rank(x: Array) -> Array:
    """Each value's place in its row, a share in (0, 1], 1 the highest; ties share the mean of their places."""
    return _rank(x)

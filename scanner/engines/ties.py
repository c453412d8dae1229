"""Where the hits of two engines differ, and whether each difference is a tie.

Kernels equal TA-Lib to a declared tolerance, so a comparison of two values that lie nearer to each other than that may
fall on either side. No rule has an epsilon for it: what differs is listed instead, and anything else that differs is a
fault.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.engines.base import Engine
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.functions import FUNCTIONS
from scanner.indicators.spec import Indicator
from scanner.language import parse
from scanner.terms import COMPARISONS, Term, order

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """One symbol's bar at which a condition holds on one engine and not on the other."""

    rule: str
    symbol: str
    bar_end: int
    """UTC ns."""
    apart: float
    """How far the compared values lie from each other, on the first engine."""
    tolerance: float
    """How far they may for a tie: the kernels' declared tolerance, on the largest values of the symbol."""

    @property
    def tie(self) -> bool:
        return self.apart <= self.tolerance


@dataclass(frozen=True)
class Comparison:
    """What two engines say of one rule: how often it fires on the first, and every difference."""

    rule: str
    hits: int
    differences: tuple[Difference, ...]


def rules_of(indicators: Mapping[str, Indicator]) -> dict[str, str]:
    """A rule or more for each output of each indicator, read off its declaration: name -> condition.

    Outputs drawn over prices are crossed by the close, the others by their reference lines; all by one another, and by
    what they were a bar ago.
    """
    rules: dict[str, str] = {}
    for indicator in indicators.values():
        first, *others = [_output(indicator, name) for name in indicator.outputs]
        for line in indicator.reference_lines:
            rules[f"{first} over {line:g}"] = f"cross_over({first}, {line:g})"
        if indicator.pane == "overlay" and indicator.family != "patterns":
            rules[f"close over {first}"] = f"cross_over(close, {first})"
        rules[f"{first} turns"] = f"{first} > prev({first}) and prev({first}) <= prev({first}, 2)"
        for other in others:
            rules[f"{first} over {other}"] = f"cross_over({first}, {other})"
    return rules


def _output(indicator: Indicator, name: str) -> str:
    call = indicator.key(indicator.bind())
    return call if len(indicator.outputs) == 1 else f"{call}.{name}"


def compare_engines(rules: Mapping[str, str], source: Source, first: Engine, second: Engine) -> Iterator[Comparison]:
    """Each rule at every bar of `source` on both engines, rule by rule. Raises ExpressionError."""
    for name, text in rules.items():
        yield _compare(name, parse(text), source, first, second)


def _compare(name: str, when: Term, source: Source, first: Engine, second: Engine) -> Comparison:
    pairs = list(_compared(when))
    indicators = [term for term in order([when]) if _valued(term)]
    wanted = dict.fromkeys([when, *(side for pair in pairs for side in pair), *indicators], source.length)
    one, other = evaluate(wanted, source, first), evaluate(wanted, source, second)
    differ = (one[when] == 1.0) != (other[when] == 1.0)
    found = []
    for t, j in np.argwhere(differ):
        apart, tolerance = _nearest(when, pairs, one, int(t), int(j))
        end = int(source.packed.bar_ends[t, j])
        found.append(Difference(name, source.packed.symbols[j], end, apart, tolerance))
    return Comparison(name, int((one[when] == 1.0).sum()), tuple(found))


def _valued(term: Term) -> bool:
    return term.op == "output" or (term.op == "indicator" and len(term.indicator.outputs) == 1)


def _compared(when: Term) -> Iterator[tuple[Term, Term]]:
    """Every pair of numbers that the condition compares."""
    for term in order([when]):
        if term.op in COMPARISONS or (term.op == "function" and term.data[0].startswith("cross_")):
            yield term.args[0], term.args[1]


def _nearest(
    when: Term, pairs: list[tuple[Term, Term]], values: Mapping[Term, Array], t: int, j: int
) -> tuple[float, float]:
    """(apart, tolerance) of the pair nearest to a tie, for its tolerance, at the bars that the rule looks at."""
    best = (np.inf, 0.0)
    back = 1 + sum(_reach(term) for term in order([when]) if term.op == "function")
    for pair in pairs:
        x, y = (_column(values[side], j, slice(max(0, t - back), t + 1)) for side in pair)
        apart = float(np.nanmin(np.abs(x - y), initial=np.inf))
        allowed = sum(_tolerance(side, values, j) for side in pair)
        if best[0] == np.inf or apart - allowed < best[0] - best[1]:
            best = (apart, allowed)
    return best


def _reach(term: Term) -> int:
    name, n = term.data
    return FUNCTIONS[name].reach(n or 1) or 0


def _tolerance(side: Term, values: Mapping[Term, Array], j: int) -> float:
    """The declared tolerances of the indicators in it, times the constants that they may be multiplied by."""
    total, factor = 0.0, 1.0
    for term in order([side]):
        if term.op == "const":
            factor *= max(1.0, abs(term.data))
        if _valued(term):
            indicator = (term.args[0] if term.op == "output" else term).indicator
            column = np.abs(_column(values[term], j, slice(None)))
            largest = float(column[np.isfinite(column)].max(initial=0.0))
            total += (indicator.kernel.rtol if indicator.kernel else 0.0) * largest
    return total * factor


def _column(value: Any, j: int, bars: slice) -> Array:
    array = np.asarray(value)
    column: Array = np.atleast_1d(array) if array.ndim == 0 else array[bars, j]
    return column

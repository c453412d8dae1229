"""How far back the values of an expression reach."""

from collections.abc import Iterable

from scanner.functions import FUNCTIONS
from scanner.strategy import BARS_A_SESSION
from scanner.terms import Term, order

FORGOTTEN = 40
"""An average that feeds on itself has lost a bar to the last of 53 bits after so many times its period."""


def memory(terms: Iterable[Term], frame: str) -> int | None:
    """How many bars before the newest can make a difference to the values of `terms`; None: all there are."""
    wanted = list(terms)
    depth = dict.fromkeys(order(wanted), 0)
    for term in reversed(depth):
        reach = _reach(term, frame)
        if reach is None:
            return None
        for arg in term.args:
            depth[arg] = max(depth[arg], depth[term] + reach)
    return max(depth.values(), default=0) + BARS_A_SESSION[frame]


def _reach(term: Term, frame: str) -> int | None:
    """How many bars of its arguments before one of its own a term depends on."""
    if term.op == "function":
        return FUNCTIONS[term.data[0]].reach(term.data[1] or 1)
    if term.op == "field":
        return None if term.data == "bars_listed" else 0
    if term.op != "indicator":
        return 0
    indicator, lookback = term.indicator, int(term.indicator.lookback(**term.parameters))
    if "session" in indicator.inputs:
        return BARS_A_SESSION[frame]
    if not indicator.recursive:
        return lookback
    periods = [value for value in term.parameters.values() if isinstance(value, int)]
    return FORGOTTEN * max(lookback, *periods) if periods else None

"""Where the values of an expression belong on a chart: over the prices, over the volume, or in a pane of their own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data.errors import ExpressionError, UsageError
from data.panel import PRICES, Floats
from jobs.chart.content import Line, Pane, Style
from scanner.language import parse
from scanner.strategy import PythonStrategy, Rule
from scanner.terms import Term

MOST_PANES = 6
"""With more of them none can be read."""
MOST_DRAWN = 20
Where = Literal["prices", "volume", "pane"]
SHORT = {"BOLL": "TDX_BOLL"}
"""What Chinese software calls it -> the name of that very formula."""
_STYLES: Mapping[tuple[str, str], Style] = {
    ("MACD", "hist"): "bars",
    ("TDX_MACD", "macd"): "bars",
    ("SAR", "sar"): "dots",
    ("SUPERTREND", "supertrend"): "dots",
}
_RAW_PRICES = ("limit_up", "limit_down", "prev_close")
"""Fields that are prices as they were traded, whatever the others are."""
_SCALES: Mapping[Where, tuple[str, ...]] = {"prices": PRICES, "volume": ("volume",)}


@dataclass(frozen=True)
class Wanted:
    """One expression to be drawn."""

    term: Term
    where: Where


def split_expressions(text: str) -> list[tuple[int, str]]:
    """`SMA(20), MACD(12, 26, 9)` -> each expression with its place in the text; commas within brackets divide nothing.

    Raises ExpressionError where brackets do not match.
    """
    found: list[tuple[int, str]] = []
    depth, start = 0, 0
    for place, char in enumerate(f"{text},"):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth <= 0:
            if text[start:place].strip():
                found.append((start, text[start:place]))
            start = place + 1
    if depth > 0:
        raise ExpressionError(f"a bracket is not closed in {text[start:].strip()!r}", column=start + 1)
    return found


def wanted(texts: Iterable[str]) -> list[Wanted]:
    """Lists of expressions as they were written -> what is to be drawn, each once.

    Raises ExpressionError naming the expression and the column in the text, UsageError for too many panes.
    """
    short = {name: parse(expression) for name, expression in SHORT.items()}
    terms: dict[Term, None] = {}
    for text in texts:
        for place, expression in split_expressions(text):
            try:
                term = parse(expression, short)
            except ExpressionError as error:
                column = place + (error.column or 1)
                raise ExpressionError(f"{text!r}, column {column}: {error}", column=column) from None
            if term.kind == "text":
                column = place + 1 + len(expression) - len(expression.lstrip())
                raise ExpressionError(
                    f"{text!r}, column {column}: {expression.strip()!r} is a text; numbers and conditions are drawn",
                    column=column,
                )
            terms[term] = None
    return check([Wanted(term, where(term)) for term in terms])


def check(asked: list[Wanted]) -> list[Wanted]:
    """Refuse more than can be read."""
    if len(asked) > MOST_DRAWN:
        raise UsageError(f"a chart draws at most {MOST_DRAWN} expressions; got {len(asked)}. Leave some out")
    panes = [str(one.term) for one in asked if one.where == "pane"]
    if len(panes) > MOST_PANES:
        raise UsageError(
            f"a chart has at most {MOST_PANES} panes below the prices; got {len(panes)}: {', '.join(panes)}. Leave some"
            " out, or draw several charts"
        )
    return asked


def named_by(strategy: Rule | PythonStrategy) -> list[Wanted]:
    """What a strategy looks at, as far as it is not prices and volume themselves."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term.op == "output":
            found[term.args[0]] = None
        elif term.op == "indicator" or (term.op == "function" and where(term) == "prices"):
            found[term] = None
        else:
            for arg in term.args:
                visit(arg)

    for term in strategy.shown if isinstance(strategy, Rule) else strategy.terms.values():
        visit(term)
    return check([Wanted(term, where(term)) for term in found])


def where(term: Term) -> Where:
    """A moving average of prices lies among prices, one of the volume among volumes."""
    if term.op == "field" and term.data in _RAW_PRICES:
        return "prices"
    for place, fields in _SCALES.items():
        if 0.5 <= (_weight(term, fields) or 0) <= 1.5:  # a price times 1.1 is still read beside prices
            return place
    return "pane"


def _weight(term: Term, fields: tuple[str, ...]) -> float | None:
    """By how much a term moves where all `fields` move by one; None where that is not what it does."""
    args = [_weight(arg, fields) for arg in term.args]
    match term.op:
        case "const":
            return 0.0
        case "field":
            return 1.0 if term.data in fields else None
        case "output":
            return args[0]
        case "indicator":
            indicator = term.indicator
            if indicator.pane != "overlay" or indicator.family == "patterns":
                return None
            levels = [w for arg, w in zip(term.args, args, strict=True) if arg.data not in ("volume", "session")]
            return 1.0 if all(w == 1 for w in levels or args) else None
        case "function" if term.data[0] in ("prev", "highest", "lowest", "abs"):
            return args[0]
        case "+" | "-" if args[0] is not None and args[1] is not None:
            return args[0] + args[1] if term.op == "+" else args[0] - args[1]
        case "*" | "/":
            by = [float(arg.data) if arg.op == "const" else None for arg in term.args]
            if by[1] and args[0] is not None:
                return args[0] * by[1] if term.op == "*" else args[0] / by[1]
            if by[0] and args[1] is not None and term.op == "*":
                return args[1] * by[0]
    return None


def lines_of(one: Wanted, values: Any, shown: slice, factors: Floats) -> list[Line]:
    """Values of a term, (bars, 1) or of several outputs a tuple of such -> lines over the bars shown.

    `factors`: what traded prices are multiplied by; limits are such prices, and would lie beside the candles otherwise.
    """
    term, n = one.term, len(factors)
    if term.op == "field" and term.data in _RAW_PRICES:
        return [Line(f"{term} (adjusted)", column(values, n)[shown] * factors[shown])]
    outputs = [("", values)]
    if term.kind == "outputs":
        named = zip(term.indicator.outputs, values, strict=True)
        outputs = [(name, value) for name, value in named if (term.indicator.name, name) != ("SUPERTREND", "direction")]
    found = []
    for name, value in outputs:
        owner = str(term) if name and one.where != "pane" else ""
        label = f"{owner} {name}" if owner else name or str(term)
        found.append(Line(label, column(value, n)[shown], _style(term, name), owner))
    return found


def pane_of(one: Wanted, lines: list[Line]) -> Pane:
    """A pane of its own."""
    indicator = one.term.args[0] if one.term.op == "output" else one.term
    levels = indicator.indicator.reference_lines if indicator.op == "indicator" else ()
    return Pane(str(one.term), tuple(lines), tuple(levels))


def _style(term: Term, output: str) -> Style:
    if term.op == "output":
        term, output = term.args[0], term.data
    if term.kind == "condition":
        return "bars"
    if term.op != "indicator":
        return "line"
    if term.indicator.family == "patterns":
        return "bars"
    return _STYLES.get((term.indicator.name, output or term.indicator.outputs[0]), "line")


def column(values: Any, n: int) -> Floats:
    """One symbol's values, (n,); a plain number stands at each bar."""
    if np.ndim(values) == 0:
        return np.full(n, float(values))
    return np.asarray(values, dtype=np.float64)[-n:, 0]

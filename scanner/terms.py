"""Terms: an expression of the rule language as a hashable tree, in which equal parts are one and computed once."""

import functools
import operator
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scanner.functions import FUNCTIONS
from scanner.indicators import find
from scanner.indicators.spec import Indicator

Kind = Literal["number", "condition", "text", "outputs"]

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Term:
    """One node. `op` says what it is and `data` what belongs to it:

    const (the number), field (its name), indicator (name and parameters), output (its name), function (its name, and n
    or None), an operator (`+`, `>=`, `and`, `not`, `neg`), in (its texts, sorted).
    """

    op: str
    args: tuple["Term", ...] = ()
    data: Any = None
    kind: Kind = field(default="number", compare=False)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.op, self.args, self.data))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the cached hash: texts hash differently in each process.
        return Term, (self.op, self.args, self.data, self.kind)

    def __str__(self) -> str:
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        return text(self)

    @property
    def indicator(self) -> Indicator:
        """The declaration of an indicator term."""
        return find(self.data[0])

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of an indicator term."""
        return dict(self.data[1])

    @property
    def across(self) -> bool:
        """Whether it, or a part of it, looks across the market."""
        return any(part.op == "function" and FUNCTIONS[part.data[0]].across for part in order([self]))


def text(term: Term) -> str:
    """The canonical spelling: equal terms, equal text; it parses back to the same term."""
    match term.op:
        case "const":
            return _number(term.data)
        case "field":
            return str(term.data)
        case "indicator":
            inputs = [] if _default_inputs(term) else [text(arg) for arg in term.args]
            values = [_number(value) for _, value in term.data[1]]
            return f"{term.data[0]}({','.join(inputs + values)})"
        case "output":
            return f"{text(term.args[0])}.{term.data}"
        case "function":
            n = [] if term.data[1] is None else [str(term.data[1])]
            return f"{term.data[0]}({','.join([text(arg) for arg in term.args] + n)})"
        case "neg":
            return f"-{_wrapped(term.args[0])}"
        case "not":
            return f"not {_wrapped(term.args[0])}"
        case "in":
            return f"{_wrapped(term.args[0])} in {list(term.data)}"
        case _:
            return f" {term.op} ".join(_wrapped(arg) for arg in term.args)


def _wrapped(term: Term) -> str:
    plain = term.op in ("const", "field", "indicator", "output", "function")
    return text(term) if plain else f"({text(term)})"


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _default_inputs(term: Term) -> bool:
    return term.args == tuple(Term("field", data=name) for name in term.indicator.inputs)


def order(terms: Iterable[Term], known: Container[Term] = ()) -> list[Term]:
    """Every distinct term below `terms`, each after what it needs; without the `known` and what only they need."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term not in found and term not in known:
            for arg in term.args:
                visit(arg)
            found[term] = None

    for term in terms:
        visit(term)
    return list(found)

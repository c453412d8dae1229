"""Terms: an expression of the rule language as a hashable tree, in which equal parts are one and computed once.

The language is a whitelist over Python's own expression grammar, parsed with `ast` and never evaluated:

    cross_over(MACD(12, 26, 9).macd, MACD(12, 26, 9).signal) and volume > 1.5 * SMA(volume, 20)

fields (`close`), indicators with parameters, inputs and outputs (`KDJ(9, 3, 3).j`, `SMA(volume, 20)`, `EMA(RSI(14), 5)`),
the functions of `scanner.functions`, + - * /, comparisons (chained too), `in` for texts, and/or/not.
"""

import ast
import difflib
import functools
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data.errors import ExpressionError, ParameterError
from scanner.fields import FIELDS
from scanner.functions import FUNCTIONS
from scanner.indicators import catalog, find
from scanner.indicators.spec import Indicator

Kind = Literal["number", "condition", "text", "outputs"]

OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@dataclass(frozen=True)
class Term:
    """One node. `op` says what it is and `data` what belongs to it:

    const (the number or text), field (its name), indicator (name and parameters), output (its name), function (its
    name; n, if it takes one, is `data[1]`), an operator (`+`, `>=`, `and`, `not`, `neg`, `in` with its texts).
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

    def __str__(self) -> str:
        return text(self)

    @property
    def indicator(self) -> Indicator:
        """The declaration of an indicator term."""
        return find(self.data[0])

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of an indicator term."""
        return dict(self.data[1])

    def walk(self) -> Iterator["Term"]:
        """This term and everything below it, what is needed first coming first; repeats included."""
        for arg in self.args:
            yield from arg.walk()
        yield self


def text(term: Term) -> str:
    """The canonical spelling: equal terms, equal text; it parses back to the same term."""
    match term.op:
        case "const":
            return (
                repr(term.data)
                if isinstance(term.data, str)
                else f"{term.data:g}"
                if _short(term.data)
                else repr(term.data)
            )
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


def _short(value: float) -> bool:
    return float(f"{value:g}") == value


def _number(value: float) -> str:
    return f"{value:g}" if _short(value) else repr(value)


def _default_inputs(term: Term) -> bool:
    return term.args == tuple(Term("field", data=name) for name in term.indicator.inputs)


def order(terms: Iterable[Term], known: Container[Term] = ()) -> list[Term]:
    """Every distinct term below `terms`, each after what it needs; those `known` and what only they need are left out."""
    found: dict[Term, None] = {}

    def visit(term: Term) -> None:
        if term not in found and term not in known:
            for arg in term.args:
                visit(arg)
            found[term] = None

    for term in terms:
        visit(term)
    return list(found)


def parse(expression: str, names: Mapping[str, "str | Term"] | None = None) -> Term:
    """Expression -> term. `names`: what `let` gave names to, as expressions or terms.

    Raises ExpressionError with the column (1-based) and, for an unknown name, the nearest one that exists.
    """
    return _Parser(names or {}).parse(expression)


def parse_value(expression: str, names: Mapping[str, "str | Term"] | None = None) -> Term:
    """Like `parse`, but an indicator of several outputs must name the one that is meant."""
    term = parse(expression, names)
    return _single(term, None)


class _Parser:
    """Holds the names that `let` gave and which of them are being resolved, to find cycles."""

    def __init__(self, names: Mapping[str, "str | Term"]) -> None:
        self.names = names
        self.known: dict[str, Term] = {}
        self.open: list[str] = []

    def parse(self, expression: str) -> Term:
        if not isinstance(expression, str) or not expression.strip():
            raise ExpressionError(f"an expression must be a text that is not empty; got {expression!r}", column=1)
        try:
            tree = ast.parse(" ".join(expression.split("\n")).strip(), mode="eval")
        except SyntaxError as error:
            raise ExpressionError(f"{error.msg}: {expression.strip()!r}", column=error.offset) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ExpressionError(f"not readable: {error}", column=1) from None
        try:
            return self.term(tree.body)
        except RecursionError:
            raise ExpressionError("too deeply nested", column=1) from None

    def term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=bool()):
                raise _error(node, "True and False are no values of the language; write a comparison")
            case ast.Constant(value=int() | float() as value):
                if not math.isfinite(value):
                    raise _error(node, f"a number must be finite; got {value}")
                return Term("const", data=float(value))
            case ast.Constant(value=str() as value):
                return Term("const", data=value, kind="text")
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Attribute(value=value, attr=attr):
                return self.output(node, self.term(value), attr)
            case ast.Call():
                return self.call(node)
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return Term(word, tuple(self.condition(value, word) for value in values), kind="condition")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Term("not", (self.condition(operand, "not"),), kind="condition")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.number(operand, "-")
                return Term("const", data=-inner.data) if inner.op == "const" else Term("neg", (inner,))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand, "+")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                sign = OPERATORS[type(op)]
                return _folded(node, sign, self.number(left, sign), self.number(right, sign))
            case ast.Compare():
                return self.comparison(node)
            case _:
                raise _error(
                    node,
                    f"{ast.unparse(node)!r} is not part of the language: it has fields, indicators, functions, + - * /,"
                    " comparisons, and, or, not",
                )

    def name(self, node: ast.expr, name: str) -> Term:
        if name in self.names:
            return self.let(node, name)
        if name in FIELDS:
            return Term("field", data=name, kind=FIELDS[name].kind)
        if name in FUNCTIONS:
            raise _error(node, f"{name} is a function: {FUNCTIONS[name].doc}. Give it its arguments: {_usage(name)}")
        if name in catalog:
            return self.indicator(node, name, [], [])
        raise self.unknown(node, name)

    def let(self, node: ast.expr, name: str) -> Term:
        if name in self.open:
            cycle = " -> ".join([*self.open[self.open.index(name) :], name])
            raise _error(node, f"the names of `let` go in a circle: {cycle}")
        if name not in self.known:
            meaning = self.names[name]
            if isinstance(meaning, Term):
                return meaning
            self.open.append(name)
            try:
                self.known[name] = self.parse(meaning)
            except ExpressionError as error:
                if len(self.open) == 1 and not str(error).startswith("let "):
                    raise ExpressionError(f"let {name}: {error}", column=error.column) from None
                raise
            finally:
                self.open.pop()
        return self.known[name]

    def output(self, node: ast.expr, term: Term, name: str) -> Term:
        if term.op != "indicator":
            raise _error(node, f".{name} asks for an output, which only an indicator has; {text(term)} is none")
        indicator = term.indicator
        try:
            place = indicator.output(name)
        except ExpressionError as error:
            raise _error(node, str(error)) from None
        return Term("output", (_bare(term),), indicator.outputs[place])

    def call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name):
            raise _error(node, f"{ast.unparse(node.func)!r} cannot be called; only indicators and functions can")
        name = node.func.id
        if any(isinstance(arg, ast.Starred) for arg in node.args) or any(k.arg is None for k in node.keywords):
            raise _error(node, f"{name}: * and ** are not part of the language")
        if name in FUNCTIONS:
            return self.function(node, name)
        if name in self.names or name in FIELDS:
            raise _error(node, f"{name} is a value, not a function: write it without the parentheses")
        return self.indicator(node, name, node.args, node.keywords)

    def function(self, node: ast.Call, name: str) -> Term:
        function = FUNCTIONS[name]
        takes_n = function.arguments[-1] == "n"
        series = function.arguments[:-1] if takes_n else function.arguments
        if node.keywords and not (takes_n and [k.arg for k in node.keywords] == ["n"]):
            raise _error(node, f"{name} has no parameter {node.keywords[0].arg!r}; it is used as {_usage(name)}")
        given = [*node.args, *(k.value for k in node.keywords)]
        least = len(series) + (1 if takes_n and function.default_n is None else 0)
        if not least <= len(given) <= len(function.arguments):
            raise _error(node, f"{name} is used as {_usage(name)}; got {len(given)} arguments")
        args = tuple(
            self.number(arg, name) if kind == "number" else self.condition(arg, name)
            for kind, arg in zip(series, given, strict=False)
        )
        n = None
        if takes_n:
            n = function.default_n if len(given) == len(series) else self.whole(given[-1], name)
        return Term("function", args, (name, n), kind=function.result)

    def whole(self, node: ast.expr, name: str) -> int:
        term = self.term(node)
        if (
            term.op != "const"
            or not isinstance(term.data, float)
            or term.data != int(term.data)
            or not 1 <= term.data <= 10000
        ):
            raise _error(node, f"{name} n must be an integer in [1, 10000]; got {ast.unparse(node)}")
        return int(term.data)

    def indicator(self, node: ast.expr, name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> Term:
        try:
            indicator = find(name)
        except ExpressionError:
            raise self.unknown(node, name) from None
        inputs: list[Term] = []
        values: list[float] = []
        for arg in args:
            term = self.term(arg)
            if term.op == "const":
                values.append(_exact(term.data))
            elif values:
                raise _error(arg, f"{name}: inputs stand before parameters; {text(term)} comes after {values[-1]}")
            else:
                inputs.append(_single(self.expect(arg, term, "number", name), arg))
        if not inputs:
            inputs = [Term("field", data=field_name) for field_name in indicator.inputs]
        elif len(inputs) != len(indicator.inputs):
            raise _error(
                node,
                f"{name} takes {len(indicator.inputs)} inputs ({', '.join(indicator.inputs)}), all or none; got {len(inputs)}",
            )
        named: dict[str, Any] = {}
        for keyword in keywords:
            term = self.term(keyword.value)
            if term.op != "const":
                raise _error(keyword.value, f"{name} {keyword.arg} must be a number; got {text(term)}")
            named[str(keyword.arg)] = _exact(term.data)
        try:
            bound = indicator.bind(*values, **named)
        except ParameterError as error:
            raise _error(node, str(error)) from None
        kind: Kind = "number" if len(indicator.outputs) == 1 else "outputs"
        return Term("indicator", tuple(inputs), (indicator.name, tuple(bound.items())), kind=kind)

    def comparison(self, node: ast.Compare) -> Term:
        operands = [node.left, *node.comparators]
        parts = []
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            parts.append(self.pair(node, left, op, right))
        return parts[0] if len(parts) == 1 else Term("and", tuple(parts), kind="condition")

    def pair(self, node: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Term:
        first = self.term(left)
        if isinstance(op, ast.In | ast.NotIn):
            texts = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else []
            values = tuple(
                sorted(str(e.value) for e in texts if isinstance(e, ast.Constant) and isinstance(e.value, str))
            )
            if first.kind != "text" or not texts or len(values) != len(texts):
                raise _error(node, "`in` is for texts: board in ['main', 'star']")
            inside = Term("in", (first,), values, kind="condition")
            return inside if isinstance(op, ast.In) else Term("not", (inside,), kind="condition")
        if type(op) not in OPERATORS:
            raise _error(node, "comparisons are > >= < <= == != and `in`")
        sign = OPERATORS[type(op)]
        second = self.term(right)
        if "text" in (first.kind, second.kind):
            if first.kind != second.kind or sign not in ("==", "!="):
                raise _error(node, "a text is compared with a text, by == or !=: board == 'star'")
            same = Term("in", (first,), (second.data,), kind="condition") if second.op == "const" else None
            if same is None:
                raise _error(node, "a text stands to the right of the comparison: board == 'star'")
            return same if sign == "==" else Term("not", (same,), kind="condition")
        first, second = self.expect(left, first, "number", sign), self.expect(right, second, "number", sign)
        return Term(sign, (_single(first, left), _single(second, right)), kind="condition")

    def number(self, node: ast.expr, user: str) -> Term:
        return _single(self.expect(node, self.term(node), "number", user), node)

    def condition(self, node: ast.expr, user: str) -> Term:
        return self.expect(node, self.term(node), "condition", user)

    def expect(self, node: ast.expr, term: Term, kind: str, user: str) -> Term:
        if term.kind == kind or (kind == "number" and term.kind == "outputs"):
            return term
        raise _error(node, f"{user!r} takes a {kind}; got the {term.kind} {text(term)}")

    def unknown(self, node: ast.expr, name: str) -> ExpressionError:
        words = [*self.names, *FIELDS, *FUNCTIONS, *catalog]
        near = difflib.get_close_matches(name, words, 1) or difflib.get_close_matches(name.upper(), words, 1)
        near = near or difflib.get_close_matches(name.lower(), words, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ". 'mystocks-scan indicators' lists what there is"
        return _error(node, f"unknown name {name!r}{hint}")


def _bare(term: Term) -> Term:
    return Term(term.op, term.args, term.data, kind="outputs")


def _single(term: Term, node: ast.expr | None) -> Term:
    """A value of its own: an indicator with one output is that output."""
    if term.kind == "outputs":
        outputs = term.indicator.outputs
        raise _error(
            node,
            f"{text(term)} has {len(outputs)} outputs; name one: {text(term)}.{outputs[0]}, of {', '.join(outputs)}",
        )
    return term


def _folded(node: ast.expr, sign: str, left: Term, right: Term) -> Term:
    """A binary operation; of two numbers, its result."""
    if left.op != "const" or right.op != "const":
        return Term(sign, (left, right))
    if sign == "/" and right.data == 0:
        raise _error(node, "division by zero")
    value = {"+": left.data + right.data, "-": left.data - right.data, "*": left.data * right.data}.get(sign)
    return Term("const", data=left.data / right.data if value is None else value)


def _exact(value: Any) -> Any:
    """A number as it was meant: 14.0 is the integer 14."""
    return int(value) if isinstance(value, float) and value == int(value) else value


def _usage(name: str) -> str:
    function = FUNCTIONS[name]
    names = {"number": ["x", "y"], "condition": ["cond", "cond2"]}
    words = [("n" if kind == "n" else names[kind][place]) for place, kind in enumerate(function.arguments)]
    return f"{name}({', '.join(words)})"


def _error(node: ast.expr | None, message: str) -> ExpressionError:
    return ExpressionError(message, column=None if node is None else node.col_offset + 1)

"""The rule language: an expression -> a term.

It is a whitelist over Python's own expression grammar, parsed with `ast` and never evaluated:

    cross_over(MACD(12, 26, 9).macd, MACD(12, 26, 9).signal) and volume > 1.5 * SMA(volume, 20)

fields (`close`), indicators with parameters, inputs and outputs (`KDJ(9, 3, 3).j`, `SMA(volume, 20)`,
`EMA(RSI(14), 5)`), the functions of `scanner.functions`, + - * /, comparisons (chained too), `in` for texts, and, or,
not.
"""

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from data.errors import ExpressionError, ParameterError
from scanner.fields import FIELDS
from scanner.functions import FUNCTIONS
from scanner.indicators import catalog, find
from scanner.indicators.spec import suggestion
from scanner.indicators.window import MOST_BARS
from scanner.terms import ARITHMETIC, Kind, Term, order, text

SIGNS: Mapping[type[ast.AST], str] = {
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
MOST_CHARACTERS, MOST_PARTS, MOST_LEVELS = 10_000, 1_000, 100
"""Bounds of one expression, `let` written out: what is beyond them is a mistake, and would hang whoever reads it."""


def parse(expression: str, names: Mapping[str, Term] | None = None) -> Term:
    """Expression -> term; `#` begins a comment. `names`: what `let` gave names to.

    Raises ExpressionError with the column (1-based, in characters from the expression's beginning) and, for an unknown
    name, the nearest one that exists.
    """
    return _Parser(expression, names or {}).parse()


def parse_value(expression: str, names: Mapping[str, Term] | None = None) -> Term:
    """Like `parse`, but an indicator of several outputs must name the one that is meant."""
    parser = _Parser(expression, names or {})
    return parser.single(parser.parse(), None)


_BLANKED = re.compile(r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|\#[^\n]*|[\n\r]""")
"""Texts (kept), comments and line ends."""


class _Parser:
    """Holds one expression, for the places of its errors, and the names that may stand in it."""

    def __init__(self, expression: str, names: Mapping[str, Term]) -> None:
        self.names = names
        if not isinstance(expression, str):
            raise ExpressionError(f"an expression must be a text; got {expression!r}", column=1)
        # Comments and line ends become spaces one by one, so that columns stay what they are.
        blanked = _BLANKED.sub(lambda found: found[1] or " " * len(found[0]), expression)
        self.source = blanked.strip()
        self.skipped = len(blanked) - len(blanked.lstrip())

    def parse(self) -> Term:
        if not self.source:
            raise ExpressionError("an expression must not be empty", column=1)
        if len(self.source) > MOST_CHARACTERS:
            raise ExpressionError(f"an expression must have at most {MOST_CHARACTERS} characters", column=1)
        try:
            tree = ast.parse(self.source, mode="eval")
        except SyntaxError as error:
            place = min(error.offset or len(self.source) + 1, len(self.source) + 1)
            raise ExpressionError(f"{error.msg}: {_shortened(self.source)!r}", column=self.skipped + place) from None
        except ValueError as error:
            raise ExpressionError(f"not readable: {error}", column=1) from None
        except (RecursionError, MemoryError):
            raise ExpressionError(f"too deeply nested: at most {MOST_LEVELS} levels", column=1) from None
        try:
            term = self.term(tree.body)
            parts: dict[Term, tuple[int, int]] = {}
            for part in order([term]):
                below = [parts[arg] for arg in part.args]
                parts[part] = 1 + sum(n for n, _ in below), 1 + max((levels for _, levels in below), default=0)
        except RecursionError:
            raise ExpressionError(f"too deeply nested: at most {MOST_LEVELS} levels", column=1) from None
        n, levels = parts[term]
        if n > MOST_PARTS or levels > MOST_LEVELS:
            raise ExpressionError(
                f"an expression must have at most {MOST_PARTS} parts on {MOST_LEVELS} levels; got {n} on {levels}",
                column=1,
            )
        return term

    def error(self, node: ast.expr | None, message: str) -> ExpressionError:
        """What is wrong at `node`; ast counts its columns in bytes."""
        before = b"" if node is None else self.source.encode()[: node.col_offset]
        return ExpressionError(message, column=self.skipped + len(before.decode(errors="ignore")) + 1)

    def written(self, node: ast.expr) -> str:
        """The node as it was written."""
        return _shortened(ast.get_source_segment(self.source, node) or "")

    def term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=bool()):
                raise self.error(node, "True and False are no values of the language; write a comparison")
            case ast.Constant(value=int() | float() as value):
                return self.constant(node, value)
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
                return self.constant(node, -inner.data) if inner.op == "const" else Term("neg", (inner,))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand, "+")
            case ast.BinOp(left=left, op=op, right=right) if SIGNS.get(type(op)) in ARITHMETIC:
                sign = SIGNS[type(op)]
                return self.folded(node, sign, self.number(left, sign), self.number(right, sign))
            case ast.Compare():
                return self.comparison(node)
            case ast.Constant(value=str()):
                raise self.error(node, "a text stands to the right of a field that is one: board == 'star'")
            case _:
                raise self.error(
                    node,
                    f"{self.written(node)!r} is not part of the language: it has fields, indicators, functions,"
                    " + - * /, comparisons, and, or, not",
                )

    def constant(self, node: ast.expr, value: float) -> Term:
        try:
            number = float(value) + 0.0  # -0.0 becomes 0.0
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.error(node, f"a number must be finite; got {self.written(node)}")
        return Term("const", data=number)

    def name(self, node: ast.expr, name: str) -> Term:
        if name in self.names:
            try:
                return self.names[name]
            except ExpressionError as error:
                raise self.error(node, str(error)) from None
        if name in FIELDS:
            return Term("field", data=name, kind=FIELDS[name].kind)
        if name in FUNCTIONS:
            raise self.error(node, f"{name} is a function, used as {FUNCTIONS[name].usage}: {FUNCTIONS[name].doc}")
        return self.indicator(node, name, [], [])

    def output(self, node: ast.expr, term: Term, name: str) -> Term:
        if term.op != "indicator":
            raise self.error(node, f".{name} asks for an output, which only an indicator has; {text(term)} is none")
        indicator = term.indicator
        try:
            place = indicator.output(name)
        except ExpressionError as error:
            raise self.error(node, str(error)) from None
        return term if len(indicator.outputs) == 1 else Term("output", (term,), indicator.outputs[place])

    def call(self, node: ast.Call) -> Term:
        if not isinstance(node.func, ast.Name):
            raise self.error(node, f"{self.written(node.func)!r} cannot be called; only indicators and functions can")
        name = node.func.id
        if any(isinstance(arg, ast.Starred) for arg in node.args) or any(k.arg is None for k in node.keywords):
            raise self.error(node, f"{name}: * and ** are not part of the language")
        if name in FUNCTIONS:
            return self.function(node, name)
        if name in self.names or name in FIELDS:
            raise self.error(node, f"{name} is a value, not a function: write it without the parentheses")
        return self.indicator(node, name, node.args, node.keywords)

    def function(self, node: ast.Call, name: str) -> Term:
        function = FUNCTIONS[name]
        takes_n = function.arguments[-1] == "n"
        series = function.arguments[:-1] if takes_n else function.arguments
        if node.keywords and not (takes_n and [k.arg for k in node.keywords] == ["n"]):
            raise self.error(node, f"{name} has no parameter {node.keywords[0].arg!r}; it is used as {function.usage}")
        given = [*node.args, *(k.value for k in node.keywords)]
        least = len(series) + (1 if takes_n and function.default_n is None else 0)
        if not least <= len(given) <= len(function.arguments):
            raise self.error(node, f"{name} is used as {function.usage}; got {len(given)} arguments")
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
        if term.op != "const" or term.data != int(term.data) or not 1 <= term.data <= MOST_BARS:
            raise self.error(node, f"{name} n must be an integer in [1, {MOST_BARS}]; got {self.written(node)}")
        return int(term.data)

    def indicator(self, node: ast.expr, name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> Term:
        try:
            indicator = find(name)
        except ExpressionError as error:
            words = [*self.names, *FIELDS, *FUNCTIONS, *catalog]
            hint = suggestion(name, words) or str(error).partition("; ")[2]
            raise self.error(node, f"unknown name {name!r}; {hint}") from None
        inputs: list[Term] = []
        values: list[float] = []
        for arg in args:
            term = self.number(arg, name)
            if term.op == "const":
                values.append(_exact(term.data))
            elif values:
                raise self.error(arg, f"{name}: inputs stand before parameters; {text(term)} comes after {values[-1]}")
            else:
                inputs.append(term)
        if not inputs:
            inputs = [Term("field", data=field_name) for field_name in indicator.inputs]
        elif len(inputs) != len(indicator.inputs):
            raise self.error(
                node,
                f"{name} takes {len(indicator.inputs)} inputs ({', '.join(indicator.inputs)}), all or none; got"
                f" {len(inputs)}",
            )
        named: dict[str, Any] = {}
        for keyword in keywords:
            term = self.number(keyword.value, name)
            if term.op != "const":
                raise self.error(keyword.value, f"{name} {keyword.arg} must be a number; got {text(term)}")
            named[str(keyword.arg)] = _exact(term.data)
        try:
            bound = indicator.bind(*values, **named)
        except ParameterError as error:
            raise self.error(node, str(error)) from None
        kind: Kind = "number" if len(indicator.outputs) == 1 else "outputs"
        return Term("indicator", tuple(inputs), (indicator.name, tuple(bound.items())), kind=kind)

    def comparison(self, node: ast.Compare) -> Term:
        operands = [node.left, *node.comparators]
        parts = tuple(
            self.pair(node, left, op, right) for left, op, right in zip(operands, node.ops, operands[1:], strict=False)
        )
        return parts[0] if len(parts) == 1 else Term("and", parts, kind="condition")

    def pair(self, node: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Term:
        first = self.term(left)
        if first.kind == "text" or isinstance(op, ast.In | ast.NotIn):
            return self.one_of(node, first, op, right)
        if type(op) not in SIGNS:
            raise self.error(node, "comparisons are > >= < <= == != and, for texts, `in`")
        sign = SIGNS[type(op)]
        first = self.single(self.expect(left, first, "number", sign), left)
        return Term(sign, (first, self.number(right, sign)), kind="condition")

    def one_of(self, node: ast.expr, first: Term, op: ast.cmpop, right: ast.expr) -> Term:
        """`board == 'star'`, `board in ['main', 'star']`, and their opposites."""
        listed = isinstance(op, ast.In | ast.NotIn)
        values = right.elts if listed and isinstance(right, ast.List | ast.Tuple) else [right]
        if first.op != "field" or first.kind != "text" or not isinstance(op, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
            raise self.error(node, "texts are compared as in board == 'star' and board in ['main', 'star']")
        known = FIELDS[first.data].values
        texts = set()
        for value in values:
            word = value.value if isinstance(value, ast.Constant) else None
            if not isinstance(word, str) or word not in known:
                hint = suggestion(word, known) if isinstance(word, str) else ""
                message = f"{first.data} is one of {', '.join(known)}; got {self.written(value)}"
                raise self.error(value, f"{message}; {hint}" if hint else message)
            texts.add(word)
        inside = Term("in", (first,), tuple(sorted(texts)), kind="condition")
        return inside if isinstance(op, ast.In | ast.Eq) else Term("not", (inside,), kind="condition")

    def number(self, node: ast.expr, user: str) -> Term:
        return self.single(self.expect(node, self.term(node), "number", user), node)

    def condition(self, node: ast.expr, user: str) -> Term:
        return self.expect(node, self.term(node), "condition", user)

    def expect(self, node: ast.expr, term: Term, kind: str, user: str) -> Term:
        if term.kind == kind or (kind == "number" and term.kind == "outputs"):
            return term
        raise self.error(node, f"{user!r} takes a {kind}; got the {term.kind} {_shortened(text(term))}")

    def single(self, term: Term, node: ast.expr | None) -> Term:
        """A value of its own, not several outputs."""
        if term.kind != "outputs":
            return term
        outputs = term.indicator.outputs
        raise self.error(
            node,
            f"{text(term)} has {len(outputs)} outputs; name one: {text(term)}.{outputs[0]}, of {', '.join(outputs)}",
        )

    def folded(self, node: ast.expr, sign: str, left: Term, right: Term) -> Term:
        """A binary operation; of two numbers, its result."""
        if left.op != "const" or right.op != "const":
            return Term(sign, (left, right))
        if sign == "/" and right.data == 0:
            raise self.error(node, "division by zero")
        return self.constant(node, ARITHMETIC[sign](left.data, right.data))


def _exact(value: float) -> float:
    """A number as it was meant: 14.0 is the integer 14."""
    return int(value) if value == int(value) else value


def _shortened(written: str) -> str:
    return written if len(written) <= 60 else f"{written[:57]}..."

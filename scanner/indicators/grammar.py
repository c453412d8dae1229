"""The kernels' language (`scanner.indicators.rows` says what it is for): what a kernel's source may hold, checked.

Three kinds of place: the *columns*, a loop `for j in range(j1 - j0)`, where names are numbers of one column, and rows
are read and written at [j] alone; the *rows* around these loops, where names are integers, rows and matrices; and
functions called from columns, which take and return numbers.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any, NoReturn, TypeGuard

from data.errors import KernelError

ALLOWED = (
    "a kernel takes + - * /, comparisons with & and |, selects `a if b else c`, abs, math.sqrt, math.nan, functions and"
    " number constants of ours, `for j in range(j1 - j0)` over columns; around that loop also // and %, min, max, len,"
    " `if`, `for lag in range(...)` and rows: `row(x, t, j0, j1)`, `state[k, j0:j1]`; `state[a:b]`"
    " is a ring"
)

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
_OF_INTEGERS = (ast.FloorDiv, ast.Mod)
_LOGIC = (ast.BitAnd, ast.BitOr)
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_CALLS = {"abs": 1, "math.sqrt": 1}
_CALLS_OF_ROWS = {"min": 2, "max": 2, "len": 1}


def parts(kernel: Callable[..., Any]) -> dict[str, object]:
    """A kernel and all of ours that it names, functions (FunctionType) and constants, each after what it needs.

    Raises KernelError for a name of something else, or of two things.
    """
    found: dict[str, object] = {}
    _visit(kernel, found)
    return found


def _visit(function: Any, found: dict[str, object]) -> None:
    if function.__closure__:
        raise _error(function, parsed(function), f"{function.__name__} uses names of a function around it")
    for name, node in _names(function):
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            continue
        if value is function:
            raise _error(function, node, f"{name} calls itself")
        if name in found:
            if found[name] is not value and found[name] != value:
                raise _error(function, node, f"{name} is one thing here and another in a function that it calls")
        elif isinstance(value, FunctionType):
            if value.__name__ != name:
                raise _error(function, node, f"{name} is {value.__name__} by another name")
            _visit(value, found)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
        else:
            raise _error(function, node, f"{name} is no function and no number of ours")
    if found.setdefault(function.__name__, function) is not function:
        raise _error(function, parsed(function), f"{function.__name__} is the name of another function that it calls")


@functools.cache
def _names(function: Callable[..., Any]) -> list[tuple[str, ast.Name]]:
    """Each name of a function's body that is none of its own, where it stands first."""
    tree = parsed(function)
    names = [node for statement in tree.body for node in ast.walk(statement) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    own = {arg.arg for arg in tree.args.args} | {n.id for n in names if isinstance(n.ctx, ast.Store)}
    found: dict[str, ast.Name] = {}
    for node in names:
        if node.id not in own and node.id not in (*_CALLS, *_CALLS_OF_ROWS, "range"):
            found.setdefault(node.id, node)
    return list(found.items())


def parsed(function: Callable[..., Any]) -> ast.FunctionDef:
    """A function's own definition, with the line numbers of its file; raises KernelError where it has no source."""
    text, first = source(function)
    tree = ast.parse(text).body[0]
    ast.increment_lineno(tree, first - 1)
    if not isinstance(tree, ast.FunctionDef):
        raise KernelError(f"{inspect.getsourcefile(function)}:{first}: a kernel is a function, written with def")
    return tree


@functools.cache
def source(function: Callable[..., Any]) -> tuple[str, int]:
    """The text of a function's definition, and its first line in its file; raises KernelError where there is none."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise KernelError(f"the source of the kernel {function!r} cannot be read: {error}") from error
    return textwrap.dedent("".join(lines)), first


def check(kernel: Callable[..., Any]) -> None:
    """Raise KernelError, with file and line, unless a kernel and all that it calls keep to the language."""
    functions = {name: part for name, part in parts(kernel).items() if isinstance(part, FunctionType)}
    for function in functions.values():
        _Check(function, functions).run()


def no_such_row(kernel: str) -> KernelError:
    """For a kernel that takes a row that a matrix does not have, which only its parameters can tell."""
    return KernelError(
        f"the kernel {kernel} takes a row of state that it does not have: they go from 0 to below what"
        " `Kernel.rows` gives for these parameters. Correct the row, or declare more of them"
    )


def is_columns(node: ast.AST) -> TypeGuard[ast.For]:
    """Whether a statement is the loop over columns."""
    return isinstance(node, ast.For) and ast.unparse(node.iter) == "range(j1 - j0)"


def works_on_rows(tree: ast.FunctionDef) -> bool:
    """Whether a function is for rows; any other takes and returns numbers, of a column or not."""
    return {"j0", "j1"} <= {arg.arg for arg in tree.args.args}


def _error(function: Any, node: ast.AST, what: str) -> KernelError:
    line = getattr(node, "lineno", function.__code__.co_firstlineno)
    return KernelError(f"{inspect.getsourcefile(function)}:{line}: {what}; {ALLOWED}")


class _Check:
    """Walks one function. `loop` is the column's number within a loop over columns, "" in a function of numbers."""

    def __init__(self, function: FunctionType, functions: dict[str, FunctionType]) -> None:
        self.function, self.functions = function, functions
        self.tree = parsed(function)
        self.outer = {arg.arg for arg in self.tree.args.args}
        self.rows: set[str] = set()
        self.numbers: set[str] = set()
        """Names that hold numbers of a column, of any loop over columns."""

    def fail(self, node: ast.AST, what: str) -> NoReturn:
        raise _error(self.function, node, what)

    def run(self) -> None:
        arguments = self.tree.args
        if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or arguments.defaults:
            self.fail(self.tree, "parameters are plain names")
        if self.tree.decorator_list:
            self.fail(self.tree, "a decorator")
        for loop in filter(is_columns, ast.walk(self.tree)):
            stored = (n for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            self.numbers |= {node.id for node in stored}
        body = self.tree.body
        if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]
        if works_on_rows(self.tree):
            self.block(body)
        else:
            known = set(self.outer)
            for statement in body:
                self.of_columns(statement, "", known)

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Statements around the loops over columns."""
        for node in statements:
            match node:
                case ast.For() if is_columns(node):
                    self.columns(node)
                case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args), orelse=[]):
                    for arg in args:
                        self.of_rows(arg)
                    self.assign(node, name)
                    self.block(node.body)
                case ast.If():
                    self.of_rows(node.test)
                    self.block(node.body)
                    self.block(node.orelse)
                case ast.Return(value=ast.expr() as value):
                    self.of_rows(value)
                case ast.Expr(value=ast.Call() as call):
                    self.of_rows(call)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.row_or_number(node, name, value)
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(
                    values
                ):
                    for target, value in zip(names, values, strict=True):
                        self.row_or_number(node, ast.unparse(target), value)
                case _:
                    self.fail(node, f"`{ast.unparse(node).splitlines()[0]}` has no place around the loop over columns")

    def row_or_number(self, node: ast.AST, name: str, value: ast.expr) -> None:
        self.of_rows(value)
        self.assign(node, name)
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
        if (isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Tuple)) or called == "row":
            self.rows.add(name)

    def assign(self, node: ast.AST, name: str) -> None:
        if name in self.numbers:
            self.fail(node, f"{name} is a column's number in a loop over columns, and something else around it")
        self.outer.add(name)

    def columns(self, loop: ast.For) -> None:
        """The loop over columns: what it assigns ends with each column."""
        if not isinstance(loop.target, ast.Name) or loop.orelse:
            self.fail(loop, f"`{ast.unparse(loop).splitlines()[0]}`")
        if loop.target.id in self.outer:
            self.fail(loop, f"{loop.target.id} numbers the columns and is something else around their loop")
        known = self.outer - self.rows
        for statement in loop.body:
            self.of_columns(statement, loop.target.id, known)

    def of_columns(self, node: ast.stmt, loop: str, known: set[str]) -> None:
        """One statement for a column, or of a function of numbers; adds to `known` what it assigns."""
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.number(value, loop, known)
                if loop and name in self.outer | {loop}:
                    self.fail(node, f"{name} is a column's number here, and something else around the loop")
                known.add(name)
            case ast.Assign(targets=[ast.Subscript() as target], value=value) if loop:
                self.number(value, loop, known)
                self.at_column(target, loop)
            case ast.Return(value=ast.expr() as value) if not loop:
                self.number(value, loop, known)
            case _:
                self.fail(node, f"`{ast.unparse(node).splitlines()[0]}` has no place in {_place(loop)}")

    def at_column(self, node: ast.Subscript, loop: str) -> None:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Name(id=index)) if (
                name in self.rows and index == loop
            ):
                return
        self.fail(node, f"`{ast.unparse(node)}` is no row at the loop's own column")

    def number(self, node: ast.expr, loop: str, known: set[str], *, chosen: bool = False) -> None:
        """An expression of numbers. `chosen`: it is part of a select."""
        match node:
            case ast.Name(id=name):
                if name not in known and (name in self.numbers | self.rows | self.outer or name == loop):
                    self.fail(node, f"{name} is no number of this column, or not yet")
            case ast.Subscript():
                if chosen:
                    self.fail(node, f"`{ast.unparse(node)}` within a select: read it into a local before")
                self.at_column(node, loop)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                for part in (test, body, orelse):
                    self.number(part, loop, known, chosen=True)
            case ast.Call(func=function, args=args, keywords=[]) if self.callable(function, args, rows=False):
                for part in args:
                    self.number(part, loop, known, chosen=chosen)
            case _:
                for part in self.operands(node, rows=False):
                    self.number(part, loop, known, chosen=chosen)

    def of_rows(self, node: ast.expr) -> None:
        """An expression around the loops over columns: an integer, a number, a row."""
        match node:
            case ast.Name(id=name):
                if name in self.numbers:
                    self.fail(node, f"{name} is a column's number, which ends with its loop")
            case ast.Subscript(value=ast.Name(), slice=ast.Tuple(elts=[place, ast.Slice() as columns])):
                if ast.unparse(columns) != "j0:j1":
                    self.fail(node, f"`{ast.unparse(node)}` is no row of the columns j0:j1")
                self.of_rows(place)
            case ast.Subscript(
                value=ast.Name(), slice=ast.Slice(lower=ast.expr() as lower, upper=ast.expr() as upper, step=None)
            ):
                self.of_rows(lower)
                self.of_rows(upper)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                for part in (test, body, orelse):
                    self.of_rows(part)
            case ast.Call(func=function, args=args, keywords=[]) if self.callable(function, args, rows=True):
                for part in args:
                    self.of_rows(part)
            case _:
                for part in self.operands(node, rows=True):
                    self.of_rows(part)

    def callable(self, function: ast.expr, args: Sequence[ast.expr], *, rows: bool) -> bool:
        name = ast.unparse(function)
        if name in self.functions:
            return rows or not works_on_rows(parsed(self.functions[name]))
        return (_CALLS | (_CALLS_OF_ROWS if rows else {})).get(name) == len(args)

    def operands(self, node: ast.expr, *, rows: bool) -> list[ast.expr]:
        """What an operation works on; no other has a place."""
        arithmetic = (*_ARITHMETIC, *_OF_INTEGERS) if rows else _ARITHMETIC
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return []
            case ast.Attribute() if ast.unparse(node) == "math.nan":
                return []
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return [operand]
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, arithmetic):
                return [left, right]
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _LOGIC):
                for side in (left, right):
                    if not isinstance(side, ast.Compare | ast.Name | ast.BinOp) or (
                        isinstance(side, ast.BinOp) and not isinstance(side.op, _LOGIC)
                    ):
                        self.fail(side, f"`{ast.unparse(side)}` is no comparison")
                return [left, right]
            case ast.Compare(left=left, ops=[op], comparators=[right]) if isinstance(op, _COMPARISONS):
                return [left, right]
        return self.fail(node, f"`{ast.unparse(node)}` has no place {'around the loop' if rows else 'among numbers'}")


def _place(loop: str) -> str:
    return "the loop over columns" if loop else "a function of numbers"

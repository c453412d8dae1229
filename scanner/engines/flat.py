"""A row kernel as one function on pointers: what it calls written where it is called, matrices by their addresses.

numba's time goes by functions and arrays; kernels in this form take it a fraction of that, and give the same bits.
"""

import ast
import copy
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from data.errors import KernelError
from scanner.indicators.grammar import check, is_columns, parsed, parts

_BAD = "_bad"


def flat(kernel: Callable[..., Any]) -> str:
    """The body of a kernel, unindented.

    It takes names as the kernel does, and in place of each of its matrices three: NAME, a pointer, _rows_NAME and
    _pitch_NAME, how many numbers lie between rows; `_bad`, which is 0; `at`, `beyond`, `read`, `select`, `wrap` and
    `write` of `scanner.engines.words` as _at and so on. It returns 1 instead of reading a row that a matrix lacks.
    Raises KernelError for what is outside the language, and where a function returns before its last line.
    """
    check(kernel)
    functions = {name: parsed(part) for name, part in parts(kernel).items() if isinstance(part, FunctionType)}
    for function in functions.values():
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node is not function.body[-1]:
                raise KernelError(f"{function.name}, used by {kernel.__name__}, returns before its last line")
    tree = functions[kernel.__name__]
    names = [arg.arg for arg in tree.args.args]
    statements = _Flat(functions, dict(zip(names, names, strict=True)), [0]).block(tree.body)
    return ast.unparse(ast.fix_missing_locations(ast.Module(statements, [])))


class _Flat(ast.NodeTransformer):
    """One function, written for one call of it: `names` says by which names it goes by there."""

    def __init__(self, functions: dict[str, ast.FunctionDef], names: dict[str, str], calls: list[int]) -> None:
        self.functions, self.names, self.calls = functions, names, calls
        self.columns = False
        self.before: list[ast.stmt] = []
        self.result: ast.expr | None = None
        self.prefix = f"_{calls[0]}_" if calls[0] else ""

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in statements:
            written = self.statement(statement)
            done += [*self.before, *written]
            self.before = []
        return done

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        match node:
            case ast.Expr(value=ast.Constant()):
                return []
            case ast.For():
                columns, self.columns = self.columns, self.columns or is_columns(node)
                target, over = self.visit(node.target), self.visit(node.iter)
                before, self.before = self.before, []
                body = self.block(node.body)
                self.before, self.columns = before, columns
                guard = [ast.If(ast.Name(_BAD, ast.Load()), [ast.Return(ast.Constant(1))], [])]
                return [*(guard if is_columns(node) else []), ast.For(target, over, body, [])]
            case ast.If():
                test = self.visit(node.test)
                before, self.before = self.before, []
                body, other = self.block(node.body), self.block(node.orelse)
                self.before = before
                return [ast.If(test, body, other)]
            case ast.Return(value=ast.expr() as value):
                self.result = self.visit(value)
                return []
            case ast.Expr(value=value):
                self.visit(value)
                return []
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                if _entangled(targets, values):
                    got = [self.visit(value) for value in values]
                    to: list[ast.expr] = [self.visit(target) for target in targets]
                    return [ast.Assign([ast.Tuple(to, ast.Store())], ast.Tuple(got, ast.Load()))]
                return [one for pair in zip(targets, values, strict=True) for one in self.assign(*pair)]
            case ast.Assign(targets=[target], value=value):
                return self.assign(target, value)
        raise AssertionError(ast.unparse(node))

    def assign(self, target: ast.expr, value: ast.expr) -> list[ast.stmt]:
        match target, value:
            case ast.Name(), ast.Subscript(value=ast.Name(id=matrix), slice=ast.Slice(lower=lower, upper=upper)):
                assert lower
                assert upper
                start, end = self.visit(lower), self.visit(upper)
                of, to = self.name(matrix), self.visit(target)
                self.within(of, start)
                self.within(of, ast.BinOp(end, ast.Sub(), ast.Constant(1)))
                self.within(of, ast.BinOp(end, ast.Sub(), ast.BinOp(start, ast.Add(), ast.Constant(1))))
                return [
                    ast.Assign([to], _at(of, start, None)),
                    ast.Assign([ast.Name(_rows(to.id), ast.Store())], ast.BinOp(end, ast.Sub(), start)),
                    ast.Assign([ast.Name(_pitch(to.id), ast.Store())], ast.Name(_pitch(of), ast.Load())),
                ]
        got = self.visit(value)
        if isinstance(target, ast.Subscript):
            return [ast.Expr(_called("_write", self.visit(target.value), self.visit(target.slice), got))]
        return [ast.Assign([self.visit(target)], got)]

    def name(self, name: str) -> str:
        return self.names.get(name, f"{self.prefix}{name}")

    def within(self, matrix: str, place: ast.expr) -> None:
        """See to it, before anything is read, that a matrix has a row."""
        known, rows = ast.Name(_BAD, ast.Load()), ast.Name(_rows(matrix), ast.Load())
        self.before.append(ast.Assign([ast.Name(_BAD, ast.Store())], _called("_beyond", known, place, rows)))

    def visit_Name(self, node: ast.Name) -> Any:
        known = isinstance(node.ctx, ast.Store) or node.id in self.names
        if isinstance(node.ctx, ast.Store):
            self.names.setdefault(node.id, f"{self.prefix}{node.id}")
        return ast.Name(self.name(node.id), node.ctx) if known else node

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        return _called("_select", node.test, node.body, node.orelse) if self.columns else node

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        match node:
            case ast.Subscript(value=ast.Name(id=matrix), slice=ast.Tuple(elts=[place, ast.Slice()])):
                of, at = self.name(matrix), self.visit(place)
                self.within(of, at)
                return _at(of, at, self.name("j0"))
        return _called("_read", self.visit(node.value), self.visit(node.slice))

    def visit_Call(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func)
        if name == "row":
            matrix, t, j0, _ = (self.visit(arg) for arg in node.args)
            place = _called("_wrap", t, ast.Name(_rows(matrix.id), ast.Load()))
            return _at(matrix.id, place, j0.id)
        if name not in self.functions:
            return self.generic_visit(node)
        tree = copy.deepcopy(self.functions[name])
        self.calls[0] += 1
        stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner = _Flat(self.functions, {}, self.calls)
        inner.columns = self.columns
        for parameter, arg in zip(tree.args.args, node.args, strict=True):
            value = self.visit(arg)
            if isinstance(value, ast.Name) and parameter.arg not in stored:
                inner.names[parameter.arg] = value.id
            else:
                inner.names[parameter.arg] = own = f"{inner.prefix}{parameter.arg}"
                self.before.append(ast.Assign([ast.Name(own, ast.Store())], value))
        self.before += inner.block(tree.body)
        return inner.result or ast.Constant(None)


def _entangled(targets: Sequence[ast.expr], values: Sequence[ast.expr]) -> bool:
    """Whether a value is made of a name that is given a new one before it, were they assigned one by one."""
    given: set[str] = set()
    for target, value in zip(targets, values, strict=True):
        if any(isinstance(node, ast.Name) and node.id in given for node in ast.walk(value)):
            return True
        given.add(ast.unparse(target))
    return False


def _rows(matrix: str) -> str:
    return f"_rows_{matrix}"


def _pitch(matrix: str) -> str:
    return f"_pitch_{matrix}"


def _at(matrix: str, place: ast.expr, j0: str | None) -> ast.expr:
    offset: ast.expr = ast.BinOp(place, ast.Mult(), ast.Name(_pitch(matrix), ast.Load()))
    if j0 is not None:
        offset = ast.BinOp(offset, ast.Add(), ast.Name(j0, ast.Load()))
    return _called("_at", ast.Name(matrix, ast.Load()), offset)


def _called(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])

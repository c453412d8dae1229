"""Row kernels without a compiler: a kernel's own source, turned into numpy over all columns at once.

`for j in range(j1 - j0)` vanishes: a row at [j] becomes the row, a select `numpy.where`, and what is called from there
works on rows too. It is slow beside the compiled form and equal to it bit for bit: it computes where numba is missing,
and says what compiled kernels must give.
"""

import ast
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from data.panel import Floats
from scanner.engines.base import Series, joint_span
from scanner.indicators.grammar import check, is_columns, no_such_row, parsed, parts, works_on_rows
from scanner.indicators.spec import Indicator


def run(
    indicator: Indicator, params: Mapping[str, float], inputs: Sequence[Series], *, keep: int | None = None
) -> tuple[Floats, ...]:
    """As `Engine.run`, for an indicator with a kernel; raises KernelError where that is outside the language."""
    assert indicator.kernel is not None
    first, stop = joint_span(indicator, inputs)
    matrices = [series.by_bar for series in inputs]
    bars, n_symbols = matrices[0].shape
    width = bars if keep is None else min(keep, bars)
    outputs = tuple(np.empty((width, n_symbols)) for _ in indicator.outputs)
    if width == 0 or n_symbols == 0:
        return outputs
    state = np.zeros((indicator.kernel.rows(params), n_symbols))
    advance = plain(indicator.kernel.advance)
    # numpy's scalars divide by zero as kernels do: with C's result.
    values = [np.float64(params[p.name]) if p.kind is float else np.int64(params[p.name]) for p in indicator.params]
    with np.errstate(all="ignore"):
        for t in range(int(first.min()), bars):
            state[:, first == t] = 0.0
            advance(np.int64(t), 0, n_symbols, *matrices, state, *outputs, *values)
    # The outputs are rings, whose oldest row need not be the first.
    ordered = tuple(np.roll(output, -(bars % width), axis=0) if bars % width else output for output in outputs)
    rows = np.arange(bars - width, bars)[:, None]
    for output in ordered:
        output[(rows < first) | (rows >= stop)] = np.nan
    return ordered


@functools.cache
def plain(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel as numpy over columns [j0, j1), with the kernel's own parameters; raises KernelError."""
    check(kernel)
    names: dict[str, Any] = {"math": math, "numpy": np}
    names |= {"_held": functools.partial(_held, kernel.__name__), "_ring": functools.partial(_ring, kernel.__name__)}
    for name, part in parts(kernel).items():
        if isinstance(part, FunctionType):
            file = inspect.getsourcefile(part) or "kernel"
            tree = parsed(part)
            turned = _Rows().visit(tree) if works_on_rows(tree) else _Numbers().visit(tree)
            turned.returns = None
            for arg in turned.args.args:
                arg.annotation = None
            exec(compile(ast.fix_missing_locations(ast.Module([turned], [])), file, "exec"), names)
        else:
            names[name] = part
    return names[kernel.__name__]  # type: ignore[no-any-return]


def _held(kernel: str, place: int, matrix: Floats) -> int:
    """A row's place; raises KernelError where a matrix has no such row, which numpy counts from the end."""
    if not 0 <= place < len(matrix):
        raise no_such_row(kernel)
    return place


def _ring(kernel: str, start: int, end: int, matrix: Floats) -> slice:
    """The rows [start, end), at least one."""
    if not 0 <= start < end <= len(matrix):
        raise no_such_row(kernel)
    return slice(start, end)


class _Rows(ast.NodeTransformer):
    """Of a function on rows only the loops over columns change, and rows are looked for before they are taken."""

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        match node.slice:
            case ast.Tuple(elts=[place, ast.Slice() as columns]):
                held = ast.Call(ast.Name("_held", ast.Load()), [place, node.value], [])
                return ast.Subscript(node.value, ast.Tuple([held, columns], ast.Load()), node.ctx)
            case ast.Slice(lower=ast.expr() as lower, upper=ast.expr() as upper):
                ring = ast.Call(ast.Name("_ring", ast.Load()), [lower, upper, node.value], [])
                return ast.Subscript(node.value, ring, node.ctx)
        return node

    def visit_For(self, node: ast.For) -> Any:
        if not is_columns(node):
            return self.generic_visit(node)
        return [_Numbers().visit(statement) for statement in node.body]


class _Numbers(ast.NodeTransformer):
    """What is done with one column's numbers, done with rows of them."""

    def visit_Assign(self, node: ast.Assign) -> Any:
        loaded = isinstance(node.value, ast.Subscript)
        self.generic_visit(node)
        if loaded and isinstance(node.targets[0], ast.Name):
            node.value = _numpy("copy", node.value)  # the row may be written to while the name still stands
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name):
            node.value = _numpy("copy", node.value)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        return ast.Subscript(node.value, ast.Slice(), node.ctx) if isinstance(node.ctx, ast.Store) else node.value

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        return _numpy("where", node.test, node.body, node.orelse)

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        return _numpy({"abs": "abs", "math.sqrt": "sqrt"}[name], *node.args) if name in ("abs", "math.sqrt") else node


def _numpy(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name("numpy", ast.Load()), name, ast.Load()), list(args), [])

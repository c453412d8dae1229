"""Row kernels compiled for this CPU by numba, once: what a second process needs lies on disk.

numba finds a kernel again only where it stands in a module of its own, and notices only edits of that module's file. So
one module is generated a kernel, holding the kernel's source, that of everything it uses, and the loop that drives it;
it lies in a folder named by a hash of all of it, of numba and of the CPU.
"""

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from data.errors import EngineError
from scanner.engines.base import Counts
from scanner.engines.folders import SETTING, folders
from scanner.indicators import grammar
from scanner.indicators.spec import Indicator

try:
    import llvmlite
    import llvmlite.binding
    import numba
except ImportError as error:
    raise EngineError(f"engine 'vector' needs numba: {error}. Install it with: pip install numba") from error

_COMMON = '''
import math

from llvmlite import ir
from numba import carray, int64, float64, njit, types
from numba.extending import intrinsic

LANES = 64 // {size}
places = types.Array(int64, 1, "C", readonly=True)


def copier(lanes, align, streamed):
    """An intrinsic (to, source): copies numbers between two addresses."""

    @intrinsic
    def copy(typing, to, source):
        def generate(context, builder, signature, arguments):
            wide, narrow = ir.VectorType(ir.DoubleType(), lanes), ir.VectorType(ir.{ir}(), lanes)
            values = builder.load(builder.inttoptr(arguments[1], wide.as_pointer()), align=8)
            if wide != narrow:
                values = builder.fptrunc(values, narrow)
            store = builder.store(values, builder.inttoptr(arguments[0], narrow.as_pointer()), align=align)
            if streamed:
                store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), generate

    return copy


one, line = copier(1, {size}, False), copier(LANES, 64, True)


@intrinsic
def numbers(typing, address):
    """Matrices are made from addresses: those that Python hands over count who uses each of their rows."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.DoubleType().as_pointer())

    return types.CPointer(float64)(types.intp), generate


@intrinsic
def settle(typing):
    """What was streamed before is there for every thread after."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put(source, to, n):
    """Copy n numbers past the caches: memory is not read before, as it would be otherwise."""
    while n > 0 and to % 64 != 0:
        one(to, source)
        to, source, n = to + {size}, source + 8, n - 1
    while n >= LANES:
        line(to, source)
        to, source, n = to + 64, source + 8 * LANES, n - LANES
    while n > 0:
        one(to, source)
        to, source, n = to + {size}, source + 8, n - 1
'''

_MODULE = '''"""Generated: one row kernel and the loop that drives it."""

from __future__ import annotations
{common}

{sources}
@njit({signature}, nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def drive(n, first, stop, phases, end, bars, columns, {given}, rows, states, outs, keep, pitch, {results}, {params}):
    {matrices}
    state, out = carray(numbers(states), (rows, columns)), carray(numbers(outs), ({n}, columns))
    {outputs}
    for k in range({n}):
        for j in range(n):
            out[k, j] = math.nan
    for t in range(bars - keep, phases[0]):
        {store}
    whole = phases[len(phases) - 2]
    for phase in range(len(phases) - 1):
        for j in range(n):
            if first[j] == phases[phase]:
                for k in range(rows):
                    state[k, j] = 0.0
        for t in range(phases[phase], phases[phase + 1]):
            {kernel}(t, 0, n, {inputs}, state, {tiles}, {params})
            if t >= bars - keep:
                if t < whole or t >= end:
                    for k in range({n}):
                        for j in range(n):
                            value = out[k, j]
                            out[k, j] = value if (t >= first[j]) & (t < stop[j]) else math.nan
                {store}
    settle()
'''


_STEP = '''"""Generated: one row kernel and the loop that advances it by one bar."""

from __future__ import annotations

import math

from numba import float64, int64, njit, types

matrix = float64[:, ::1]
given = types.Array(float64, 2, "C", readonly=True)
runs = int64[:, ::1]


{sources}
@njit(types.void(runs, {types}), nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
def step(runs, {arguments}):
    for run in range(len(runs)):
        {kernel}(runs[run, 0], runs[run, 1], runs[run, 2], {arguments})
'''


_LOAD = '''"""Generated: a block of columns in a matrix of its own, and between which bars they are finite."""

import numpy as np
from numba import float64, int64, njit, types

given = types.Array(float64, 2, "C", readonly=True)


@njit(int64(given, int64, int64, float64[:, ::1], int64[::1], int64[::1]), nogil=True, cache=True)
def load(matrix, left, right, tile, first, stop):
    bars, n = len(matrix), right - left
    doubt = np.zeros(n)
    late = 0
    for j in range(n):
        late = max(late, first[j])
        stop[j] = bars
    for t in range(bars):
        source, to = matrix[t, left:right], tile[t]
        if t >= late:
            # A number less itself is 0, and of what is not finite not even that.
            for j in range(n):
                value = source[j]
                to[j] = value
                doubt[j] += value - value
        else:
            for j in range(n):
                value = source[j]
                to[j] = value
                doubt[j] += value - value if t >= first[j] else 0.0
    clean = True
    for j in range(n):
        clean &= doubt[j] == 0.0
    if clean:
        return 0
    for j in range(n):
        stop[j] = -1 - first[j]
    for t in range(bars):
        row = tile[t]
        for j in range(n):
            value = row[j]
            begin, end = first[j], stop[j]
            finite = value - value == 0.0
            # Below zero: not begun, and its first bar; then the number of bars; then where it broke.
            begins = (end < 0) & finite & (t >= -1 - end)
            broken = t if (end == bars) & (not finite) else end
            first[j] = t if begins else begin
            stop[j] = bars if begins else broken
    for j in range(n):
        if stop[j] < 0:
            first[j], stop[j] = bars, bars
    return 1
'''


@functools.cache
def compiled(indicator: Indicator) -> Any:
    """drive(n, first, stop, phases, end, bars, columns, inputs, rows, state, out, keep, pitch, results, parameters):
    all bars of the first n columns.

    `first`, `stop`, `phases`, `end`: see `span`. The rest are addresses of C-contiguous float64: inputs (bars,
    columns); state (rows, columns); out (outputs, columns), whose rows the kernel fills bar by bar; and of each result
    column 0 of a matrix of `keep` rows, the last bars' as a ring, and `pitch` columns. Results are NaN outside
    [first, stop) of each column.
    """
    return _module(home(indicator.name, source(indicator))).drive


@functools.cache
def loader() -> Any:
    """load(matrix, left, right, tile, first, stop): columns [left, right) of a matrix -> the tile's first columns.

    `first`: (columns,) each column's first bar; on return the first one at which it is finite, and `stop` the first
    later one at which it is not. Returns 0 where that is what `first` said and there is none, else 1.
    """
    return _module(home("load", _LOAD)).load


def span(first: Counts, stop: Counts, bars: int) -> tuple[Counts, Counts, Counts, int]:
    """`first`, `stop`, `phases` and `end` for `drive`."""
    begun = np.unique(first)
    begun = begun[begun < bars]
    phases = np.append(begun, bars) if len(begun) else np.array([bars, bars])
    # A column without bars is outside at every bar.
    return first, stop, phases, 0 if (first >= bars).any() else int(stop.min())


@functools.cache
def stepping(indicator: Indicator) -> Any:
    """step(runs, inputs, state, outputs, parameters): one bar of some columns, matrices being rings of any length.

    `runs`: int64 (runs, 3), each the bar t and the columns [j0, j1) that stand at it. A module of its own: who computes
    no streams need not compile it.
    """
    return _module(home(indicator.name, step_source(indicator))).step


def source(indicator: Indicator) -> str:
    """The module of an indicator's kernel."""
    assert indicator.kernel is not None
    inputs = [f"i{k}" for k in range(len(indicator.inputs))]
    outputs = [f"o{k}" for k in range(len(indicator.outputs))]
    results = [f"r{k}" for k in range(len(indicator.outputs))]
    params = [f"p{k}" for k in range(len(indicator.params))]
    kinds = ["int64" if param.kind is int else "float64" for param in indicator.params]
    given = [f"g{k}" for k in range(len(inputs))]
    types = ["int64"] + ["places"] * 3 + ["int64"] * (8 + len(given) + len(results)) + kinds
    size = 8

    where = f"{size} * (t % keep * pitch)"
    puts = [f"put(outs + 8 * {k} * columns, {result} + {where}, n)" for k, result in enumerate(results)]
    return _MODULE.format(
        common=_COMMON.format(size=size, ir="DoubleType"),
        sources=_sources(indicator.kernel.advance),
        signature=f"types.void({', '.join(types)})",
        kernel=indicator.kernel.advance.__name__,
        outputs="; ".join(f"{name} = out[{k} : {k + 1}]" for k, name in enumerate(outputs)),
        store="; ".join(puts),
        inputs=", ".join(inputs),
        tiles=", ".join(outputs),
        results=", ".join(results),
        params=", ".join(params),
        given=", ".join(given),
        matrices="; ".join(
            f"{name} = carray(numbers({address}), (bars, columns))" for name, address in zip(inputs, given, strict=True)
        ),
        n=len(outputs),
    )


def step_source(indicator: Indicator) -> str:
    """The module of an indicator's step."""
    assert indicator.kernel is not None
    inputs = [f"i{k}" for k in range(len(indicator.inputs))]
    outputs = [f"o{k}" for k in range(len(indicator.outputs))]
    params = [f"p{k}" for k in range(len(indicator.params))]
    kinds = ["int64" if param.kind is int else "float64" for param in indicator.params]
    return _STEP.format(
        sources=_sources(indicator.kernel.advance),
        types=", ".join([*["given"] * len(inputs), *["matrix"] * (1 + len(outputs)), *kinds]),
        kernel=indicator.kernel.advance.__name__,
        arguments=", ".join([*inputs, "state", *outputs, *params]),
    )


def _sources(kernel: Callable[..., Any]) -> str:
    """The sources of a kernel and of the functions and constants of ours that it names, in the order of need."""
    decorator = '@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)'
    return "\n\n".join(
        f"{decorator}\n{grammar.source(part)[0]}" if isinstance(part, FunctionType) else f"{name} = {part!r}\n"
        for name, part in grammar.parts(kernel).items()
    )


def _module(folder: Path) -> Any:
    """Import the module in a folder made by `home`."""
    spec = importlib.util.spec_from_file_location(f"mystocks_scan_kernels.{folder.name}", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def home(name: str, text: str) -> Path:
    """The folder of a generated module, which is written there: in the first cache folder that can be.

    Its name is that of the text, of numba and of the CPU: where any of them differs, bits may.
    """
    digest = hashlib.sha256(f"{_versions()}\n{text}".encode()).hexdigest()[:16]
    refused = []
    for folder in folders():
        path = folder / f"{name.lower()}_{digest}" / "kernel.py"
        try:
            if os.access(path.parent, os.W_OK) and path.exists() and path.read_text(encoding="utf-8") == text:
                return path.parent
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
                file.write(text)
            os.utime(file.name, (0, 0))  # numba tells a changed file by its time: this one's name says what it holds
            os.replace(file.name, path)
        except OSError as error:
            refused.append(str(error))
            continue
        return path.parent
    raise EngineError(f"no folder for compiled kernels can be written: {'; '.join(refused)}. Set {SETTING} to one")


@functools.cache
def _versions() -> str:
    """What else than its source makes the bits of a compiled kernel."""
    cpu = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    return f"{sys.version} {numba.__version__} {llvmlite.__version__} {cpu}"

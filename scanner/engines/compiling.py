"""Row kernels compiled for this CPU by numba, once: what a second process needs lies on disk.

numba finds a kernel again only where it stands in a module of its own, and notices only edits of that module's file. So
one module is generated a kernel, holding the kernel's source, that of everything it uses, and the loop that drives it;
it lies in a folder named by a hash of all of it, of numba and of the CPU.
"""

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from data.errors import EngineError
from scanner.engines.folders import SETTING, folders
from scanner.indicators.spec import Indicator

try:
    import llvmlite
    import llvmlite.binding
    import numba
except ImportError as error:
    raise EngineError(f"engine 'vector' needs numba: {error}. Install it with: pip install numba") from error

BLOCK = 256
"""Columns that are taken through all bars together: their state and newest rows stay in the cache of a core."""

_MODULE = '''"""Generated: one row kernel and the loop that drives it."""

from __future__ import annotations

import math

from numba import float64, int64, njit, types

matrix = float64[:, ::1]
given = types.Array(float64, 2, "C", readonly=True)
places = types.Array(int64, 1, "C", readonly=True)


{sources}
@njit({signature}, nogil=True, cache=True, error_model="numpy")
def drive(j0, j1, first, stop, {arguments}):
    bars, keep = len({input}), len({output})
    for left in range(j0, j1, {block}):
        right = min(j1, left + {block})
        t = bars
        for j in range(left, right):
            t = min(t, first[j])
        while t < bars:
            ahead = bars
            for j in range(left, right):
                if first[j] == t:
                    state[:, j] = 0.0
                elif first[j] > t:
                    ahead = min(ahead, first[j])
            for bar in range(t, ahead):
                {kernel}(bar, left, right, {arguments})
            t = ahead
        for j in range(left, right):
            for bar in range(bars - keep, first[j]):
                {blank}
            for bar in range(max(stop[j], bars - keep), bars):
                {blank}
'''


_STEP = '''"""Generated: one row kernel and the loop that advances it by one bar."""

from __future__ import annotations

import math

from numba import float64, int64, njit, types

matrix = float64[:, ::1]
given = types.Array(float64, 2, "C", readonly=True)
runs = int64[:, ::1]


{sources}
@njit(types.void(runs, {types}), nogil=True, cache=True, error_model="numpy")
def step(runs, {arguments}):
    for run in range(len(runs)):
        {kernel}(runs[run, 0], runs[run, 1], runs[run, 2], {arguments})
'''


@functools.cache
def compiled(indicator: Indicator) -> Any:
    """drive(j0, j1, first, stop, inputs, state, outputs, parameters): all bars of the columns [j0, j1).

    Matrices are C-contiguous float64 (bars, symbols); outputs may have fewer rows, and are then rings of the last bars.
    Outputs are NaN outside [first, stop) of each column.
    """
    return _module(home(indicator, source(indicator))).drive


@functools.cache
def stepping(indicator: Indicator) -> Any:
    """step(runs, inputs, state, outputs, parameters): one bar of some columns, matrices being rings of any length.

    `runs`: int64 (runs, 3), each the bar t and the columns [j0, j1) that stand at it. A module of its own: who computes
    no streams need not compile it.
    """
    return _module(home(indicator, step_source(indicator))).step


def source(indicator: Indicator) -> str:
    """The module of an indicator's kernel."""
    assert indicator.kernel is not None
    inputs = [f"i{k}" for k in range(len(indicator.inputs))]
    outputs = [f"o{k}" for k in range(len(indicator.outputs))]
    params = [f"p{k}" for k in range(len(indicator.params))]
    kinds = ["int64" if param.kind is int else "float64" for param in indicator.params]
    types = ["int64", "int64", "places", "places", *["given"] * len(inputs), *["matrix"] * (1 + len(outputs)), *kinds]
    return _MODULE.format(
        sources="\n\n".join(_sources(indicator.kernel.advance, {})),
        signature=f"(types.void({', '.join(types)}))",
        kernel=indicator.kernel.advance.__name__,
        arguments=", ".join([*inputs, "state", *outputs, *params]),
        blank="; ".join(f"{name}[bar % keep, j] = math.nan" for name in outputs),
        input=inputs[0],
        output=outputs[0],
        block=BLOCK,
    )


def step_source(indicator: Indicator) -> str:
    """The module of an indicator's step."""
    assert indicator.kernel is not None
    inputs = [f"i{k}" for k in range(len(indicator.inputs))]
    outputs = [f"o{k}" for k in range(len(indicator.outputs))]
    params = [f"p{k}" for k in range(len(indicator.params))]
    kinds = ["int64" if param.kind is int else "float64" for param in indicator.params]
    return _STEP.format(
        sources="\n\n".join(_sources(indicator.kernel.advance, {})),
        types=", ".join([*["given"] * len(inputs), *["matrix"] * (1 + len(outputs)), *kinds]),
        kernel=indicator.kernel.advance.__name__,
        arguments=", ".join([*inputs, "state", *outputs, *params]),
    )


def _sources(function: Callable[..., Any], seen: dict[str, object]) -> Iterator[str]:
    """The sources of a kernel and of the functions and constants of ours that it names, in the order of need."""
    assert isinstance(function, FunctionType)
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if name in seen or isinstance(value, ModuleType):
            continue
        seen[name] = value
        if isinstance(value, FunctionType):
            yield from _sources(value, seen)
        elif isinstance(value, int | float):
            yield f"{name} = {value!r}\n"
    yield f'@njit(error_model="numpy")\n{inspect.getsource(function)}'


def _module(folder: Path) -> Any:
    """Import the module in a folder made by `home`."""
    spec = importlib.util.spec_from_file_location(f"mystocks_scan_kernels.{folder.name}", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def home(indicator: Indicator, text: str) -> Path:
    """The folder of a module of an indicator's, which is written there: in the first cache folder that can be.

    Its name is that of the text, of numba and of the CPU: where any of them differs, bits may.
    """
    cpu = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    versions = f"{sys.version} {numba.__version__} {llvmlite.__version__} {cpu}"
    digest = hashlib.sha256(f"{versions}\n{text}".encode()).hexdigest()[:16]
    refused = []
    for folder in folders():
        path = folder / f"{indicator.name.lower()}_{digest}" / "kernel.py"
        try:
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

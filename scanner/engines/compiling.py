"""Row kernels compiled for this CPU by numba, once: what a second process needs lies on disk.

numba finds a kernel again only where it stands in a module of its own, and notices only edits of that module's file. So
one module is generated a kernel, holding the kernel as one flat function; it lies in a folder named by a hash of all of
it, of numba and of the CPU. The loops that drive kernels over bars call them by address, and are compiled once for all.
"""

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import EngineError, KernelError
from data.panel import Floats
from scanner.engines.base import Counts
from scanner.engines.flat import flat
from scanner.engines.folders import SETTING, folders
from scanner.indicators import grammar
from scanner.indicators.spec import Indicator

try:
    import llvmlite
    import llvmlite.binding
    import numba
except ImportError as error:
    raise EngineError(f"engine 'vector' needs numba: {error}. Install it with: pip install numba") from error

BLOCK = 256
"""Columns that are taken through all bars together: what they need stays in the caches of a core."""

_MODULE = '''"""Generated: one row kernel."""

import math

from numba import cfunc, int64, types

from scanner.engines.words import at as _at, beyond as _beyond, integers as _integers, numbers as _numbers
from scanner.engines.words import part as _part, read as _read, select as _select, wrap as _wrap, write as _write

{constants}
@cfunc(types.int64(int64, int64, int64, int64, int64), cache=True, error_model="numpy", _nrt=False)
def kernel(t, j0, j1, _places, _values):
{body}
    _part()
    return 0
'''

_LOOPS = '''"""Generated: the loops that drive every row kernel, and what looks at their inputs."""

import math

from numba import int64, njit, types

from scanner.engines.words import at, call, integers, line, numbers, one, settle, take

counts = types.Array(int64, 1, "C", readonly=True)
table = types.Array(int64, 2, "C", readonly=True)


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put(source, to, n):
    """Copy n numbers past the caches: memory is not read before, as it would be otherwise."""
    while n > 0 and to % 64 != 0:
        one(to, source)
        to, source, n = to + 8, source + 8, n - 1
    while n >= 8:
        line(to, source)
        to, source, n = to + 64, source + 64, n - 8
    while n > 0:
        one(to, source)
        to, source, n = to + 8, source + 8, n - 1


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def sweep(kernel, left, right, bars, first, stop, places, n_inputs, n_outputs, params, keep, streams, wide):
    matrices, begins, stops, to = integers(places), integers(first), integers(stop), integers(streams)
    begin, late, end = bars, int64(0), bars
    for j in range(left, right):
        begin, late, end = min(begin, begins[j]), max(late, begins[j]), min(end, stops[j])
    k = 3 * n_inputs
    state, rows, pitch = numbers(matrices[k]), matrices[k + 1], matrices[k + 2]
    for row in range(rows):
        values = at(state, row * pitch)
        for j in range(left, right):
            values[j] = 0.0
    for t in range(min(begin, bars - keep), bars):
        if t >= begin:
            if begin < t <= late:
                for j in range(left, right):
                    if begins[j] == t:
                        for row in range(rows):
                            at(state, row * pitch)[j] = 0.0
            if call(kernel, t, left, right, places, params):
                return 1
        if t >= bars - keep:
            for k in range(n_outputs):
                m = 3 * (n_inputs + 1 + k)
                address = matrices[m] + 8 * (t % matrices[m + 1] * matrices[m + 2])
                if t < late or t >= end:
                    out = numbers(address)
                    for j in range(left, right):
                        value = out[j]
                        out[j] = value if (t >= begins[j]) & (t < stops[j]) else math.nan
                if streams != 0:
                    put(address + 8 * left, to[k] + 8 * (t % keep * wide + left), right - left)
    return 0


@njit(
    int64(*[int64] * 5, table, table, types.Array(int64, 1, "C"), int64, int64, int64),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def work(next_block, block, skew, n, bars, steps, matrices, places, scratch, outs, pitch):
    while True:
        edge = take(next_block) * block - skew
        left, right = max(int64(0), edge), min(n, edge + block)
        if left >= n:
            settle()
            return 0
        for k in range(len(steps)):
            kernel, n_inputs, n_outputs, rows, keep, first, stop, params = steps[k]
            for m in range(n_inputs):
                places[3 * m], places[3 * m + 1], places[3 * m + 2] = matrices[k, m], bars, n
            m = 3 * n_inputs
            places[m], places[m + 1], places[m + 2] = scratch - 8 * edge, rows, pitch
            results = matrices[k, n_inputs:].ctypes.data
            for o in range(n_outputs):
                m = 3 * (n_inputs + 1 + o)
                if outs == 0:
                    places[m], places[m + 1], places[m + 2] = matrices[k, n_inputs + o], keep, n
                else:
                    places[m], places[m + 1], places[m + 2] = outs + 8 * (o * pitch - edge), 1, pitch
            if sweep(
                kernel, left, right, bars, first, stop, places.ctypes.data, n_inputs, n_outputs, params,
                keep, results if outs != 0 else 0, n,
            ):
                return k + 1


@njit(
    int64(int64, int64, int64, counts, counts, counts, int64, int64, int64),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def batch(kernel, block, bars, first, stop, places, n_inputs, n_outputs, params):
    for left in range(0, len(first), block):
        right = min(len(first), left + block)
        if sweep(
            kernel, left, right, bars, first.ctypes.data, stop.ctypes.data, places.ctypes.data, n_inputs, n_outputs,
            params, places[3 * n_inputs + 4], 0, 0,
        ):
            return 1
    return 0


@njit(
    types.void(int64, int64, int64, int64, int64, types.Array(int64, 1, "C"), types.Array(int64, 1, "C")),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def look(matrix, left, right, bars, pitch, first, stop):
    values = numbers(matrix)
    late = int64(0)
    clean = True
    for j in range(left, right):
        late = max(late, first[j])
        stop[j] = bars
    for t in range(bars):
        row = at(values, t * pitch)
        # A number less itself is 0, and of what is not finite not even that.
        if t >= late:
            doubt = int64(0)
            for j in range(left, right):
                value = row[j]
                doubt |= value - value != 0.0
        else:
            doubt = int64(0)
            for j in range(left, right):
                value = row[j]
                doubt |= (value - value != 0.0) & (t >= first[j])
        clean &= doubt == 0
    if clean:
        return
    for j in range(left, right):
        stop[j] = -1 - first[j]
    for t in range(bars):
        row = at(values, t * pitch)
        for j in range(left, right):
            value = row[j]
            begin, end = first[j], stop[j]
            finite = value - value == 0.0
            # Below zero: not begun, and its first bar; then the number of bars; then where it broke.
            begins = (end < 0) & finite & (t >= -1 - end)
            broken = t if (end == bars) & (not finite) else end
            first[j] = t if begins else begin
            stop[j] = bars if begins else broken
    for j in range(left, right):
        if stop[j] < 0:
            first[j], stop[j] = bars, bars
'''


class Compiled:
    """An indicator's kernel, and how it is called; numba's own function is `function`."""

    def __init__(self, indicator: Indicator) -> None:
        self.function = module(home_of(indicator)).kernel
        self.address: int = self.function.address
        self._name = indicator.kernel.advance.__name__ if indicator.kernel else ""
        self._kinds = [np.int64 if param.kind is int else np.float64 for param in indicator.params]

    def batch(
        self,
        first: Counts,
        stop: Counts,
        inputs: Sequence[Floats],
        state: Floats,
        outputs: Sequence[Floats],
        params: Sequence[float],
    ) -> None:
        """All bars of all columns, as `Machine.batch`; raises KernelError as `failed` does."""
        places, values = _places([*inputs, state, *outputs]), self.values(params)
        given = places, len(inputs), len(outputs), values.ctypes.data
        if loops().batch(self.address, BLOCK, len(inputs[0]), first, stop, *given):
            raise self.failed()

    def bound(self, matrices: Sequence[Floats], params: Sequence[float], held: list[Any]) -> tuple[int, int, int]:
        """Three addresses: of the kernel, of inputs, state and outputs for it, of parameters; good while `held` is."""
        places, values = _places(matrices), self.values(params)
        held += [*matrices, places, values]
        return self.address, places.ctypes.data, values.ctypes.data

    def failed(self) -> KernelError:
        """For a kernel that asked for a row that a matrix does not have, and was stopped before it read one."""
        return grammar.no_such_row(self._name)

    def values(self, values: Sequence[float]) -> npt.NDArray[np.int64]:
        """The bits of parameters, integers and float64."""
        return np.array([kind(value).view(np.int64) for kind, value in zip(self._kinds, values, strict=True)], np.int64)


@functools.cache
def compiled(indicator: Indicator) -> Compiled:
    """The kernel of an indicator, compiled or found on disk."""
    return Compiled(indicator)


@functools.cache
def loops() -> Any:
    """The loops that drive kernels:

    work(next_block, block, skew, n, bars, steps, matrices, places, scratch, outs, pitch): takes the blocks of columns
    that no other thread takes, one by one, through all steps. `next_block`: the address of the number of the next one;
    block i is the columns from i * `block` - `skew` on. A step: the kernel's address, number of inputs, of outputs,
    rows of state, rows of a result, addresses of `first`, of `stop`, of parameters; in `matrices` the addresses of its
    inputs and results, (bars, n) and rings (rows, n). `places`: room for 3 a matrix; `scratch`: the address of room for
    states of `pitch` columns; `outs`: of room for one row of each result, from where it goes to memory past the caches,
    or 0. Returns 0, or 1 more than the step that took a row that there is not.

    look(matrix, left, right, bars, pitch, first, stop): `first`, each column's first bar, becomes the first one at
    which it is finite, and `stop` the first later one at which it is not.
    """
    return module(home("loops", _LOOPS, lambda: _LOOPS))


def _places(matrices: Sequence[Floats]) -> npt.NDArray[np.int64]:
    """What a kernel is told of its matrices."""
    for matrix in matrices:
        assert matrix.flags.c_contiguous
        assert matrix.dtype == np.float64
    return np.array([value for matrix in matrices for value in (matrix.ctypes.data, *matrix.shape)], dtype=np.int64)


def home_of(indicator: Indicator) -> Path:
    """The folder of an indicator's module, which is made where there is none."""
    return home(indicator.name, key(indicator), functools.partial(source, indicator))


@functools.cache
def key(indicator: Indicator) -> str:
    """All that an indicator's module is made of; far sooner told than the module is made."""
    assert indicator.kernel is not None
    try:
        parts = grammar.parts(indicator.kernel.advance)
    except KernelError as error:
        return str(error)
    shape = len(indicator.inputs), len(indicator.outputs), [param.kind.__name__ for param in indicator.params]
    texts = [grammar.source(part)[0] if isinstance(part, FunctionType) else f"{part!r}" for part in parts.values()]
    return "\n".join([_MODULE, repr(shape), repr(list(parts)), *texts])


def source(indicator: Indicator) -> str:
    """The module of an indicator's kernel; one that raises KernelError where that is outside the language."""
    try:
        return _source(indicator)
    except KernelError as error:
        return f"from data.errors import KernelError\n\nraise KernelError({str(error)!r})\n"


def _source(indicator: Indicator) -> str:
    assert indicator.kernel is not None
    advance = indicator.kernel.advance
    names = list(inspect.signature(advance).parameters)[3:]
    n = len(indicator.inputs) + 1 + len(indicator.outputs)
    lines = [
        f"{name} = _numbers(_matrices[{3 * k}])\n_rows_{name} = _matrices[{3 * k + 1}]\n"
        f"_pitch_{name} = _matrices[{3 * k + 2}]"
        for k, name in enumerate(names[:n])
    ]
    lines += [
        f"{name} = {'_integers' if param.kind is int else '_numbers'}(_values)[{k}]"
        for k, (name, param) in enumerate(zip(names[n:], indicator.params, strict=True))
    ]
    constants = {name: part for name, part in grammar.parts(advance).items() if not isinstance(part, FunctionType)}
    return _MODULE.format(
        constants="".join(f"{name} = {part!r}\n" for name, part in constants.items()),
        body=textwrap.indent("\n".join(["_matrices = _integers(_places)", "_bad = 0", *lines, flat(advance)]), "    "),
    )


def module(folder: Path) -> Any:
    """Import the generated module in a folder made by `home`, once in this process."""
    name = f"mystocks_scan_kernels.{folder.name}"
    with _importing:
        if name not in _modules:
            spec = importlib.util.spec_from_file_location(name, folder / "kernel.py")
            assert spec is not None
            assert spec.loader is not None
            made = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(made)
            _modules[name] = made
        return _modules[name]


_modules: dict[str, ModuleType] = {}
_importing = threading.RLock()
"""Held while numba is at work: on Python 3.11 two threads that come to it at once may wait for each other for ever, for
its lock on compiling and the interpreter's on a cached property."""


_homes: dict[tuple[str, str], Path] = {}


def home(name: str, made_of: str, text: Callable[[], str]) -> Path:
    """The folder of a generated module: in the first cache folder that can be written, where `text` is if it is new.

    Its name is that of what the module is made of, of numba and of the CPU: where any of them differs, bits may.
    """
    known = _homes.get((name, made_of))
    if known is None:
        known = _homes[name, made_of] = _home(name, made_of, text)
    return known


def _home(name: str, made_of: str, text: Callable[[], str]) -> Path:
    digest = hashlib.sha256(f"{_versions()}\n{made_of}".encode()).hexdigest()[:16]
    refused = []
    for folder in folders():
        path = folder / f"{name.lower()}_{digest}" / "kernel.py"
        try:
            if os.access(path.parent, os.W_OK) and path.exists():
                return path.parent
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
                file.write(text())
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
    ours = [
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("compiling.py", "flat.py", "words.py")
    ]
    return f"{ours} {sys.version} {numba.__version__} {llvmlite.__version__} {cpu}"

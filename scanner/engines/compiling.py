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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
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

_MODULE = '''"""Generated: one row kernel."""

import math

from numba import cfunc, int64, types

from scanner.engines.words import at as _at, integers as _integers, numbers as _numbers, select as _select

{constants}
@cfunc(types.void(int64, int64, int64, int64, int64, int64), cache=True, error_model="numpy", _nrt=False)
def kernel(t, j0, j1, _pitch, _places, _values):
{body}
'''

_LOOPS = '''"""Generated: the loops that drive every row kernel, and what reads their inputs."""

import math

import numpy as np
from numba import carray, float64, int64, njit, types

from scanner.engines.words import call, line, numbers, one, settle

places = types.Array(int64, 1, "C", readonly=True)
given = types.Array(float64, 2, "C", readonly=True)


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


@njit(
    types.void(*[int64] * 2, *[places] * 3, *[int64] * 7, places, int64, places, places),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def drive(
    kernel, n, first, stop, phases, end, bars, columns, rows, states, outs, keep, results, pitch, matrices, params
):
    state, out = carray(numbers(states), (rows, columns)), carray(numbers(outs), (len(results), columns))
    for k in range(len(results)):
        for j in range(n):
            out[k, j] = math.nan
    for t in range(bars - keep, phases[0]):
        for k in range(len(results)):
            put(outs + 8 * k * columns, results[k] + 8 * (t % keep * pitch), n)
    whole = phases[len(phases) - 2]
    for phase in range(len(phases) - 1):
        for j in range(n):
            if first[j] == phases[phase]:
                for k in range(rows):
                    state[k, j] = 0.0
        for t in range(phases[phase], phases[phase + 1]):
            call(kernel, t, 0, n, columns, matrices.ctypes.data, params.ctypes.data)
            if t >= bars - keep:
                for k in range(len(results)):
                    if t < whole or t >= end:
                        for j in range(n):
                            value = out[k, j]
                            out[k, j] = value if (t >= first[j]) & (t < stop[j]) else math.nan
                    put(outs + 8 * k * columns, results[k] + 8 * (t % keep * pitch), n)
    settle()


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


class Compiled:
    """An indicator's kernel, and how it is called; numba's own function is `function`."""

    def __init__(self, indicator: Indicator) -> None:
        self.function = module(home_of(indicator)).kernel
        self._address = self.function.address
        self._kinds = [np.int64 if param.kind is int else np.float64 for param in indicator.params]
        self._drive = _loops().drive

    def drive(
        self,
        columns: tuple[int, Counts, Counts, Counts, int],
        bars: int,
        pitch: int,
        inputs: Sequence[int],
        state: tuple[int, int],
        outs: int,
        results: tuple[int, int, Sequence[int]],
        params: npt.NDArray[np.int64],
    ) -> None:
        """All bars of the first columns of a block.

        `columns`: how many, and what `span` says of them. The rest are addresses of C-contiguous float64: `inputs`
        (bars, pitch); `state`, with its rows, (rows, pitch); `outs` (outputs, pitch), whose rows the kernel fills bar
        by bar; `results`: the last bars kept, the columns there, and of each result column 0 of a matrix that is a ring
        of these bars. Results are NaN outside [first, stop) of each column. `params`: from `values`.
        """
        address, rows = state
        keep, wide, to = results
        matrices = [value for one in inputs for value in (one, bars)]
        matrices += (address, rows)
        for k in range(len(to)):
            matrices += (outs + 8 * k * pitch, 1)
        self._drive(
            *(self._address, *columns, bars, pitch, rows, address, outs, keep, np.array(to), wide),
            *(np.array(matrices), params),
        )

    def bound(self, matrices: Sequence[Floats], params: Sequence[float], held: list[Any]) -> tuple[int, int, int]:
        """Three addresses: of the kernel, of inputs, state and outputs for it, of parameters; good while `held` is."""
        for matrix in matrices:
            assert matrix.flags.c_contiguous
            assert matrix.dtype == np.float64
        places = np.array([value for matrix in matrices for value in (matrix.ctypes.data, len(matrix))])
        values = self.values(params)
        held += [*matrices, places, values]
        return self._address, places.ctypes.data, values.ctypes.data

    def values(self, values: Sequence[float]) -> npt.NDArray[np.int64]:
        """The bits of parameters, integers and float64."""
        return np.array([kind(value).view(np.int64) for kind, value in zip(self._kinds, values, strict=True)], np.int64)


@functools.cache
def compiled(indicator: Indicator) -> Compiled:
    """The kernel of an indicator, compiled or found on disk."""
    return Compiled(indicator)


def loader() -> Any:
    """load(matrix, left, right, tile, first, stop): columns [left, right) of a matrix -> the tile's first columns.

    `first`: (columns,) each column's first bar; on return the first one at which it is finite, and `stop` the first
    later one at which it is not. Returns 0 where that is what `first` said and there is none, else 1.
    """
    return _loops().load


@functools.cache
def _loops() -> Any:
    return module(home("loops", _LOOPS, lambda: _LOOPS))


def span(first: Counts, stop: Counts, bars: int) -> tuple[Counts, Counts, Counts, int]:
    """`first`, `stop`, `phases` and `end` for `drive`."""
    begun = np.unique(first)
    begun = begun[begun < bars]
    phases = np.append(begun, bars) if len(begun) else np.array([bars, bars])
    # A column without bars is outside at every bar.
    return first, stop, phases, 0 if (first >= bars).any() else int(stop.min())


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
        f"{name} = _numbers(_matrices[{2 * k}]); _rows_{name} = _matrices[{2 * k + 1}]"
        for k, name in enumerate(names[:n])
    ]
    lines += [
        f"{name} = {'_integers' if param.kind is int else '_numbers'}(_values)[{k}]"
        for k, (name, param) in enumerate(zip(names[n:], indicator.params, strict=True))
    ]
    constants = {name: part for name, part in grammar.parts(advance).items() if not isinstance(part, FunctionType)}
    return _MODULE.format(
        constants="".join(f"{name} = {part!r}\n" for name, part in constants.items()),
        body=textwrap.indent("\n".join(["_matrices = _integers(_places)", *lines, flat(advance)]), "    "),
    )


def module(folder: Path) -> Any:
    """Import the generated module in a folder made by `home`."""
    spec = importlib.util.spec_from_file_location(f"mystocks_scan_kernels.{folder.name}", folder / "kernel.py")
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


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

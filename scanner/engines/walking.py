"""One bar through many kernels in one call: what a stream does at each bar, compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.panel import Floats
from scanner.engines import compiling
from scanner.engines.base import Counts
from scanner.engines.gate import Gate, Mask

_WALK = '''"""Generated: one bar through many kernels."""

import math

import numpy as np
from numba import boolean, int64, njit, types

from scanner.engines.words import call, integers, numbers

NEVER = np.iinfo(np.int64).max
masks = types.Array(boolean, 1, "C", readonly=True)


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cut(t, has, runs):
    """The runs of columns of `has` that stand at the same t; returns how many."""
    together = 0
    for j in range(len(t)):
        together += has[j] & (t[j] == t[0])
    if 0 < together == len(t):
        runs[0, 0], runs[0, 1], runs[0, 2] = t[0], 0, len(t)
        return 1
    n, j = 0, 0
    while j < len(t):
        if has[j]:
            runs[n, 0], runs[n, 1] = t[j], j
            j += 1
            while j < len(t) and has[j] and t[j] == runs[n, 0]:
                j += 1
            runs[n, 2] = j
            n += 1
        else:
            j += 1
    return n


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def let(gate, t, has, mask, runs):
    """The runs of columns that a gate lets through; returns how many, or -1 for all."""
    begin, end = integers(gate[0]), integers(gate[1])
    inputs, outputs = integers(gate[2]), integers(gate[4])
    doubt = 0
    for j in range(len(t)):
        doubt += has[j] & ((begin[j] == NEVER) | (end[j] != NEVER))
    for k in range(gate[3]):
        values = numbers(inputs[k])
        for j in range(len(t)):
            # A number less itself is 0, and of what is not finite not even that.
            doubt += has[j] & (values[j] - values[j] != 0.0)
    if doubt == 0:
        return -1
    for j in range(len(t)):
        mask[j] = True
    for k in range(gate[3]):
        values = numbers(inputs[k])
        for j in range(len(t)):
            mask[j] &= values[j] - values[j] == 0.0
    for j in range(len(t)):
        if has[j]:
            if mask[j]:
                if begin[j] == NEVER:
                    begin[j] = t[j]
            elif begin[j] != NEVER and end[j] == NEVER:
                end[j] = t[j]
                for k in range(gate[5]):
                    numbers(outputs[k])[j] = math.nan
        mask[j] = has[j] and begin[j] != NEVER and end[j] == NEVER
    return cut(t, mask, runs)


@njit(
    int64(int64[:, ::1], int64[:, ::1], int64[::1], masks, boolean[::1], int64[:, :, ::1]),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def walk(works, gates, t, has, mask, runs_of):
    every, some = runs_of[0], runs_of[1]
    whole = cut(t, has, every)
    before, n, runs = -1, whole, every
    for k in range(len(works)):
        kernel, one, other, gate = works[k, 0], works[k, 1], works[k, 2], works[k, 3]
        if gate != before:
            n, runs, before = whole, every, gate
            if gate >= 0:
                passed = let(gates[gate], t, has, mask, some)
                if passed >= 0:
                    n, runs = passed, some
        for run in range(n):
            if kernel != 0:
                if call(kernel, runs[run, 0], runs[run, 1], runs[run, 2], one, other):
                    return k + 1
            else:
                row, ring = numbers(one), numbers(other + 8 * (runs[run, 0] % works[k, 4] * len(t)))
                for j in range(runs[run, 1], runs[run, 2]):
                    ring[j] = row[j]
    return 0
'''


class Walk:
    """Kernels and rings in the order in which a bar goes through them; matrices stay where they are."""

    def __init__(self) -> None:
        self._works: list[tuple[int, ...]] = []
        self._kernels: dict[int, compiling.Compiled] = {}
        self._gates: dict[int, tuple[int, Gate]] = {}
        self._held: list[Any] = []

    def kernel(
        self, kernel: compiling.Compiled, matrices: Sequence[Floats], params: Sequence[float], gate: Gate | None
    ) -> None:
        """Call a kernel on inputs, state and outputs, for the columns that a gate lets through."""
        place = -1 if gate is None else self._gates.setdefault(id(gate), (len(self._gates), gate))[0]
        self._kernels[len(self._works)] = kernel
        self._works.append((*kernel.bound(matrices, params, self._held), place, 0))

    def keep(self, row: Floats, ring: Floats) -> None:
        """Write a row into its ring."""
        self._works.append((0, row.ctypes.data, ring.ctypes.data, -1, len(ring)))
        self._held += [row, ring]

    def bind(self) -> Callable[[Counts, Mask], None]:
        """walk(t, has): take the columns of `has`, each standing at its t, through all.

        It raises KernelError where a kernel takes a row of state that it does not have.
        """
        walk = _module().walk
        works = np.array(self._works, dtype=np.int64).reshape(-1, 5)
        gates = np.array([self._row(gate) for _, gate in self._gates.values()], dtype=np.int64).reshape(-1, 6)
        mask = np.empty(0, dtype=bool)
        runs = np.empty((2, 0, 3), dtype=np.int64)

        def run(t: Counts, has: Mask, held: Any = self._held) -> None:
            nonlocal mask, runs
            if len(mask) < len(t):
                mask, runs = np.empty(len(t), dtype=bool), np.empty((2, len(t), 3), dtype=np.int64)
            if failed := walk(works, gates, t, has, mask, runs):
                raise self._kernels[failed - 1].failed()

        return run

    def _row(self, gate: Gate) -> list[int]:
        inputs = np.array([row.ctypes.data for row in gate.inputs], dtype=np.int64)
        outputs = np.array([row.ctypes.data for row in gate.outputs], dtype=np.int64)
        self._held += [gate, gate.begin, gate.end, inputs, outputs]
        of_gate = (gate.begin, gate.end)
        return [*(one.ctypes.data for one in of_gate), *_address(inputs), *_address(outputs)]


def _address(array: npt.NDArray[np.int64]) -> tuple[int, int]:
    return array.ctypes.data, len(array)


@functools.cache
def _module() -> Any:
    return compiling.module(compiling.home("walk", _WALK, lambda: _WALK))

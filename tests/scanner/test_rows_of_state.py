"""A kernel that takes a row of state that it does not have is refused by every form of it, before it reads a number."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data.errors import KernelError
from data.panel import Floats
from scanner.engines import plain
from scanner.engines.base import Series
from scanner.engines.machine import Advance, CpuMachine
from scanner.engines.vector import VectorEngine
from scanner.indicators import catalog
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel

ROWS, BARS = 3, 12


def at(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """Row n - 3: below the state for n < 3, beyond it from n = 6 on."""
    now, v, held = row(x, t, j0, j1), row(out, t, j0, j1), state[n - 3, j0:j1]
    for j in range(j1 - j0):
        held[j] = now[j]
        v[j] = held[j]


def late(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """Only at bar 7, and only in a branch and a loop."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    for j in range(j1 - j0):
        v[j] = now[j]
    if t == 7:
        for lag in range(2):
            held = state[lag + n - 3, j0:j1]
            for j in range(j1 - j0):
                v[j] = v[j] + held[j]


def ring(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """A ring of the rows from 1 up to n."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    held = state[1:n]
    to = row(held, t, j0, j1)
    for j in range(j1 - j0):
        to[j] = now[j]
        v[j] = to[j]


def made(advance: Callable[..., None]) -> Indicator:
    return replace(catalog["SMA"], name=f"ROW_{advance.__name__.upper()}", kernel=Kernel(advance, ROWS))


def values() -> Floats:
    return np.arange(4.0 * BARS).reshape(BARS, 4)


@pytest.mark.parametrize(
    ("advance", "n", "held"),
    [
        *[(at, 2, False), (at, 3, True), (at, 5, True), (at, 6, False)],
        *[(late, 2, False), (late, 3, True), (late, 4, True), (late, 5, False)],
        *[(ring, 1, False), (ring, 2, True), (ring, 3, True), (ring, 4, False)],
    ],
)
@pytest.mark.parametrize("form", ["vector", "batch", "chain", "plain"])
def test_a_row_that_there_is_not(advance: Callable[..., None], n: int, held: bool, form: str) -> None:
    indicator = made(advance)
    params = {"timeperiod": n}
    series = [Series(values(), np.full(4, BARS))]
    state, out = np.zeros((ROWS, 4)), np.empty((BARS, 4))

    def go() -> None:
        match form:
            case "vector":
                (out[:],) = VectorEngine(1).by_kernel(indicator, params, series)
            case "plain":
                (out[:],) = plain.run(indicator, params, series)
            case "batch":
                first, stop = series[0].span
                CpuMachine().batch(indicator, params, first, stop, [values()], state, [out])
            case "chain":
                chain = CpuMachine().chain([Advance(indicator, params, [values()], state, [out])])
                for t in range(BARS):
                    chain(np.full(4, t), np.ones(4, dtype=bool))

    if held:
        go()
        np.testing.assert_array_equal(out[:7], values()[:7])
    else:
        with pytest.raises(KernelError, match=rf"the kernel {advance.__name__} takes a row of state"):
            go()

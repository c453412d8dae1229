"""What a kernel's compiled form owes its numpy form: every bit, whatever the input; and that a wrong one is caught."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scanner.engines import plain
from scanner.engines.base import Series
from scanner.engines.golden import N_SYMBOLS, Bits, compare, golden, market
from scanner.engines.vector import engine as vector
from scanner.indicators import catalog, kernels
from scanner.indicators.averages import sma
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel

every_kernel = pytest.mark.parametrize("indicator", kernels(), ids=lambda i: i.name)


@every_kernel
@pytest.mark.parametrize("choice", ["defaults", "altered", "lowest"])
def test_compiled_and_numpy_are_one(indicator: Indicator, choice: str) -> None:
    """Ragged, flat, broken, of one bar and of none; whole and the newest bars alone."""
    values = {
        "defaults": (),
        "altered": tuple(p.default + 3 if p.kind is int else p.default * 1.7 for p in indicator.params),
        "lowest": tuple(p.lo for p in indicator.params),
    }
    params = indicator.bind(*values[choice])
    for n_symbols, bars in ((270, 90), (1, 1), (N_SYMBOLS, 0), (0, 30)):
        inputs = [Series(*given) for given in market(indicator, n_symbols, bars)]
        for keep in (None, 7):
            got = vector.by_kernel(indicator, params, inputs, keep=keep)
            wanted = plain.run(indicator, params, inputs, keep=keep)
            n = len(indicator.outputs) * n_symbols * (bars if keep is None else min(keep, bars))
            assert compare(got, wanted) == Bits(n, 0, 0)


@every_kernel
def test_the_golden_input_tells_something(indicator: Indicator) -> None:
    """Every kernel gives numbers on it, more than one, and leaves out what lies outside a symbol's own bars."""
    inputs = [Series(*given) for given in market(indicator)]
    for values in plain.run(indicator, indicator.bind(), inputs):
        known = values[np.isfinite(values)]
        assert len(known) > values.size / 5
        assert len(np.unique(known)) > 1
        assert np.isnan(values).any()
    assert golden(indicator, vector.by_kernel).n_differing == 0


def late(t: int, j0: int, j1: int, x: Any, state: Any, out: Any, n: int) -> None:
    now, old, v = row(x, t, j0, j1), row(x, t - n + 1, j0, j1), row(out, t, j0, j1)
    seen, total = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        oldest = old[j]
        s = total[j] + now[j]
        v[j] = s / n if k > n else math.nan
        total[j] = s - oldest if k >= n else s
        seen[j] = k


def rounded(t: int, j0: int, j1: int, x: Any, state: Any, out: Any, n: int) -> None:
    share = 1.0 / n
    now, old, v = row(x, t, j0, j1), row(x, t - n + 1, j0, j1), row(out, t, j0, j1)
    seen, total = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        oldest = old[j]
        s = total[j] + now[j]
        v[j] = s * share if k >= n else math.nan
        total[j] = s - oldest if k >= n else s
        seen[j] = k


@pytest.mark.parametrize(("mutant", "ulps"), [(late, 2**40), (rounded, 1)])
def test_a_wrong_kernel_is_caught(mutant: Any, ulps: int) -> None:
    right = catalog["SMA"]
    wrong = replace(right, kernel=Kernel(mutant, 2))

    def run(indicator: Indicator, *given: Any) -> Any:
        return plain.run(wrong, *given)

    bits = golden(right, run)
    assert right.kernel is not None
    assert right.kernel.advance is sma
    assert 0 < bits.n_differing < bits.n_values
    assert bits.max_ulp >= ulps
    assert (bits.max_ulp < 2**40) == (ulps == 1)
    assert golden(right, plain.run) == Bits(bits.n_values, 0, 0)

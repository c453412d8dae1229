"""The kernels of the window functions give what their numpy cores give, unknown values included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.panel import Floats
from scanner.engines.base import Series, choose
from scanner.functions import FUNCTIONS
from scanner.indicators import kernels
from scanner.indicators.window import WINDOWS


def test_every_function_that_looks_back_has_a_kernel() -> None:
    assert set(WINDOWS) == {f.name for f in FUNCTIONS.values() if f.reach(2) != 0}
    assert set(WINDOWS.values()) < set(kernels())
    for name, indicator in WINDOWS.items():
        function = FUNCTIONS[name]
        assert ["condition" if kind == "condition" else "number" for kind in function.arguments if kind != "n"] == [
            "condition" if given == "condition" else "number" for given in indicator.inputs
        ]
        assert [param.default for param in indicator.params][: function.default_n is not None] == (
            [] if function.default_n is None else [function.default_n]
        )
        assert bool(indicator.params) == ("n" in function.arguments)


@pytest.mark.parametrize("name", WINDOWS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, database=None)
def test_its_kernel_is_its_core(name: str, data: st.DataObject) -> None:
    """Symbols of different ages; before a symbol's first bar lie numbers that must not matter."""
    indicator, function = WINDOWS[name], FUNCTIONS[name]
    bars, n_symbols = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 3))
    lengths = np.array(data.draw(st.lists(st.integers(0, bars), min_size=n_symbols, max_size=n_symbols)), dtype=int)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    unknown = data.draw(st.sampled_from([0.0, 0.05, 0.5]))

    def matrix(kind: str) -> Floats:
        values = rng.integers(0, 2 if kind == "condition" else 6, (bars, n_symbols)).astype(float)
        values[rng.random(values.shape) < unknown] = np.nan
        return values

    inputs = [matrix(kind) for kind in indicator.inputs]
    n = [data.draw(st.integers(1, 24))] if indicator.params else []
    series = [Series(values, lengths) for values in inputs]
    (found,) = choose("vector")[0].run(indicator, indicator.bind(*n), series)
    for j, length in enumerate(lengths):
        first = bars - length
        assert np.isnan(found[:first, j]).all()
        expected = function.core(*(values[first:, [j]] for values in inputs), *n)[:, 0]
        np.testing.assert_array_equal(found[first:, j], expected)

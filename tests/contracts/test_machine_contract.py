"""What every machine does with row kernels: a bar at a time gives the bits of the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import EngineError
from scanner.engines.machine import MACHINES, Advance, Machine, machine_of
from scanner.indicators import catalog
from scanner.indicators.spec import Indicator
from scanner.indicators.window import WINDOWS

KERNELS = [catalog["KDJ"], catalog["ADX"], catalog["MFI"], WINDOWS["highest"]]


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    try:
        made = machine_of(request.param)
    except EngineError as error:
        pytest.skip(f"a GPU: {error}")
    assert made is not None
    return made


def test_engines_that_compute_anew_have_none() -> None:
    assert machine_of("talib") is None


def test_matrices_come_back_as_they_went(machine: Machine) -> None:
    values = np.arange(6.0).reshape(2, 3)
    there = machine.put(values)
    values[:] = 0.0
    np.testing.assert_array_equal(machine.get(there), np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(machine.get(there[1]), [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(machine.get(machine.zeros(2, 3)), np.zeros((2, 3)))
    assert machine.zeros(0, 3).shape == (0, 3)


@pytest.mark.parametrize("indicator", KERNELS, ids=lambda i: i.name)
@given(data=st.data())
@settings(max_examples=20, deadline=None, database=None)
def test_steps_are_the_batch(machine: Machine, indicator: Indicator, data: st.DataObject) -> None:
    """Columns trade when they like, so that each stands at a bar of its own; results know nothing of t."""
    assert indicator.kernel is not None
    n, bars = data.draw(st.integers(1, 6)), 40
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    present = rng.random((bars, n)) < data.draw(st.sampled_from([0.5, 0.95, 1.0]))
    params = {p.name: p.default for p in indicator.params}
    lengths = present.sum(axis=0)
    opened = data.draw(st.integers(0, 9))  # any t will do to begin at
    rings = opened + bars
    inputs = [machine.put(np.full((rings, n), np.nan)) for _ in indicator.inputs]
    given_values = [rng.uniform(9.0, 11.0, (bars, n)) for _ in inputs]
    packed = [np.full((bars, n), np.nan) for _ in inputs]
    for j in range(n):
        for whole, values in zip(packed, given_values, strict=True):
            whole[bars - lengths[j] :, j] = values[present[:, j], j]
    rows = indicator.kernel.rows(params)
    batched = [machine.put(np.full((bars, n), 7.0)) for _ in indicator.outputs]
    first, stop = bars - lengths, np.full(n, bars)
    machine.batch(indicator, params, first, stop, [machine.put(m) for m in packed], machine.zeros(rows, n), batched)
    outputs = [machine.put(np.full((1, n), np.nan)) for _ in batched]
    step = machine.chain([Advance(indicator, params, inputs, machine.zeros(rows, n), outputs)])
    t = np.full(n, opened - 1)
    seen = np.zeros(n, dtype=int)
    for row in range(bars):
        has = present[row]
        t = t + has
        for ring, values in zip(inputs, given_values, strict=True):
            ring[t[has], np.flatnonzero(has)] = machine.put(values[row, has])
        step(t, has)
        for out, whole in zip(outputs, batched, strict=True):
            expected = machine.get(whole)[bars - lengths + seen - (~has), np.arange(n)]
            np.testing.assert_array_equal(machine.get(out)[0][has], expected[has])
        seen += has
    for whole in batched:
        outside = np.arange(bars)[:, None] < first
        assert np.isnan(machine.get(whole)[outside]).all()

"""What holds for every function of TA-Lib: each can be found, described, and run like one of the catalogue."""

from typing import Any

import numpy as np
import pytest
import talib

from data.errors import ParameterError
from scanner.engines.base import by_symbol
from scanner.engines.talib import describe, engine, functions
from scanner.indicators import catalog, find
from scanner.indicators.spec import Indicator

OUTSIDE_ITS_DOMAIN = {"ACOS", "ASIN"}
"""No number for a price above 1; the laws give them returns in place of prices."""

every_function = pytest.mark.parametrize("name", functions())


def arguments(indicator: Indicator, panel: Any) -> tuple[list[Any], Any]:
    """The function's inputs from a packed panel, and the lengths."""
    packed = panel.pack()
    fields = {name: matrix.T for name, matrix in packed.fields.items()}
    fields["periods"] = np.where(np.isnan(fields["close"]), np.nan, 5.0)
    scale = 1e-3 if indicator.talib in OUTSIDE_ITS_DOMAIN else 1.0
    return [scale * fields[name] for name in indicator.inputs], packed.lengths


@every_function
def test_it_is_found_and_described(name: str) -> None:
    indicator = find(name)
    assert indicator is (catalog[name] if name in catalog else describe(name))
    assert indicator.name == name
    assert indicator.bind() == {param.name: param.default for param in indicator.params}
    assert indicator.title
    assert indicator.doc
    assert len(set(indicator.outputs)) == len(indicator.outputs)
    for param in indicator.params:
        assert type(param.lo) is type(param.hi) is type(param.default) is param.kind
        assert param.lo <= param.default <= param.hi
        assert str(param.lo) != "-0.0"


@every_function
def test_its_values_are_talibs_own_and_nan_during_the_lookback(name: str, make_panel: Any) -> None:
    indicator = describe(name)
    params = indicator.bind()
    lookback = indicator.lookback(**params)
    inputs, lengths = arguments(indicator, make_panel(4, 220))
    got = by_symbol(engine, indicator, params, inputs, lengths)
    assert len(got) == len(indicator.outputs)
    length = inputs[0].shape[1]
    for j, bars in enumerate(lengths):
        wanted = getattr(talib, name)(*[matrix[j, length - bars :] for matrix in inputs], **params)
        for values, own in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            assert np.isnan(values[j, : length - bars + lookback]).all()
            np.testing.assert_array_equal(values[j, length - bars + lookback :], own[lookback:])
            assert np.isfinite(own[lookback:]).all()


@every_function
def test_later_bars_change_no_earlier_value(name: str, make_panel: Any) -> None:
    indicator = describe(name)
    inputs, lengths = arguments(indicator, make_panel(2, 220, listings=False, halts=False))
    whole = by_symbol(engine, indicator, indicator.bind(), inputs, lengths)
    part = by_symbol(engine, indicator, indicator.bind(), [m[:, :150] for m in inputs], lengths - 70)
    for values, before in zip(whole, part, strict=True):
        np.testing.assert_array_equal(values[:, :150], before)


@every_function
def test_a_gap_within_ends_the_symbol(name: str, make_panel: Any) -> None:
    indicator = describe(name)
    inputs, lengths = arguments(indicator, make_panel(3, 220))
    whole = by_symbol(engine, indicator, indicator.bind(), inputs, lengths)
    inputs[-1][1, 180] = np.nan
    got = by_symbol(engine, indicator, indicator.bind(), inputs, lengths)
    for values, before in zip(got, whole, strict=True):
        np.testing.assert_array_equal(values[[0, 2]], before[[0, 2]])
        np.testing.assert_array_equal(values[1, :180], before[1, :180])
        assert np.isnan(values[1, 180:]).all()


@every_function
def test_a_symbol_without_bars_has_no_value(name: str, make_panel: Any) -> None:
    indicator = describe(name)
    panel = make_panel(3, 150, halts=False)
    for matrix in panel.fields.values():
        matrix[:, 1] = np.nan
    inputs, lengths = arguments(indicator, panel)
    for values in by_symbol(engine, indicator, indicator.bind(), inputs, lengths):
        assert np.isfinite(values).any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("name", [name for name in functions() if not describe(name).recursive])
def test_only_a_recursive_one_remembers_more_than_its_window(name: str, make_panel: Any) -> None:
    """One that is called recursive and is not only waits longer after a gap; the other way round would be wrong."""
    indicator = describe(name)
    inputs, lengths = arguments(indicator, make_panel(2, 300, listings=False, halts=False))
    window = indicator.lookback(**indicator.bind()) + 1
    whole = by_symbol(engine, indicator, indicator.bind(), inputs, lengths, keep=1)
    part = by_symbol(
        engine, indicator, indicator.bind(), [m[:, -window:] for m in inputs], np.array([window, window]), keep=1
    )
    for values, alone in zip(whole, part, strict=True):
        if "INDEX" in name:  # an index counts from the start of the series
            values, alone = values - 300, alone - window
        np.testing.assert_allclose(values, alone, rtol=1e-8, atol=1e-8)


def test_parameters_that_exclude_each_other_are_refused_in_our_words(make_panel: Any) -> None:
    indicator = find("MAVP")
    inputs, lengths = arguments(indicator, make_panel(2, 60))
    with pytest.raises(ParameterError, match=r"TA-Lib refuses MAVP\(9,5,0\): .*Bad Parameter"):
        by_symbol(engine, indicator, indicator.bind(9, 5, 0), inputs, lengths)

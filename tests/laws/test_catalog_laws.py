"""What holds for every indicator of the catalogue on every engine, read off its declaration: no code an indicator."""

import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from talib import abstract

from data.errors import ParameterError
from data.panel import Floats, Packed, Panel
from scanner.engines.base import Engine, by_symbol, choose
from scanner.engines.talib import describe
from scanner.indicators import catalog, find
from scanner.indicators.spec import FAMILIES, Indicator, Param

every_indicator = pytest.mark.parametrize("indicator", catalog.values(), ids=catalog)
every_talib = pytest.mark.parametrize("indicator", [i for i in catalog.values() if i.talib], ids=lambda i: i.name)
PARAMS = [pytest.param(i, p, id=f"{i.name}-{p.name}") for i in catalog.values() for p in i.params]
every_param = pytest.mark.parametrize(("indicator", "param"), PARAMS)
every_param_of_talib = pytest.mark.parametrize(("indicator", "param"), [p for p in PARAMS if p.values[0].talib])


def run(engine: Engine, indicator: Indicator, packed: Packed, *args: Any, keep: int | None = None) -> list[Floats]:
    inputs = [packed.fields[name].T for name in indicator.inputs]
    for matrix in inputs:
        matrix.flags.writeable = False
    return list(by_symbol(engine, indicator, indicator.bind(*args), inputs, packed.lengths, keep=keep))


def on_panel(engine: Engine, indicator: Indicator, panel: Panel, *args: Any) -> list[Floats]:
    packed = panel.pack(indicator.inputs)
    return [packed.unpack(values.T, panel.times) for values in run(engine, indicator, packed, *args)]


def altered(indicator: Indicator) -> tuple[Any, ...]:
    """Parameters other than the defaults, all of them within reach of a short series."""
    return tuple(p.default + 2 if p.kind is int else p.default * 1.5 for p in indicator.params)


def same(got: Sequence[Floats], wanted: Sequence[Floats]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def remembers(indicator: Indicator, packed: Packed) -> bool:
    """Whether the newest value depends on bars before the lookback."""
    inputs = [packed.fields[name].T for name in indicator.inputs]
    params = indicator.bind()
    window = indicator.lookback(**params) + 1
    engine = choose("talib")[0]
    whole = by_symbol(engine, indicator, params, inputs, np.array([packed.length]), keep=1)
    part = by_symbol(engine, indicator, params, [m[:, -window:] for m in inputs], np.array([window]), keep=1)
    return not all(np.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(whole, part, strict=True))


def near(engine: Engine, indicator: Indicator, got: Sequence[Floats], wanted: Sequence[Floats]) -> None:
    """TA-Lib's own bits from the engine that calls it; from kernels the same NaN, and values as near as declared."""
    if engine.name == "talib" or indicator.kernel is None:
        same(got, wanted)
        return
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        scale = np.abs(other[np.isfinite(other)]).max(initial=0.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=indicator.kernel.rtol * scale)


def by_talib(indicator: Indicator, columns: Mapping[str, Floats], params: Mapping[str, Any]) -> list[Floats]:
    """TA-Lib's public function on one symbol's own bars; its integers are 0 during the lookback, which ours are not."""
    assert indicator.talib
    result = getattr(talib, indicator.talib)(*[columns[n] for n in indicator.inputs], **indicator.fixed, **params)
    values = [np.array(v, dtype=np.float64) for v in (result if isinstance(result, tuple) else (result,))]
    function = abstract.Function(indicator.talib)
    function.parameters = {**indicator.fixed, **params}
    for column in values:
        column[: function.lookback] = np.nan
    return values


# What a declaration says


@every_indicator
def test_it_is_documented_and_whole(indicator: Indicator) -> None:
    assert indicator.name == indicator.name.upper() == indicator.name.strip()
    assert indicator.title
    assert re.search(r"[\u4e00-\u9fff]", indicator.title_zh)
    assert indicator.family in FAMILIES[:-1]
    assert indicator.doc.endswith(".")
    assert re.search(r"[-+*/=\d]", indicator.doc), "no formula"
    assert indicator.talib or indicator.kernel
    assert set(indicator.aliases.values()) <= set(indicator.outputs)
    assert not set(indicator.aliases) & set(indicator.outputs)
    assert len(set(indicator.outputs)) == len(indicator.outputs)


@every_talib
def test_it_declares_what_talib_has(indicator: Indicator) -> None:
    theirs = describe(indicator.talib or "")
    assert indicator.inputs == theirs.inputs
    assert len(indicator.outputs) == len(theirs.outputs)
    params = {param.name: param for param in theirs.params}
    assert [p.name for p in indicator.params] == [name for name in params if name not in indicator.fixed]
    assert set(indicator.fixed) <= set(params)
    for param in indicator.params:
        other = params[param.name]
        assert (param.kind, param.lo, param.hi) == (other.kind, other.lo, other.hi)


@every_talib
@given(data=st.data())
@settings(max_examples=25, deadline=None, database=None)
def test_its_lookback_is_talibs(indicator: Indicator, data: st.DataObject) -> None:
    params = {
        p.name: data.draw(st.integers(p.lo, min(p.hi, 3000)) if p.kind is int else st.floats(p.lo, p.hi))
        for p in indicator.params
    }
    function = abstract.Function(indicator.talib)
    function.parameters = {**indicator.fixed, **params}
    assert indicator.lookback(**indicator.bind(**params)) == function.lookback


@every_indicator
def test_it_pickles_by_name(indicator: Indicator) -> None:
    assert find(indicator.name) is indicator
    assert pickle.loads(pickle.dumps(indicator)) is indicator


@every_indicator
def test_its_key_tells_parameters_apart(indicator: Indicator) -> None:
    keys = {indicator.key(indicator.bind()), indicator.key(indicator.bind(*altered(indicator)))}
    assert len(keys) == (2 if indicator.params else 1)
    assert all(key.startswith(f"{indicator.name}(") for key in keys)


# Parameters


@every_param
def test_parameters_beyond_bounds_or_of_another_type_are_refused(indicator: Indicator, param: Param) -> None:
    if param.kind is int:
        bad: list[Any] = [param.lo - 1, param.hi + 1, 10**400, 5.0, 5.5, True, np.True_, None, "5", math.nan, [5]]
        told = f"{indicator.name} {param.name} must be an integer in [{param.lo}, {param.hi}]; got "
    else:
        bad = [np.nextafter(param.lo, -np.inf), math.inf, 10**400, math.nan, True, np.True_, None, "0.1", [0.1]]
        told = f"{indicator.name} {param.name} must be a number in [{param.lo:g}, {param.hi:g}]; got "
    for value in bad:
        with pytest.raises(ParameterError) as refusal:
            indicator.bind(**{param.name: value})
        assert str(refusal.value) == f"{told}{value!r}"


@every_param_of_talib
def test_bounds_are_where_talib_refuses(indicator: Indicator, param: Param) -> None:
    bar = {name: np.linspace(9.0, 11.0, 50) for name in indicator.inputs}
    beyond = [param.lo - 1, param.hi + 1] if param.kind is int else [math.nextafter(param.lo, -math.inf)]
    for value in (param.lo, param.hi):
        by_talib(indicator, bar, {**indicator.bind(), param.name: value})
    for value in beyond:
        with pytest.raises(Exception, match="Bad Parameter"):
            by_talib(indicator, bar, {**indicator.bind(), param.name: value})


@every_param
def test_bounds_and_numpys_numbers_are_accepted(indicator: Indicator, param: Param) -> None:
    for value in (param.lo, param.hi, np.int64(5), *([np.float64(0.5), 1] if param.kind is float else [])):
        bound = indicator.bind(**{param.name: value})
        assert list(bound) == [p.name for p in indicator.params]
        assert bound[param.name] == value
        assert type(bound[param.name]) is param.kind


@every_indicator
def test_unknown_and_surplus_parameters_are_refused(indicator: Indicator) -> None:
    names = [param.name for param in indicator.params]
    with pytest.raises(ParameterError) as refusal:
        indicator.bind(nonsense=1)
    assert str(refusal.value) == f"{indicator.name} has no parameter 'nonsense'; it takes {', '.join(names) or 'none'}"
    with pytest.raises(ParameterError, match=f"{indicator.name} takes .*; got .*99"):
        indicator.bind(*[p.default for p in indicator.params], 99)


@every_param
def test_every_parameter_matters(indicator: Indicator, param: Param, engine: Engine, make_panel: Any) -> None:
    panel = make_panel()
    value = dict(zip([p.name for p in indicator.params], altered(indicator), strict=True))[param.name]
    packed = panel.pack(indicator.inputs)
    inputs = [packed.fields[name].T for name in indicator.inputs]
    usual = by_symbol(engine, indicator, indicator.bind(), inputs, packed.lengths)
    other = by_symbol(engine, indicator, indicator.bind(**{param.name: value}), inputs, packed.lengths)
    assert any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(usual, other, strict=True))


# Values


@every_talib
@pytest.mark.parametrize("choice", ["defaults", "altered", "lowest"])
def test_values_are_talibs_own(indicator: Indicator, choice: str, engine: Engine, make_panel: Any) -> None:
    choices = {"defaults": (), "altered": altered(indicator), "lowest": tuple(p.lo for p in indicator.params)}
    args = choices[choice]
    panel = make_panel()
    got = on_panel(engine, indicator, panel, *args)
    for j in range(len(panel.symbols)):
        own = panel.present[:, j]
        wanted = by_talib(indicator, {n: panel[n][own, j] for n in indicator.inputs}, indicator.bind(*args))
        near(engine, indicator, [values[own, j] for values in got], wanted)
        assert all(np.isnan(values[~own, j]).all() for values in got)


@every_indicator
@pytest.mark.parametrize("choice", ["defaults", "altered"])
def test_nan_exactly_during_the_lookback(indicator: Indicator, choice: str, engine: Engine, make_panel: Any) -> None:
    args = () if choice == "defaults" else altered(indicator)
    lookback = indicator.lookback(**indicator.bind(*args))
    packed = make_panel().pack()
    got = run(engine, indicator, packed, *args)
    assert len(got) == len(indicator.outputs)
    bar = np.arange(packed.length) - (packed.length - packed.lengths[:, None])
    for values in got:
        assert values.dtype == np.float64
        np.testing.assert_array_equal(np.isnan(values), bar < lookback)


@every_indicator
def test_short_symbols_have_no_value(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    lookback = indicator.lookback(**indicator.bind())
    for bars in {0, 1, lookback, lookback + 1}:
        for values in run(engine, indicator, make_panel(2, bars, listings=False, halts=False).pack()):
            assert values.shape == (2, bars)
            assert np.isfinite(values).sum() == (2 if bars == lookback + 1 else 0)


@every_indicator
def test_later_bars_change_no_earlier_value(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    panel = make_panel()
    whole = on_panel(engine, indicator, panel)
    for bars in (40, 97, 120):
        part = on_panel(engine, indicator, panel.upto(int(panel.times[bars - 1])))
        same(part, [values[:bars] for values in whole])


@every_indicator
def test_keep_gives_the_last_columns(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    packed = make_panel().pack()
    broken = {name: matrix.copy() for name, matrix in packed.fields.items()}
    broken["close"][-20, 1] = broken["high"][-20, 1] = np.nan
    for bars in (packed, replace(packed, fields=broken)):
        whole = run(engine, indicator, bars)
        for keep in (1, 2, 60, 150, 10_000):
            same(run(engine, indicator, bars, keep=keep), [values[:, -keep:] for values in whole])


@every_indicator
def test_only_a_recursive_one_remembers_more_than_its_window(indicator: Indicator, make_panel: Any) -> None:
    assert indicator.recursive == remembers(indicator, make_panel(1, 400, listings=False, halts=False).pack())


# Symbols


@every_indicator
def test_a_halt_changes_nothing_but_the_rows_it_covers(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    panel = make_panel(4, 120, listings=False, halts=False)
    rows = np.r_[0:70, 100:150]
    halted = {}
    for name, matrix in panel.fields.items():
        halted[name] = np.full((150, 4), np.nan)
        halted[name][rows] = matrix
        # The others trade on, so that the rows of the halt exist; symbol 0 alone is away for 30 days.
        halted[name][:, 1:] = np.concatenate([matrix, matrix[:30]])[:, 1:]
    longer = Panel("1d", np.arange(150, dtype=np.int64), panel.symbols, halted)
    without, with_halt = on_panel(engine, indicator, panel), on_panel(engine, indicator, longer)
    same([values[rows, 0] for values in with_halt], [values[:, 0] for values in without])
    assert all(np.isnan(values[70:100, 0]).all() for values in with_halt)


@every_indicator
def test_each_symbol_is_computed_as_if_alone(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    panel = make_panel()
    together = on_panel(engine, indicator, panel)
    for j, symbol in enumerate(panel.symbols):
        same(on_panel(engine, indicator, panel.select([symbol])), [values[:, [j]] for values in together])


@every_indicator
def test_the_order_of_symbols_is_irrelevant(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    panel = make_panel()
    order = [3, 0, 5, 1, 4, 2]
    shuffled = on_panel(engine, indicator, panel.select([panel.symbols[j] for j in order]))
    same(shuffled, [values[:, order] for values in on_panel(engine, indicator, panel)])


# Degenerate input


@every_indicator
def test_flat_prices_give_numbers(indicator: Indicator, engine: Engine) -> None:
    flat = {name: np.full((40 + 60, 1), 12.34) for name in ("open", "high", "low", "close")}
    rest = {"volume": np.full((100, 1), 1e6), "session": np.full((100, 1), 20_000.0)}
    panel = Panel("1d", np.arange(100, dtype=np.int64), ("600000.SH",), {**flat, **rest})
    got = on_panel(engine, indicator, panel)
    assert all(np.isfinite(values[indicator.lookback(**indicator.bind()) :]).all() for values in got)
    if indicator.talib:
        wanted = by_talib(indicator, {n: m[:, 0] for n, m in panel.fields.items()}, indicator.bind())
        values = [v[:, 0] for v in got]
        near(
            engine, indicator, values, wanted if engine.name == "talib" else declared(indicator, panel, wanted, values)
        )


def declared(indicator: Indicator, panel: Panel, wanted: Sequence[Floats], got: Sequence[Floats]) -> Sequence[Floats]:
    """TA-Lib's values of a panel's first symbol, but where it is flat what a kernel declares for that.

    Where an output averages another one's flat and moving bars, TA-Lib averages rounding, and what we got stands.
    """
    if indicator.kernel is None or indicator.kernel.flat is None:
        return wanted
    params = indicator.bind()
    inputs = [panel[name][:, 0] for name in indicator.inputs]
    moved = np.zeros(len(panel.times), dtype=bool)
    for series in inputs:
        moved[1:] |= series[1:] != series[:-1]
    since = np.arange(len(moved)) - np.maximum.accumulate(np.where(moved, np.arange(len(moved)), 0))
    lookback = indicator.lookback(**params)
    still = indicator.kernel.still(**params) if indicator.kernel.still else (lookback,) * len(wanted)
    known = []
    for value, own, ours, bars in zip(indicator.kernel.flat(*inputs), wanted, got, still, strict=True):
        mixed = np.convolve(since >= still[0], np.ones(bars - still[0] + 1))[: len(since)] > 0
        assert np.isfinite(ours[lookback:]).all()
        known.append(np.where(np.isnan(own), np.nan, np.where(since >= bars, value, np.where(mixed, ours, own))))
    return known


@every_talib
@pytest.mark.parametrize("price", [3.07, 41.3, 1999.99])
def test_stretches_without_movement_are_talibs_or_as_declared(
    indicator: Indicator, price: float, engine: Engine
) -> None:
    """Flat and rounded to ticks after movement: where running sums hold what rounding left there."""
    rng = np.random.default_rng(11)
    n = 600
    still = (np.arange(n) // 60) % 2 == 1
    ticks = np.cumsum(np.where(still, rng.random(n) < 0.02, rng.integers(-20, 21, n)))
    close = np.round(price * 1.5 + 0.01 * ticks, 2)
    near_by = np.where(still, 0, rng.integers(0, 6, (3, n)))
    high = np.round(close + 0.01 * near_by[0], 2)
    low = np.round(close - 0.01 * near_by[1], 2)
    start = np.round(np.where(near_by[2] > 3, high, low), 2)
    volume = np.where(still & (rng.random(n) < 0.5), 0.0, np.round(rng.lognormal(13, 0.5, n)))
    fields = {"open": start, "high": high, "low": low, "close": close, "volume": volume}
    panel = Panel("1d", np.arange(n), ("600000.SH",), {name: series[:, None] for name, series in fields.items()})
    got = [values[:, 0] for values in on_panel(engine, indicator, panel)]
    wanted = by_talib(indicator, fields, indicator.bind())
    if engine.name == "talib":
        same(got, wanted)
        return
    expected = declared(indicator, panel, wanted, got)
    near(engine, indicator, got, expected)
    for value, own, talibs in zip(got, expected, wanted, strict=True):
        replaced = own != talibs
        np.testing.assert_array_equal(value[replaced], own[replaced])


@every_indicator
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gap_within_ends_the_symbol(indicator: Indicator, bad: float, engine: Engine, make_panel: Any) -> None:
    packed = make_panel(3, 120, listings=False, halts=False).pack()
    lookback = indicator.lookback(**indicator.bind())
    whole = run(engine, indicator, packed)
    for name in indicator.inputs:
        fields = {n: m.copy() for n, m in packed.fields.items()}
        fields[name][90, 1] = bad
        fields[name][lookback // 2 : lookback // 2 + 1, 2] = bad  # at its first bar, or within the lookback
        got = run(engine, indicator, replace(packed, fields=fields))
        for values, before in zip(got, whole, strict=True):
            np.testing.assert_array_equal(values[0], before[0])
            np.testing.assert_array_equal(values[1, :90], before[1, :90])
            assert np.isnan(values[1, 90:]).all()
            if lookback >= 2:
                assert np.isnan(values[2]).all()


@every_indicator
def test_inputs_that_begin_later_shift_the_lookback(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    packed = make_panel(3, 130, halts=False).pack()
    for blank in (np.nan, np.inf):
        fields = {n: m.copy() for n, m in packed.fields.items()}
        late = fields[indicator.inputs[-1]]
        late[: 130 - packed.lengths[1] + 9, 1] = blank
        got = run(engine, indicator, replace(packed, fields=fields))
        begin = 130 - int(packed.lengths[1]) + 9
        trimmed = {n: np.ascontiguousarray(m[begin:, [1]].T) for n, m in packed.fields.items()}
        inputs = [trimmed[n] for n in indicator.inputs]
        alone = by_symbol(engine, indicator, indicator.bind(), inputs, np.array([130 - begin]))
        for values, own in zip(got, alone, strict=True):
            assert np.isnan(values[1, :begin]).all()
            np.testing.assert_array_equal(values[1, begin:], own[0])


@every_indicator
def test_bars_before_a_symbols_first_count_for_nothing(indicator: Indicator, engine: Engine, make_panel: Any) -> None:
    """`lengths` says where a symbol begins, even if an input (a constant, say) has values before."""
    packed = make_panel(3, 130, listings=False, halts=False).pack()
    inputs = [packed.fields[name].T for name in indicator.inputs]
    got = by_symbol(engine, indicator, indicator.bind(), inputs, np.array([130, 100, 0]))
    alone = by_symbol(engine, indicator, indicator.bind(), [m[[1], 30:] for m in inputs], np.array([100]))
    for values, own in zip(got, alone, strict=True):
        assert np.isnan(values[1, :30]).all()
        np.testing.assert_array_equal(values[1, 30:], own[0])
        assert np.isnan(values[2]).all()

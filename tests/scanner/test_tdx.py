"""TongDaXin's formulas against numbers worked by hand, and against the formulas' own text run on exact fractions."""

import csv
import functools
import importlib.util
import re
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scanner.engines.base import ON_CPU, by_symbol, choose
from scanner.indicators import catalog
from scanner.indicators.spec import Indicator

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FIELDS = ("open", "high", "low", "close", "volume")
TDX = [i for i in catalog.values() if i.dialect == "tdx" and i.name != "KDJ"]  # which has its own numbers

every_formula = pytest.mark.parametrize("indicator", TDX, ids=lambda i: i.name)
every_engine = pytest.mark.parametrize("engine", ON_CPU)


@functools.cache
def golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tdx_golden", GOLDEN / "tdx.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def altered(indicator: Indicator) -> tuple[Any, ...]:
    return tuple(p.default + 3 if p.kind is int else p.default * 1.5 for p in indicator.params)


def computed(indicator: Indicator, args: tuple[Any, ...], bars: Any, engine: str) -> dict[str, np.ndarray]:
    """Output -> its values; the symbol is listed some days after the panel begins."""
    inputs = [np.array([[np.nan] * 3 + list(bars[name])]) for name in indicator.inputs]
    length = np.array([inputs[0].shape[1] - 3])
    got = by_symbol(choose(engine)[0], indicator, indicator.bind(*args), inputs, length)
    return dict(zip(indicator.outputs, [values[0, 3:] for values in got], strict=True))


@functools.cache
def worked(name: str, args: tuple[Any, ...]) -> list[list[Any]]:
    lines: list[list[Any]] = golden().work(name, catalog[name].bind(*args), golden().market())
    return lines


@every_formula
def test_every_formula_has_golden_numbers(indicator: Indicator) -> None:
    assert indicator.name in golden().FORMULAS
    by_hand = {(row["call"].split("(")[0], row["output"]) for row in rows("tdx.csv")}
    assert {(indicator.name, output) for output in indicator.outputs} <= by_hand


@every_engine
@every_formula
def test_it_equals_the_numbers_worked_by_hand(indicator: Indicator, engine: str) -> None:
    bars = {name: [float(row[name]) for row in rows("tdx_bars.csv")] for name in FIELDS}
    for row in rows("tdx.csv"):
        name, arguments = re.fullmatch(r"(\w+)\((.*)\)", row["call"]).groups()  # type: ignore[union-attr]
        if name == indicator.name:
            values = computed(indicator, tuple(map(int, arguments.split(","))), bars, engine)[row["output"]]
            assert values[int(row["bar"]) - 1] == pytest.approx(float(Fraction(row["value"])), rel=1e-13), row


@every_engine
@every_formula
@pytest.mark.parametrize("choice", ["defaults", "altered"])
def test_it_equals_its_formula_worked_exactly(indicator: Indicator, choice: str, engine: str) -> None:
    args = () if choice == "defaults" else altered(indicator)
    lookback = indicator.lookback(**indicator.bind(*args))
    bars = golden().market()
    lines = worked(indicator.name, args)
    got = computed(indicator, args, bars, engine)
    assert len(lines) == len(indicator.outputs)
    assert lookback == 0 or any(line[lookback - 1] is None for line in lines), "the lookback is too long"
    flat = unchanged([bars[name] for name in indicator.inputs]) > lookback
    declared = 0
    for values, line in zip(got.values(), lines, strict=True):
        assert None not in line[lookback:]
        exact = np.array([float(value) for value in line[lookback:]])
        np.testing.assert_allclose(values[lookback:], exact, rtol=0, atol=1e-13 * np.abs(exact).max())
        for t in range(lookback, len(line)):
            stands_for = isinstance(line[t], golden().Declared)
            declared += stands_for
            if stands_for or (flat[t] and not indicator.recursive and line[t] in (0, 100)):
                assert values[t] == line[t], f"bar {t}"
    if indicator.name in DIVIDE_BY_ZERO:
        assert declared > 0


DIVIDE_BY_ZERO = {"TDX_DMI", "VHF", "TDX_WR", "VR", "CR", "BRAR"}
"""Those whose shown lines do so in the market; within the others' it is averaged."""


def unchanged(inputs: list[list[float]]) -> np.ndarray:
    """For each bar, of how many bars up to it all inputs are the same."""
    count, run = np.zeros(len(inputs[0])), 0
    for t, bar in enumerate(zip(*inputs, strict=True)):
        run = run + 1 if t and all(series[t - 1] == value for series, value in zip(inputs, bar, strict=True)) else 1
        count[t] = run
    return count


@every_engine
def test_bands_close_where_the_price_stands_still(engine: str) -> None:
    bars = golden().market()
    still = unchanged([bars["close"]]) >= 20
    assert still.sum() > 80
    for values in computed(catalog["TDX_BOLL"], (), bars, engine).values():
        np.testing.assert_array_equal(values[still], np.array(bars["close"])[still])


@every_engine
def test_a_price_that_never_moved_is_neither_strong_nor_weak(engine: str) -> None:
    """The first change never comes: what a listing suspended at its first price has."""
    bars = {name: [10.0] * 40 for name in FIELDS}
    assert (computed(catalog["TDX_RSI"], (6,), bars, engine)["rsi"][1:] == 50.0).all()


@every_engine
def test_strength_keeps_its_value_while_nothing_moves(engine: str) -> None:
    """However long: its averages fade to the smallest numbers there are, and their ratio must not."""
    bars = {"close": [10.0, 10.01, 10.0, 10.02, 10.01] + [10.01] * 4000}
    strength = computed(catalog["TDX_RSI"], (2,), bars, engine)["rsi"]
    np.testing.assert_allclose(strength[5:], strength[4], rtol=1e-12)

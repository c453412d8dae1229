"""Terms become values: each once, on each symbol's own bars, and no more bars than are needed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import talib

from data.errors import ExpressionError
from data.panel import Floats, Packed, Panel
from scanner import compute
from scanner.engines.base import Engine, Series, choose
from scanner.evaluate import evaluate, needed
from scanner.fields import Source
from scanner.indicators.spec import Indicator
from scanner.language import parse

nan = np.nan


class CountingEngine:
    """TA-Lib's engine, which counts what it is asked for."""

    name = "counting"

    def __init__(self, engine: Engine) -> None:
        self.engine, self.calls, self.kept = engine, Counter[str](), []

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        self.calls[indicator.name] += 1
        self.kept.append(keep)
        return self.engine.run(indicator, params, inputs, keep=keep)


def test_equal_parts_are_computed_once(pack: Any, engine: Engine) -> None:
    counting = CountingEngine(engine)
    terms = [
        parse("cross_over(MACD(12, 26, 9).macd, MACD.signal)"),
        parse("MACD.diff > MACD().hist and RSI > 30"),
        parse("EMA(RSI(14), 5) > RSI(timeperiod=14) and SMA(EMA(RSI(14.0), 5), 3) > 1"),
    ]
    evaluate(dict.fromkeys(terms, 1), Source(pack({"600519.SH": np.linspace(10, 20, 80)})), counting)
    assert counting.calls == {"MACD": 1, "RSI": 1, "EMA": 1, "SMA": 1}


def test_only_as_many_bars_are_kept_as_are_needed(pack: Any, engine: Engine) -> None:
    counting = CountingEngine(engine)
    source = Source(pack({"600519.SH": np.linspace(10, 20, 80)}))
    evaluate({parse("RSI(14) > prev(RSI(14), 3)"): 1}, source, counting)
    evaluate({parse("highest(MACD.hist, 10) > 0"): 2}, source, counting)
    evaluate({parse("count(cross_over(RSI(6), 30), 5) > 0"): 1}, source, counting)
    evaluate({parse("bars_since(RSI(12) > 50) > 0"): 1}, source, counting)
    assert counting.kept == [4, 11, 6, 80]


@pytest.mark.parametrize(
    "expression",
    [
        "close",
        "SMA(volume, 20)",
        "MACD(5, 10, 3).hist",
        "EMA(RSI(6), 5) - KDJ.j",
        "cross_over(close, SMA(5))",
        "highest(prev(high, 3), 10) / lowest(low, 7)",
        "count(close > open, 10)",
        "every(close > lowest(close, 4), 3)",
        "bars_since(pct_change > 3)",
        "bars_since(cross_under(RSI(6), 50)) < 4 or not close > 10",
        "at_limit_up and board == 'main'",
        "abs(pct_change) + bars_listed",
        "highest(3, 5) > close",
    ],
)
def test_the_last_bar_is_that_of_the_whole_history(expression: str, daily: pa.Table, engine: Engine) -> None:
    """What is cut off to save time is missed by nobody."""
    symbols = sorted(set(daily["symbol"].to_pylist()))[::7]
    source = Source(Packed.from_table(daily, "1d", symbols))
    term = parse(expression)
    whole = evaluate({term: source.length}, source, engine)[term]
    assert whole.shape == (source.length, len(symbols))
    assert np.isfinite(whole[-1]).any()
    for keep in (1, 2, 5):
        np.testing.assert_array_equal(evaluate({term: keep}, source, engine)[term], whole[-keep:])


def test_nan_is_never_true_and_neither_is_its_opposite(pack: Any, engine: Engine) -> None:
    source = Source(pack({"600519.SH": [10.0] * 5}))
    for expression in ("RSI(14) > 0", "not RSI(14) > 0", "not (RSI(14) > 0 and RSI(14) <= 0)", "RSI(14) != 3"):
        assert np.isnan(evaluate({parse(expression): 1}, source, engine)[parse(expression)]).all(), expression
    known = "close > 3 or RSI(14) > 0"
    assert evaluate({parse(known): 1}, source, engine)[parse(known)].tolist() == [[1.0]]


def test_division_by_zero_is_unknown(pack: Any, engine: Engine) -> None:
    source = Source(pack({"600519.SH": {"close": [10.0, 11.0], "volume": [0.0, 500.0]}}))
    for expression in ("volume / prev(volume) > 2", "-volume / prev(volume) < 2", "prev(volume) / prev(volume) > 0"):
        assert np.isnan(evaluate({parse(expression): 1}, source, engine)[parse(expression)]).all(), expression


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("cross_over(30, 30)", 0.0),
        ("highest(3, 2)", 3.0),
        ("count(1 > 0, 3)", 3.0),
        ("every(2 > 1, 3)", 1.0),
        ("bars_since(1 > 0)", 0.0),
        ("rank(3)", 0.75),
        ("prev(7) + SMA(close, 2)", 17.0),
        ("SMA(2 * 3 + 0 * close, 2)", 6.0),
        ("1 < 2", 1.0),
    ],
)
def test_constants_are_series_too(pack: Any, engine: Engine, expression: str, value: float) -> None:
    source = Source(pack({"600519.SH": [10.0] * 4, "600000.SH": [10.0] * 4}))
    found = evaluate({parse(expression): 1}, source, engine)[parse(expression)]
    assert np.unique(found).tolist() == [value]


def test_known_terms_are_taken_as_they_are(pack: Any, engine: Engine) -> None:
    source = Source(pack({"600519.SH": [10.0] * 4}))
    known = {parse("RSI(14)"): np.array([[55.0]])}
    assert evaluate({parse("RSI(14) > 50"): 1}, source, engine, known)[parse("RSI(14) > 50")].tolist() == [[1.0]]
    assert parse("close") not in needed({parse("RSI(14) > 50"): 1}, 4, known)


def test_compute_runs_over_each_symbols_own_bars() -> None:
    rng = np.random.default_rng(3)
    close = 10 + np.cumsum(rng.normal(0, 0.1, (60, 3)), axis=0)
    close[20:25, 1] = nan
    close[:30, 2] = nan
    volume = np.where(np.isnan(close), nan, 1000.0)
    panel = Panel("1d", np.arange(60) * 86400 * 10**9, ("600000.SH", "600004.SH", "600006.SH"), {
        **dict.fromkeys(("open", "high", "low", "close"), close), "volume": volume,
    })  # fmt: skip
    values = compute(["RSI(14)", "MACD(12,26,9).hist", "close > prev(close)", "rank(close)"], panel)
    assert list(values) == ["RSI(14)", "MACD(12,26,9).hist", "close > prev(close)", "rank(close)"]
    for j in range(3):
        own = np.flatnonzero(~np.isnan(close[:, j]))
        expected = np.full((60, 2), nan)
        expected[own, 0] = talib.RSI(close[own, j], 14)
        expected[own, 1] = talib.MACD(close[own, j], 12, 26, 9)[2]
        np.testing.assert_allclose(values["RSI(14)"][:, j], expected[:, 0], rtol=1e-12)
        np.testing.assert_allclose(values["MACD(12,26,9).hist"][:, j], expected[:, 1], rtol=0, atol=1e-13)
        rises = np.diff(close[own, j]) > 0
        np.testing.assert_array_equal(values["close > prev(close)"][own, j], [nan, *rises.astype(float)])
    np.testing.assert_array_equal(np.sort(values["rank(close)"][-1]), [1 / 3, 2 / 3, 1])
    np.testing.assert_array_equal(values["rank(close)"][22], [1, nan, nan])
    assert values.engine == choose("auto")[0].name


def test_compute_takes_one_expression_and_an_empty_panel() -> None:
    empty = Panel("1d", np.empty(0, dtype=np.int64), ("600000.SH",), dict.fromkeys(
        ("open", "high", "low", "close", "volume"), np.empty((0, 1))
    ))  # fmt: skip
    everything = compute(
        ["RSI(14)", "prev(close) > 3", "bars_since(KDJ.k > 3)", "highest(close, 5)", "rank(close)"], empty
    )
    assert all(matrix.shape == (0, 1) for matrix in everything.values())
    assert list(compute("RSI(14)", empty)) == ["RSI(14)"]


def test_compute_refuses_a_text_and_what_is_no_value() -> None:
    panel = Panel("1d", np.empty(0, dtype=np.int64), ("600000.SH",), {})
    with pytest.raises(ExpressionError, match="'board' is a text; values are numbers and conditions"):
        compute("board", panel)
    with pytest.raises(ExpressionError, match="has 3 outputs; name one"):
        compute(["MACD"], panel)


def test_what_is_done_to_values_leaves_the_panel_alone(daily: pa.Table) -> None:
    panel = Panel.from_table(daily).upto(2**62)
    whole = panel.select(
        [s for s, n in zip(panel.symbols, panel.present.sum(axis=0), strict=True) if n == len(panel.times)]
    )
    before = whole["close"].copy()
    values = compute(["close", "close * 2", "1 + 1"], whole)
    for matrix in values.values():
        matrix[:] = 0.0
    np.testing.assert_array_equal(whole["close"], before)


def test_what_a_young_symbol_is_does_not_depend_on_the_others() -> None:
    """A board, a constant or a number of bars is known before the first bar too; windows do not look there."""
    rng = np.random.default_rng(3)
    close = rng.uniform(9.0, 11.0, (12, 2))
    fields = {name: close.copy() for name in ("open", "high", "low", "close", "volume")}
    for matrix in fields.values():
        matrix[:9, 1] = np.nan
    panel = Panel("1d", np.arange(12, dtype=np.int64), ("600000.SH", "600001.SH"), fields)
    expressions = ["count(bars_listed < 3, 4)", "every(close > 20, 4)", "count(board in ['main'], 4)", "highest(3, 4)"]
    together = compute(expressions, panel, "talib")
    alone = compute(expressions, Panel("1d", panel.times, panel.symbols[1:], {n: m[:, 1:] for n, m in fields.items()}))
    for expression in expressions:
        np.testing.assert_array_equal(together[expression][:, 1:], alone[expression])


def test_rank_under_a_window_sees_all_that_traded_then() -> None:
    """Also where a halted symbol's older bars stand beside newer ones of the others."""
    close = np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, 5.0], [4.0, 3.0]])
    fields = dict.fromkeys(("open", "high", "low", "close", "volume"), close)
    panel = Panel("1d", np.arange(4, dtype=np.int64), ("600000.SH", "600001.SH"), fields)
    source = Source(panel.pack(), adjust=False)
    term = parse("every(rank(close) > 0.5, 2)")
    for keep in (1, 3):
        found = evaluate({term: keep}, source, choose("talib")[0])[term]
        np.testing.assert_array_equal(found[-1], [0.0, 0.0])

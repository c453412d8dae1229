"""What holds for every indicator, every function of the language and what is composed of them: a stream, advanced by
bars of whom and when hypothesis likes, gives the bits of `compute` over the longer history, at every bar."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.panel import FIELDS, Panel
from scanner import Stream, compute, program, running
from scanner.functions import FUNCTIONS
from scanner.indicators import catalog
from scanner.indicators.spec import Indicator

SYMBOLS = ("600000.SH", "000001.SZ", "300001.SZ", "688001.SH")
DAY_NS = 86_400 * 10**9
OUTPUTS = {
    i.name: [f"{i.name}()" if len(i.outputs) == 1 else f"{i.name}().{output}" for output in i.outputs]
    for i in catalog.values()
}
OF_FUNCTIONS = {
    "prev": "prev(close, 3)",
    "cross_over": "cross_over(close, SMA(close, 3))",
    "cross_under": "cross_under(SMA(close, 3), open)",
    "highest": "highest(high, 4)",
    "lowest": "lowest(RSI(3), 3)",
    "count": "count(close > open, 5)",
    "every": "every(volume > 0, 2)",
    "bars_since": "bars_since(close < low * 1.001)",
    "rank": "rank(close / open)",
    "abs": "abs(close - open)",
}
COMPOSED = {
    "an indicator of one": ["EMA(RSI(3), 4)", "SMA(MACD(3, 5, 2).hist, 3)", "MAX(EMA(3), 2)"],
    "windows of windows": ["highest(lowest(low, 3), 5) - prev(prev(close))", "every(count(close > open, 3) >= 1, 2)"],
    "logic": [
        "close > SMA(3) and not volume < 1000 or bars_since(close > open) == 0",
        "-close / (close - prev(close))",
    ],
    "what is known before the first bar": ["count(bars_listed < 3, 4)", "EMA(bars_listed, 2)", "highest(1 + 1, 3)"],
    "texts": ["board in ['main']", "count(board in ['main'], 3)"],
    "references and limits": ["pct_change > 1", "SMA(prev_close, 2)", "limit_up - close", "every(at_limit_up, 2)"],
    "across the market": ["rank(RSI(3)) > 0.5", "SMA(rank(close), 3)", "count(rank(volume) >= 0.5, 2)"],
    "no kernel": ["LINEARREG(close, 4)", "EMA(LINEARREG(close, 3), 2)", "MINMAX(close, 3).max"],
}
ACTIONS = ["trades"] * 6 + ["apart", "halted", "revised", "late", "seen before", "broken"]
"""In the first update of its bar end, in a second one, not, first with other values, one bar end later, first in a
preview, without all its values."""


def test_every_function_is_among_them() -> None:
    assert set(OF_FUNCTIONS) == set(FUNCTIONS)


@pytest.fixture(scope="module", autouse=True)
def short_memory() -> Iterator[None]:
    """States are copied so often, and reach back so little, that few bars are enough to go beyond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "UNDO", 3)
        patch.setattr(running, "UNDO", 3)
        yield


def market(seed: int, bars: int) -> Panel:
    rng = np.random.default_rng(seed)
    shape = (bars, len(SYMBOLS))
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.03, shape), axis=0)), 2)
    opens = np.round(close * np.exp(rng.normal(0, 0.01, shape)), 2)
    fields = {
        "open": opens,
        "high": np.maximum(opens, close) + 0.05,
        "low": np.minimum(opens, close) - 0.05,
        "close": close,
        "volume": np.round(rng.lognormal(7, 1, shape)),
        "amount": np.round(rng.lognormal(10, 1, shape)),
    }
    return Panel("1d", np.arange(1, bars + 1) * DAY_NS, SYMBOLS, fields)


class Delivery:
    """The bars as they come, beside the market that they make up."""

    def __init__(self, truth: Panel, listed: list[int], opened: int) -> None:
        self.truth = truth
        self.known = {name: matrix.copy() for name, matrix in truth.fields.items()}
        before = np.arange(len(truth.times))[:, None]
        for matrix in self.known.values():
            matrix[(before < np.array(listed)) | (before >= opened)] = np.nan

    def upto(self, row: int) -> Panel:
        return Panel("1d", self.truth.times[:row], SYMBOLS, {n: m[:row] for n, m in self.known.items()})

    def bars(self, row: int, who: list[int], change: float = 1.0, keep: bool = True) -> Panel:
        fields = {}
        for name, matrix in self.truth.fields.items():
            fields[name] = matrix[[row]][:, who] * change
            if keep:
                self.known[name][row, who] = fields[name][0]
        return Panel("1d", self.truth.times[[row]], tuple(SYMBOLS[j] for j in who), fields)


def check(stream: Stream, delivery: Delivery, expressions: list[str], row: int, engine: str) -> None:
    whole = compute(expressions, delivery.upto(row + 1), engine)
    values = stream.values()
    for expression in expressions:
        np.testing.assert_array_equal(values[expression], whole[expression][row], err_msg=f"{expression} at bar {row}")


def follow(expressions: list[str], data: st.DataObject, engine: str = "vector") -> None:
    n = len(SYMBOLS)
    bars = 24
    opened = data.draw(st.integers(0, 20), "bars before opening")
    listed = data.draw(st.lists(st.sampled_from([0, 0, 3, 11, 22]), min_size=n, max_size=n), "listed")
    plan = st.lists(st.lists(st.sampled_from(ACTIONS), min_size=n, max_size=n), min_size=bars, max_size=bars)
    actions = data.draw(plan, "actions")
    delivery = Delivery(market(data.draw(st.integers(0, 99), "seed"), bars), listed, opened)
    # A long history before, so that those with a long lookback have values; they must not all begin with it.
    stream = Stream(expressions, delivery.upto(opened), engine)
    late: list[int] = []
    for row in range(opened, bars):
        doing = {a: [j for j in range(n) if actions[row][j] == a and listed[j] <= row] for a in dict.fromkeys(ACTIONS)}
        for j in doing["broken"]:
            delivery.truth.fields["high"][row, j] = delivery.truth.fields["volume"][row, j] = np.nan
        looked_at = doing["seen before"] + doing["trades"]
        first = sorted(doing["trades"] + doing["seen before"] + doing["broken"])
        if looked_at:
            seen = stream.preview(delivery.bars(row, sorted(looked_at), 1.25, keep=False))
            assert set(seen) == set(expressions)
        if doing["revised"]:
            stream.update(delivery.bars(row, doing["revised"], 0.75))
        if first:
            stream.update(delivery.bars(row, first))
        if doing["revised"]:
            if first:
                stream.preview(delivery.bars(row, doing["revised"], 1.5, keep=False))
            stream.update(delivery.bars(row, doing["revised"]))
        if doing["apart"]:
            stream.update(delivery.bars(row, doing["apart"]))
        if late:
            stream.update(delivery.bars(row - 1, late))
        late = doing["late"]
        if first or doing["revised"] or doing["apart"]:
            check(stream, delivery, expressions, row, engine)


@pytest.mark.parametrize("indicator", catalog.values(), ids=catalog)
@given(data=st.data())
@settings(max_examples=6, deadline=None, database=None)
def test_indicators(indicator: Indicator, data: st.DataObject) -> None:
    short = tuple(min(p.hi, max(p.lo, 2 + k)) for k, p in enumerate(indicator.params) if p.kind is int)
    with_defaults = OUTPUTS[indicator.name]
    quick = [text.replace("()", f"({', '.join(map(str, short))})") for text in with_defaults]
    follow(with_defaults + (quick if len(short) == len(indicator.params) else []), data)


@pytest.mark.parametrize("name", OF_FUNCTIONS)
@given(data=st.data())
@settings(max_examples=12, deadline=None, database=None)
def test_functions(name: str, data: st.DataObject) -> None:
    follow([OF_FUNCTIONS[name]], data)


@pytest.mark.parametrize("name", COMPOSED)
@given(data=st.data())
@settings(max_examples=12, deadline=None, database=None)
def test_compositions(name: str, data: st.DataObject) -> None:
    follow(COMPOSED[name], data)


@given(data=st.data())
@settings(max_examples=12, deadline=None, database=None)
def test_an_engine_that_computes_anew(data: st.DataObject) -> None:
    follow(["RSI(3)", "count(rank(close) > 0.5, 3)", "pct_change"], data, "talib")


def test_the_market_has_what_is_stored() -> None:
    assert set(market(1, 2).fields) < set(FIELDS)

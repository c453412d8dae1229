"""Each field of the language, worked by hand; what is not known is NaN."""

from typing import Any

import numpy as np
import pytest

from data.panel import Packed
from scanner.engines.base import Engine
from scanner.evaluate import evaluate
from scanner.fields import FIELDS, Source
from scanner.language import parse

nan = np.nan


def last(source: Source, engine: Engine, name: str) -> Any:
    """A field's newest value of each symbol."""
    return evaluate({parse(name): 1}, source, engine)[parse(name)][-1].tolist()


def test_prices_are_adjusted_and_what_the_exchange_computes_is_raw(pack: Any, engine: Engine) -> None:
    prev = [nan] * 6 + [20.0, 10.0]
    packed = pack({"600519.SH": {"close": [20.0] * 7 + [10.5], "prev_close": prev}}, first="2025-03-03")
    source = Source(packed, names={"600519.SH": ("贵州茅台", "2025-03-10")})
    close = evaluate({parse("close"): 3}, source, engine)[parse("close")]
    assert close.ravel().tolist() == [10.0, 10.0, 10.5]
    assert last(source, engine, "prev_close") == [10.0]
    assert last(source, engine, "pct_change") == pytest.approx([5.0])
    assert last(source, engine, "limit_up") == [11.0]
    assert last(source, engine, "limit_down") == [9.0]
    assert last(source, engine, "bars_listed") == [8.0]
    assert last(source, engine, "volume") == [1000.0]
    assert np.isnan(last(source, engine, "amount")).all()
    assert last(source, engine, "board") == ["main"]
    assert last(source, engine, "session") == [20157.0]  # 2025-03-10


@pytest.mark.parametrize(
    ("symbol", "name", "close", "up", "down"),
    [
        ("600519.SH", ("贵州茅台", "2025-03-10"), 11.0, 1.0, 0.0),
        ("600519.SH", ("贵州茅台", "2025-03-10"), 10.99, 0.0, 0.0),
        ("600519.SH", ("*ST茅台", "2025-03-10"), 10.5, 1.0, 0.0),
        ("600519.SH", ("*ST茅台", "2025-03-10"), 9.5, 0.0, 1.0),
        ("600519.SH", ("*ST茅台", "2025-03-07"), 10.5, nan, nan),  # the name was seen on another day
        ("600519.SH", None, 11.0, nan, nan),  # 5 % or 10 %: who can say?
        ("300750.SZ", None, 12.0, 1.0, 0.0),  # ChiNext: 20 % under either status
        ("920118.BJ", None, 7.0, 0.0, 1.0),
        ("510300.SH", None, 11.0, nan, nan),  # no rule is declared for funds
    ],
)
def test_limits(
    pack: Any, engine: Engine, symbol: str, name: tuple[str, str] | None, close: float, up: float, down: float
) -> None:
    packed = pack({symbol: {"close": [10.0] * 7 + [close], "open": [10.0] * 8}}, first="2025-03-03")
    source = Source(packed, names={symbol: name} if name else {})
    np.testing.assert_array_equal(last(source, engine, "at_limit_up"), [up])
    np.testing.assert_array_equal(last(source, engine, "at_limit_down"), [down])
    np.testing.assert_array_equal(last(source, engine, "not at_limit_up"), [1 - up])


def test_the_first_days_of_a_listing_have_no_limit(pack: Any, engine: Engine) -> None:
    packed = pack({"300750.SZ": [10.0] * 6, "300751.SZ": [10.0] * 5}, first="2025-03-03")
    assert np.isnan(last(Source(packed), engine, "limit_up")).tolist() == [False, True]


def test_special_treatment_is_known_on_the_day_of_the_name(pack: Any, engine: Engine) -> None:
    packed = pack({"600519.SH": [10.0] * 3, "600000.SH": [10.0] * 3, "600004.SH": [10.0] * 3}, first="2025-03-03")
    names = {"600519.SH": ("*ST茅台", "2025-03-05"), "600000.SH": ("浦发银行", "2025-03-05")}
    source = Source(packed, names=names)
    np.testing.assert_array_equal(last(source, engine, "is_st"), [1.0, 0.0, nan])
    rows = evaluate({parse("is_st"): 2}, source, engine)[parse("is_st")]
    assert np.isnan(rows[0]).all(), "of the day before nobody knows"


def test_a_session_that_opens_with_a_gap_has_no_reference(pack: Any, engine: Engine) -> None:
    packed = pack({"300750.SZ": [10.0] * 7 + [5.0]}, first="2025-03-03")
    source = Source(packed)
    assert source.gap_age.tolist() == [0.0]
    for name in ("prev_close", "pct_change", "limit_up", "limit_down", "at_limit_up", "at_limit_down"):
        assert np.isnan(last(source, engine, name)).all(), name


def test_gap_age_counts_bars(pack: Any) -> None:
    packed = pack({"300750.SZ": [10.0] * 6 + [5.0] * 3, "600000.SH": [10.0] * 4})
    assert Source(packed).gap_age.tolist() == [2.0, np.inf]


def minutes(pack: Any, prev_close: float) -> Packed:
    """Three sessions of minutes of one symbol, and two of another that was listed on the second."""
    first = {"close": np.full(720, 10.0), "prev_close": [prev_close] * 720}
    second = {"close": np.full(480, 10.0), "prev_close": [prev_close] * 480}
    packed: Packed = pack({"300750.SZ": first, "300751.SZ": second}, frame="1m", first="2025-03-04")
    return packed


def test_listings_in_minutes_are_counted_in_sessions(pack: Any, engine: Engine) -> None:
    """Who was there at the origin and has the exchange's reference was listed before it; the other is new."""
    packed = minutes(pack, 10.0)
    source = Source(packed, origin=int(packed.bar_ends[0, 0]))
    np.testing.assert_array_equal(last(source, engine, "limit_up"), [12.0, nan])
    unknown = minutes(pack, nan)
    np.testing.assert_array_equal(last(Source(unknown), engine, "limit_up"), [nan, nan])


def test_a_bar_that_does_not_exist_has_no_session(pack: Any) -> None:
    source = Source(pack({"600519.SH": [10.0] * 3, "300750.SZ": [10.0]}, first="2025-03-03"))
    assert source.series("session") is not None
    np.testing.assert_array_equal(source.series("session"), [[20150.0, nan], [20151.0, nan], [20152.0, 20152.0]])
    assert len(FIELDS["session"].value(source, 5)) == 5


def test_every_field_says_what_it_is_and_comes_in_its_shape(pack: Any) -> None:
    packed = pack({"600519.SH": [10.0] * 8, "300750.SZ": [10.0] * 3})
    for field in FIELDS.values():
        value = field.value(Source(packed), 4)
        assert value.shape == (4, 2), field.name
        assert field.doc
        assert (value.dtype == object) == (field.kind == "text") == bool(field.values)
        if field.kind == "condition":
            assert set(np.unique(value[~np.isnan(value)])) <= {0.0, 1.0}

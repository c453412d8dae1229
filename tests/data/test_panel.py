"""Panel and Packed: rows of bars into matrices and back, whatever halts, listings and revisions lie between."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.errors import MarketDataError
from data.panel import FIELDS, NO_BAR, PRICES, Packed, Panel
from data.schema import BAR, TIME

DAY_NS = 86400 * 10**9
START = int(np.datetime64("2025-05-19T07:00", "ns").astype(np.int64))


def times(n: int) -> np.ndarray:
    return START + np.arange(n) * DAY_NS


def table(present: np.ndarray, order: np.ndarray | None = None, revisions: int = 1) -> pa.Table:
    """Bars of (bars, symbols) where `present`, in `order`; close = 100 row + column + revision / 10."""
    row, column = np.nonzero(np.repeat(present[None], revisions, axis=0).any(axis=0))
    row, column = np.tile(row, revisions), np.tile(column, revisions)
    revision = np.repeat(np.arange(revisions), len(row) // revisions)
    close = 100.0 * row + column + revision / 10
    ends = times(len(present))[row] if len(row) else np.empty(0, dtype=np.int64)
    whole = pa.table(
        {
            "symbol": pa.array([f"{n:06d}.SZ" for n in column], pa.string()).dictionary_encode(),
            "bar_start": pa.array(ends).cast(TIME),
            "bar_end": pa.array(ends).cast(TIME),
            **{name: close + place for place, name in enumerate(PRICES)},
            "volume": np.full(len(row), 100.0),
            "amount": pa.array(np.where(row % 2 == 0, close, np.nan), from_pandas=True),
            "prev_close": pa.nulls(len(row), pa.float64()),
            "flags": np.zeros(len(row), dtype=np.uint8),
            "revision": revision.astype(np.int32),
        },
        schema=BAR,
    )
    return whole if order is None else whole.take(order)


def names(present: np.ndarray) -> list[str]:
    return [f"{n:06d}.SZ" for n in range(present.shape[1])]


@st.composite
def markets(draw: Any) -> tuple[np.ndarray, pa.Table]:
    """(whether a bar is there, (bars, symbols); its rows in any order, some of them revised)."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 5)))
    present = draw(arrays(np.bool_, shape))
    rows = table(present, revisions=draw(st.sampled_from([1, 2])))
    order = np.array(draw(st.permutations(range(rows.num_rows))), dtype=np.int64)
    return present, rows.take(order)


@settings(max_examples=150, deadline=None)
@given(markets())
def test_rows_in_any_order_become_a_panel_and_pack_and_unpack_are_inverse(market: tuple[np.ndarray, pa.Table]) -> None:
    present, rows = market
    panel = Panel.from_table(rows, "1d", names(present))
    traded = present.any(axis=1)
    np.testing.assert_array_equal(panel.times, times(len(present))[traded])
    np.testing.assert_array_equal(panel.present, present[traded])
    highest = int(max(rows["revision"].to_pylist(), default=0))
    row, column = np.nonzero(present)
    at = np.cumsum(traded)[row] - 1
    np.testing.assert_array_equal(panel["open"][at, column], 100.0 * row + column + highest / 10)

    packed = panel.pack()
    np.testing.assert_array_equal(packed.lengths, present.sum(axis=0))
    # Right-aligned, without holes, oldest first.
    exists = packed.bar_ends != NO_BAR
    np.testing.assert_array_equal(exists, np.arange(packed.length)[:, None] >= packed.length - packed.lengths)
    assert (np.diff(packed.bar_ends, axis=0)[exists[:-1]] > 0).all()
    for name in FIELDS:
        np.testing.assert_array_equal(packed.unpack(packed.fields[name], panel.times), panel[name])
        spent = packed.fields[name].copy()
        np.testing.assert_array_equal(packed.unpack(spent, panel.times, spent=True), panel[name])
        last = packed.fields[name][-2:]
        shown = packed.unpack(last, panel.times)
        assert np.isnan(shown[~np.isnan(shown)]).sum() == 0
        np.testing.assert_array_equal(shown[-1:], panel[name][-1:])

    everywhere = packed.unpack(np.ones_like(packed.fields["close"]), panel.times)
    np.testing.assert_array_equal(everywhere, np.where(panel.present, 1.0, np.nan))
    straight = Packed.from_table(rows, "1d", names(present))
    np.testing.assert_array_equal(straight.bar_ends, packed.bar_ends)
    np.testing.assert_array_equal(straight.lengths, packed.lengths)
    for name in FIELDS:
        np.testing.assert_array_equal(straight.fields[name], packed.fields[name])


def test_a_panel_takes_dates_in_place_of_bar_ends_and_symbols_as_text() -> None:
    days = ["2025-05-20", "2025-05-19"]
    prices = {name: [1.0, 2.0] for name in (*PRICES, "volume")}
    expected = START + np.array([0, DAY_NS])
    forms = (
        pa.array(np.array(days, dtype="datetime64[D]")),
        pa.array(days),
        pa.array([text.replace("-", "") for text in days]),
    )
    for column in forms:
        panel = Panel.from_table(pa.table({"symbol": ["600519.SH"] * 2, "date": column, **prices}))
        assert panel.times.tolist() == expected.tolist()
        assert panel["close"].tolist() == [[2.0], [1.0]]
        assert set(panel.fields) == {*PRICES, "volume"}


def test_symbols_are_those_given_in_their_order_or_the_tables_own_sorted() -> None:
    rows = table(np.array([[True, True, True]])).take([2, 0, 1])
    assert Panel.from_table(rows).symbols == ("000000.SZ", "000001.SZ", "000002.SZ")
    panel = Panel.from_table(rows, symbols=["000002.SZ", "600519.SH"])
    assert panel.symbols == ("000002.SZ", "600519.SH")
    np.testing.assert_array_equal(panel["open"], [[2.0, np.nan]])


def test_symbols_that_have_no_row_left_are_no_column() -> None:
    rows = table(np.array([[True, True]]))
    assert Panel.from_table(rows.slice(0, 1)).symbols == ("000000.SZ",)


def test_what_a_table_lacks_is_said() -> None:
    rows = table(np.array([[True]]))
    with pytest.raises(MarketDataError, match="lacks the columns close, volume; it has"):
        Panel.from_table(rows.drop_columns(["close", "volume"]))
    with pytest.raises(MarketDataError, match="lacks the columns bar_end or date"):
        Panel.from_table(rows.drop_columns(["bar_end"]))
    with pytest.raises(MarketDataError, match=r"'close' must have shape \(1, 2\); got \(2, 1\)"):
        Panel("1d", times(1), ("a", "b"), {"close": np.zeros((2, 1))})


def test_an_empty_table_is_a_panel_of_no_bars() -> None:
    panel = Panel.from_table(BAR.empty_table(), symbols=["600519.SH"])
    assert panel["close"].shape == (0, 1)
    assert panel.pack().length == 0
    assert Panel.from_table(BAR.empty_table()).symbols == ()
    assert Packed.from_table(BAR.empty_table(), "1d", ["600519.SH"]).lengths.tolist() == [0]


def test_cuts_by_symbol_and_by_time() -> None:
    panel = Panel.from_table(table(np.array([[True, True], [True, False], [False, True]])))
    assert panel.select(["000001.SZ"])["open"].ravel()[[0, 2]].tolist() == [1.0, 201.0]
    assert panel.upto(int(times(3)[1])).times.tolist() == times(2).tolist()
    assert panel.upto(int(times(3)[1]) - 1).times.tolist() == times(1).tolist()
    assert panel.upto(0)["open"].shape == (0, 2)

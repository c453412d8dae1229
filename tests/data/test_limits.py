"""Price limits: dated facts against hand-worked days, rounding against whole-number arithmetic and the real market."""

from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.limits import (
    FREE_DAYS,
    LIMITS,
    LimitFact,
    _board,
    is_st_name,
    limit_prices,
    limit_ratio,
    price_tick,
    widest_ratio,
)
from data.symbols import BOARDS, board

NAN = float("nan")


def one(name: str, day: str, is_st: float = 0, bars_listed: float = 100) -> float:
    return float(limit_ratio([name], np.array([day], "datetime64[D]"), [is_st], [bars_listed])[0])


@pytest.mark.parametrize(
    ("name", "day", "plain", "st_", "unknown"),
    [
        ("main", "1996-12-15", NAN, NAN, NAN),
        ("main", "1996-12-16", 0.10, 0.10, 0.10),
        ("main", "1998-04-26", 0.10, 0.10, 0.10),
        ("main", "1998-04-27", 0.10, 0.05, NAN),
        ("main", "2026-07-03", 0.10, 0.05, NAN),
        ("main", "2026-07-05", 0.10, 0.05, NAN),
        ("main", "2026-07-06", 0.10, 0.10, 0.10),
        ("chinext", "2009-10-29", NAN, NAN, NAN),
        ("chinext", "2009-10-30", 0.10, 0.05, NAN),
        ("chinext", "2020-08-21", 0.10, 0.05, NAN),
        ("chinext", "2020-08-24", 0.20, 0.20, 0.20),
        ("star", "2019-07-21", NAN, NAN, NAN),
        ("star", "2019-07-22", 0.20, 0.20, 0.20),
        ("bse", "2021-11-14", NAN, NAN, NAN),
        ("bse", "2021-11-15", 0.30, 0.30, 0.30),
        ("b_share", "2026-07-03", 0.10, 0.05, NAN),
        ("b_share", "2026-07-06", 0.10, 0.10, 0.10),
        ("etf", "2026-07-06", NAN, NAN, NAN),
        ("index", "2024-01-02", NAN, NAN, NAN),
        ("preferred", "2024-01-02", NAN, NAN, NAN),
    ],
)
def test_the_limit_by_board_date_and_status(name: str, day: str, plain: float, st_: float, unknown: float) -> None:
    np.testing.assert_equal([one(name, day, s) for s in (0, 1, NAN)], [plain, st_, unknown])


@pytest.mark.parametrize(
    ("name", "day", "free"),
    [
        ("main", "2023-04-07", 1),
        ("main", "2023-04-10", 5),
        ("chinext", "2020-08-21", 1),
        ("chinext", "2020-08-24", 5),
        ("star", "2019-07-22", 5),
        ("bse", "2024-01-02", 1),
        ("b_share", "2024-01-02", 1),
    ],
)
def test_no_limit_on_the_first_days_of_a_listing(name: str, day: str, free: int) -> None:
    assert [bool(np.isnan(one(name, day, 0, n))) for n in range(1, 8)] == [n <= free for n in range(1, 8)]
    assert np.isnan(one(name, day, 0, NAN))


def test_the_widest_limit_whatever_the_status() -> None:
    days = np.array(["1996-12-15", "2020-08-21", "2020-08-24", "2026-07-06"], "datetime64[D]")
    expected = {
        "main": [NAN, 0.1, 0.1, 0.1],
        "b_share": [NAN, 0.1, 0.1, 0.1],
        "chinext": [NAN, 0.1, 0.2, 0.2],
        "star": [NAN, 0.2, 0.2, 0.2],
        "bse": [NAN, NAN, NAN, 0.3],
        "etf": [NAN] * 4,
    }
    for name, ratios in expected.items():
        np.testing.assert_equal(widest_ratio([name], days), ratios)


def test_shapes_are_broadcast_as_a_panel_needs_it() -> None:
    boards = np.array(["main", "chinext", "etf"])
    days = np.array(["2020-08-21", "2020-08-24"], "datetime64[D]")[:, None]
    st_ = np.array([1.0, 0.0, 0.0])
    listed = np.array([[100.0, 3.0, 9.0], [101.0, 4.0, 9.0]])
    np.testing.assert_equal(limit_ratio(boards, days, st_, listed), [[0.05, 0.1, NAN], [0.05, NAN, NAN]])
    np.testing.assert_equal(widest_ratio(boards, days), [[0.1, 0.1, NAN], [0.1, 0.2, NAN]])


def test_a_fact_that_is_not_confirmed_holds_as_unknown() -> None:
    facts = [
        LimitFact("main", "any", date(2000, 1, 1), 0.1, "https://example.org"),
        LimitFact("main", "st", date(2020, 1, 1), 0.2, "https://example.org", confirmed=False),
    ]
    table = _board("main", facts, FREE_DAYS)
    days = np.array(["2019-12-31", "2020-01-01"], "datetime64[D]")
    np.testing.assert_equal(table.normal(days), [0.1, 0.1])
    np.testing.assert_equal(table.under_st(days), [0.1, NAN])


def test_every_fact_has_a_board_a_date_and_a_source() -> None:
    for fact in (*LIMITS, *FREE_DAYS):
        assert fact.board in BOARDS
        assert fact.source.startswith("https://")
    for name in {fact.board for fact in LIMITS}:
        own = [fact.since for fact in LIMITS if fact.board == name]
        assert own == sorted(own), "facts of a board stand in the order of their dates"
        assert any(fact.board == name and fact.since == own[0] for fact in FREE_DAYS)


@pytest.mark.parametrize(
    ("close", "ratio", "tick", "up", "down"),
    [
        (10.05, 0.10, 0.01, 11.06, 9.05),  # 11.055 and 9.045: both halves go up
        (10.00, 0.10, 0.01, 11.00, 9.00),
        (1.15, 0.05, 0.01, 1.21, 1.09),  # 1.2075 and 1.0925
        (0.04, 0.10, 0.01, 0.05, 0.03),  # SZSE's own example: never less than a tick
        (0.01, 0.10, 0.01, 0.02, 0.01),  # and never below one
        (0.252, 0.10, 0.001, 0.277, 0.227),  # a B share of Shanghai in USD
        (1688.88, 0.10, 0.01, 1857.77, 1519.99),
    ],
)
def test_limit_prices_worked_by_hand(close: float, ratio: float, tick: float, up: float, down: float) -> None:
    assert tuple(map(float, limit_prices(close, ratio, tick))) == (up, down)


@given(
    close=st.integers(1, 10_000_000),
    ratio=st.sampled_from(["0.05", "0.1", "0.2", "0.3"]),
    places=st.sampled_from([2, 3]),
)
def test_limit_prices_equal_decimal_arithmetic(close: int, ratio: str, places: int) -> None:
    tick = Decimal(1).scaleb(-places)
    exact = Decimal(close).scaleb(-places)
    up = (exact * (1 + Decimal(ratio))).quantize(tick, ROUND_HALF_UP)
    down = (exact * (1 - Decimal(ratio))).quantize(tick, ROUND_HALF_UP)
    got = limit_prices(np.array([float(exact)]), np.array([float(ratio)]), float(tick))
    assert got[0][0] == float(max(up, exact + tick))
    assert got[1][0] == float(max(min(down, exact - tick), tick))


def test_no_limit_prices_without_a_price_or_a_limit() -> None:
    up, down = limit_prices([0.0, NAN, -1.0, float("inf"), 10.0], [0.1, 0.1, 0.1, 0.1, NAN])
    assert np.isnan(up).all()
    assert np.isnan(down).all()


@pytest.mark.parametrize(
    "name",
    [
        "ST华微",
        "*ST锦港",
        "S*ST前锋",
        "SST中纺",
        "＊ＳＴ海润",
        " * ST 海润",
        "*st夏利",
        "ST晨鸣B",
        "XD*ST金",
        "XDST 中",
        "S佳通",
        "DRST某",
    ],
)
def test_names_under_the_st_limit(name: str) -> None:
    assert is_st_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "贵州茅台",
        "XD云天化",
        "DR常青科",
        "C威高",
        "N沪硅",
        "TCL科技",
        "退市海润",
        "海润退",
        "东方ST",
        "SOHO",
        "SK海力",
        "",
    ],
)
def test_names_under_the_common_limit(name: str) -> None:
    assert not is_st_name(name)


def test_price_ticks() -> None:
    ticks = {"600519.SH": 0.01, "900901.SH": 0.001, "200002.SZ": 0.01, "510300.SH": 0.001, "159915.SZ": 0.001}
    assert {symbol: price_tick(symbol) for symbol in ticks} == ticks


def test_the_real_market_keeps_to_the_limits(market: Path) -> None:
    """Thousands of closes lie exactly on our limit prices and not one price beyond them."""
    table = pq.read_table(market / "ashare_daily_2020_2025.parquet", columns=["symbol", "date", "high", "close"])
    symbol = table["symbol"].dictionary_encode().combine_chunks()
    code = symbol.indices.to_numpy()
    names = symbol.dictionary.to_pylist()
    close, high = table["close"].to_numpy(), table["high"].to_numpy()
    same = code[1:] == code[:-1]
    start = np.flatnonzero(np.r_[True, ~same])
    listed = np.arange(len(code)) - np.repeat(start, np.diff(np.r_[start, len(code)])) + 1
    keep = np.flatnonzero(same & (listed[1:] > 5) & (close[:-1] > 0) & (close[1:] > 0)) + 1
    boards = np.array([board(name) for name in names])[code[keep]]
    ticks = np.array([price_tick(name) for name in names])[code[keep]]
    up, _ = limit_prices(close[keep - 1], widest_ratio(boards, table["date"].to_numpy()[keep]), ticks)
    at_limit = np.isclose(close[keep], up, rtol=0, atol=1e-9)
    counts = {name: int(at_limit[boards == name].sum()) for name in np.unique(boards).tolist()}
    assert counts["main"] > 30_000
    assert counts["chinext"] > 1_500
    assert counts["star"] > 1_000
    assert counts["b_share"] > 100
    assert counts["preferred"] == 0
    assert not (high[keep] > up + 1e-9).any()

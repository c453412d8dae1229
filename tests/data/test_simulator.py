"""The simulated market: what its sessions promise to those who build on them."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.testing import assert_array_equal

from data.calendar import TradingCalendar, bar_ends, minute_index
from data.errors import FrameError, UsageError
from data.limits import is_st_name, limit_prices, limit_ratio
from data.schema import BAR, TICK
from data.simulated_days import MAX_SYMBOLS
from data.simulator import SimulatedMarket
from data.symbols import board, canonical


@pytest.fixture(scope="module")
def sim() -> SimulatedMarket:
    return SimulatedMarket(400, seed=3)


def daily(market: SimulatedMarket) -> dict[str, np.ndarray]:
    """Symbol, day and prices of every daily bar there is, in the order of time."""
    table = market.bars("1d", *market.sessions)
    columns = {name: table[name].to_numpy() for name in ("open", "high", "low", "close", "volume", "prev_close")}
    days = table["bar_end"].cast(pa.int64()).to_numpy() // (86_400 * 10**9)
    return columns | {"symbol": table["symbol"].to_numpy(), "day": days.astype("datetime64[D]")}


def test_sessions_are_the_exchanges_own(sim: SimulatedMarket) -> None:
    known = TradingCalendar().sessions(sim.sessions[0].item(), sim.sessions[-1].item())
    assert_array_equal(np.array(sim.sessions), known)
    assert len(sim.sessions) >= 500


def test_symbols_are_real_looking_shares_of_every_board(sim: SimulatedMarket) -> None:
    assert list(sim.symbols) == sorted(set(sim.symbols))
    assert len(sim.symbols) == 400
    assert all(canonical(symbol) == symbol for symbol in sim.symbols)
    assert {board(symbol) for symbol in sim.symbols} == {"main", "chinext", "star", "bse"}


@pytest.mark.parametrize("n_symbols", [0, MAX_SYMBOLS + 1])
def test_a_size_out_of_bounds_is_refused_by_name(n_symbols: int) -> None:
    with pytest.raises(UsageError, match=f"1 to {MAX_SYMBOLS} symbols; got {n_symbols}"):
        SimulatedMarket(n_symbols)


@pytest.mark.parametrize("n_symbols", [1, 2, 37])
def test_small_markets_work(n_symbols: int) -> None:
    market = SimulatedMarket(n_symbols)
    assert market.bars("1m", market.sessions[3]).num_rows <= 240 * n_symbols
    assert len(list(market.snapshots(market.sessions[3]))) == 2 + 240 * 20 + 1


def test_names_are_chinese_unique_and_only_of_the_listed(sim: SimulatedMarket) -> None:
    early, late = (sim.names(sim.sessions[k]) for k in (0, -1))
    assert set(early) < set(late) == set(sim.symbols)
    assert len({name for name in late.values() if not is_st_name(name)}) == sum(
        not is_st_name(name) for name in late.values()
    )
    assert 0 < sum(is_st_name(name) for name in late.values()) < 30
    assert early != {symbol: late[symbol] for symbol in early}, "ST comes and goes"


def test_any_session_follows_from_the_seed_alone() -> None:
    order = list(range(0, 60, 6))
    straight = SimulatedMarket(60, seed=5)
    wanted = {k: straight.bars("5m", straight.sessions[k]) for k in order}
    random.Random(1).shuffle(order)
    wandering = SimulatedMarket(60, seed=5)
    for k in order:
        market = SimulatedMarket(60, seed=5)
        assert market.bars("5m", market.sessions[k]).equals(wanted[k])
        assert wandering.bars("5m", market.sessions[k]).equals(wanted[k])
    other = SimulatedMarket(60, seed=6)
    assert not other.bars("5m", other.sessions[0]).equals(wanted[0])


def test_a_session_opens_from_where_the_last_one_closed(sim: SimulatedMarket) -> None:
    bars = daily(sim)
    ex_rights = halts = 0
    for symbol in sim.symbols:
        own = bars["symbol"] == symbol
        close, reference = bars["close"][own][:-1], bars["prev_close"][own][1:]
        assert (reference <= close).all()
        ex_rights += int((reference < close).sum())
        places = np.searchsorted(np.array(sim.sessions), bars["day"][own])
        halts += int((np.diff(places) > 1).sum())
    assert 400 <= ex_rights <= 1600, "about once a year a symbol pays out"
    assert halts > 50, "whole days without a bar"


def test_prices_keep_to_the_legal_limits_and_reach_them(sim: SimulatedMarket) -> None:
    bars = daily(sim)
    listed = {symbol: k for k in range(len(sim.sessions) - 1, -1, -1) for symbol in sim.names(sim.sessions[k])}
    places = np.searchsorted(np.array(sim.sessions), bars["day"])
    since = np.array([listed[symbol] for symbol in bars["symbol"]])
    names = [sim.names(session) for session in sim.sessions]
    st = np.array([is_st_name(names[k][symbol]) for k, symbol in zip(places, bars["symbol"], strict=True)])
    age = np.where(since == 0, 1000, places - since + 1)
    boards = np.array([board(symbol) for symbol in bars["symbol"]])
    up, down = limit_prices(bars["prev_close"], limit_ratio(boards, bars["day"], st.astype(float), age))
    known = ~np.isnan(up)
    assert (~known).sum() >= 20, "listings have days without a limit"
    assert (bars["high"][known] <= up[known] + 1e-9).all()
    floor = bars["low"] <= 1.0
    assert (bars["low"][known & ~floor] >= down[known & ~floor] - 1e-9).all()
    assert (bars["close"] == up).sum() > 100
    assert (bars["close"] == down).sum() > 50
    assert ((bars["low"] == up) & (bars["high"] == up)).sum() > 10, "days on which every trade is at the limit"
    at = boards[bars["close"] == up]
    assert {"main", "chinext", "star"} <= set(at)


def test_daily_bars_hang_together(sim: SimulatedMarket) -> None:
    bars = daily(sim)
    inner_low, inner_high = np.minimum(bars["open"], bars["close"]), np.maximum(bars["open"], bars["close"])
    assert (bars["low"] <= inner_low).all()
    assert (inner_high <= bars["high"]).all()
    assert (bars["low"] >= 1.0).all()
    for name in ("open", "high", "low", "close", "prev_close"):
        assert_array_equal(bars[name], np.round(bars[name], 2))
    assert (bars["volume"] > 0).all()
    assert (bars["volume"] % 100 == 0).all()


def test_minute_bars_have_the_schema_and_agree_with_the_day(sim: SimulatedMarket) -> None:
    session = sim.sessions[77]
    minutes, day = sim.bars("1m", session), sim.bars("1d", session)
    assert minutes.schema.equals(BAR)
    assert minutes.schema.metadata[b"frame"] == b"1m"
    assert set(np.unique(minutes["bar_end"].cast(pa.int64()).to_numpy())) == set(bar_ends(session, "1m"))
    folded = (
        minutes.set_column(0, "symbol", minutes["symbol"].cast(pa.string()))
        .group_by("symbol", use_threads=False)
        .aggregate([("open", "first"), ("high", "max"), ("low", "min"), ("close", "last"), ("volume", "sum")])
        .sort_by("symbol")
    )
    for name, column in zip(("open", "high", "low", "close", "volume"), folded.columns[1:], strict=True):
        assert_array_equal(column.to_numpy(), day[name].to_numpy())
    ratio = minutes["amount"].to_numpy() / np.maximum(minutes["volume"].to_numpy(), 1)
    traded = minutes["volume"].to_numpy() > 0
    assert (ratio[traded] >= minutes["low"].to_numpy()[traded] - 1e-6).all()
    assert (ratio[traded] <= minutes["high"].to_numpy()[traded] + 1e-6).all()


def test_a_minute_without_a_trade_carries_the_close(sim: SimulatedMarket) -> None:
    minutes = sim.bars("1m", sim.sessions[40])
    idle = minutes["flags"].to_numpy() == 1
    assert idle.any()
    assert (minutes["volume"].to_numpy()[idle] == 0).all()
    for name in ("open", "high", "low"):
        assert_array_equal(minutes[name].to_numpy()[idle], minutes["close"].to_numpy()[idle])
    ends = minutes["bar_end"].cast(pa.int64()).to_numpy()
    collecting = np.isin(ends, bar_ends(sim.sessions[40], "1m")[[237, 238]])
    assert idle[collecting].all(), "14:58 and 14:59"


def test_some_liquid_symbols_are_halted_for_minutes() -> None:
    market = SimulatedMarket(2000, seed=3)
    minutes = market.bars("1m", market.sessions[40])
    per_symbol = minutes.filter(pc.equal(minutes["flags"], 1))["symbol"].value_counts().to_pylist()
    idle = {row["values"]: row["counts"] - 2 for row in per_symbol}
    busy = minutes.group_by("symbol").aggregate([("volume", "sum")]).to_pylist()
    halted = [idle.get(row["symbol"], 0) for row in busy if row["volume_sum"] > 5e6]
    assert {10, 30} >= {n for n in halted if n > 5} != set()


def test_volume_follows_the_days_shape(sim: SimulatedMarket) -> None:
    minutes = sim.bars("1m", sim.sessions[9])
    index = minute_index(minutes["bar_end"].cast(pa.int64()).to_numpy())
    volume = np.bincount(index, weights=minutes["volume"].to_numpy(), minlength=240)
    assert volume[:30].mean() > 1.5 * volume[60:100].mean()
    assert volume[220:237].mean() > 1.2 * volume[150:200].mean()
    assert volume[239] > 2 * volume[60:100].mean()


def test_snapshots_are_quotes_as_providers_send_them(sim: SimulatedMarket) -> None:
    session = sim.sessions[300]
    halted = {sim.symbols[j] for j in np.flatnonzero(sim.day(session).listed & ~sim.day(session).trading)}
    assert halted
    listed = set(sim.names(session))
    times, before = [], None
    for batch in sim.snapshots(session):
        assert batch.schema.equals(TICK)
        assert batch.num_rows == len(listed)
        stamps = batch["quote_time"].cast(pa.int64()).to_numpy()
        assert (stamps == stamps[0]).all()
        times.append(stamps[0])
        last, high, low, volume = (batch[name].to_numpy() for name in ("last", "high", "low", "volume"))
        assert_array_equal(last > 0, volume > 0)
        assert ((low <= last) & (last <= high)).all()
        if before is not None:
            assert (volume >= before).all()
        before = volume
    symbols = batch["symbol"].to_pylist()
    assert set(symbols) == listed
    assert all(volume[symbols.index(symbol)] == 0 for symbol in halted)
    # 09:25:00 and 09:30:00, every three seconds from 09:30:03 on, and one too late for any bar.
    opening = int(bar_ends(session, "1m")[0]) - 60 * 10**9
    assert times[:3] == [opening - 300 * 10**9, opening, opening + 3 * 10**9]
    assert minute_index(np.array(times[-2:])).tolist() == [239, 240]
    assert_array_equal(np.bincount(minute_index(np.array(times[2:-1]))), np.full(240, 20))


def test_snapshots_can_start_in_the_midst_of_a_session(sim: SimulatedMarket) -> None:
    session = sim.sessions[12]
    since = int(bar_ends(session, "1m")[130])
    rest = list(sim.snapshots(session, since))
    whole = list(sim.snapshots(session))
    assert len(rest) == 20 * 110 + 1
    assert all(a.equals(b) for a, b in zip(rest, whole[-len(rest) :], strict=True))


def test_what_does_not_exist_is_refused(sim: SimulatedMarket) -> None:
    with pytest.raises(UsageError, match="no session 2024-01-06; it has the trading days 2024-01-02 to 2026-06-30"):
        sim.bars("1d", np.datetime64("2024-01-06"))
    with pytest.raises(FrameError, match="got '2m'"):
        sim.bars("2m", sim.sessions[0])

"""What a store lacks, fetched by need and within a day's patience; the endpoint is on this machine."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import DAY, bar_ends
from data.panel import Panel
from data.schema import BAR, FLAG_INCOMPLETE
from data.simulator import SimulatedMarket
from data.store import BarStore
from data.symbols import sina_code
from jobs import backfilling
from jobs.backfilling import Backfill, lacking_bars
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.klines import FakeTencentKlines, quick_sources

MARKET = SimulatedMarket(30, seed=3)
FIRST, SECOND = MARKET.sessions[:2]
DAYS = FakeDay(MARKET, FIRST, minutes=1)
EVENING = int(bar_ends(FIRST, "1d")[0]) + 10**9
ENDS = bar_ends(FIRST, "1m")
TRADED = sorted(set(MARKET.bars("1m", FIRST)["symbol"].to_pylist()))
Fetch = Callable[..., list[str]]


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "market", origin="market")


@pytest.fixture
def fetch(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetch]:
    """Fetches what the store lacks of 100 one-minute bars; gives the symbols that were asked for, in order."""
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setattr(backfilling, "_BATCH", 5)
    monkeypatch.setenv("NO_PROXY", "*")
    said: list[str] = []

    def work(now: int = EVENING, most: int | None = None, until: Callable[[], bool] = lambda: False) -> list[str]:
        async def run() -> list[str]:
            fake = FakeTencentKlines(DAYS, [FIRST])
            fake.most = most
            async with fake:
                backfill = Backfill(
                    store,
                    MARKET.symbols,
                    {"1m": 100},
                    n_bars=250,
                    urls={"tencent_kline": fake.url},
                    clock=lambda: now,
                    say=said.append,
                )
                await backfill.run(upto=lambda: now, until=until)
            by_code = {sina_code(symbol): symbol for symbol in MARKET.symbols}
            return [by_code[codes[0]] for codes in fake.asked]

        return asyncio.run(run())

    yield work
    assert said


def stored_equals(store: BarStore, wanted: pa.Table) -> None:
    stored = store.panel("1m")
    expected = Panel.from_table(wanted, "1m", stored.symbols)
    np.testing.assert_array_equal(stored.times, expected.times)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(stored[name], expected[name], err_msg=name)


def part(symbols: list[str], minutes: slice) -> pa.Table:
    bars = MARKET.bars("1m", FIRST)
    inside = pc.and_(
        pc.is_in(bars["symbol"].cast(pa.string()), value_set=pa.array(symbols)),
        pc.is_in(bars["bar_end"].cast(pa.int64()), value_set=pa.array(ENDS[minutes])),
    )
    return bars.filter(inside)


def test_those_who_lack_most_are_asked_for_first_and_who_has_enough_is_not(store: BarStore, fetch: Fetch) -> None:
    store.append(part(TRADED[:3], slice(0, 150)), "1m")
    store.append(part(TRADED[3:5], slice(0, 50)), "1m")
    asked = fetch()
    assert sorted(asked) == sorted(set(MARKET.symbols) - set(TRADED[:3]))
    assert set(asked[-2:]) == set(TRADED[3:5])
    table = store.table("1m")
    keys = list(zip(table["symbol"].to_pylist(), table["bar_end"].to_pylist(), strict=True))
    assert len(keys) == len(set(keys))
    stored_equals(store, pa.concat_tables([part(TRADED[:3], slice(0, 150)), part(TRADED[3:], slice(0, 240))]))


def test_nobody_is_asked_for_twice_a_day(store: BarStore, fetch: Fetch) -> None:
    assert sorted(fetch()) == sorted(MARKET.symbols)
    assert fetch() == []
    untraded = sorted(set(MARKET.symbols) - set(TRADED))
    assert sorted(fetch(EVENING + DAY)) == untraded


def test_what_a_ban_cut_short_goes_on_the_next_day_where_it_ended(store: BarStore, fetch: Fetch) -> None:
    first = fetch(most=12)
    assert 12 <= len(first) < len(MARKET.symbols)
    had = set(store.symbols("1m"))
    assert had
    again = fetch(EVENING + DAY)
    assert had.isdisjoint(again)
    stored_equals(store, MARKET.bars("1m", FIRST))


def test_what_time_cut_short_goes_on_at_once(store: BarStore, fetch: Fetch) -> None:
    assert len(fetch(until=lambda: True)) == 5
    assert len(fetch()) == len(MARKET.symbols) - 5
    stored_equals(store, MARKET.bars("1m", FIRST))


def test_bars_that_lack_trades_are_revised(store: BarStore, fetch: Fetch) -> None:
    clean = MARKET.bars("1m", FIRST)
    place = np.arange(clean.num_rows)
    mine = np.array(clean["symbol"].cast(pa.string()).to_pylist()) == TRADED[0]
    ends = clean["bar_end"].cast(pa.int64()).to_numpy()
    lost = mine & (ends >= ENDS[100]) & (ends <= ENDS[102])
    high, flags = clean["high"].to_numpy().copy(), clean["flags"].to_numpy().copy()
    high[lost] += 1
    flags[lost] |= FLAG_INCOMPLETE
    assert place[lost].size == 3
    spoiled = clean.set_column(clean.schema.get_field_index("high"), BAR.field("high"), pa.array(high))
    spoiled = spoiled.set_column(spoiled.schema.get_field_index("flags"), BAR.field("flags"), pa.array(flags))
    store.append(spoiled, "1m")
    assert TRADED[0] in fetch()
    stored_equals(store, clean)
    revised = store.table("1m").filter(pc.equal(store.table("1m")["revision"], 1))
    assert revised["bar_end"].cast(pa.int64()).to_pylist() == ENDS[100:103].tolist()
    assert revised["amount"].to_pylist() == clean.filter(pa.array(lost))["amount"].to_pylist()  # volumes were right
    assert TRADED[0] not in fetch(EVENING + DAY)


def test_bars_after_the_bound_are_not_taken(store: BarStore) -> None:
    bars: Any = part(TRADED[:1], slice(0, 240))
    assert lacking_bars(store, "1m", bars, int(ENDS[9])).num_rows <= 10


@pytest.mark.parametrize(
    ("seconds", "trading", "now", "later"), [(60, False, 30, 0), (60, True, 0, 30), (0, False, 0, 0)]
)
def test_while_the_market_trades_quotes_do_not_wait(
    store: BarStore, monkeypatch: pytest.MonkeyPatch, seconds: float, trading: bool, now: int, later: int
) -> None:
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setenv("NO_PROXY", "*")

    async def run() -> None:
        async with FakeTencentKlines(DAYS, [FIRST]) as fake:
            backfill = Backfill(
                store,
                MARKET.symbols,
                {"1m": 100},
                n_bars=250,
                urls={"tencent_kline": fake.url},
                clock=lambda: EVENING + DAY,
                say=lambda text: None,
                trades=lambda at: trading,
            )
            await backfill.at_start(seconds)
            assert len(fake.asked) == now
            backfill.go_on()
            assert backfill._going_on is not None
            await asyncio.wait_for(backfill._going_on, 10)
            assert len(fake.asked) == now + later
            await backfill.close()
        if now or later:
            stored_equals(store, MARKET.bars("1m", FIRST))

    asyncio.run(run())

"""What a store lacks, fetched by need and within a day's patience; the endpoint is on this machine."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import DAY, MINUTE, bar_ends, day_ns
from data.panel import Panel
from data.schema import BAR, FLAG_INCOMPLETE
from data.simulator import SimulatedMarket
from data.store import BarStore
from data.symbols import sina_code
from jobs import backfilling
from jobs.backfilling import Backfill
from jobs.lacking import lacking_bars
from streaming.health import TradingClock
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.klines import FakeTencentKlines, quick_sources

MARKET = SimulatedMarket(30, seed=3)
FIRST, SECOND = MARKET.sessions[:2]
DAYS = FakeDay(MARKET, FIRST, minutes=1)
EVENING = int(bar_ends(FIRST, "1d")[0]) + 10**9
ENDS = bar_ends(FIRST, "1m")
TRADED = sorted(set(MARKET.bars("1m", FIRST)["symbol"].to_pylist()))
Fetch = Callable[..., list[str]]


def trading(*sessions: np.datetime64) -> TradingClock:
    """A calendar of these days, FIRST by default."""
    return TradingClock(lambda day: np.datetime64(day) in (sessions or (FIRST,)))


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

    def work(
        now: int = EVENING,
        most: int | None = None,
        until: Callable[[], bool] = lambda: False,
        sessions: Sequence[np.datetime64] = (),
    ) -> list[str]:
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
                    trading=trading(*sessions),
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
    store.append(part(TRADED[:3], slice(90, 240)), "1m")
    store.append(part(TRADED[3:5], slice(190, 240)), "1m")
    asked = fetch()
    assert sorted(asked) == sorted(set(MARKET.symbols) - set(TRADED[:3]))
    assert set(asked[-2:]) == set(TRADED[3:5])
    table = store.table("1m")
    keys = list(zip(table["symbol"].to_pylist(), table["bar_end"].to_pylist(), strict=True))
    assert len(keys) == len(set(keys))
    stored_equals(store, pa.concat_tables([part(TRADED[:3], slice(90, 240)), part(TRADED[3:], slice(0, 240))]))


def test_nobody_is_asked_for_the_same_twice(store: BarStore, fetch: Fetch) -> None:
    assert sorted(fetch()) == sorted(MARKET.symbols)
    assert fetch() == []
    assert fetch(EVENING + DAY) == [], "no session has been since"
    store.append(MARKET.bars("1m", SECOND), "1m")
    untraded = sorted(set(MARKET.symbols) - set(TRADED))
    assert sorted(fetch(EVENING + DAY, sessions=(FIRST, SECOND))) == untraded, "who has too few may have more by now"
    assert fetch(EVENING + DAY, sessions=(FIRST, SECOND)) == []


def test_of_ends_that_nobody_has_everybody_is_asked_once_for_each_hole(store: BarStore, fetch: Fetch) -> None:
    store.append(part(TRADED, slice(0, 110)), "1m")
    store.append(part(TRADED, slice(120, 180)), "1m")
    noon = int(ENDS[119]) + 10**9
    assert sorted(fetch(noon)) == sorted(MARKET.symbols)
    stored_equals(store, part(TRADED, slice(0, 180)))
    assert fetch(noon) == []
    store.append(part(TRADED, slice(200, 240)), "1m")
    assert sorted(fetch()) == sorted(MARKET.symbols), "the afternoon's is another hole"
    stored_equals(store, MARKET.bars("1m", FIRST))
    assert fetch() == []


def test_what_an_earlier_version_asked_for_by_day_is_known(store: BarStore, fetch: Fetch) -> None:
    asked = store.root / "backfill.json"
    asked.write_text(json.dumps({"1m": dict.fromkeys(TRADED[:5], "2024-01-03")}))
    assert set(fetch()) == set(MARKET.symbols) - set(TRADED[:5])
    kept = json.loads(asked.read_text())["1m"]
    assert kept[TRADED[5]] == EVENING
    assert kept[TRADED[0]] == int(day_ns(np.array([SECOND]))[0])


def test_whose_request_failed_is_asked_again(store: BarStore, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = FakeTencentKlines._answer
    bad = sina_code(TRADED[3])

    async def failing(self: FakeTencentKlines, codes: list[str], writer: asyncio.StreamWriter) -> None:
        await (self._send(writer, 502, b"") if codes[0] == bad else answer(self, codes, writer))

    monkeypatch.setattr(FakeTencentKlines, "_answer", failing)
    assert sorted(fetch()) == sorted(MARKET.symbols)
    assert fetch() == [TRADED[3]]
    monkeypatch.setattr(FakeTencentKlines, "_answer", answer)
    assert fetch() == [TRADED[3]]
    stored_equals(store, MARKET.bars("1m", FIRST))
    assert fetch() == []


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


class Beside:
    """A backfill beside a service whose clock is set by hand."""

    def __init__(self, store: BarStore, fake: FakeTencentKlines, now: int, late_s: float = 0.0) -> None:
        self.fake, self.now = fake, now
        self.backfill = Backfill(
            store,
            MARKET.symbols,
            {"1m": 100},
            n_bars=250,
            urls={"tencent_kline": fake.url},
            clock=lambda: self.now,
            say=lambda text: None,
            trading=trading(),
            late_s=late_s,
        )

    async def until_asked(self, n: int) -> None:
        """All that were asked for are stored, too."""
        async with asyncio.timeout(10):
            while len(self.fake.asked) < n or self.backfill._fetching is not None:
                await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfilling, "sources_of", quick_sources)
    monkeypatch.setattr(backfilling, "_LOOK_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("seconds", "now", "later"), [(60, EVENING + DAY, 30), (60, EVENING - DAY // 6, 0), (0, 0, 0)])
def test_while_the_market_trades_quotes_do_not_wait(store: BarStore, seconds: float, now: int, later: int) -> None:
    async def run() -> None:
        async with FakeTencentKlines(DAYS, [FIRST]) as fake:
            beside = Beside(store, fake, now or EVENING + DAY)
            await beside.backfill.at_start(seconds)
            assert len(fake.asked) == later
            beside.backfill.go_on()
            beside.now = EVENING + DAY
            await beside.until_asked(30 if seconds else 0)
            assert len(fake.asked) == (30 if seconds else 0)
            await beside.backfill.close()
        if seconds:
            stored_equals(store, MARKET.bars("1m", FIRST))

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_a_service_that_starts_in_session_gets_the_bars_before_its_own_and_in_the_evening_those_that_lack_trades(
    store: BarStore,
) -> None:
    """It starts in the 61st minute, whose bar lacks trades then; nothing that may still come live is fetched."""

    async def run() -> None:
        async with FakeTencentKlines(DAYS, [FIRST]) as fake:
            beside = Beside(store, fake, int(ENDS[60]) + 4 * 10**9, late_s=120)
            await beside.backfill.at_start(60)
            beside.backfill.go_on()
            assert beside.backfill.settled() == int(day_ns(np.array([FIRST]))[0])
            assert fake.asked == []
            straddling = part(TRADED, slice(60, 61))
            flags = np.full(straddling.num_rows, FLAG_INCOMPLETE, dtype=np.uint8)
            at = straddling.schema.get_field_index("flags")
            store.append(straddling.set_column(at, BAR.field("flags"), pa.array(flags)), "1m")
            assert not beside.backfill.news("1m")
            beside.backfill.closed("1m", int(ENDS[60]))
            await beside.until_asked(30)
            stored_equals(store, part(TRADED, slice(0, 61)))
            assert (store.table("1m")["revision"].to_numpy() == 0).all()
            assert beside.backfill.news("1m")
            assert not beside.backfill.news("1m"), "it is told once"
            for k in range(61, 240):
                beside.now = int(ENDS[k]) + 4 * 10**9
                beside.backfill.closed("1m", int(ENDS[k]))
            assert beside.backfill.settled() == int(ENDS[237]) - 1, "the last two minutes may be revised"
            store.append(part(TRADED, slice(61, 240)), "1m")
            beside.now = EVENING + 10 * MINUTE
            await beside.until_asked(60)
            stored_equals(store, MARKET.bars("1m", FIRST))
            assert np.count_nonzero(store.table("1m")["revision"].to_numpy()) == straddling.num_rows
            await beside.backfill.close()

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_what_was_missed_while_it_was_down_is_fetched_once_live_bars_have_caught_up(store: BarStore) -> None:
    """From the tape and the first quotes since it makes the missed minutes, which lack trades."""

    async def run() -> None:
        store.append(part(TRADED, slice(0, 30)), "1m")
        async with FakeTencentKlines(DAYS, [FIRST]) as fake:
            beside = Beside(store, fake, int(ENDS[60]) + 4 * 10**9, late_s=30)
            beside.backfill.go_on()
            for k in range(30, 61):
                missed = part(TRADED, slice(k, k + 1))
                flags = np.full(missed.num_rows, FLAG_INCOMPLETE, dtype=np.uint8)
                high = missed["high"].to_numpy() + 1
                for name, values in (("flags", flags), ("high", high)):
                    missed = missed.set_column(missed.schema.get_field_index(name), BAR.field(name), pa.array(values))
                store.append(missed, "1m")
                beside.backfill.closed("1m", int(ENDS[k]))
                assert beside.backfill._due.is_set() == (k >= 59), "two minutes behind is caught up"
                if k < 59:
                    await asyncio.sleep(0)
            await beside.until_asked(30)
            revised = store.table("1m").filter(pc.equal(store.table("1m")["revision"], 1))
            ends = sorted(set(revised["bar_end"].cast(pa.int64()).to_pylist()))
            assert ends == ENDS[30:60].tolist(), "the newest may be revised live"
            await beside.backfill.close()

    asyncio.run(run())


def test_while_a_frame_is_fetched_who_scans_it_is_told_once_a_minute(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfill = Backfill(
        *(store, MARKET.symbols, {"1m": 100}),
        n_bars=250,
        urls={},
        clock=lambda: EVENING,
        say=lambda text: None,
        trading=trading(),
    )
    clock = iter((59.0, 60.0, 61.0, 119.0, 121.0, 122.0))
    monkeypatch.setattr(backfilling.time, "monotonic", lambda: next(clock))
    backfill._fetching, backfill._told = "1m", {"1m": 0.0}
    backfill._fresh.add("1m")
    told = []
    for _ in range(5):
        told.append(backfill.news("1m"))
        backfill._fresh.add("1m")
    assert told == [False, True, False, False, True]
    backfill._fetching = None
    assert backfill.news("1m"), "once all is fetched, at once"

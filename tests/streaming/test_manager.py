"""StreamManager over real sockets, against vendors that go wrong: what a user sees, and which bars come out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from data.calendar import SECOND
from data.errors import UsageError
from data.settings import FeedSettings, Settings
from data.simulator import SimulatedMarket
from streaming.feeds import find_feed
from streaming.feeds.connections import open_connection
from streaming.feeds.vendors import VENDORS
from streaming.links import Patience
from streaming.manager import ProviderStatus, StreamManager
from tests.streaming.feeds.fakes.day import FakeDay, Quote, bars_of, ordered, totals_of
from tests.streaming.feeds.fakes.servers import FakeEastmoney, FakeSina, FakeSinaSocket, FakeTencent, Faults

MARKET = SimulatedMarket(20, seed=3)
ALL = len(FakeDay(MARKET, minutes=1).symbols)
FAKES: dict[str, Any] = {
    "sina": FakeSina,
    "sina_ws": FakeSinaSocket,
    "tencent": FakeTencent,
    "eastmoney": FakeEastmoney,
}


class Scene:
    """A day, its vendors and a manager that is read; its clock is the day's, so that time passes with `step`."""

    def __init__(self, day: FakeDay, fakes: dict[str, Any], **options: Any) -> None:
        self.day, self.fakes = day, fakes
        self.got: list[pa.RecordBatch] = []
        self.slept: list[float] = []
        self._seen: dict[str, int] = {}
        changes = options.pop("changes", {})
        vendors = [replace(VENDORS[name], **({"cadence_s": 0.01} | changes.get(name, {}))) for name in fakes]
        self.manager = StreamManager(
            vendors,
            urls={name: fake.url for name, fake in fakes.items()},
            open_connection=lambda *args, **about: open_connection(*args, timeout_s=0.3, **about),
            clock=self.clock,
            sleep=self.sleep,
            is_session=lambda day: True,
            **{"patience": Patience(back_s=9)} | options,
        )

    def clock(self) -> int:
        return self.day.time + SECOND

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.005)

    async def read(self) -> None:
        async for batch in self.manager.frames():
            self.got.append(batch)
            times = batch["quote_time"].cast(pa.int64()).to_pylist()
            for symbol, at in zip(batch["symbol"].to_pylist(), times, strict=True):
                assert at >= self._seen.get(symbol, 0)
                self._seen[symbol] = at

    def caught_up(self, symbols: Sequence[str] = ()) -> bool:
        """Whether the reader has every symbol's quote of the snapshot that is shown."""
        now = self.clock() - SECOND
        return all(self._seen.get(symbol) == now for symbol in symbols or self.day.symbols)

    def of(self, name: str) -> ProviderStatus:
        return next(provider for provider in self.manager.status().providers if provider.name == name)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)

    async def step(self, n: int = 1) -> None:
        """The day goes on, and each snapshot reaches the reader."""
        for _ in range(n):
            self.day.step()
            await self.until(self.caught_up)

    async def pass_until(self, condition: Callable[[], bool]) -> None:
        """Time passes, whatever the reader gets, until something is the case."""
        for _ in range(60):
            self.day.step()
            for _ in range(40):
                if condition():
                    return
                await asyncio.sleep(0.002)
        raise AssertionError(f"it never was: {self.manager.status()}")


@asynccontextmanager
async def scene(*names: str, minutes: int = 4, subscribe: bool = True, **options: Any) -> AsyncIterator[Scene]:
    day = FakeDay(MARKET, minutes=minutes)
    kinds = options.pop("kinds", {})
    fakes = {name: (kinds.get(name) or FAKES[name])(day) for name in names}
    for fake in fakes.values():
        await fake.__aenter__()
    on = Scene(day, fakes, **options)
    reader = asyncio.create_task(on.read())
    try:
        if subscribe:
            await on.manager.subscribe(day.symbols, subscriber="test")
            await on.until(on.caught_up)
        yield on
    finally:
        await on.manager.close()
        await asyncio.wait_for(reader, 10)
        for fake in fakes.values():
            await fake.__aexit__(None, None, None)


def bars(on: Scene, batches: Iterable[pa.RecordBatch] | None = None) -> pa.Table:
    return bars_of(on.day.symbols, list(on.got if batches is None else batches))


@pytest.mark.parametrize("name", FAKES)
def test_a_clean_run_gives_the_days_bars_from_the_first_provider_alone(name: str) -> None:
    spare = "tencent" if name != "tencent" else "sina"

    async def run() -> None:
        async with scene(name, spare, minutes=2) as on:
            await on.step(len(on.day.batches) - 1)
            seen, idle = on.of(name), on.of(spare)
            assert (seen.state, seen.connected, seen.serves, seen.symbols_stale) == ("live", 1, ALL, 0)
            assert seen.frames >= len(on.day.batches)
            assert seen.quote_age_s == 1.0
            assert not seen.reconnects
            assert (idle.state, idle.connections, idle.frames, idle.quote_age_s) == ("idle", 0, 0, None)
            assert on.fakes[spare].asked == []
            assert [int(batch.schema.metadata[b"seq"]) for batch in on.got] == list(range(1, len(on.got) + 1))
            assert {batch.schema.metadata[b"source"].decode() for batch in on.got} == {name}
            assert totals_of(on.day.symbols, on.got).keys() == on.day.totals().keys()
            if name != "tencent":  # whose amounts are in whole CNY
                assert bars(on).equals(ordered(on.day.bars()))

    asyncio.run(run())


FAULTS = {
    "reset": (Faults(reset=True), ""),
    "blackhole": (Faults(blackhole=True), "timeout"),
    "mute": (Faults(mute=True), "stale"),
    "stale": (Faults(stale=True), "stale"),
    "truncated": (Faults(truncated=True), "truncated"),
    "ban": (Faults(ban="403"), "ban"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_provider_that_fails_is_replaced_by_the_next_and_comes_back(fault: str) -> None:
    broken, reason = FAULTS[fault]

    async def run() -> None:
        async with scene("sina", "tencent", patience=Patience(back_s=9, ban_s=20)) as on:
            await on.step(3)
            on.fakes["sina"].faults = broken
            await on.pass_until(lambda: on.of("tencent").serves == ALL and on.of("tencent").connected == 1)
            assert on.of("sina").state == ("banned" if reason == "ban" else "failed")
            assert on.of("sina").serves == 0
            await on.step(2)  # from Tencent alone
            # How a peer finds out that it was reset depends on when: by a closed connection, or half an answer.
            await on.pass_until(lambda: any(reason in seen for seen in on.of("sina").reconnects))
            on.fakes["sina"].faults = Faults()
            await on.pass_until(lambda: on.of("sina").serves == ALL and on.of("tencent").state == "idle")
            await on.step(1)
            sina, tencent = on.of("sina"), on.of("tencent")
            assert (sina.state, sina.connected, tencent.connections) == ("live", 1, 0)
            assert tencent.quote_age_s is not None
            assert tencent.quote_age_s > 0
            assert on.manager.status().served == ALL
            on.day.step(len(on.day.batches))
            await on.until(on.caught_up)
            check_totals(on)

    asyncio.run(run())


def check_totals(on: Scene) -> None:
    """Whatever was lost: last price, high, low and volume are the day's; amounts but for Tencent's rounding."""
    got, wanted = totals_of(on.day.symbols, on.got), on.day.totals()
    assert got.keys() == wanted.keys()
    for symbol, numbers in wanted.items():
        assert got[symbol][:4] == numbers[:4]
        assert got[symbol][4] == pytest.approx(numbers[4], abs=1)


@pytest.mark.parametrize(("fault", "reason"), [("mute", "mute"), ("stale", "stale"), ("reset", "connection")])
def test_a_socket_that_is_open_and_gives_nothing_new_is_opened_again(fault: str, reason: str) -> None:
    async def run() -> None:
        async with scene("sina_ws", changes={"sina_ws": {"shard": 8}}) as on:
            assert on.of("sina_ws").connected == 3
            await on.step(2)
            on.fakes["sina_ws"].faults = Faults(**{fault: True})
            await on.pass_until(lambda: on.of("sina_ws").reconnects.get(reason, 0) >= 3)
            await on.pass_until(lambda: on.of("sina_ws").serves < ALL)
            on.fakes["sina_ws"].faults = Faults()
            await on.pass_until(lambda: on.of("sina_ws").serves == ALL)
            on.day.step(len(on.day.batches))
            await on.until(on.caught_up)
            assert totals_of(on.day.symbols, on.got) == on.day.totals()

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["duplicate", "out_of_order"])
@pytest.mark.parametrize("name", ["sina", "sina_ws"])
def test_what_comes_twice_or_late_changes_no_bar(name: str, fault: str) -> None:
    async def run() -> None:
        async with scene(name, minutes=2) as on:
            on.fakes[name].faults = Faults(**{fault: True})
            await on.step(len(on.day.batches) - 1)
            assert bars(on).equals(ordered(on.day.bars()))
            if fault == "out_of_order":
                assert on.of(name).dropped["older"] > 0

    asyncio.run(run())


def test_garbage_is_counted_by_reason_and_what_can_be_read_is_right() -> None:
    async def run() -> None:
        async with scene("sina", minutes=2, patience=Patience(back_s=0)) as on:
            on.fakes["sina"].faults = Faults(garbage=True)
            on.day.step(10)
            await on.until(lambda: sum(on.of("sina").dropped.values()) > 50)
            await on.until(lambda: on.of("sina").state == "live")
            assert not on.of("sina").reconnects
            on.fakes["sina"].faults = Faults()
            on.day.step(len(on.day.batches))
            await on.until(on.caught_up)
            check_totals(on)

    asyncio.run(run())


class FakeHalf(FakeSina):
    """After the third snapshot it shows half of the market no more."""

    def line(self, quote: Quote) -> bytes:
        if self.day.at > 3 and quote.symbol in self.day.symbols[::2]:
            return self.nothing(VENDORS["sina"].code(quote.symbol) or "")
        return super().line(quote)


def test_half_a_market_that_grows_old_is_asked_of_the_next() -> None:
    async def run() -> None:
        async with scene("sina", "tencent", kinds={"sina": FakeHalf}) as on:
            await on.pass_until(lambda: on.of("tencent").serves == ALL)
            assert (on.of("sina").state, on.of("sina").connected, on.of("sina").symbols_stale) == ("failed", 1, 10)
            await on.step(2)

    asyncio.run(run())


class FakeCrooked(FakeTencent):
    """Every price of one symbol is a tenth too high."""

    def line(self, quote: Quote) -> bytes:
        if quote.symbol == self.day.symbols[0]:
            names = ("last", "high", "low", "open", "prev_close", "amount")
            quote = replace(quote, **{name: round(getattr(quote, name) * 1.1, 2) for name in names})
        return super().line(quote)


def test_with_two_providers_on_a_price_that_the_other_contradicts_is_quarantined() -> None:
    async def run() -> None:
        async with scene("sina", "tencent", minutes=2, n_active=2, kinds={"tencent": FakeCrooked}) as on:
            for _ in range(len(on.day.batches) - 1):
                on.day.step()
                frames = on.of("tencent").frames
                await on.until(lambda frames=frames: on.caught_up() and on.of("tencent").frames > frames + 1)  # type: ignore[misc]
            assert on.of("tencent").dropped["quarantined"] > 0
            assert "quarantined" not in on.of("sina").dropped
            one = bars(on).filter(pa.compute.equal(bars(on)["symbol"], on.day.symbols[0]))
            wanted = ordered(on.day.bars())
            wanted = wanted.filter(pa.compute.equal(wanted["symbol"], on.day.symbols[0]))
            assert one["high"].equals(wanted["high"])

    asyncio.run(run())


def test_who_has_banned_us_is_not_asked_until_the_ban_is_over() -> None:
    async def run() -> None:
        async with scene("sina", "tencent", changes={"sina": {"batch": 5}}) as on:
            on.fakes["sina"].faults = Faults(ban="403")
            await on.until(lambda: on.of("sina").state == "banned")
            assert "banned this address" in on.of("sina").said
            assert on.of("sina").reconnects == {"ban": 1}
            assert any(290 < seconds <= 300 for seconds in on.slept)
            await on.until(lambda: on.of("tencent").serves == ALL)

    asyncio.run(run())


def test_subscribers_are_counted_and_what_nobody_wants_is_not_asked_for() -> None:
    async def run() -> None:
        async with scene("sina_ws", subscribe=False, changes={"sina_ws": {"shard": 4}}) as on:
            manager, symbols = on.manager, on.day.symbols
            await manager.subscribe(symbols[:8], subscriber="a")
            await manager.subscribe(symbols[6:10], subscriber="b")
            await on.until(lambda: on.caught_up(symbols[:10]))
            status = manager.status()
            assert (status.symbols, status.subscribers, status.served, status.uncovered) == (10, 2, 10, 0)
            assert on.of("sina_ws").connections == 3
            await manager.unsubscribe(symbols[:7], subscriber="a")
            assert manager.status().symbols == 4  # 6 is b's, 7 both's
            on.day.step()
            await on.until(lambda: on.caught_up(symbols[6:10]))
            await manager.unsubscribe(subscriber="b")
            assert (manager.status().symbols, manager.status().subscribers) == (1, 1)
            await manager.unsubscribe(subscriber="a")
            assert on.of("sina_ws").connections == 0
            assert on.of("sina_ws").state == "idle"
            await manager.subscribe(symbols, subscriber="c")
            await on.until(on.caught_up)

    asyncio.run(run())


@pytest.mark.parametrize("named", [True, False])
def test_a_symbol_that_a_provider_refuses_is_asked_of_the_next(named: bool) -> None:
    async def run() -> None:
        async with scene("sina_ws", "tencent", subscribe=False) as on:
            bad = on.day.symbols[5]
            code = VENDORS["sina_ws"].code(bad)
            assert code is not None
            on.fakes["sina_ws"].faults = Faults(bad_codes=frozenset({code}), named=named)
            await on.manager.subscribe(on.day.symbols)
            await on.until(lambda: on.of("sina_ws").symbols == ALL - 1 and on.of("tencent").symbols == 1)
            await on.until(lambda: on.of("sina_ws").connected == on.of("sina_ws").connections)
            await on.until(on.caught_up)
            await on.step(2)
            assert on.of("sina_ws").reconnects["refused"] >= 1
            assert on.of("sina_ws").serves == ALL - 1
            assert on.manager.status().served == ALL

    asyncio.run(run())


def test_a_provider_that_is_not_there_is_tried_less_and_less_often() -> None:
    async def run() -> None:
        async with scene("sina", subscribe=False, uniform=lambda least, most: most) as on:
            on.fakes["sina"].faults = Faults(reset=True)
            await on.manager.subscribe(on.day.symbols)
            assert on.of("sina").state == "connecting"
            await on.until(lambda: sum(on.of("sina").reconnects.values()) >= 7)
            waits = [seconds for seconds in on.slept if seconds > 1]
            assert waits[:6] == [2, 4, 8, 16, 30, 30]
            on.fakes["sina"].faults = Faults()
            await on.until(on.caught_up)
            on.slept.clear()
            on.fakes["sina"].faults = Faults(reset=True)
            await on.until(lambda: any(seconds > 1 for seconds in on.slept))
            assert next(seconds for seconds in on.slept if seconds > 1) == 2

    asyncio.run(run())


def test_symbols_that_no_provider_has_are_said() -> None:
    async def run() -> None:
        async with scene("sina", subscribe=False) as on:
            on.manager._providers[0].refused.add(on.day.symbols[0])
            await on.manager.subscribe(on.day.symbols)
            assert on.manager.status().uncovered == 1

    asyncio.run(run())


def test_providers_are_opened_by_their_names_in_order() -> None:
    async def run() -> None:
        feed = find_feed("tencent,sina")(Settings(feed=FeedSettings(name="tencent,sina")), after=None)
        assert isinstance(feed, StreamManager)
        assert feed.name == "tencent,sina"
        assert [provider.name for provider in feed.status().providers] == ["tencent", "sina"]
        await feed.close()

    asyncio.run(run())
    with pytest.raises(UsageError, match="'sim' is no vendor"):
        find_feed("sina,sim")
    with pytest.raises(UsageError, match="there is no feed 'sinna'; there are: eastmoney"):
        find_feed("sinna")
    with pytest.raises(UsageError, match="each once; got sina, sina"):
        StreamManager([VENDORS["sina"], VENDORS["sina"]])
    with pytest.raises(UsageError, match=r"n_active must be in \[1, 1\]"):
        StreamManager([VENDORS["sina"]], n_active=2)

"""StreamManager over real sockets, against vendors that go wrong: what a user sees, and which bars come out."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import pyarrow as pa
import pytest

from data.errors import UsageError
from data.settings import FeedSettings, Settings
from streaming.bus import EventBus, tick_topic
from streaming.feeds import find_feed
from streaming.feeds.vendors import VENDORS
from streaming.gaps import Loss, losses_of
from streaming.manager import StreamManager
from streaming.ports import Event
from tests.streaming.feeds.fakes.day import FakeDay, Quote, bars_of, ordered, totals_of
from tests.streaming.feeds.fakes.scene import FAKES, MARKET, Scene, scene
from tests.streaming.feeds.fakes.servers import FakeSina, FakeTencent, Faults

ALL = len(FakeDay(MARKET, minutes=1).symbols)


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


def test_a_provider_that_fails_is_replaced_by_the_next_and_comes_back() -> None:
    async def run() -> None:
        async with scene("sina", "tencent") as on:
            await on.step(3)
            on.fakes["sina"].faults = Faults(reset=True)
            await on.pass_until(lambda: on.of("tencent").serves == ALL and on.of("tencent").connected == 1)
            assert (on.of("sina").state, on.of("sina").serves) == ("failed", 0)
            on.fakes["sina"].faults = Faults()
            await on.pass_until(lambda: on.of("sina").serves == ALL and on.of("tencent").state == "idle")
            await on.step(1)
            sina, tencent = on.of("sina"), on.of("tencent")
            assert (sina.state, sina.connected, tencent.connections) == ("live", 1, 0)
            assert tencent.quote_age_s is not None
            assert tencent.quote_age_s > 0

    asyncio.run(run())


def losses(on: Scene) -> list[Loss]:
    return [loss for batch in on.got for loss in losses_of(batch)]


def test_what_may_be_missing_is_said_with_the_first_frame_after_it() -> None:
    async def run() -> None:
        async with scene("sina", minutes=2) as on:
            opened = losses(on)
            assert {(loss.since_ns, loss.until_ns) for loss in opened} == {(0, on.day.time)}
            assert sorted(symbol for loss in opened for symbol in loss.symbols) == sorted(on.day.symbols)
            await on.pass_until(lambda: on.day.at == 10)
            await on.until(on.caught_up)
            assert len(losses(on)) == len(opened)
            since = on.day.time
            on.fakes["sina"].faults = Faults(status=502)
            on.day.step(4)
            await on.until(lambda: on.of("sina").dropped.get("http_502", 0) > 0)
            on.fakes["sina"].faults = Faults()
            await on.until(on.caught_up)
            (lost,) = losses(on)[len(opened) :]
            assert (lost.since_ns, lost.until_ns) == (since, on.day.time)
            assert sorted(lost.symbols) == sorted(on.day.symbols)

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


def test_a_callback_is_registered_on_the_bus_and_gets_what_its_subscriber_wants() -> None:
    async def run() -> None:
        bus = EventBus()
        got: dict[str, list[str]] = {"a": [], "b": []}

        def taker(name: str) -> Callable[[Event], None]:
            return lambda event: got[name].extend(event.batch["symbol"].to_pylist())

        async with scene("sina", subscribe=False, bus=bus) as on:
            first, second, third = on.day.symbols[:3]
            await on.manager.subscribe([first, second], subscriber="a", callback=taker("a"))
            await on.manager.subscribe([second, third], subscriber="b", callback=taker("b"))
            await on.until(lambda: on.caught_up([first, second, third]))
            assert [place.name for place in bus.stats().subscribers] == ["a", "b"]
            for batch in on.got:
                await bus.publish(tick_topic(), batch)
            await on.until(lambda: len(got["a"]) == len(got["b"]) == 2)
            await on.manager.unsubscribe(subscriber="a")
            await bus.publish(tick_topic(), on.got[-1])
            await on.until(lambda: len(got["b"]) > 2)
            assert (set(got["a"]), set(got["b"])) == ({first, second}, {second, third})
            assert len(got["a"]) == 2
            assert [place.name for place in bus.stats().subscribers] == ["b"]
        assert bus.stats().subscribers == []
        with pytest.raises(UsageError, match="give StreamManager the bus"):
            await StreamManager([VENDORS["sina"]]).subscribe(["600519.SH"], callback=print)

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
    with pytest.raises(UsageError, match=r"feed.active must be in \[1, 1\]"):
        StreamManager([VENDORS["sina"]], n_active=2)

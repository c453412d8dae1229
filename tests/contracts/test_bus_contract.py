"""What every bus promises, within a process and between processes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.schema import TICK
from streaming.bus import SIGNALS, EventBus, bar_topic, tick_topic
from streaming.ports import Event, Policy
from streaming.redis_bus import RedisBus

SYMBOLS = ("000001.SZ", "300750.SZ", "600519.SH", "600570.SH")
WHOLE = {symbol: k + 10.0 for k, symbol in enumerate(SYMBOLS)}

Opened = Callable[[], Awaitable[EventBus | RedisBus]]


@pytest.fixture(params=["in process", "redis"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a bus."""

    async def in_process() -> EventBus:
        return EventBus()

    if request.param == "in process":
        return in_process
    url = request.getfixturevalue("redis_server").url
    return lambda: RedisBus.connect(url)


def batch(prices: dict[str, float], seq: int = 1) -> pa.RecordBatch:
    """Ticks of some symbols, with a dictionary of all."""
    codes = pa.array([SYMBOLS.index(symbol) for symbol in prices], pa.int32())
    times = pa.array(np.full(len(prices), seq), TICK.field("quote_time").type)
    last = pa.array([float(price) for price in prices.values()])
    arrays = [pa.DictionaryArray.from_arrays(codes, pa.array(SYMBOLS)), times, *[last] * 7]
    return pa.RecordBatch.from_arrays(arrays, schema=TICK.with_metadata({"seq": str(seq)}))


def prices(event: Event) -> dict[str, float]:
    return dict(zip(event.batch["symbol"].to_pylist(), event.batch["last"].to_pylist(), strict=True))


def seq_of(event: Event) -> int:
    return int(event.batch.schema.metadata[b"seq"])


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not met():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("pattern", ["market.bar.*.1m", "market.bar.*", "market.*", "*", "*.1m"])
def test_a_pattern_for_everybody_gets_the_batch(pattern: str, opened: Opened) -> None:
    async def run() -> None:
        bus, sent = await opened(), batch(WHOLE)
        subscription = bus.subscribe(pattern)
        await bus.publish(bar_topic("1m"), sent)
        await bus.close()
        (event,) = [event async for event in subscription]
        assert event.topic == "market.bar.*.1m"
        assert event.batch.equals(sent)
        assert event.batch.schema.equals(sent.schema, check_metadata=True)
        assert event.batch.validate(full=True) is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("pattern", "topic", "symbols"),
    [
        ("market.bar.600519.SH.1m", "market.bar.600519.SH.1m", ["600519.SH"]),
        ("market.bar.600519.SH.*", "market.bar.600519.SH.1m", ["600519.SH"]),
        ("*.600519.SH.*", "market.bar.600519.SH.1m", ["600519.SH"]),
        ("market.bar.600*", "market.bar.*.1m", ["600519.SH", "600570.SH"]),
        ("market.bar.*.SZ.1m", "market.bar.*.1m", ["000001.SZ", "300750.SZ"]),
    ],
)
def test_a_pattern_for_some_symbols_gets_their_rows(
    pattern: str, topic: str, symbols: list[str], opened: Opened
) -> None:
    async def run() -> None:
        bus = await opened()
        subscription = bus.subscribe(pattern)
        await bus.publish(bar_topic("1m"), batch(WHOLE))
        await bus.publish(bar_topic("1m"), batch(dict.fromkeys(reversed(symbols), 5)))
        await bus.publish(bar_topic("1m"), batch({s: 1 for s in SYMBOLS if s not in symbols}))
        await bus.close()
        first, second = [event async for event in subscription]
        assert first.topic == second.topic == topic
        assert prices(first) == {symbol: WHOLE[symbol] for symbol in symbols}
        assert prices(second) == dict.fromkeys(symbols, 5)
        assert first.batch.schema.equals(TICK)

    asyncio.run(run())


@pytest.mark.parametrize(
    "pattern",
    ["market.bar", "market.bar.600519.SH.5m", "market.tick.*", "market.bar.999999.SH.1m", SIGNALS, "market.b.r.*", ""],
)
def test_other_patterns_hear_nothing_and_that_is_counted(pattern: str, opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        subscription = bus.subscribe(pattern)
        await bus.publish(bar_topic("1m"), batch(WHOLE))
        assert bus.stats().unheard == {"market.bar.*.1m": 1}
        await bus.close()
        assert [event async for event in subscription] == []

    asyncio.run(run())


def test_what_was_published_before_reading_waits_and_what_was_before_subscribing_is_counted(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        await bus.publish(SIGNALS, batch(WHOLE))
        subscription = bus.subscribe(SIGNALS)
        for seq in (1, 2, 3):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        assert bus.stats().unheard == {SIGNALS: 1}
        assert bus.stats().published == {SIGNALS: 4}
        await bus.close()
        assert [seq_of(event) async for event in subscription] == [1, 2, 3]

    asyncio.run(run())


def test_everybody_gets_everything_in_order(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        subscriptions = [bus.subscribe("market.*", size=200) for _ in range(3)]
        for seq in range(100):
            await bus.publish(bar_topic(("1m", "5m")[seq % 2]), batch(WHOLE, seq))
        await bus.close()
        for subscription in subscriptions:
            assert [seq_of(event) async for event in subscription] == list(range(100))

    asyncio.run(run())


def test_block_makes_the_publisher_wait_and_loses_nothing(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        slow = bus.subscribe(SIGNALS, policy=Policy.BLOCK, size=2)

        async def publish(start: int) -> None:
            for seq in range(start, start + 20):
                await bus.publish(SIGNALS, batch(WHOLE, seq))

        publishers = [asyncio.create_task(publish(start)) for start in (0, 100)]
        await until(lambda: bus.stats().subscribers[0].depth == 2)
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in publishers)
        assert sum(bus.stats().published.values()) == 4
        seen = []
        async for event in slow:
            await asyncio.sleep(0)
            seen.append(seq_of(event))
            if len(seen) == 40:
                break
        await asyncio.gather(*publishers)
        for start in (0, 100):
            assert [seq for seq in seen if start <= seq < start + 20] == list(range(start, start + 20))
        assert bus.stats().subscribers[0].lost == 0
        await bus.close()

    asyncio.run(run())


def test_a_publisher_that_waits_goes_on_when_the_subscriber_leaves(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        never = bus.subscribe(SIGNALS, policy=Policy.BLOCK, size=1)
        await bus.publish(SIGNALS, batch(WHOLE, 1))
        stuck = asyncio.create_task(bus.publish(SIGNALS, batch(WHOLE, 2)))
        await asyncio.sleep(0.05)
        assert not stuck.done()
        never.close()
        await asyncio.wait_for(stuck, 2)
        assert [seq_of(event) async for event in never] == [1]
        assert (never.stats().received, never.stats().lost) == (1, 1)
        await bus.publish(SIGNALS, batch(WHOLE, 3))
        assert bus.stats().unheard == {SIGNALS: 1}
        await bus.close()

    asyncio.run(run())


def test_drop_oldest_keeps_the_newest_and_counts_the_rest(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        subscription = bus.subscribe("*", policy=Policy.DROP_OLDEST, size=3, name="screen")
        for seq in range(10):
            await bus.publish(tick_topic(), batch(WHOLE, seq))
        await until(lambda: bus.stats().subscribers[0].received == 10)
        (stats,) = bus.stats().subscribers
        assert (stats.name, stats.pattern, stats.depth, stats.lost) == ("screen", "*", 3, 7)
        await bus.close()
        assert [seq_of(event) async for event in subscription] == [7, 8, 9]

    asyncio.run(run())


def test_latest_keeps_the_newest_row_of_every_symbol(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        subscription = bus.subscribe("market.*", policy=Policy.LATEST, size=2)
        a, b, c, d = SYMBOLS
        await bus.publish(tick_topic(), batch({a: 1, b: 1}, 1))
        await bus.publish(bar_topic("1m"), batch({a: 7}, 2))
        await bus.publish(tick_topic(), batch({b: 2, c: 2}, 3))
        await bus.publish(tick_topic(), batch({d: 3, a: 3}, 4))
        await until(lambda: bus.stats().subscribers[0].received == 4)
        (stats,) = bus.stats().subscribers
        assert (stats.depth, stats.lost, stats.conflated) == (2, 0, 2)
        await bus.close()
        events = {event.topic: event async for event in subscription}
        assert prices(events["market.tick.*"]) == {a: 3, b: 2, c: 2, d: 3}
        assert prices(events["market.bar.*.1m"]) == {a: 7}
        assert seq_of(events["market.tick.*"]) == 4

    asyncio.run(run())


def test_a_callback_that_raises_is_logged_counted_and_called_again(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        bus = await opened()
        good: list[Any] = []
        bad: list[Any] = []

        def fail(event: Event) -> None:
            bad.append(event)
            raise ValueError("this subscriber is broken")

        async def keep(event: Event) -> None:
            await asyncio.sleep(0)
            good.append(event)

        bus.listen(SIGNALS, fail, name="broken")
        bus.listen(SIGNALS, keep, name="sound")
        for seq in range(3):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        await until(lambda: len(good) == len(bad) == 3)
        await asyncio.sleep(0)
        assert {row.name: row.errors for row in bus.stats().subscribers} == {"broken": 3, "sound": 0}
        await bus.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "subscriber broken failed on signal.alert" in caplog.text
    assert "ValueError: this subscriber is broken" in caplog.text


def test_closing_the_bus_lets_callbacks_finish_and_ends_readers(opened: Opened) -> None:
    async def run() -> None:
        bus = await opened()
        done: list[Event] = []

        async def slow(event: Event) -> None:
            await asyncio.sleep(0.002)
            done.append(event)

        bus.listen("*", slow)
        subscription = bus.subscribe("*", size=8)
        reader = asyncio.create_task(anext(aiter(subscription), None))
        for seq in range(5):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        await bus.close()
        assert len(done) == 5
        assert await reader is not None
        late = bus.subscribe("*")
        await bus.publish(SIGNALS, batch(WHOLE))
        assert [event async for event in late] == []
        await bus.close()

    asyncio.run(run())

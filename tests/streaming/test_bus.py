"""The bus: who hears what, and what happens to those who are slow, late or faulty."""

import asyncio
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.schema import TICK
from streaming.bus import SIGNALS, EventBus, bar_topic, tick_topic
from streaming.ports import Event, Policy

SYMBOLS = ("000001.SZ", "300750.SZ", "600519.SH", "600570.SH")


def batch(prices: dict[str, float], seq: int = 1) -> pa.RecordBatch:
    """Ticks of some symbols, with a dictionary of all."""
    codes = pa.array([SYMBOLS.index(symbol) for symbol in prices], pa.int32())
    n = len(prices)
    columns = [pa.array([float(price)] * 1, pa.float64()) for price in prices.values()]
    last = pa.concat_arrays(columns)
    times = pa.array(np.full(n, seq), TICK.field("quote_time").type)
    arrays = [pa.DictionaryArray.from_arrays(codes, pa.array(SYMBOLS)), times, *[last] * 7]
    return pa.RecordBatch.from_arrays(arrays, schema=TICK.with_metadata({"seq": str(seq)}))


def prices(event: Event) -> dict[str, float]:
    return dict(zip(event.batch["symbol"].to_pylist(), event.batch["last"].to_pylist(), strict=True))


WHOLE = {symbol: k + 10.0 for k, symbol in enumerate(SYMBOLS)}


@pytest.mark.parametrize("pattern", ["market.bar.*.1m", "market.bar.*", "market.*", "*", "*.1m"])
def test_a_pattern_for_everybody_gets_the_very_batch(pattern: str) -> None:
    async def run() -> None:
        bus, sent = EventBus(), batch(WHOLE)
        subscription = bus.subscribe(pattern)
        await bus.publish(bar_topic("1m"), sent)
        await bus.close()
        (event,) = [event async for event in subscription]
        assert event.topic == "market.bar.*.1m"
        assert event.batch is sent

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
def test_a_pattern_for_some_symbols_gets_their_rows(pattern: str, topic: str, symbols: list[str]) -> None:
    async def run() -> None:
        bus = EventBus()
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
    [
        "market.bar",
        "market.bar.600519.SH.5m",
        "market.tick.*",
        "market.bar.999999.SH.1m",
        "signal.alert",
        "market.b.r.*",
        "",
    ],
)
def test_other_patterns_hear_nothing_and_that_is_counted(pattern: str) -> None:
    async def run() -> None:
        bus = EventBus()
        subscription = bus.subscribe(pattern)
        await bus.publish(bar_topic("1m"), batch(WHOLE))
        assert bus.stats().unheard == {"market.bar.*.1m": 1}
        await bus.close()
        assert [event async for event in subscription] == []

    asyncio.run(run())


def test_a_symbols_rows_are_cut_without_a_copy_and_follow_a_new_dictionary() -> None:
    async def run() -> None:
        bus, sent = EventBus(), batch(WHOLE)
        subscription = bus.subscribe(tick_topic("600519.SH"))
        await bus.publish(tick_topic(), sent)
        other = pa.RecordBatch.from_pylist(
            [dict.fromkeys(TICK.names, 1) | {"symbol": "600519.SH", "last": last, "quote_time": 0} for last in (3, 4)],
            schema=TICK,
        )
        await bus.publish(tick_topic(), other)
        await bus.close()
        first, second = [event async for event in subscription]
        ours, whole = (b["last"].buffers()[1] for b in (first.batch, sent))
        assert ours.address == whole.address
        assert second.batch["last"].to_pylist() == [3, 4]

    asyncio.run(run())


def test_what_was_published_before_reading_waits_in_the_queue() -> None:
    async def run() -> None:
        bus = EventBus()
        await bus.publish(SIGNALS, batch(WHOLE))
        subscription = bus.subscribe(SIGNALS)
        for seq in (1, 2, 3):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        assert bus.stats().unheard == {SIGNALS: 1}
        await bus.close()
        assert [event.batch.schema.metadata[b"seq"] async for event in subscription] == [b"1", b"2", b"3"]

    asyncio.run(run())


def test_block_makes_the_publisher_wait_and_loses_nothing() -> None:
    async def run() -> None:
        bus = EventBus()
        slow = bus.subscribe(SIGNALS, policy=Policy.BLOCK, size=2)
        other = bus.subscribe(SIGNALS, policy=Policy.DROP_OLDEST, size=100)

        async def publish(start: int) -> None:
            for seq in range(start, start + 20):
                await bus.publish(SIGNALS, batch(WHOLE, seq))

        publishers = [asyncio.create_task(publish(start)) for start in (0, 100)]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in publishers)
        assert bus.stats().published == {SIGNALS: 4}
        assert [row.received for row in bus.stats().subscribers] == [2, 4], "nobody else waits"
        seen = []
        async for event in slow:
            await asyncio.sleep(0)
            seen.append(int(event.batch.schema.metadata[b"seq"]))
            if len(seen) == 40:
                break
        await asyncio.gather(*publishers)
        for start in (0, 100):
            assert [seq for seq in seen if start <= seq < start + 20] == list(range(start, start + 20))
        other.close()

    asyncio.run(run())


def test_who_waits_to_publish_comes_before_who_comes_later() -> None:
    async def run() -> None:
        bus = EventBus()
        events = aiter(bus.subscribe(SIGNALS, policy=Policy.BLOCK, size=1))
        await bus.publish(SIGNALS, batch(WHOLE, 1))
        waiting = asyncio.create_task(bus.publish(SIGNALS, batch(WHOLE, 2)))
        await asyncio.sleep(0)
        assert (await anext(events)).batch.schema.metadata[b"seq"] == b"1"

        async def read() -> list[bytes]:
            return [(await anext(events)).batch.schema.metadata[b"seq"] for _ in range(2)]

        reader = asyncio.create_task(read())
        # There is room now, but the other publisher has not run yet.
        await bus.publish(SIGNALS, batch(WHOLE, 3))
        assert await reader == [b"2", b"3"]
        await waiting

    asyncio.run(run())


def test_a_publisher_that_waits_goes_on_when_the_subscriber_leaves() -> None:
    async def run() -> None:
        bus = EventBus()
        never = bus.subscribe(SIGNALS, policy=Policy.BLOCK, size=1)
        await bus.publish(SIGNALS, batch(WHOLE, 1))
        stuck = asyncio.create_task(bus.publish(SIGNALS, batch(WHOLE, 2)))
        await asyncio.sleep(0.01)
        assert not stuck.done()
        never.close()
        await asyncio.wait_for(stuck, 1)
        assert (never.stats().received, never.stats().lost) == (1, 1)
        await bus.publish(SIGNALS, batch(WHOLE, 3))
        assert bus.stats().unheard == {SIGNALS: 1}
        assert [event.batch.schema.metadata[b"seq"] async for event in never] == [b"1"]

    asyncio.run(run())


def test_drop_oldest_keeps_the_newest_and_counts_the_rest() -> None:
    async def run() -> None:
        bus = EventBus()
        subscription = bus.subscribe("*", policy=Policy.DROP_OLDEST, size=3, name="screen")
        for seq in range(10):
            await bus.publish(tick_topic(), batch(WHOLE, seq))
        (stats,) = bus.stats().subscribers
        assert (stats.name, stats.pattern, stats.depth, stats.received, stats.lost) == ("screen", "*", 3, 10, 7)
        await bus.close()
        assert [event.batch.schema.metadata[b"seq"] async for event in subscription] == [b"7", b"8", b"9"]

    asyncio.run(run())


def test_latest_keeps_the_newest_row_of_every_symbol() -> None:
    async def run() -> None:
        bus = EventBus()
        subscription = bus.subscribe("market.*", policy=Policy.LATEST, size=2)
        a, b, c, d = SYMBOLS
        await bus.publish(tick_topic(), batch({a: 1, b: 1}, 1))
        await bus.publish(bar_topic("1m"), batch({a: 7}, 2))
        await bus.publish(tick_topic(), batch({b: 2, c: 2}, 3))
        await bus.publish(tick_topic(), batch({d: 3, a: 3}, 4))
        (stats,) = bus.stats().subscribers
        assert (stats.depth, stats.lost, stats.conflated) == (2, 0, 2)
        await bus.close()
        events = {event.topic: event async for event in subscription}
        assert prices(events["market.tick.*"]) == {a: 3, b: 2, c: 2, d: 3}
        assert prices(events["market.bar.*.1m"]) == {a: 7}
        assert events["market.tick.*"].batch.schema.metadata[b"seq"] == b"4"

    asyncio.run(run())


def test_latest_of_signals_is_the_newest_batch_and_of_too_many_topics_the_newest_topics() -> None:
    async def run() -> None:
        bus = EventBus()
        subscription = bus.subscribe("*", policy=Policy.LATEST, size=1)
        for seq in (1, 2):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        assert bus.stats().subscribers[0].conflated == 4
        await bus.publish(tick_topic(), batch(WHOLE, 3))
        assert bus.stats().subscribers[0].lost == 1
        await bus.close()
        assert [event.topic async for event in subscription] == ["market.tick.*"]

    asyncio.run(run())


def test_a_callback_that_raises_is_logged_counted_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        bus = EventBus()
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
        await asyncio.sleep(0.01)
        assert {row.name: row.errors for row in bus.stats().subscribers} == {"broken": 3, "sound": 0}
        await bus.close()
        assert len(good) == len(bad) == 3

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "subscriber broken failed on signal.alert" in caplog.text
    assert "ValueError: this subscriber is broken" in caplog.text


def test_closing_the_bus_lets_callbacks_finish_and_ends_readers() -> None:
    async def run() -> None:
        bus = EventBus()
        done: list[Event] = []

        async def slow(event: Event) -> None:
            await asyncio.sleep(0.002)
            done.append(event)

        bus.listen("*", slow)
        reader = asyncio.create_task(anext(aiter(bus.subscribe("*", size=8)), None))
        for seq in range(5):
            await bus.publish(SIGNALS, batch(WHOLE, seq))
        await bus.close()
        assert len(done) == 5
        assert await reader is not None
        late = bus.subscribe("*")
        await bus.publish(SIGNALS, batch(WHOLE))
        assert [event async for event in late] == []

    asyncio.run(run())

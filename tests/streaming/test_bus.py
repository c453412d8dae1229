"""The bus within a process: what it promises beyond the contract of every bus."""

import asyncio

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

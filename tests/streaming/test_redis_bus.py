"""What the bus over Redis does when processes and Redis itself come and go; the rest is in the buses' contract."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.errors import BusError, UsageError
from streaming.bus import SIGNALS, bar_topic, tick_topic
from streaming.ports import Event, Policy
from streaming.redis_bus import RedisBus
from streaming.redis_link import RedisLink, masked
from streaming.redis_reader import RedisQueue

ROOT = Path(__file__).parents[2]


def batch(number: int, **about: Any) -> pa.RecordBatch:
    symbols = pa.array(["600519.SH", "000001.SZ"]).dictionary_encode()
    made = pa.record_batch({"symbol": symbols, "last": [float(number)] * 2})
    return made.replace_schema_metadata({name: str(value) for name, value in about.items()})


def number(event: Event) -> int:
    return int(event.batch["last"][0].as_py())


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.005)


async def take(subscription: RedisQueue, n: int) -> list[int]:
    """The next n events; the last of them is not acknowledged."""
    numbers: list[int] = []
    async with asyncio.timeout(10):
        async for event in subscription:
            numbers.append(number(event))
            if len(numbers) == n:
                break
    return numbers


async def kill(bus: RedisBus) -> None:
    """End a bus as its process's death would: nothing is said to Redis."""
    tasks = [bus._guard, *(queue.task for queue in bus._queues)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bus._link.close()


@asynccontextmanager
async def buses(url: str, n: int = 2) -> AsyncIterator[list[RedisBus]]:
    made = [await RedisBus.connect(url, lease_s=0.3) for _ in range(n)]
    try:
        yield made
    finally:
        for bus in made:
            await bus.close()


def test_who_takes_over_from_a_dead_reader_has_what_was_not_acknowledged_and_then_the_rest(redis_server: Any) -> None:
    async def run() -> None:
        async with buses(redis_server.url) as (feed, second):
            dying = await RedisBus.connect(redis_server.url, lease_s=0.3)
            reader = dying.subscribe("market.bar.*", name="scan", size=4)
            await reader.entered.wait()
            for n in range(10):
                await feed.publish(bar_topic("1m"), batch(n))
            assert await take(reader, 3) == [0, 1, 2]
            await asyncio.sleep(0.05)  # the first two are acknowledged meanwhile
            await kill(dying)
            again = second.subscribe("market.bar.*", name="scan", size=4)
            assert await take(again, 8) == [2, 3, 4, 5, 6, 7, 8, 9]
            assert (again.stats().lost, again.stats().duplicates) == (0, 0)

    asyncio.run(run())


def test_a_second_reader_waits_until_the_first_leaves(redis_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with buses(redis_server.url, 3) as (feed, one, two):
            first = one.subscribe("market.bar.*", name="scan")
            await first.entered.wait()
            second = two.subscribe("market.bar.*", name="scan")
            await until(lambda: "another process reads as scan" in caplog.text)
            await feed.publish(bar_topic("1m"), batch(1))
            await feed.publish(bar_topic("1m"), batch(2))
            taken = []
            async for event in first:
                taken.append(number(event))
                if len(taken) == 2:
                    first.close()
            assert taken == [1, 2]
            await feed.publish(bar_topic("1m"), batch(3))
            assert await take(second, 1) == [3]

    asyncio.run(run())


def test_who_was_taken_for_dead_is_told(redis_server: Any) -> None:
    async def run() -> None:
        async with buses(redis_server.url, 1) as (bus,):
            reader = bus.subscribe("market.bar.*", name="scan")
            await reader.entered.wait()
            await bus._link.do("SET", "mystocks:market:reader:scan", "somebody else")
            with pytest.raises(BusError, match="another process reads as scan at redis://"):
                await take(reader, 1)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["restart", "forget"])
def test_what_redis_forgets_the_publisher_sends_again_and_nobody_has_it_twice(how: str, redis_server: Any) -> None:
    async def run() -> None:
        async with buses(redis_server.url) as (feed, scan):
            reader = scan.subscribe("market.bar.*", name="scan", size=4)
            heard = scan.subscribe("market.bar.*", size=100)
            await asyncio.gather(reader.entered.wait(), heard.entered.wait())
            for n in range(8):
                await feed.publish(bar_topic("1m"), batch(n))
            events = aiter(reader)
            got = [number(await anext(events)) for _ in range(3)]
            await until(lambda: heard.stats().received == 8)
            if how == "restart":
                redis_server.stop()
                redis_server.start()
            else:
                redis_server.forget()
            await until(lambda: feed.resent)  # although nothing is published meanwhile
            for n in range(8, 12):
                await feed.publish(bar_topic("1m"), batch(n))
            async with asyncio.timeout(10):
                got += [number(await anext(events)) for _ in range(9)]
            assert got == list(range(12))
            assert reader.stats().lost == 0
            await until(lambda: heard.stats().received == 12)
            assert heard.stats().duplicates > 0

    asyncio.run(run())


def test_a_publisher_waits_for_redis_and_says_so_without_the_password(
    redis_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with buses(redis_server.url) as (feed, scan):
            await feed.expect(SIGNALS, name="serve")
            reader = scan.subscribe(SIGNALS, name="serve")
            await reader.entered.wait()
            redis_server.stop()
            waiting = asyncio.create_task(feed.publish(SIGNALS, batch(1)))
            await until(lambda: "is away" in caplog.text)
            assert not waiting.done()
            redis_server.start()
            await asyncio.wait_for(waiting, 10)
            assert await take(reader, 1) == [1]
            assert feed.reconnects == 1

    asyncio.run(run())
    assert f"Redis at {redis_server.url} is back after" in caplog.text


def test_the_same_event_from_two_publishers_is_one(redis_server: Any) -> None:
    async def run() -> None:
        async with buses(redis_server.url, 3) as (one, two, to):
            reader = to.subscribe("market.*", size=100)
            await reader.entered.wait()
            for publisher in (one, two):
                await publisher.publish(tick_topic(), batch(1, provider="sina", seq=7, received_ns=1))
                await publisher.publish(bar_topic("1m"), batch(2, frame="1m", bar_end=5, revision=0))
                await publisher.publish(bar_topic("5m"), batch(3, frame="5m", bar_end=5, revision=0))
                await publisher.publish(bar_topic("1m"), batch(4))
                await publisher.publish(bar_topic("1d"), batch(7, frame="1d", bar_end=9, revision=0, developing=1))
            await one.publish(tick_topic(), batch(5, provider="sina", seq=7, received_ns=2))
            for publisher, n in ((one, 6), (two, 6), (two, 8)):
                await publisher.publish(bar_topic("1m"), batch(n, frame="1m", bar_end=5, revision=1))
            await until(lambda: reader.stats().received == 10)
            assert sorted(await take(reader, 10)) == [1, 2, 3, 4, 4, 5, 6, 7, 7, 8]
            assert reader.stats().duplicates == 4

    asyncio.run(run())


def test_what_is_kept_for_a_reader_to_come_and_what_was_trimmed_before_it_came(redis_server: Any) -> None:
    async def run() -> None:
        async with buses(redis_server.url) as (feed, scan):
            await feed.expect("market.bar.*", name="scan")
            for n in range(10):
                await feed.publish(bar_topic("1m"), batch(n))
            assert feed.stats().unheard == {}
            await feed._link.do("XTRIM", "mystocks:market:market.bar", "MAXLEN", 4)
            reader = scan.subscribe("market.bar.*", name="scan")
            assert await take(reader, 4) == [6, 7, 8, 9]
            assert reader.stats().lost == 6

    asyncio.run(run())


def test_a_stream_keeps_no_more_than_it_should(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with buses(redis_server.url, 1) as (bus,):
            bus.subscribe(tick_topic(), policy=Policy.DROP_OLDEST, size=4)
            for n in range(1000):
                await bus.publish(tick_topic(), batch(n))
            assert await bus._link.do("XLEN", "mystocks:market:market.tick") < 256 + 100

    asyncio.run(run())


def test_a_lasting_subscription_makes_publishers_wait_also_while_nobody_reads(
    redis_server: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.redis_bus.PATIENCE_S", 0.05)

    async def run() -> None:
        feed = await RedisBus.connect(redis_server.url, backlog=3)
        scan = await RedisBus.connect(redis_server.url)
        await feed.expect("market.bar.*", name="scan")
        for n in range(3):
            await feed.publish(bar_topic("1m"), batch(n))
        stuck = asyncio.create_task(feed.publish(bar_topic("1m"), batch(3)))
        await until(lambda: "waits for scan, who has 4 unread" in caplog.text)
        assert not stuck.done()
        reader = scan.subscribe("market.bar.*", name="scan")
        assert await take(reader, 4) == [0, 1, 2, 3]
        await asyncio.wait_for(stuck, 5)
        await feed.close()
        await scan.close()

    asyncio.run(run())


def test_a_subscription_whose_process_died_stops_nobody(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.redis_bus.PATIENCE_S", 0.4)

    async def run() -> None:
        async with buses(redis_server.url, 1) as (feed,):
            dying = await RedisBus.connect(redis_server.url, lease_s=0.2)
            reader = dying.subscribe(SIGNALS, size=1)
            await reader.entered.wait()
            await kill(dying)
            await feed.publish(SIGNALS, batch(1))
            await asyncio.wait_for(feed.publish(SIGNALS, batch(2)), 5)
            await feed.publish(SIGNALS, batch(3))
            assert feed.stats().unheard == {SIGNALS: 1}

    asyncio.run(run())


def test_who_is_told_to_end_waits_for_nobody(redis_server: Any) -> None:
    async def run() -> None:
        feed = await RedisBus.connect(redis_server.url, backlog=1)
        await feed.expect("market.bar.*", name="scan")
        await feed.publish(bar_topic("1m"), batch(1))
        stuck = asyncio.create_task(feed.publish(bar_topic("1m"), batch(2)))
        await asyncio.sleep(0.05)
        assert not stuck.done()
        feed.release()
        await asyncio.wait_for(stuck, 5)
        assert await feed._link.do("XLEN", "mystocks:market:market.bar") == 2
        redis_server.stop()
        with pytest.raises(BusError, match="is away, and is not waited for any more"):
            await asyncio.wait_for(feed.publish(bar_topic("1m"), batch(3)), 5)
        await asyncio.wait_for(feed.close(), 10)

    asyncio.run(run())


def test_no_redis_is_said_with_what_to_do(redis_server: Any) -> None:
    redis_server.stop()
    url = redis_server.url.replace("redis://", "redis://me:secret@")
    with pytest.raises(BusError, match=r"no Redis answers at redis://me:\*\*\*@127.0.0.1.*Start one \(redis-server\)"):
        asyncio.run(RedisBus.connect(url))
    for wrong in ("http://x", "redis", "redis://localhost:port"):
        with pytest.raises(UsageError, match=r"bus.url must be redis://"):
            asyncio.run(RedisBus.connect(wrong))
    assert masked("redis://:secret@h:1/0") == "redis://:***@h:1/0"
    assert masked("redis://h:1/0?password=secret&db=2") == "redis://h:1/0?password=***"


def test_a_redis_that_wants_a_password_is_said(redis_server: Any) -> None:
    async def run() -> None:
        link = RedisLink(redis_server.url)
        await link.do("CONFIG", "SET", "requirepass", "secret")
        try:
            with pytest.raises(BusError, match="Put the user and password into the URL"):
                await RedisBus.connect(redis_server.url)
            bus = await RedisBus.connect(redis_server.url.replace("//", "//:secret@"))
            await bus.close()
        finally:
            await link.do("CONFIG", "SET", "requirepass", "")
            await link.close()

    asyncio.run(run())


def test_without_the_package_it_is_said_how_to_get_it() -> None:
    program = "import sys; sys.modules['redis'] = None; import streaming.redis_bus"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "UsageError: a bus over Redis needs the package redis" in done.stderr
    assert "pip install 'mystocks-scan[redis]', or leave out --bus" in done.stderr


def test_topics_of_no_kind_are_refused(redis_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with buses(redis_server.url, 1) as (bus,):
            with pytest.raises(UsageError, match=r"begin with market.tick, market.bar, signal.alert; got 'news.all'"):
                await bus.publish("news.all", batch(1))

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert caplog.text == ""

"""Vendors that are lost, mute, stale or garbled: what a connection makes of it, and with which reason it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

from data.errors import BannedError, FeedError
from streaming.feeds.connections import open_connection
from streaming.feeds.socket import SocketConnection
from tests.streaming.feeds.fakes.connecting import (
    a_day,
    broken_after,
    check_totals,
    dropped,
    every,
    fake_of,
    n_batches,
    never,
    opened,
    polled,
    pushed,
    quick,
    read,
    run,
    to_the_end,
)
from tests.streaming.feeds.fakes.servers import Faults

LOST = {
    "reset": Faults(reset=True),
    "blackhole": Faults(blackhole=True),
    "slow bytes": Faults(slow_s=0.05),
    "truncated": Faults(truncated=True),
    "an error of the server": Faults(status=502),
}


@polled
@pytest.mark.parametrize("fault", LOST)
def test_a_poll_that_comes_to_nothing_ends_the_connection_with_its_reason(name: str, fault: str) -> None:
    """The user sees the reason; what is polled after it is well again makes the day's totals right."""
    day = a_day()
    reasons = {"reset": "truncated|connection", "truncated": "truncated", "an error of the server": "http_502"}

    async def work() -> None:
        async with fake_of(name, day, follow=True) as fake:
            batches = await read(opened(name, fake), n_batches(20))
            fake.faults = LOST[fault]
            broken = opened(name, fake, timeout_s=0.3)
            with pytest.raises(FeedError, match=f"{name} is lost .({reasons.get(fault, 'timeout')})"):
                await read(broken, n_batches(1))
            assert sum(broken.traffic.dropped.values()) == 1
            fake.faults = Faults()
            fake.day.step(20)
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


@polled
@pytest.mark.parametrize("ban", [Faults(ban="403"), Faults(ban="page"), Faults(status=456)], ids=["403", "page", "456"])
def test_a_ban_ends_a_poll_at_once(name: str, ban: Faults) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = ban
            with pytest.raises(BannedError, match=f"{name} has banned this address"):
                await read(open_connection(quick(name, batch=5), fake.day.symbols, url=fake.url), n_batches(1))
            assert len(fake.asked) <= 4  # what was on its way; nothing after the answer

    run(work)


def test_sina_without_its_referer_is_a_ban() -> None:
    async def work() -> None:
        async with fake_of("sina", a_day()) as fake:
            with pytest.raises(BannedError, match="HTTP 403, 'Kinsoku jikou desu!'"):
                await read(open_connection(quick("sina", headers={}), fake.day.symbols, url=fake.url), n_batches(1))

    run(work)


@polled
def test_requests_that_fail_now_and_then_cost_one_round_of_their_symbols(name: str) -> None:
    """Nothing but a count is seen of them: the same symbols come with the next round."""

    async def work() -> None:
        async with fake_of(name, a_day(), follow=True) as fake:
            connection = open_connection(
                quick(name, batch=5), fake.day.symbols, url=fake.url, timeout_s=5, admit=bad(fake, {2, 7, 11, 15})
            )
            batches = await read(connection, n_batches(20))
            assert connection.traffic.dropped == {"http_502": 4}
            assert {s for batch in batches for s in batch["symbol"].to_pylist()} == set(fake.day.symbols)

    run(work)


def bad(fake: Any, which: set[int]) -> Callable[[], Awaitable[None]]:
    """These requests are answered with an error, counted from 1."""
    asked = 0

    async def admit() -> None:
        nonlocal asked
        asked = mine = asked + 1
        while len(fake.asked) + 1 < mine:  # one after the other, so that each fault meets its own
            await asyncio.sleep(0.001)
        fake.faults = Faults(status=502) if mine in which else Faults()

    return admit


@every
def test_a_vendor_that_is_mute_gives_no_ticks_and_frames_say_so(name: str) -> None:
    """Its connection stays: the watchdog of whoever opened it sees frames without rows, or none."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(mute=True)
            connection = opened(name, fake)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await read(connection, lambda got: got[-1].num_rows > 0)
            assert connection.traffic.rows == 0
            fake.faults = Faults()
            check_totals(name, day, await to_the_end(name, fake))

    run(work)


@every
def test_a_vendor_that_is_stale_is_alive_but_its_quotes_grow_old(name: str) -> None:
    """Frames come, rows with newer times do not; afterwards totals are right."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await read(opened(name, fake), n_batches(3), day.step)
            fake.faults = Faults(stale=True)
            at = day.at
            frozen = opened(name, fake)
            if name == "eastmoney":  # deltas of nothing are not sent
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await read(frozen, n_batches(2), day.step)
            else:
                got = await read(frozen, n_batches(4), day.step)
                assert [batch.num_rows for batch in got[1:]] == [0, 0, 0]
                batches += got
            assert day.at > at
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


@pytest.mark.parametrize("name", ["sina", "sina_ws", "tencent"])
def test_garbage_is_dropped_by_line_and_counted_and_the_rest_of_its_frame_lives(name: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(garbage=True)
            connection = opened(name, fake)
            batches = await read(connection, n_batches(12), day.step)
            assert sum(connection.traffic.dropped.values()) > 20
            assert connection.traffic.dropped == dropped(batches)
            whole = set(day.symbols[::2])
            assert whole <= set(batches[0]["symbol"].to_pylist())
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


def test_an_event_that_cannot_be_read_ends_the_stream_for_what_follows_builds_on_it() -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of("eastmoney", day) as fake:
            batches: list[pa.RecordBatch] = []
            with pytest.raises(FeedError, match="garbled"):
                await read(opened("eastmoney", fake), never, broken_after(1, fake, garbage=True), batches)
            assert dropped(batches) == {"line": 1}
            fake.faults = Faults()
            batches += await to_the_end("eastmoney", fake)
        check_totals("eastmoney", day, batches)

    run(work)


@pushed
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_stream_that_breaks_off_says_so(name: str, fault: str) -> None:
    day = a_day()
    if (name, fault) == ("sina_ws", "truncated"):
        fault = "reset"

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches: list[pa.RecordBatch] = []
            with pytest.raises(FeedError, match=f"{name} is lost"):
                await read(opened(name, fake), never, broken_after(5, fake, **{fault: True}), batches)
            fake.faults = Faults()
            day.step(20)
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


def test_a_socket_that_answers_no_ping_is_given_up() -> None:
    async def work() -> None:
        async with fake_of("sina_ws", a_day()) as fake:
            connection = SocketConnection(quick("sina_ws"), fake.day.symbols, url=fake.url, ping_s=0.1)
            with pytest.raises(FeedError, match="keepalive ping timeout"):
                await read(connection, never, broken_after(1, fake, blackhole=True))

    run(work)


@pushed
def test_a_stream_that_is_refused_says_why(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(ban="403")
            with pytest.raises(BannedError, match="HTTP 403"):
                await read(opened(name, fake), n_batches(1))
            fake.faults = Faults(status=502)
            with pytest.raises(FeedError, match="http_502"):
                await read(opened(name, fake), n_batches(1))

    run(work)


@every
def test_a_vendor_that_is_not_there(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            url = fake.url
        with pytest.raises(FeedError, match=f"{name} is lost"):
            await read(open_connection(quick(name), fake.day.symbols, url=url, timeout_s=1), n_batches(1))

    run(work)

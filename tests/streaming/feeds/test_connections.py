"""Connections to vendors, against servers that speak the vendors' bytes and go wrong in every way of the catalogue.

The laws: a clean run gives the simulator's own bars to the bit. What comes twice or late changes no bar. Whatever was
lost, once a connection is well again the day's totals, extremes and last prices are right.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from data.schema import TICK
from data.simulator import SimulatedMarket
from streaming.feeds.connections import open_connection
from streaming.feeds.vendors import VENDORS
from streaming.feeds.wire import Parsed
from tests.streaming.feeds.fakes import spelling
from tests.streaming.feeds.fakes.connecting import (
    POLLED,
    a_day,
    check_bars,
    check_totals,
    dropped,
    every,
    fake_of,
    n_batches,
    opened,
    polled,
    pushed,
    quick,
    read,
    run,
    seen_all,
    to_the_end,
)
from tests.streaming.feeds.fakes.day import FakeDay, bars_of
from tests.streaming.feeds.fakes.servers import Faults


@every
def test_a_clean_run_over_the_wire_gives_the_simulators_own_bars(name: str) -> None:
    day = a_day(4)

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await to_the_end(name, fake)
        assert dropped(batches) == {}
        assert all(batch.schema.equals(TICK) for batch in batches)
        abouts = [batch.schema.metadata for batch in batches]
        assert [int(about[b"seq"]) for about in abouts] == list(range(1, len(batches) + 1))
        assert {about[b"provider"] for about in abouts} == {name.encode()}
        received = [int(about[b"received_ns"]) for about in abouts]
        assert received == sorted(received)
        check_bars(name, bars_of(day.symbols, batches), day.bars())

    run(work)


@cache
def a_whole_day() -> FakeDay:
    market = SimulatedMarket(6, seed=5)
    day = FakeDay(market, market.sessions[1])
    day.step(len(day.batches))
    return day


def whole_day(name: str, day: FakeDay) -> list[bytes]:
    """Each minute of a day as one frame of a vendor, twenty lines a symbol."""
    spell: dict[str, Callable[[Any], bytes]] = {
        "sina": spelling.sina_polled,
        "tencent": spelling.tencent,
        "eastmoney": lambda quote: json.dumps({"data": {"diff": [spelling.eastmoney(quote)]}}).encode() + b"\n",
    }
    lines = [b"".join(map(spell[name], day.quotes(at).values())) for at in range(len(day.batches))]
    return [b"".join(lines[k : k + 20]) for k in range(0, len(lines), 20)]


@pytest.mark.parametrize("name", ["sina", "tencent", "eastmoney"])
def test_a_whole_day_of_bytes_gives_the_simulators_own_bars(name: str) -> None:
    day = a_whole_day()
    vendor = VENDORS[name]
    universe = vendor.universe(day.symbols)
    parsed: list[Parsed] = [vendor.parse(frame, universe) for frame in whole_day(name, day)]
    assert sum((p.dropped for p in parsed), parsed[0].dropped) == {}
    check_bars(name, bars_of(day.symbols, [p.ticks for p in parsed]), day.bars())


@every
@pytest.mark.parametrize("fault", ["duplicate", "out_of_order"])
def test_what_comes_twice_or_late_changes_no_bar(name: str, fault: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(**{fault: True})
            connection = opened(name, fake)
            batches = await read(connection, lambda _: day.over, pump)
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        assert sum(batch.num_rows for batch in batches) > len(day.symbols) * 20
        check_bars(name, bars_of(day.symbols, batches), day.bars())

    turns = 0

    def pump() -> None:
        # Every second answer to a poll is a late one, so it is polled twice at each snapshot.
        nonlocal turns
        turns += 1
        day.step(turns % 2 if fault == "out_of_order" and name in POLLED else 1)

    run(work)


@every
def test_totals_that_start_anew_are_ignored(name: str) -> None:
    """The volume of a source whose day has fallen back is less than what was seen: no bar takes it."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await read(opened(name, fake), n_batches(20), day.step)
            fake.faults = Faults(volume_reset=True)
            batches += await read(opened(name, fake), n_batches(5), day.step)
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


@pushed
def test_slow_bytes_are_put_together(name: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(slow_s=0.0001)
            check_totals(name, day, await to_the_end(name, fake))

    run(work)


@pytest.mark.parametrize(("first", "second"), [("sina", "tencent"), ("sina_ws", "sina"), ("tencent", "eastmoney")])
def test_to_another_vendor_and_back_no_minute_is_lost(first: str, second: str) -> None:
    """Both show the same day: with every snapshot seen by one of them the bars are the clean run's."""
    day = a_day()

    async def work() -> None:
        async with fake_of(first, day) as fake, fake_of(second, day) as other:
            batches = await read(opened(first, fake), n_batches(12), day.step)
            fake.faults = Faults(reset=True)
            batches += await read(opened(second, other), n_batches(12), day.step)
            fake.faults = Faults()
            batches += await read(opened(first, fake), seen_all(day), day.step)
        wanted = day.bars()
        got = bars_of(day.symbols, batches)
        whole = ["amount"] if "tencent" in (first, second) else []
        assert got.drop_columns(whole).equals(wanted.drop_columns(whole))
        assert np.abs(got["amount"].to_numpy() - wanted["amount"].to_numpy()).max() <= (1.0 if whole else 0.0)

    run(work)


@every
def test_close_ends_it_also_while_it_waits(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(mute=True)
            connection = open_connection(replace(VENDORS[name], cadence_s=3600), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(99)))
            await asyncio.sleep(0.1)
            assert not reader.done()
            await connection.close()
            await connection.close()
            assert len(await asyncio.wait_for(reader, 5)) <= 1

    run(work)


@polled
def test_close_ends_a_poll_that_waits_for_its_answer(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(blackhole=True)
            connection = open_connection(quick(name), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(1)))
            await asyncio.sleep(0.1)
            await connection.close()
            assert await asyncio.wait_for(reader, 5) == []

    run(work)


def test_sinas_socket_is_kept_alive_by_an_empty_text() -> None:
    async def work() -> None:
        async with fake_of("sina_ws", a_day()) as fake:
            connection = open_connection(quick("sina_ws", keepalive_s=0.02), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(9)))
            while len(fake.texts) < 2:
                await asyncio.sleep(0.01)
            assert set(fake.texts) == {""}
            await connection.close()
            assert len(await reader) == 1
        assert VENDORS["sina_ws"].keepalive_s == 60

    run(work)

"""Connections to the fakes, and reading them until something is seen."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.simulator import SimulatedMarket
from streaming.feeds.connections import open_connection
from streaming.feeds.reading import VendorConnection
from streaming.feeds.vendors import VENDORS, Vendor
from tests.streaming.feeds.fakes.day import FakeDay, totals_of
from tests.streaming.feeds.fakes.servers import FakeEastmoney, FakeSina, FakeSinaSocket, FakeTencent, Faults

MARKET = SimulatedMarket(20, seed=3)
MINUTES = 2
FAKES: dict[str, Any] = {
    "sina": FakeSina,
    "sina_ws": FakeSinaSocket,
    "tencent": FakeTencent,
    "eastmoney": FakeEastmoney,
}
POLLED, PUSHED = ("sina", "tencent"), ("sina_ws", "eastmoney")
every = pytest.mark.parametrize("name", FAKES)
polled, pushed = pytest.mark.parametrize("name", POLLED), pytest.mark.parametrize("name", PUSHED)


def a_day(minutes: int = MINUTES) -> FakeDay:
    return FakeDay(MARKET, minutes=minutes)


def quick(name: str, **changes: Any) -> Vendor:
    return replace(VENDORS[name], cadence_s=0.0, **changes)


def opened(name: str, fake: Any, symbols: Sequence[str] = (), **about: Any) -> VendorConnection:
    return open_connection(quick(name), symbols or fake.day.symbols, url=fake.url, **about)


async def read(
    connection: VendorConnection,
    until: Callable[[list[pa.RecordBatch]], bool],
    pump: Callable[[], None] | None = None,
    into: list[pa.RecordBatch] | None = None,
) -> list[pa.RecordBatch]:
    """Batches until there are enough; `pump` is called after each, to make the day go on. `into` gets them at once."""
    got: list[pa.RecordBatch] = [] if into is None else into
    async with asyncio.timeout(20), aclosing(connection.batches()) as batches:
        async for batch in batches:
            got.append(batch)
            if until(got):
                break
            if pump is not None:
                pump()
    return got


def seen_all(day: FakeDay) -> Callable[[list[pa.RecordBatch]], bool]:
    """Whether every symbol's quote of the last snapshot is among the batches."""
    found = set[str]()
    read = 0

    def enough(got: list[pa.RecordBatch]) -> bool:
        nonlocal read
        for batch in got[read:]:
            times = batch["quote_time"].cast(pa.int64()).to_numpy()
            symbols = batch["symbol"].cast(pa.string()).to_numpy(zero_copy_only=False)
            found.update(symbols[times == day.last_time])
        read = len(got)
        return len(found) == len(day.symbols)

    return enough


def never(_: list[pa.RecordBatch]) -> bool:
    return False


def broken_after(n: int, fake: Any, **fault: bool) -> Callable[[], None]:
    """A pump that makes the day go on, and a fault begin after the nth batch."""
    read = 0

    def pump() -> None:
        nonlocal read
        read += 1
        if read == n:
            fake.faults = Faults(**fault)
        fake.day.step()

    return pump


def n_batches(n: int) -> Callable[[list[pa.RecordBatch]], bool]:
    return lambda got: len(got) >= n


@asynccontextmanager
async def fake_of(name: str, day: FakeDay, *, follow: bool = False) -> AsyncIterator[Any]:
    async with FAKES[name](day, follow=follow) if name in POLLED else FAKES[name](day) as fake:
        yield fake


async def to_the_end(name: str, fake: Any) -> list[pa.RecordBatch]:
    """A connection until the day is over: polled as fast as it goes, or pushed all at once."""
    connection = opened(name, fake)
    if name in PUSHED:
        # The first frame is on its way only once somebody is connected.
        return await read(connection, seen_all(fake.day), lambda: fake.day.step(len(fake.day.batches)))
    return await read(connection, seen_all(fake.day), fake.day.step)


def dropped(batches: Sequence[pa.RecordBatch]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in batches:
        for reason, n in json.loads(batch.schema.metadata[b"dropped"]).items():
            counts[reason] = counts.get(reason, 0) + n
    return counts


def check_bars(name: str, got: pa.Table, wanted: pa.Table) -> None:
    """Equal to the bit; Tencent's amounts are in whole CNY, so a bar's may be one off."""
    if name == "tencent":
        difference = got["amount"].to_numpy() - wanted["amount"].to_numpy()
        assert np.abs(difference).max() <= 1.0
        got, wanted = got.drop_columns(["amount"]), wanted.drop_columns(["amount"])
    assert got.equals(wanted)


def check_totals(name: str, day: FakeDay, batches: Sequence[pa.RecordBatch]) -> None:
    got, wanted = totals_of(day.symbols, batches), day.totals()
    if name == "tencent":
        got, wanted = ({s: (*t[:4], round(t[4])) for s, t in totals.items()} for totals in (got, wanted))
    assert got == wanted


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()
        async with asyncio.timeout(5):
            while asyncio.all_tasks() != {asyncio.current_task()}:  # generators that httpx leaves behind end soon
                await asyncio.sleep(0.001)

    asyncio.run(whole())

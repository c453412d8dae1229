"""A day, its vendors on real sockets, and a StreamManager that is read; time is the day's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from data.calendar import SECOND
from data.simulator import SimulatedMarket
from streaming.feeds.connections import open_connection
from streaming.feeds.vendors import VENDORS
from streaming.links import Patience
from streaming.manager import StreamManager
from streaming.status import ProviderStatus
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.servers import FakeEastmoney, FakeSina, FakeSinaSocket, FakeTencent

MARKET = SimulatedMarket(20, seed=3)
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

    def _asked(self) -> int:
        return sum(len(fake.asked) for fake in self.fakes.values())

    async def pass_until(self, condition: Callable[[], bool]) -> None:
        """Time passes, whatever the reader gets, until something is the case."""
        if condition():
            return
        for _ in range(80):
            self.day.step()
            asked = self._asked()
            for _ in range(15):
                if condition():
                    return
                if self._asked() > asked + 1:
                    break
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

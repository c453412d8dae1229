"""The simulated market as a feed: its snapshots, paced."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import bar_ends, local_day
from data.settings import Settings
from data.simulated_minutes import SNAPSHOTS
from data.simulator import SimulatedMarket

NAME = "sim"


class SimulatedFeed:
    """Snapshots of a simulated market, session after session, until the last is over; nights and lunch take no time.

    `sessions`: which ones, all of the market's by default. `after` (UTC ns): go on behind this bar end; in the midst of
    a session the first frame is then the snapshot at that bar end, from which totals are counted. `interval_s`: wall
    seconds a market minute takes, 0 for as fast as it is read. A reader that is slow makes the feed wait, and the pace
    goes on from there: nothing is left out and nothing is hurried.
    """

    name = NAME

    def __init__(
        self,
        market: SimulatedMarket,
        *,
        sessions: Sequence[np.datetime64[Any]] | None = None,
        after: int | None = None,
        interval_s: float = 1.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._market = market
        self._after = after
        self._pause_s = interval_s / SNAPSHOTS
        self._clock = clock
        self._closed = asyncio.Event()
        self._sessions = list(market.sessions if sessions is None else sessions)
        if after is not None:
            self._sessions = [session for session in self._sessions if bar_ends(session, "1d")[0] > after]

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        """The frames; see `streaming.ports.Feed`."""
        seq = 0
        minutes = self._minutes()
        # Made in a thread and one minute ahead, so that neither the loop nor the pace waits for it.
        ahead = _next(minutes)
        due = time.monotonic()
        try:
            while (batches := await ahead) is not None:
                ahead = _next(minutes)
                for batch in batches:
                    due = max(due + self._pause_s, time.monotonic())
                    await self._wait_until(due)
                    if self._closed.is_set():
                        return
                    seq += 1
                    about = {"provider": NAME, "seq": str(seq), "received_ns": str(self._clock())}
                    yield batch.replace_schema_metadata(about)
        finally:
            # A generator that a thread is in cannot be left behind: it ends, and what it made is dropped.
            with suppress(asyncio.CancelledError):
                await ahead

    async def close(self) -> None:
        """End the frames; see `streaming.ports.Feed`."""
        self._closed.set()

    def _minutes(self) -> Iterator[list[pa.RecordBatch]]:
        for session in self._sessions:
            since = None
            if self._after is not None and local_day(np.array([self._after]))[0] == session:
                since = self._after
            for batches in self._market.minutes_of_snapshots(session, since):
                yield batches if since is None else [batch for batch in batches if _stamp(batch) >= since]

    async def _wait_until(self, due: float) -> None:
        left = due - time.monotonic()
        if left <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(left):  # `wait_for` may lose a cancellation
                await self._closed.wait()


def open_feed(settings: Settings, *, after: int | None) -> SimulatedFeed:
    """The feed of the simulated market that the settings describe; see `streaming.ports.OpenFeed`."""
    market = SimulatedMarket(settings.feed.symbols, settings.feed.seed)
    return SimulatedFeed(market, after=after, interval_s=settings.feed.interval_s)


def _next(minutes: Iterator[list[pa.RecordBatch]]) -> "asyncio.Task[list[pa.RecordBatch] | None]":
    return asyncio.create_task(asyncio.to_thread(next, minutes, None))


def _stamp(batch: pa.RecordBatch) -> int:
    return int(batch["quote_time"].view(pa.int64())[0].as_py())

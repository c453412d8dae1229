"""Feeding: quotes -> tape -> `market.tick`, and folded, -> `market.bar.{frame}`."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.calendar import CLOSE, DAY, MINUTE, SECOND, SHANGHAI, day_ns, local_day
from data.store import BarStore
from jobs.metering import meter_bars
from jobs.stages.recovery import going_on
from streaming.bars import MarketBars
from streaming.bus import bar_topic, tick_topic
from streaming.feeds.reading import cancel
from streaming.ports import Bus, Feed
from streaming.tape import Tape, taped

SILENCE_S = 10
"""After so long without a quote the clock closes bars: while quotes come, theirs is the better time."""
AFTER_HOURS_OVER = CLOSE + 40 * MINUTE
"""From midnight in Shanghai: nothing more is traded, and vendors' stamps have ended."""


@dataclass
class Intake:
    """What has come from the feed: frames, quotes, and when the newest of them did (monotonic, s)."""

    frames: int = 0
    ticks: int = 0
    newest_s: float = -math.inf

    def take(self, quotes: pa.RecordBatch) -> None:
        """Count a frame."""
        self.frames += 1
        self.ticks += quotes.num_rows
        self.newest_s = time.monotonic()


class Feeding:
    """Publishes a feed's quotes and the bars of `frames` that they close. Reads the store, and keeps nothing there but
    what was traded after hours, which is no bar.

    With a `tape`, which is closed at the end, quotes are on it before they go anywhere; what it has of sessions whose
    last bar is not stored is folded again before the feed's first frame. Bars that were stored when the stage was made
    go no further; revisions of them do, for nobody knows here which of those are stored.

    `fold` makes the bars: `MarketBars` with the settings for late and lost quotes. `by_receipt`: whether the time of
    receipt is the market's own, as of a live feed and its tape: after a silence bars close by it, if it is of the
    quotes' day. `clock` (UTC ns) is looked at during one, where the feed is live. `developing`: times of day (ns from
    midnight in Shanghai) at which the daily bar that is still open is published.

    The metadata of a batch of bars have, besides those that `MarketBars` gives, `closed_ns` and `fold_ms`. One `frame`,
    `bar_end` and `revision` is the same batch however often it is published.
    """

    def __init__(
        self,
        store: BarStore,
        feed: Feed,
        bus: Bus,
        *,
        symbols: Sequence[str],
        frames: Sequence[str],
        tape: Tape | None = None,
        fold: Callable[..., MarketBars] = MarketBars,
        by_receipt: bool = False,
        clock: Callable[[], int] | None = None,
        developing: Sequence[int] = (),
    ) -> None:
        self.feed = feed
        self._store, self._bus = store, bus
        self._from = going_on(store, frames, tape)
        self._bars = fold(symbols, frames, after=self._from.after, closed=self._from.closed)
        self._by_receipt, self._clock, self._developing = by_receipt, clock, developing
        self.intake = Intake()
        self.tape = tape
        self._looked = self._from.stored[self._bars.frames[0]] or 0
        """The market's time up to which developing bars have been published."""
        self._received = 0
        self._wanted = self._stopped = False

    async def run(self) -> None:
        """Until the feed ends or `stop` is called."""
        frames = self.feed.frames() if self.tape is None else taped(self.feed.frames(), self.tape)
        try:
            tail = self._from.quotes()
            while not self._stopped and (batch := await asyncio.to_thread(next, tail, None)) is not None:
                await self._fold(batch)
            async for quotes in _at_least_every(None if self._clock is None else SILENCE_S, frames):
                if quotes is None:
                    await self._follow_clock()
                else:
                    self.intake.take(quotes)
                    await self._bus.publish(tick_topic(), quotes)
                    await self._fold(quotes)
            if not self._stopped and self._market_time() >= CLOSE:
                await self._publish(self._bars.end_session())
            await self._keep_after_hours()
        finally:
            await frames.aclose()
            await self.feed.close()
            if self.tape is not None:
                await asyncio.to_thread(self.tape.close)

    async def stop(self) -> None:
        """Take no more quotes; what has been taken is folded, and what closes published."""
        self._stopped = True
        await self.feed.close()

    @property
    def left_out(self) -> Mapping[str, int]:
        """Quotes that are in no bar, by reason, as `MarketBars.counts` has it."""
        return self._bars.counts

    @property
    def newest_quote(self) -> int:
        """Its time, UTC ns; 0 before the first."""
        return self._bars.watermark

    def look(self) -> None:
        """Publish the daily bar that is still open, with the next frame at the latest."""
        self._wanted = True

    async def _fold(self, ticks: pa.RecordBatch) -> None:
        """Fold ticks, and publish the bars that they close."""
        start = time.perf_counter()
        newest = int(ticks["quote_time"].view(pa.int64()).to_numpy().max(initial=0))
        made: list[pa.RecordBatch] = []
        if self._by_receipt:
            received = int(ticks.schema.metadata[b"received_ns"])
            made = self._close_upto(received) if received - self._received >= SILENCE_S * SECOND else []
            self._received = received if newest else self._received
        if newest and self._bars.session is not None and local_day(np.array([newest]))[0] > self._bars.session:
            await self._keep_after_hours()
        await self._publish(made + self._bars.add(ticks), start)
        await self._look_when_due()

    async def _follow_clock(self) -> None:
        """What is due though no quote comes."""
        assert self._clock is not None
        now = self._clock()
        await self._publish(self._close_upto(now))
        if (now + SHANGHAI) % DAY > AFTER_HOURS_OVER:
            await self._keep_after_hours()
        await self._look_when_due()

    def _close_upto(self, now: int) -> list[pa.RecordBatch]:
        """Close by the clock, where it is of the session's own day: quotes of other days have their own time."""
        return self._bars.close_upto(now) if local_day(np.array([now]))[0] == self._bars.session else []

    async def _publish(self, made: Iterable[pa.RecordBatch], start: float | None = None) -> None:
        start = time.perf_counter() if start is None else start
        for batch in made:
            about = dict(batch.schema.metadata)
            frame = about[b"frame"].decode()
            stored = self._from.stored[frame]
            again = stored is not None and int(about[b"bar_end"]) <= stored
            if again and about[b"revision"] == b"0":
                continue
            about[b"fold_ms"] = f"{(time.perf_counter() - start) * 1e3:.3f}".encode()
            about[b"closed_ns"] = str(time.time_ns()).encode()
            meter_bars(batch, about, by_receipt=self._by_receipt)
            await self._bus.publish(bar_topic(frame), batch.replace_schema_metadata(about))

    async def _look_when_due(self) -> None:
        """Publish the open daily bar where its time has come, or somebody asked."""
        now, day = self._bars.watermark, self._bars.session
        if day is None:
            return
        midnight = int(day_ns(np.array([day]))[0])
        due = any(self._looked < midnight + at <= now for at in self._developing)
        self._looked = max(self._looked, now)
        if (due or self._wanted) and (batch := self._bars.developing("1d")) is not None and now < midnight + CLOSE:
            await self._publish([batch])
        self._wanted = False

    async def _keep_after_hours(self) -> None:
        trades = self._bars.after_hours()
        if trades.num_rows:
            await asyncio.to_thread(self._store.append_after_hours, trades)

    def _market_time(self) -> int:
        """The newest quote's time of day in Shanghai, ns."""
        return (self._bars.watermark + SHANGHAI) % DAY


async def _at_least_every(
    seconds: float | None, frames: AsyncGenerator[pa.RecordBatch]
) -> AsyncGenerator[pa.RecordBatch | None]:
    """The frames, and None wherever so long goes by without one."""

    async def following() -> pa.RecordBatch | None:
        return await anext(frames, None)

    ahead = asyncio.create_task(following())
    try:
        while True:
            await asyncio.wait({ahead}, timeout=seconds)
            if not ahead.done():
                yield None
                continue
            if (batch := ahead.result()) is None:
                return
            ahead = asyncio.create_task(following())
            yield batch
    finally:
        await cancel(ahead)

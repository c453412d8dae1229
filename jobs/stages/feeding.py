"""Feeding: quotes -> tape -> `market.tick`, and folded, -> `market.bar.{frame}`."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pyarrow as pa

from data.calendar import bar_ends
from data.store import BarStore
from streaming.bars import MarketBars
from streaming.bus import bar_topic, tick_topic
from streaming.ports import Bus, Feed
from streaming.segment import Segment, segments
from streaming.tape import Tape, taped

log = logging.getLogger(__name__)


class Feeding:
    """Publishes a feed's quotes and the bars of `frames` that they close; reads the store, and never writes it.

    With a `tape`, which is closed at the end, quotes are on it before they go anywhere; what it has of sessions whose
    last bar is not stored is folded again before the feed's first frame. Bars that were stored when it was made go no
    further.

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
    ) -> None:
        self.feed = feed
        self._bus, self._tape = bus, tape
        self._stored = {frame: store.last_bar_end(frame) for frame in frames}
        (frame,) = frames
        after = self._stored[frame]
        self._tail = [] if tape is None else _unfinished(tape, after)
        if self._tail and after is not None:
            # Their sessions are folded from the beginning; the bars that are stored come out again and go no further.
            after = store.last_bar_end(frame, upto=int(bar_ends(self._tail[0][0], frame)[0]) - 1)
        self._bars = MarketBars(symbols, frames, after={frame: after})

    async def run(self) -> None:
        """Until the feed ends or `stop` is called."""
        try:
            async for batch in self._from_tape():
                await self._fold(batch)
            frames = self.feed.frames() if self._tape is None else taped(self.feed.frames(), self._tape)
            try:
                async for batch in frames:
                    await self._bus.publish(tick_topic(), batch)
                    await self._fold(batch)
            finally:
                await frames.aclose()
        finally:
            await self.feed.close()
            if self._tape is not None:
                await asyncio.to_thread(self._tape.close)

    async def stop(self) -> None:
        """Take no more quotes; what has been taken is folded, and what closes published."""
        await self.feed.close()

    async def _fold(self, ticks: pa.RecordBatch) -> None:
        """Fold ticks, and publish the bars that they close and that are not stored yet."""
        start = time.perf_counter()
        for batch in self._bars.add(ticks):
            about = dict(batch.schema.metadata)
            frame = about[b"frame"].decode()
            stored = self._stored[frame]
            if stored is not None and int(about[b"bar_end"]) <= stored:
                continue
            about[b"fold_ms"] = f"{(time.perf_counter() - start) * 1e3:.3f}".encode()
            about[b"closed_ns"] = str(time.time_ns()).encode()
            await self._bus.publish(bar_topic(frame), batch.replace_schema_metadata(about))

    async def _from_tape(self) -> AsyncGenerator[pa.RecordBatch]:
        """What the tape had of unfinished sessions when the stage was made."""
        for _, segment, size in self._tail:
            batches = segment.batches(upto=size)
            n_batches = 0
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                n_batches += 1
                yield batch
            log.info("%d batches were folded again from %s", n_batches, segment.path)
            if segment.missing:
                log.warning("%s lacks %d batches: bars of their time may lack trades", segment.path, segment.missing)


def _unfinished(tape: Tape, last: int | None) -> list[tuple[np.datetime64, Segment, int]]:
    """(session, segment, its size) of the sessions whose last bar is not among the bars up to `last` (UTC ns)."""
    return [
        (day, Segment(path), path.stat().st_size)
        for day, path in segments(tape.folder).items()
        if last is None or bar_ends(day, "1d")[0] > last
    ]

"""Recorded quotes as a feed: `replay:PATH`; `streaming.recordings` says what can be at the path."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from data.calendar import MINUTE, bar_ends, local_day
from data.settings import Settings
from streaming.gaps import losses_of, to_metadata
from streaming.recordings import Recording, check_recording, open_recording

NAME = "replay"
_LONGEST = MINUTE
"""Market time that passes between two batches, at most: nights and lunch take no longer."""
_MERGED = 100


class ReplayFeed:
    """A recording, paced by the times of its quotes.

    `interval_s`: wall seconds that a market minute takes, 0 for as fast as it is read. `after` (UTC ns): go on behind
    this bar end; in the midst of a session the first frame is then each symbol's newest quote up to there, from which
    totals are counted. Frames are stamped anew: provider, sequence, time of receipt; what was lost before them stays.
    """

    name = NAME

    def __init__(
        self,
        recording: Recording,
        *,
        after: int | None = None,
        interval_s: float = 1.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._recording, self._after, self._clock = recording, after, clock
        self._pace = interval_s / MINUTE
        self._closed = asyncio.Event()

    @property
    def symbols(self) -> list[str]:
        """Whose quotes they are, sorted; reads the recording."""
        return self._recording.symbols()

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        """The frames; see `streaming.ports.Feed`."""
        batches = behind(self._recording.batches(), self._after)
        seq, before = 0, 0
        due = time.monotonic()
        ahead = _next(batches)
        try:
            while (batch := await ahead) is not None:
                ahead = _next(batches)
                newest = _newest(batch)
                gap = min(max(newest - before, 0), _LONGEST) if seq else 0
                before = max(before, newest)
                due = max(due + gap * self._pace, time.monotonic())
                await self._wait_until(due)
                if self._closed.is_set():
                    return
                seq += 1
                about = {"provider": NAME, "seq": str(seq), "received_ns": str(self._clock())}
                yield batch.replace_schema_metadata(about | to_metadata(losses_of(batch)))
        finally:
            # A generator that a thread is in cannot be left behind: it ends, and what it read is dropped.
            with suppress(asyncio.CancelledError):
                await ahead

    async def close(self) -> None:
        """End the frames; see `streaming.ports.Feed`."""
        self._closed.set()

    async def _wait_until(self, due: float) -> None:
        left = due - time.monotonic()
        if left <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(left):  # `wait_for` may lose a cancellation
                await self._closed.wait()


def open_feed(settings: Settings, *, after: int | None) -> ReplayFeed:
    """The feed of the recording that `feed.name` names; see `streaming.ports.OpenFeed`."""
    recording = open_recording(*_named(settings))
    return ReplayFeed(recording, after=after, interval_s=settings.feed.interval_s)


def check(settings: Settings) -> None:
    """Raise UsageError where `feed.name` names a recording that cannot be replayed."""
    if settings.feed.name.partition(":")[0] == NAME:
        check_recording(*_named(settings))


def _named(settings: Settings) -> tuple[str, str]:
    """Path and frame of a recording."""
    return settings.feed.name.partition(":")[2], settings.scan.frame or "1m"


def behind(batches: Iterable[pa.RecordBatch], after: int | None) -> Iterator[pa.RecordBatch]:
    """The batches behind a bar end (UTC ns); first, in the midst of a session, the newest quotes up to there."""
    if after is None:
        yield from batches
        return
    day = local_day(np.array([after]))[0]
    over = after >= bar_ends(day, "1d")[0]
    skipped: list[pa.RecordBatch] = []
    waiting = True
    for batch in batches:
        newest = _newest(batch)
        if waiting and newest <= after:
            if not over and local_day(np.array([newest]))[0] == day:
                skipped.append(batch)
                if len(skipped) == _MERGED:
                    skipped = [_newest_rows(skipped)]
            continue
        if over and local_day(np.array([newest]))[0] == day:
            continue
        if waiting and skipped:
            yield _newest_rows(skipped)
        waiting = False
        yield batch


def _newest_rows(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The last row of each symbol."""
    plain = [batch.replace_schema_metadata({}) for batch in batches]
    table = pa.Table.from_batches(plain).unify_dictionaries().combine_chunks()
    codes = table["symbol"].chunk(0).indices.to_numpy() if table.num_rows else np.empty(0, dtype=np.int32)
    _, first = np.unique(codes[::-1], return_index=True)
    rows = np.sort(len(codes) - 1 - first)
    return table.take(pa.array(rows)).combine_chunks().to_batches()[0]


def _newest(batch: pa.RecordBatch) -> int:
    """The newest quote's time, UTC ns."""
    times = batch.column(1).view(pa.int64()).to_numpy()
    return int(times.max(initial=0))


def _next(batches: Iterator[pa.RecordBatch]) -> "asyncio.Task[pa.RecordBatch | None]":
    return asyncio.create_task(asyncio.to_thread(next, batches, None))

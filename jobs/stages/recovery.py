"""Where a service goes on: what its store and its tape have of a session that is not over."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.aggregate import longer_bars, newest
from data.calendar import DAY, bar_ends, local_day
from data.schema import FRAMES
from data.store import BarStore
from streaming.segment import Segment, segments
from streaming.tape import Tape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoingOn:
    """Where a fold of some frames goes on. `stored`: frame -> the newest bar end (UTC ns) that is stored.

    `after`, `closed`: as of `streaming.bars.MarketBars`. `tail`: (segment, its size) of the sessions that are folded
    again from their first quote; the bars of theirs that are stored come out again.
    """

    stored: Mapping[str, int | None]
    after: Mapping[str, int | None]
    closed: pa.Table | None
    tail: Sequence[tuple[Segment, int]]

    def quotes(self) -> Iterator[pa.RecordBatch]:
        """The tail's batches of ticks."""
        for segment, size in self.tail:
            n_batches = 0
            for batch in segment.batches(upto=size):
                n_batches += 1
                yield batch
            log.info("%d batches were folded again from %s", n_batches, segment.path)
            if segment.missing:
                log.warning("%s lacks %d batches: bars of their time may lack trades", segment.path, segment.missing)


def going_on(store: BarStore, frames: Sequence[str], tape: Tape | None = None) -> GoingOn:
    """From the tape, for sessions whose last bar of the shortest frame is not stored, and for the newest one while its
    trades after hours are not; else from that frame's bars."""
    stored = {frame: store.last_bar_end(frame) for frame in frames}
    shortest = min(frames, key=FRAMES.index)
    last = stored[shortest]
    recorded = {} if tape is None else segments(tape.folder)
    unfinished = {day: path for day, path in recorded.items() if last is None or _lacks(store, day, last)}
    if unfinished:
        opens = int(bar_ends(min(unfinished), "1m")[0])
        after = {frame: store.last_bar_end(frame, upto=opens - 1) for frame in frames}
        return GoingOn(stored, after, None, [(Segment(path), path.stat().st_size) for path in unfinished.values()])
    closed = None
    if last is not None:
        opens = int(bar_ends(local_day(np.array([last]))[0], "1m")[0])
        closed = store.table(shortest, after=opens - 1, upto=last)
    return GoingOn(stored, stored, closed, [])


def _lacks(store: BarStore, day: np.datetime64, last: int) -> bool:
    """Whether there is more to a session than is stored of it; `last`: the newest stored bar end (UTC ns)."""
    close = int(bar_ends(day, "1d")[0])
    return close > last or (close == last and day.astype(object) not in store.after_hours()["day"].to_pylist())


def complete(store: BarStore, frames: Sequence[str]) -> None:
    """Make the longer bars of sessions that are over from those of the shortest frame, where the store lacks them: a
    service was killed between the two, or nobody asked for that frame before."""
    shortest, *longer = sorted(frames, key=FRAMES.index)
    last = store.last_bar_end(shortest)
    if last is None:
        return
    closes = int(bar_ends(local_day(np.array([last]))[0], "1d")[0])
    over = last if last == closes else closes - DAY
    first = min(file.first for file in store.files(shortest)) - 1
    for frame in longer:
        done = store.last_bar_end(frame) or first
        # A month at a time, each from where a bar of this frame ends, for years of minutes fill the memory.
        for since in range(done, over, 30 * DAY):
            upto = min(since + 30 * DAY, over)
            store.append(longer_bars(newest(store.table(shortest, after=since, upto=upto)), frame), frame)

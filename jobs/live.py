"""LiveService: feed -> bus -> bars -> store and scan -> history -> /ws/signals, until it is told to stop.

Each stage is a task of one event loop and reads from the bus; a full queue makes the stage before it wait, so a feed
that can wait does. The store, the history, the tape and the cluster work in threads: nothing blocks the loop that
serves subscribers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data.aggregate import daily_bars
from data.calendar import DAY, bar_ends, local_day
from data.history import SignalHistory
from data.signal import Signal, to_table
from data.store import BarStore
from jobs.scanning import MarketScan, Scanned, origin_of
from scanner.engines.base import Engine
from streaming.bars import BarBuilder
from streaming.broadcast import SignalServer
from streaming.bus import SIGNALS, EventBus, bar_topic, tick_topic
from streaming.ports import Feed, Subscription
from streaming.segment import Segment, segments
from streaming.tape import Tape, taped

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interval:
    """One closed interval, as it is reported. Times in ms; `latency_ms` from the receipt of the payload that completed
    the bar to its signals handed to the sockets."""

    number: int
    frame: str
    bar_end: int
    n_bars: int
    scanned: Scanned
    fold_ms: float
    scan_ms: float
    latency_ms: float
    clients: int

    @property
    def signals(self) -> Sequence[Signal]:
        """The signals that are new."""
        return self.scanned.published


@dataclass
class Kept:
    """What the service leaves behind, said when it ends."""

    intervals: int = 0
    bars: int = 0
    signals: int = 0
    last_bar_end: int | None = None
    latencies_ms: list[float] = field(default_factory=list)


class LiveService:
    """The live service of one frame.

    `on_interval` is told of each closed interval, `on_session` of each session's day before its first bar is stored.
    `next_engine` is asked before each scan for an engine that takes over from then on, until it gives one.
    `history_bars`: how many bars before a session's open its indicators see. `intervals`: end after so many. With a
    `tape`, which is closed at the end, quotes are on it before they are folded; what it has of sessions whose last bar
    is not stored is folded again before the feed's first frame.
    """

    def __init__(
        self,
        store: BarStore,
        feed: Feed,
        scan: MarketScan,
        server: SignalServer,
        *,
        symbols: Sequence[str],
        history_bars: int,
        on_interval: Callable[[Interval], None],
        on_session: Callable[[np.datetime64], None] | None = None,
        next_engine: Callable[[], Engine | None] | None = None,
        intervals: int | None = None,
        tape: Tape | None = None,
    ) -> None:
        self.store, self.feed, self.scan, self.server = store, feed, scan, server
        self.kept = Kept()
        self._bus = EventBus()
        self._last = store.last_bar_end(scan.frame)
        self._stored = self._last
        self._tape = tape
        self._tail = [] if tape is None else _unfinished(tape, self._last)
        after = self._last
        if self._tail and after is not None:
            # Their sessions are folded from the beginning; the bars that are stored come out again and go no further.
            after = store.last_bar_end(scan.frame, upto=int(bar_ends(self._tail[0][0], scan.frame)[0]) - 1)
        self._builder = BarBuilder(symbols, scan.frame, after=after)
        self._history_bars = history_bars
        self._on_interval, self._on_session = on_interval, on_session
        self._next_engine = next_engine
        self._intervals = intervals
        self._session: np.datetime64 | None = None
        self._origin = 0
        self._stopping = asyncio.Event()

    async def run(self) -> Kept:
        """Serve until the feed ends, `intervals` have closed, or `stop` is called; then drain, and return what is kept.

        Raises what a stage raised.
        """
        bars = self._bus.subscribe(bar_topic(self.scan.frame), size=2, name="scan")
        ticks = self._bus.subscribe(tick_topic(), size=64, name="bars")
        stages = [
            asyncio.create_task(self._feed_stage(ends=[ticks]), name="feed"),
            asyncio.create_task(self._bar_stage(ticks, ends=[bars]), name="bars"),
            asyncio.create_task(self._scan_stage(bars), name="scan"),
        ]
        try:
            await self._until_done(stages)
        finally:
            await self.feed.close()
            for stage in stages:
                stage.cancel()
            await asyncio.gather(*stages, return_exceptions=True)
            await self._bus.close()
            if self._tape is not None:
                await asyncio.to_thread(self._tape.close)
        return self.kept

    def stop(self) -> None:
        """Take no more quotes; what has closed by now is stored, scanned and published first."""
        self._stopping.set()

    async def _until_done(self, stages: Sequence["asyncio.Task[None]"]) -> None:
        """Wait for the stages to end one after the other, or for the first that fails."""
        stopper = asyncio.create_task(self._close_feed())
        try:
            pending = set(stages)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for stage in done:
                    stage.result()
        finally:
            stopper.cancel()

    async def _close_feed(self) -> None:
        await self._stopping.wait()
        await self.feed.close()

    async def first_scan(self) -> None:
        """Scan the newest stored bar, so that workers are warm and a restart makes up for what it missed."""
        if self._last is not None:
            self._origin = await asyncio.to_thread(self._origin_at, local_day(np.array([self._last]))[0])
            await self._scan_bars(None, self._last, 0, 0, 0.0, time.perf_counter())

    async def _feed_stage(self, ends: Sequence[Subscription]) -> None:
        frames = self.feed.frames() if self._tape is None else taped(self.feed.frames(), self._tape)
        try:
            async for batch in frames:
                await self._bus.publish(tick_topic(), batch)
        finally:
            await frames.aclose()
            _end(ends)

    async def _bar_stage(self, ticks: Subscription, ends: Sequence[Subscription]) -> None:
        try:
            async for batch in self._from_tape():
                await self._fold(batch)
            async for event in ticks:
                await self._fold(event.batch)
        finally:
            _end(ends)

    async def _fold(self, ticks: pa.RecordBatch) -> None:
        """Fold ticks, and publish the bars that they close and that are not stored yet."""
        start = time.perf_counter()
        for batch in self._builder.add(ticks):
            if self._stored is not None and _bar_end(batch) <= self._stored:
                continue
            about = dict(batch.schema.metadata)
            about[b"fold_ms"] = f"{(time.perf_counter() - start) * 1e3:.3f}".encode()
            about[b"closed_ns"] = str(time.time_ns()).encode()
            await self._bus.publish(bar_topic(self._builder.frame), batch.replace_schema_metadata(about))

    async def _from_tape(self) -> AsyncGenerator[pa.RecordBatch]:
        """What the tape had of unfinished sessions when the service was made."""
        for _, segment, size in self._tail:
            batches = segment.batches(upto=size)
            n_batches = 0
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                n_batches += 1
                yield batch
            log.info("%d batches were folded again from %s", n_batches, segment.path)
            if segment.missing:
                log.warning("%s lacks %d batches: bars of their time may lack trades", segment.path, segment.missing)

    async def _scan_stage(self, bars: Subscription) -> None:
        async for event in bars:
            start = time.perf_counter()
            batch = event.batch
            about = batch.schema.metadata
            bar_end = _bar_end(batch)
            await self._open_session(bar_end)
            self._change_engine()
            await self._scan_bars(
                batch, bar_end, int(about[b"received_ns"]), int(about[b"closed_ns"]), float(about[b"fold_ms"]), start
            )
            if self.scan.frame != "1d" and bar_end == bar_ends(local_day(np.array([bar_end]))[0], "1d")[0]:
                await asyncio.to_thread(close_sessions, self.store, self.scan.frame, self.scan.history)
            if self._intervals is not None and self.kept.intervals >= self._intervals:
                bars.close()  # what else has closed is made again from the feed by the next run
                self.stop()
                return

    async def _scan_bars(
        self,
        batch: pa.RecordBatch | None,
        bar_end: int,
        received_ns: int,
        closed_ns: int,
        fold_ms: float,
        start: float,
    ) -> None:
        """Store a micro-batch and scan it at once; without one, scan what is stored."""
        frame = self.scan.frame
        scanning = asyncio.to_thread(
            self.scan.scan,
            bar_end,
            origin=self._origin,
            batch=batch,
            previous=self._last,
            received_ns=received_ns,
            bar_closed_ns=closed_ns,
        )
        if batch is None:
            scanned = await scanning
        else:
            scanned, _ = await asyncio.gather(scanning, asyncio.to_thread(self.store.append, batch, frame))
        self._last = bar_end
        await self.server.publish([signal.to_dict() for signal in scanned.published])
        done = time.time_ns()
        if scanned.published:
            table = to_table(scanned.published).combine_chunks()
            await self._bus.publish(SIGNALS, table.to_batches()[0])
        kept = self.kept
        kept.intervals += batch is not None
        kept.bars += 0 if batch is None else batch.num_rows
        kept.signals += len(scanned.published)
        kept.last_bar_end = bar_end
        latency = (done - received_ns) / 1e6 if received_ns else (time.perf_counter() - start) * 1e3
        if batch is not None:
            kept.latencies_ms.append(latency)
        self._on_interval(
            Interval(
                kept.intervals,
                frame,
                bar_end,
                scanned.result.n_current,
                scanned,
                fold_ms,
                scanned.result.elapsed_s * 1e3,
                latency,
                self.server.clients,
            )
        )

    def _change_engine(self) -> None:
        """Between two scans: the signals say from which bar on another engine computed them."""
        engine = None if self._next_engine is None else self._next_engine()
        if engine is not None:
            log.info("the engine %s takes over from %s", engine.name, self.scan.engine.name)
            self.scan.engine, self._next_engine = engine, None

    async def _open_session(self, bar_end: int) -> None:
        """At a session's first bar: its origin is fixed, so that every shard starts at the same bar."""
        day = local_day(np.array([bar_end]))[0]
        if day == self._session:
            return
        self._session = day
        if self._on_session is not None:
            await asyncio.to_thread(self._on_session, day)
        self._origin = await asyncio.to_thread(self._origin_at, day)
        await asyncio.to_thread(self.scan.refresh_names)

    def _origin_at(self, day: np.datetime64) -> int:
        opens = int(bar_ends(day, self.scan.frame)[0])
        before = self.store.last_bar_end(self.scan.frame, upto=opens - 1)
        if before is None:
            return opens
        return origin_of(self.store, self.scan.frame, before, self._history_bars)


def close_sessions(store: BarStore, frame: str, history: SignalHistory | None = None) -> None:
    """Make the daily bars of every session whose last bar is stored, and compact what has become many files.

    Also at a start, for a session whose service was killed between the two.
    """
    if history is not None:
        history.compact()
    last, done = store.last_bar_end(frame), store.last_bar_end("1d") or 0
    if frame == "1d" or last is None:
        return
    newest = int(bar_ends(local_day(np.array([last]))[0], "1d")[0])
    over = last if last == newest else newest - DAY
    if over > done:
        bars = store.table(frame, after=done, upto=over).drop_columns(["known_at"])
        store.append(daily_bars(bars), "1d")
    store.compact(frame)


def _unfinished(tape: Tape, last: int | None) -> list[tuple[np.datetime64, Segment, int]]:
    """(session, segment, its size) of the sessions whose last bar is not among the bars up to `last` (UTC ns)."""
    return [
        (day, Segment(path), path.stat().st_size)
        for day, path in segments(tape.folder).items()
        if last is None or bar_ends(day, "1d")[0] > last
    ]


def _bar_end(bars: pa.RecordBatch) -> int:
    """The one bar end of a micro-batch, UTC ns."""
    return int(bars["bar_end"].cast(pa.int64())[0].as_py())


def _end(subscriptions: Sequence[Subscription]) -> None:
    """Let those who read them come to their end, once what is queued has been read."""
    for subscription in subscriptions:
        subscription.close()

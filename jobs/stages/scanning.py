"""Scanning: `market.bar.{frame}` -> store and scan -> history -> `signal.alert`."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data.aggregate import daily_bars
from data.calendar import DAY, bar_ends, local_day
from data.history import SignalHistory
from data.signal import Signal, to_table
from data.store import BarStore
from jobs.scanning import MarketScan, Scanned, origin_of
from jobs.stages.serving import Serving
from scanner.engines.base import Engine
from streaming.bus import SIGNALS, bar_topic
from streaming.ports import Bus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interval:
    """One closed interval, as it is reported. Times in ms; `latency_ms` from the receipt of the payload that completed
    the bar to its signals handed to the sockets (to the bus, where another process serves)."""

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
    """What the stage leaves behind, said when it ends."""

    intervals: int = 0
    bars: int = 0
    signals: int = 0
    last_bar_end: int | None = None
    latencies_ms: list[float] = field(default_factory=list)


@dataclass
class _Frame:
    """Where the stage is in one frame."""

    scan: MarketScan
    last: int | None
    """The newest bar end that is stored, UTC ns."""
    session: np.datetime64 | None = None
    origin: int = 0


class Scanning:
    """Stores bars, scans them by the `scans`, one a frame, and publishes what is new; the store's one writer.

    A bar batch that comes again is known by its frame, bar end and revision, and left out: delivery at least once is
    enough. `on_interval` is told of each closed interval, `on_session` of each session's day before its first bar is
    stored. `next_engine` is asked before each scan for an engine that takes over from then on, until it gives one.
    `history_bars`: how many bars before a session's open its indicators see. `intervals`: end after so many.
    `catching_up`: whether `catch_up` does anything. `serving`: the stage that serves what is published, where that is
    in this process.
    """

    def __init__(
        self,
        store: BarStore,
        bus: Bus,
        scans: Sequence[MarketScan],
        *,
        history_bars: int,
        on_interval: Callable[[Interval], None],
        on_session: Callable[[np.datetime64], None] | None = None,
        next_engine: Callable[[], Engine | None] | None = None,
        intervals: int | None = None,
        catching_up: bool = True,
        serving: Serving | None = None,
    ) -> None:
        self.kept = Kept()
        self._store, self._bus, self._serving = store, bus, serving
        self._bars = bus.subscribe(bar_topic("*"), size=8, name="scan")
        self._frames = {scan.frame: _Frame(scan, store.last_bar_end(scan.frame)) for scan in scans}
        self._history_bars = history_bars
        self._on_interval, self._on_session = on_interval, on_session
        self._next_engine = next_engine
        self._intervals, self._catching_up = intervals, catching_up

    async def catch_up(self) -> None:
        """Scan the newest stored bar of each frame, so that workers are warm and a restart makes up for what it
        missed; called before `run`."""
        for frame in self._frames.values() if self._catching_up else ():
            if frame.last is not None:
                frame.origin = await asyncio.to_thread(self._origin_at, frame, local_day(np.array([frame.last]))[0])
                await self._scan(frame, None, frame.last)

    async def run(self) -> None:
        """Until `stop` is called, the bus is closed, or enough intervals have closed."""
        async for event in self._bars:
            about = event.batch.schema.metadata
            frame, bar_end = self._frames[about[b"frame"].decode()], int(about[b"bar_end"])
            if frame.last is not None and bar_end <= frame.last:
                continue
            await self._open_session(frame, bar_end)
            self._change_engine()
            await self._scan(frame, event.batch, bar_end)
            if frame.scan.frame != "1d" and bar_end == bar_ends(local_day(np.array([bar_end]))[0], "1d")[0]:
                await asyncio.to_thread(close_sessions, self._store, frame.scan.frame, frame.scan.history)
            if self._intervals is not None and self.kept.intervals >= self._intervals:
                self._bars.close()  # what else has closed is made again from the feed by the next run
                return

    async def stop(self) -> None:
        """End when what has been published by now is scanned."""
        self._bars.close()

    async def _scan(self, frame: _Frame, batch: pa.RecordBatch | None, bar_end: int) -> None:
        """Store a micro-batch and scan it at once; without one, scan what is stored."""
        start = time.perf_counter()
        about = {} if batch is None else batch.schema.metadata
        received_ns = int(about.get(b"received_ns", b"0"))
        scanning = asyncio.to_thread(
            frame.scan.scan,
            bar_end,
            origin=frame.origin,
            batch=batch,
            previous=frame.last,
            quote_ns=int(about.get(b"quote_ns", b"0")),
            received_ns=received_ns,
            bar_closed_ns=int(about.get(b"closed_ns", b"0")),
        )
        if batch is None:
            scanned = await scanning
        else:
            storing = asyncio.to_thread(self._store.append, batch, frame.scan.frame)
            scanned, _ = await asyncio.gather(scanning, storing)
        frame.last = bar_end
        await self._publish(scanned.published)
        done = time.time_ns()
        latency = (done - received_ns) / 1e6 if received_ns else (time.perf_counter() - start) * 1e3
        kept = self.kept
        kept.intervals += batch is not None
        kept.bars += 0 if batch is None else batch.num_rows
        kept.signals += len(scanned.published)
        kept.last_bar_end = bar_end
        if batch is not None:
            kept.latencies_ms.append(latency)
        self._on_interval(
            Interval(
                kept.intervals,
                frame.scan.frame,
                bar_end,
                scanned.result.n_current,
                scanned,
                float(about.get(b"fold_ms", b"0")),
                scanned.result.elapsed_s * 1e3,
                latency,
                0 if self._serving is None else self._serving.server.clients,
            )
        )

    async def _publish(self, signals: Sequence[Signal]) -> None:
        if not signals:
            return
        await self._bus.publish(SIGNALS, to_table(signals).combine_chunks().to_batches()[0])
        if self._serving is not None:
            await self._serving.reached(signals[-1].seq)

    def _change_engine(self) -> None:
        """Between two scans: the signals say from which bar on another engine computed them."""
        engine = None if self._next_engine is None else self._next_engine()
        if engine is not None:
            for frame in self._frames.values():
                log.info("the engine %s takes over from %s", engine.name, frame.scan.engine.name)
                frame.scan.engine = engine
            self._next_engine = None

    async def _open_session(self, frame: _Frame, bar_end: int) -> None:
        """At a session's first bar: its origin is fixed, so that every shard starts at the same bar."""
        day = local_day(np.array([bar_end]))[0]
        if day == frame.session:
            return
        frame.session = day
        if self._on_session is not None:
            await asyncio.to_thread(self._on_session, day)
        frame.origin = await asyncio.to_thread(self._origin_at, frame, day)
        await asyncio.to_thread(frame.scan.refresh_names)

    def _origin_at(self, frame: _Frame, day: np.datetime64) -> int:
        opens = int(bar_ends(day, frame.scan.frame)[0])
        before = self._store.last_bar_end(frame.scan.frame, upto=opens - 1)
        if before is None:
            return opens
        return origin_of(self._store, frame.scan.frame, before, self._history_bars)


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

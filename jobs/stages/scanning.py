"""Scanning: `market.bar.{frame}` -> store and scan -> history -> `signal.alert`."""

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data import metrics
from data.calendar import bar_ends, local_day
from data.errors import UsageError
from data.schema import FRAMES
from data.signal import Signal, to_batch
from data.store import BarStore
from jobs.backfilling import Backfill
from jobs.memory import give_back
from jobs.scanning import MarketScan, Scanned, origin_of
from jobs.stages.factors import QuotedFactors
from jobs.stages.serving import Serving
from scanner.engines.base import Engine
from streaming.bus import SIGNALS, bar_topic
from streaming.ports import Bus

_KEY = ("symbol", "revision")
LATENCIES = 10_000

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
    developing: bool = False
    """Whether its bars were still open."""
    revision: int = 0
    """Which changes to its closed bars these are; 0: they have closed."""

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
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    """The newest ones."""


@dataclass
class _Frame:
    """Where the stage is in one frame."""

    name: str
    scan: MarketScan | None
    """None where the frame's bars are only stored."""
    last: int | None
    """The newest bar end that is stored, UTC ns."""
    origin: int = 0


class Scanning:
    """Stores bars of `frames`, scans those that have one of the `scans`, and publishes what is new. Nobody else writes
    the store's bars but a `backfill`, which is told of what closes; where it has stored some, the frame's scan reads
    the store again.

    Delivery at least once is enough: a batch of bars that comes again is known by its frame, bar end and revision, and
    left out. Bars that are still open are scanned and not stored.

    `on_interval` is told of each scan, `on_session` of each session's day before its first bar is stored. `next_engine`
    is asked before each scan for an engine that takes over from then on, until it gives one. `history_bars`: how many
    bars before a session's open its indicators see. `intervals`: end after so many of the shortest frame that is
    scanned. `catching_up`: whether `catch_up` does anything. `serving`: the stage that serves what is published, where
    that is in this process.
    """

    def __init__(
        self,
        store: BarStore,
        bus: Bus,
        scans: Sequence[MarketScan],
        *,
        frames: Sequence[str],
        history_bars: int,
        on_interval: Callable[[Interval], None],
        on_session: Callable[[np.datetime64], None] | None = None,
        next_engine: Callable[[], Engine | None] | None = None,
        intervals: int | None = None,
        catching_up: bool = True,
        serving: Serving | None = None,
        backfill: Backfill | None = None,
    ) -> None:
        self.kept = Kept()
        self._store, self._bus, self._serving, self._backfill = store, bus, serving, backfill
        self._bars = bus.subscribe(bar_topic("*"), size=8, name="scan")
        by_frame = {scan.frame: scan for scan in scans}
        self._frames = {f: _Frame(f, by_frame.get(f), store.last_bar_end(f)) for f in sorted(frames, key=FRAMES.index)}
        self._counted = min(by_frame, key=FRAMES.index)
        self._factors = QuotedFactors(store, next(iter(self._frames)))
        self._history_bars = history_bars
        self._on_interval, self._on_session = on_interval, on_session
        self._next_engine = next_engine
        self._intervals, self._catching_up = intervals, catching_up
        self._session: np.datetime64 | None = None
        self.busy_since: float | None = None
        """Since when (monotonic, s) one batch of bars has been worked on; None while none is."""
        self.at_work = False
        """Whether bars are awaited or worked on: `run` has been called."""

    async def catch_up(self) -> None:
        """Scan the newest stored bar of each frame, so that workers are warm and a restart makes up for what it
        missed; called before `run`."""
        for frame in self._frames.values() if self._catching_up else ():
            if frame.scan is not None and frame.last is not None:
                day = local_day(np.array([frame.last]))[0]
                frame.origin = await asyncio.to_thread(self._origin_at, frame.name, day)
                await self._scan(frame, None, frame.last)

    async def run(self) -> None:
        """Until `stop` is called, the bus is closed, or enough intervals have closed."""
        self.at_work = True
        async for event in self._bars:
            self.busy_since = time.monotonic()
            about = event.batch.schema.metadata
            frame, bar_end = self._frame(about[b"frame"].decode()), int(about[b"bar_end"])
            await self._open_session(local_day(np.array([bar_end]))[0])
            if self._backfill is not None and self._backfill.news(frame.name):
                await asyncio.to_thread(self._read_again, frame, bar_end)
            self._change_engine()
            if about[b"developing"] == b"1":
                await self._look(frame, event.batch, bar_end)
            elif about[b"revision"] != b"0":
                await self._revise(frame, event.batch, bar_end)
            elif frame.last is None or bar_end > frame.last:
                await self._close(frame, event.batch, bar_end)
                if frame is next(iter(self._frames.values())):
                    if self._backfill is not None:
                        self._backfill.closed(frame.name, bar_end)
                    await asyncio.to_thread(self._factors.take, event.batch)
                if frame.name == "1d":
                    await asyncio.to_thread(self._compact)
            if (
                self._intervals is not None
                and self.kept.intervals >= self._intervals
                and self._was_last(frame, bar_end)
            ):
                self._bars.close()  # what else has closed is made again from the feed by the next run
                return
            self.busy_since = None

    async def stop(self) -> None:
        """End when what has been published by now is scanned."""
        self._bars.close()

    def _frame(self, name: str) -> _Frame:
        if name not in self._frames:
            raise UsageError(
                f"{name} bars come from the feed, and no strategy here is for them; here are {', '.join(self._frames)}."
                " Give --role feed and --role scan the same --strategies, --frame and --developing"
            )
        return self._frames[name]

    async def _close(self, frame: _Frame, batch: pa.RecordBatch, bar_end: int) -> None:
        """Store the bars of a closed interval, and scan them at once."""
        storing = asyncio.to_thread(self._keep, batch, frame.name)
        if frame.scan is None:
            await storing
        else:
            await asyncio.gather(storing, self._scan(frame, batch, bar_end))
        frame.last = bar_end
        self.kept.bars += batch.num_rows

    async def _look(self, frame: _Frame, batch: pa.RecordBatch, bar_end: int) -> None:
        """Scan bars that are still open."""
        if frame.scan is None:
            log.warning("the %s bar was to be scanned before it closes, but no strategy names that frame", frame.name)
        elif frame.last is None or bar_end > frame.last:
            await self._scan(frame, batch, bar_end, developing=True)

    async def _revise(self, frame: _Frame, batch: pa.RecordBatch, bar_end: int) -> None:
        """Store changes to closed bars, and say what they change in what had fired."""
        fresh = await asyncio.to_thread(self._keep_changes, frame.name, batch, bar_end)
        if fresh and frame.scan is not None:
            number = int(batch.schema.metadata[b"revision"])
            await self._told(frame, batch, bar_end, functools.partial(frame.scan.revise, batch), revision=number)

    def _keep_changes(self, frame: str, batch: pa.RecordBatch, bar_end: int) -> bool:
        """Store changes to closed bars; whether they were not stored yet."""
        stored = self._store.table(frame, after=bar_end - 1, upto=bar_end, columns=_KEY)
        known = set(zip(*(stored[name].to_pylist() for name in _KEY), strict=True))
        if known.issuperset(zip(*(batch[name].to_pylist() for name in _KEY), strict=True)):
            return False
        self._keep(batch, frame)
        return True

    def _keep(self, batch: pa.RecordBatch, frame: str) -> None:
        with metrics.commit_seconds.labels("bars").time():
            self._store.append(batch, frame)

    async def _scan(
        self, frame: _Frame, batch: pa.RecordBatch | None, bar_end: int, *, developing: bool = False
    ) -> None:
        """Scan a micro-batch; without one, what is stored."""
        assert frame.scan is not None
        scan = functools.partial(frame.scan.scan, batch=batch, previous=frame.last, developing=developing)
        await self._told(frame, batch, bar_end, scan, developing=developing)

    async def _told(
        self,
        frame: _Frame,
        batch: pa.RecordBatch | None,
        bar_end: int,
        scan: Callable[..., Scanned],
        *,
        developing: bool = False,
        revision: int = 0,
    ) -> None:
        """Scan, publish what is new, and report it."""
        start = time.perf_counter()
        about = {} if batch is None else batch.schema.metadata
        received_ns = int(about.get(b"received_ns", b"0"))
        scanned = await asyncio.to_thread(
            scan,
            bar_end=bar_end,
            origin=frame.origin,
            received_ns=received_ns,
            bar_closed_ns=int(about.get(b"closed_ns", b"0")),
            quote_ns=int(about.get(b"quote_ns", b"0")),
        )
        await self._publish(scanned.published)
        done = time.time_ns()
        latency = (done - received_ns) / 1e6 if received_ns else (time.perf_counter() - start) * 1e3
        kept = self.kept
        kept.signals += len(scanned.published)
        if not developing and not revision:
            kept.intervals += batch is not None and frame.name == self._counted
            kept.last_bar_end = max(kept.last_bar_end or 0, bar_end)
        if batch is not None and not revision:
            kept.latencies_ms.append(latency)
        self._on_interval(
            Interval(
                kept.intervals,
                frame.name,
                bar_end,
                scanned.result.n_current,
                scanned,
                float(about.get(b"fold_ms", b"0")),
                scanned.result.elapsed_s * 1e3,
                latency,
                0 if self._serving is None else self._serving.server.clients,
                developing,
                revision,
            )
        )

    async def _publish(self, signals: Sequence[Signal]) -> None:
        if not signals:
            return
        await self._bus.publish(SIGNALS, to_batch(signals))
        if self._serving is not None:
            await self._serving.reached(signals[-1].seq)

    def _change_engine(self) -> None:
        """Between two scans: the signals say from which bar on another engine computed them."""
        engine = None if self._next_engine is None else self._next_engine()
        if engine is None:
            return
        self._next_engine = None
        for scan in (frame.scan for frame in self._frames.values() if frame.scan is not None):
            log.info("the engine %s takes over from %s in frame %s", engine.name, scan.engine.name, scan.frame)
            scan.engine = engine

    async def _open_session(self, day: np.datetime64) -> None:
        """At a session's first bar: the origins are fixed, so that every shard starts at the same bar."""
        if day == self._session:
            return
        self._session = day
        if self._on_session is not None:
            await asyncio.to_thread(self._on_session, day)
        for frame in self._frames.values():
            if frame.scan is not None:
                frame.origin = await asyncio.to_thread(self._origin_at, frame.name, day)
                await asyncio.to_thread(frame.scan.refresh_names)

    def _read_again(self, frame: _Frame, bar_end: int) -> None:
        """Scan with what the store has by now, from the origin that it gives the session of `bar_end`."""
        frame.last = self._store.last_bar_end(frame.name)
        if frame.scan is not None:
            frame.origin = self._origin_at(frame.name, local_day(np.array([bar_end]))[0])
            frame.scan.read_again()

    def _origin_at(self, frame: str, day: np.datetime64) -> int:
        opens = int(bar_ends(day, frame)[0])
        before = self._store.last_bar_end(frame, upto=opens - 1)
        return opens if before is None else origin_of(self._store, frame, before, self._history_bars)

    def _was_last(self, frame: _Frame, bar_end: int) -> bool:
        """Whether no longer frame closes at the same boundary."""
        day = local_day(np.array([bar_end]))[0]
        return not any(
            bar_end in bar_ends(day, name) for name in FRAMES[FRAMES.index(frame.name) + 1 :] if name in self._frames
        )

    def _compact(self) -> None:
        """After a session's last bars: what has become many files becomes few, and free memory the system's."""
        for frame in self._frames.values():
            self._store.compact(frame.name)
            if frame.scan is not None and frame.scan.history is not None:
                frame.scan.history.compact()
        give_back()

"""Processes: what the live service does in each role, from settings to its end.

Each function returns whether Ctrl-C ended it; SIGTERM ends it too, after what has come in.
"""

import asyncio
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from data.history import SignalHistory
from data.settings import Settings
from data.signal import to_batch
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.backfilling import Backfill, open_backfill
from jobs.breadth import BreadthCount
from jobs.live import LiveService, Stage
from jobs.memory import settle
from jobs.metering import meter
from jobs.monitor import Monitor
from jobs.overview import Overview
from jobs.page import Page
from jobs.roles import Overheard, in_turn, open_bus
from jobs.routes import open_routes, routes
from jobs.scanning import MarketScan, replayable, scannable
from jobs.screen import LineScreen, Screen
from jobs.serving import metrics_served, open_server
from jobs.show import local_time
from jobs.simulated import keep_names, make_history
from jobs.sinks import open_sinks
from jobs.stages.feeding import Feeding
from jobs.stages.recovery import complete
from jobs.stages.scanning import Interval, Kept, Scanning
from jobs.stages.serving import Serving
from jobs.universe import watched
from jobs.wiring import Parts, clock_ns, count_of, fold_of, is_repeatable, live_frames, open_tape
from scanner.engines.base import Engine, load
from scanner.engines.warm import Warming
from scanner.loading import load as load_strategies
from streaming.bus import SIGNALS
from streaming.feeds import find_feed
from streaming.feeds.replay import ReplayFeed
from streaming.manager import StreamManager
from streaming.page import page_routes
from streaming.ports import Bus, Feed, SharedBus
from streaming.server import PATH, SignalServer

SIGNALS_KEPT = 2000
"""Signals of before from which latency is told at the start."""


async def scan(
    settings: Settings,
    store: BarStore,
    parts: Parts,
    warming: Warming | None,
    screen: Screen,
    intervals: int | None,
    *,
    once: bool,
) -> bool:
    """Scan, and in the role `all` feed and serve too."""
    whole = settings.run.role == "all"
    frames, scanned = live_frames(settings, parts.strategies)
    history_bars = settings.scan.history_bars or settings.feed.history_bars
    history = SignalHistory(store.root / "signals")
    monitor = Monitor(settings, store, live=not is_repeatable(settings.feed.name))
    overview = _overview(settings, history)
    server = _server(settings, store, history, overview, monitor)
    bus = await open_bus(settings, store)
    backfill: Backfill | None = None
    try:
        sinks = open_sinks(settings, store, bus, history) if whole and not once else []
        if whole and not once:
            await server.start()
        market = await _simulated(settings, store, frames, screen)
        await asyncio.to_thread(complete, store, frames)
        quotes, symbols = await _open_feed(settings, store, frames, market, screen)
        cluster = await asyncio.to_thread(lambda: parts.cluster)
        scans = [
            MarketScan(
                store,
                name,
                parts.strategies,
                symbols=symbols,
                engine=parts.engine,
                cluster=cluster,
                history=history,
                deadline_s=settings.scan.deadline_s,
                gated=not is_repeatable(settings.feed.name),
                history_bars=history_bars,
            )
            for name in scanned
        ]
        if isinstance(quotes, StreamManager) and not once:
            backfill = open_backfill(settings, store, symbols, scans, history_bars, quotes.clock, screen.say)
            await backfill.at_start(settings.feed.backfill_s)

        serving = Serving(bus, server, history=history if isinstance(bus, SharedBus) else None) if whole else None

        def told(interval: Interval) -> None:
            meter(interval)
            screen.interval(interval)
            overview.scanned(interval)

        scanning = Scanning(
            store,
            bus,
            scans,
            frames=frames,
            history_bars=history_bars,
            on_interval=told,
            on_session=None if market is None else lambda day: keep_names(store, market, day),
            next_engine=None if warming is None else lambda: _warm_engine(warming, screen),
            intervals=intervals,
            serving=None if once else serving,
            backfill=backfill,
        )
        feeding = _feeding(settings, store, quotes, bus, symbols, frames) if whole else None
        stages: list[Stage] = [stage for stage in (feeding, scanning, serving, *sinks) if stage is not None]
        service = LiveService(bus, stages, on_ready=settle)
        interrupted = _stop_on_signals(service, bus, feeding)
        _introduce(screen, store, bus)
        _introduce_scan(screen, parts)
        if whole and not once:
            _introduce_server(screen, server)
            _introduce_sinks(screen, settings)
        screen.open(", ".join(scanned), server.url if whole else str(bus), cluster.dashboard)
        if once:
            await scanning.catch_up()
        else:
            if whole:
                await _connect(quotes, symbols, screen)
            else:
                # Who serves looks into the history: a scan that was killed may have kept signals and not said so.
                await bus.publish(SIGNALS, to_batch([]))
            if backfill is not None:
                backfill.go_on()
            async with AsyncExitStack() as watched_by:
                if not whole:
                    await watched_by.enter_async_context(metrics_served(settings.serve, monitor, screen.say))
                else:
                    status = quotes.status if isinstance(quotes, StreamManager) else None
                    breadth = BreadthCount(store, symbols)
                    await watched_by.enter_async_context(
                        overview.watching(bus, frames[0], breadth=breadth, status=status)
                    )
                await watched_by.enter_async_context(
                    monitor.at_work(bus, feeding=feeding, scanning=scanning, scans=scans, cluster=cluster)
                )
                kept = await service.run()
            screen.close()
            screen.say(_farewell(kept, store))
        return interrupted.is_set()
    finally:
        if backfill is not None:
            await backfill.close()
        await bus.close()
        await server.stop()


async def feed(settings: Settings, store: BarStore, lines: LineScreen) -> bool:
    """Hand quotes and bars to the bus."""
    frames, _ = live_frames(settings, load_strategies(settings.scan.strategies))
    shared = await open_bus(settings, store)
    assert isinstance(shared, SharedBus)
    bus = Overheard(shared, lines.fed)
    try:
        market = await _simulated(settings, store, frames, lines)
        stored = None
        while stored != (stored := {name: store.last_bar_end(name) for name in frames}):  # a scan may be storing
            quotes, symbols = await _open_feed(settings, store, frames, market, lines)
            feeding = _feeding(settings, store, quotes, bus, symbols, frames)
        service = LiveService(bus, [feeding], on_ready=settle)
        interrupted = _stop_on_signals(service, bus, feeding)
        _introduce(lines, store, bus)
        lines.say(f"feed       {settings.feed.name}: {len(symbols)} symbols, bars of {', '.join(frames)}")
        await _connect(quotes, symbols, lines)
        monitor = Monitor(settings, store, live=not is_repeatable(settings.feed.name))
        async with metrics_served(settings.serve, monitor, lines.say), monitor.at_work(shared, feeding=feeding):
            await service.run()
        return interrupted.is_set()
    finally:
        await bus.close()


async def serve(settings: Settings, store: BarStore, lines: LineScreen) -> bool:
    """Serve what a scan in another process publishes."""
    history = SignalHistory(store.root / "signals")
    monitor = Monitor(settings, store, live=not is_repeatable(settings.feed.name))
    overview = _overview(settings, history)
    server = _server(settings, store, history, overview, monitor)
    server.begin(*history.place())
    bus = await open_bus(settings, store)
    try:
        sinks = open_sinks(settings, store, bus, history)
        await server.start()
        serving = Serving(bus, server, history=history, on_served=lambda signals: lines.served(signals, server.clients))
        service = LiveService(bus, [serving, *sinks], on_ready=settle)
        interrupted = _stop_on_signals(service, bus)
        _introduce(lines, store, bus)
        _introduce_server(lines, server)
        _introduce_sinks(lines, settings)
        async with overview.watching(bus), monitor.at_work(bus):
            await service.run()
        return interrupted.is_set()
    finally:
        await bus.close()
        await server.stop()


def _server(
    settings: Settings, store: BarStore, history: SignalHistory, overview: Overview, monitor: Monitor
) -> SignalServer:
    """The server of the history's signals and of the page, not started."""
    page = Page(settings, store, history, overview, lambda: (server.epoch, server.seq))
    server = open_server(settings.serve, history, routes(monitor) | page.routes(), open_routes(monitor) | page_routes())
    return server


def _overview(settings: Settings, history: SignalHistory) -> Overview:
    """What the page shows of this process; the role `serve` has neither feed nor scan."""
    own_time = is_repeatable(settings.feed.name)
    overview = Overview(
        settings.feed.name,
        pause_s=settings.feed.interval_s if own_time else None,
        elsewhere=settings.run.role == "serve",
    )
    overview.signals_kept(history.query(limit=SIGNALS_KEPT))
    return overview


async def _simulated(
    settings: Settings, store: BarStore, frames: Sequence[str], screen: Screen
) -> SimulatedMarket | None:
    """The simulated market, where it is the feed, with its history in the store: made by whoever comes first."""
    if settings.feed.name != "sim":
        return None
    market = SimulatedMarket(settings.feed.symbols, settings.feed.seed)
    n_bars = settings.scan.history_bars or settings.feed.history_bars

    def make() -> None:
        with in_turn(store.root / "history.lock"):
            if not all(store.files(name) for name in frames):
                screen.say(f"making {n_bars} bars of history for {settings.feed.symbols} simulated symbols ...")
                make_history(store, market, frames, n_bars)

    await asyncio.to_thread(make)
    return market


async def _open_feed(
    settings: Settings, store: BarStore, frames: Sequence[str], market: SimulatedMarket | None, screen: Screen
) -> tuple[Feed, list[str]]:
    """The feed, not connected yet, and the symbols that are folded and scanned."""
    frame = frames[0]
    feed = find_feed(settings.feed.name)(settings, after=store.last_bar_end(frame))
    if market is not None:
        return feed, list(market.symbols)
    if isinstance(feed, ReplayFeed):
        return feed, await asyncio.to_thread(replayable, store, frame, settings.scan.universe, feed.symbols)
    if isinstance(feed, StreamManager):
        return feed, await watched(settings, store, now_ns=feed.clock(), say=screen.say)
    return feed, scannable(store, frame, settings.scan.universe)


def _feeding(
    settings: Settings, store: BarStore, feed: Feed, bus: Bus, symbols: Sequence[str], frames: Sequence[str]
) -> Feeding:
    live = not is_repeatable(settings.feed.name)
    return Feeding(
        store,
        feed,
        bus,
        symbols=symbols,
        frames=frames,
        tape=open_tape(settings, store),
        fold=fold_of(settings),
        by_receipt=live,
        clock=feed.clock if isinstance(feed, StreamManager) else time.time_ns if live else None,
        developing=[clock_ns(text) for text in settings.scan.developing],
    )


async def _connect(feed: Feed, symbols: Sequence[str], screen: Screen) -> None:
    """Have vendors asked for the symbols, and shown."""
    if isinstance(feed, StreamManager):
        await feed.subscribe(symbols, subscriber="run")
        screen.watch(feed.status)


def _warm_engine(warming: Warming, screen: Screen) -> Engine | None:
    """The engine `vector`, said aloud, once its kernels are compiled."""
    if not warming.done():
        return None
    screen.say(f"engine     vector from here on: {count_of(warming.indicators)} compiled")
    return load("vector")


def _stop_on_signals(service: LiveService, bus: Bus, feeding: Feeding | None = None) -> asyncio.Event:
    """Let SIGINT and SIGTERM drain the service, and SIGUSR1 scan the daily bar as it is; the event says whether it was
    SIGINT."""
    interrupted = asyncio.Event()

    def stop() -> None:
        service.stop()
        if isinstance(bus, SharedBus):
            bus.release()

    def on_interrupt() -> None:
        interrupted.set()
        stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, stop)
    if feeding is not None:
        loop.add_signal_handler(signal.SIGUSR1, feeding.look)
    return interrupted


def _introduce(screen: Screen, store: BarStore, bus: Bus) -> None:
    screen.say(f"store      {store.root}")
    if isinstance(bus, SharedBus):
        screen.say(f"bus        {bus}")


def _introduce_server(screen: Screen, server: SignalServer) -> None:
    screen.say(f"signals    {server.url}")
    screen.say(f"page       {server.url.removesuffix(PATH).replace('ws', 'http', 1)}/")


def _introduce_sinks(screen: Screen, settings: Settings) -> None:
    if channels := settings.alerts.channels:
        screen.say(f"alerts     {', '.join(channels)}")
    if bucket := settings.influx.bucket:
        screen.say(f"influx     {settings.influx.url}, {bucket}")


def _introduce_scan(screen: Screen, parts: Parts) -> None:
    cluster = parts.cluster
    screen.say(f"engine     {parts.engine.name}: {parts.reason}; cluster {cluster.name}, {cluster.workers} workers")
    if cluster.dashboard:
        screen.say(f"dashboard  {cluster.dashboard}")


def _farewell(kept: Kept, store: BarStore) -> str:
    said = f"kept {kept.bars} bars of {kept.intervals} intervals"
    if kept.last_bar_end is not None:
        said += f", up to {local_time(kept.last_bar_end)}"
    said += f", and {kept.signals} signals, in {store.root}"
    if kept.latencies_ms:
        said += f"; median latency {statistics.median(kept.latencies_ms):.0f} ms"
    return said

"""`mystocks-scan run`: the live service."""

import asyncio
import fcntl
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from data.errors import StoreOriginError, UsageError
from data.history import SignalHistory
from data.settings import Settings, load_settings
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.backfilling import Backfill, open_backfill
from jobs.live import LiveService
from jobs.options import config_option, json_option, open_store, store_option, verbosity_options
from jobs.scanning import MarketScan, replayable, scannable
from jobs.screen import JsonScreen, LineScreen, Screen, TableScreen
from jobs.show import local_time
from jobs.simulated import keep_names, make_history, open_simulated
from jobs.stages.feeding import Feeding
from jobs.stages.recovery import complete
from jobs.stages.scanning import Kept, Scanning
from jobs.stages.serving import Serving
from jobs.universe import watched
from jobs.wiring import (
    Parts,
    assemble,
    clock_ns,
    count_of,
    fold_of,
    is_repeatable,
    live_frames,
    open_tape,
    scan_flags,
    scan_options,
    split_list,
)
from scanner.engines.base import Engine, load
from scanner.engines.warm import Warming
from streaming.broadcast import SignalServer
from streaming.bus import EventBus
from streaming.feeds import find_feed
from streaming.feeds.replay import ReplayFeed
from streaming.manager import StreamManager


@click.command()
@store_option
@config_option
@click.option(
    "--feed",
    metavar="NAME",
    help="Where quotes come from: sim, the simulated market, by default; sina,tencent: vendors in order of "
    "priority; replay:PATH, a tape, a store or a CSV file.",
)
@click.option(
    "--symbols-from",
    metavar="WHAT",
    help="Whose quotes vendors are asked for: list, all that a vendor lists; index:000300; a file. By default the "
    "stored symbols, and the list where none are stored.",
)
@click.option("--symbols", type=int, metavar="N", help="Size of the simulated market; 5000 by default.")
@click.option("--seed", type=int, metavar="N", help="Which simulated market.")
@click.option(
    "--speed",
    type=float,
    metavar="X",
    help="How many times faster than the clock sim and replay run; 60 by default, 0: as fast as it goes.",
)
@scan_options
@click.option("--host", metavar="ADDRESS", help="Where /ws/signals is served; 127.0.0.1 by default.")
@click.option("--port", type=int, metavar="N", help="Port of /ws/signals; 8765 by default, 0: any free one.")
@click.option(
    "--dashboard-port", type=int, metavar="N", help="Port of the Dask dashboard; 8787 by default, 0: any free one."
)
@click.option(
    "--developing",
    multiple=True,
    metavar="HH:MM",
    help="Time of day in Shanghai at which the daily bar is scanned before it closes. May be repeated.",
)
@click.option("--intervals", type=click.IntRange(min=1), metavar="N", help="End after N closed intervals.")
@click.option("--once", is_flag=True, help="Scan the newest stored bar and end.")
@json_option
@verbosity_options
def command(**given: Any) -> int:
    """Run the live service: feed, bars, scans, signals on a WebSocket.

    With nothing configured: the simulated market of 5,000 symbols, sped up so that a one-minute bar closes each
    second, and its first scan sees 250 bars of history. Ctrl-C drains and ends; the next run goes on from the store.

    Besides the base frame, every frame that a strategy names is folded and scanned. SIGUSR1 scans the daily bar as it
    is now, if daily bars are scanned.
    """
    speed = given["speed"]
    if speed is not None and speed < 0:
        raise UsageError(f"--speed must be 0 or more; got {speed}")
    settings = load_settings(
        given["config"],
        {
            "scan": scan_flags(given) | {"developing": split_list(given["developing"])},
            "feed": {
                "name": given["feed"],
                "universe": given["symbols_from"],
                "symbols": given["symbols"],
                "seed": given["seed"],
                "interval_s": None if speed is None else 60 / speed if speed else 0,
            },
            "serve": {"host": given["host"], "port": given["port"], "dashboard_port": given["dashboard_port"]},
        },
    )
    screen: Screen = JsonScreen() if given["as_json"] else TableScreen() if sys.stdout.isatty() else LineScreen()
    find_feed(settings.feed.name)
    store = _open_store(settings, given["config"], given["store"])
    with _only_one(store):
        parts = assemble(settings)
        warming = Warming(parts.cold) if parts.cold and not given["once"] else None
        try:
            interrupted = asyncio.run(
                _run(settings, store, parts, warming, screen, given["intervals"], once=given["once"])
            )
        finally:
            screen.close()
            screen.say("stopping the cluster ...")
            if warming is not None:
                warming.close()
            parts.close()
    return 130 if interrupted else 0


def _open_store(settings: Settings, config: Path | None, path: Path | None) -> BarStore:
    """The store that goes with the feed; a replay takes any store that is named, and else has one of its own."""
    if settings.feed.name == "sim":
        return open_simulated(settings, path)
    if settings.feed.name.partition(":")[0] != "replay":
        return open_store(config, path, origin="market")
    path = path or settings.store.replay_path
    return BarStore(path, origin=None if (path / "store.json").exists() else "replay")


async def _run(
    settings: Settings,
    store: BarStore,
    parts: Parts,
    warming: Warming | None,
    screen: Screen,
    intervals: int | None,
    *,
    once: bool,
) -> bool:
    """Serve; returns whether Ctrl-C ended it."""
    frames, scanned = live_frames(settings, parts.strategies)
    frame = frames[0]
    history_bars = settings.scan.history_bars or settings.feed.history_bars
    history = SignalHistory(store.root / "signals")
    server = SignalServer(settings.serve.host, settings.serve.port, epoch=history.epoch, replay=history.since)
    if not once:
        await server.start()
    backfill: Backfill | None = None
    try:
        market = SimulatedMarket(settings.feed.symbols, settings.feed.seed) if settings.feed.name == "sim" else None
        if market is not None and not all(store.files(name) for name in frames):
            screen.say(f"making {history_bars} bars of history for {settings.feed.symbols} simulated symbols ...")
            await asyncio.to_thread(make_history, store, market, frames, history_bars)
        await asyncio.to_thread(complete, store, frames)
        feed = find_feed(settings.feed.name)(settings, after=store.last_bar_end(frame))
        if market is not None:
            symbols = list(market.symbols)
        elif isinstance(feed, ReplayFeed):
            symbols = await asyncio.to_thread(replayable, store, frame, settings.scan.universe, feed.symbols)
        elif isinstance(feed, StreamManager):
            symbols = await watched(settings, store, now_ns=feed.clock(), say=screen.say)
        else:
            symbols = scannable(store, frame, settings.scan.universe)
        live = not is_repeatable(settings.feed.name)
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
                gated=live,
                history_bars=history_bars,
            )
            for name in scanned
        ]
        if isinstance(feed, StreamManager) and not once:
            backfill = open_backfill(settings, store, symbols, scans, history_bars, feed.clock, screen.say)
            await backfill.at_start(settings.feed.backfill_s)
        bus = EventBus()
        serving = Serving(bus, server)
        scanning = Scanning(
            store,
            bus,
            scans,
            frames=frames,
            history_bars=history_bars,
            on_interval=screen.interval,
            on_session=None if market is None else lambda day: keep_names(store, market, day),
            next_engine=None if warming is None else lambda: _warm_engine(warming, screen),
            intervals=intervals,
            serving=None if once else serving,
        )
        feeding = Feeding(
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
        service = LiveService(bus, [feeding, scanning, serving])
        interrupted = _stop_on_signals(service, feeding)
        _introduce(screen, store, parts, None if once else server.url)
        screen.open(", ".join(scanned), server.url, parts.cluster.dashboard)
        if once:
            await scanning.catch_up()
        else:
            if isinstance(feed, StreamManager):
                await feed.subscribe(symbols, subscriber="run")
                screen.watch(feed.status)
                if backfill is not None:
                    backfill.go_on()
            kept = await service.run()
            screen.close()
            screen.say(_farewell(kept, store))
        return interrupted.is_set()
    finally:
        if backfill is not None:
            await backfill.close()
        await server.stop()


def _warm_engine(warming: Warming, screen: Screen) -> Engine | None:
    """The engine `vector`, said aloud, once its kernels are compiled."""
    if not warming.done():
        return None
    screen.say(f"engine     vector from here on: {count_of(warming.indicators)} compiled")
    return load("vector")


def _stop_on_signals(service: LiveService, feeding: Feeding) -> asyncio.Event:
    """Let SIGINT and SIGTERM drain the service, and SIGUSR1 scan the daily bar as it is; the event says whether it was
    SIGINT."""
    interrupted = asyncio.Event()

    def on_interrupt() -> None:
        interrupted.set()
        service.stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, service.stop)
    loop.add_signal_handler(signal.SIGUSR1, feeding.look)
    return interrupted


def _introduce(screen: Screen, store: BarStore, parts: Parts, url: str | None) -> None:
    cluster = parts.cluster
    screen.say(f"store      {store.root}")
    screen.say(f"engine     {parts.engine.name}: {parts.reason}; cluster {cluster.name}, {cluster.workers} workers")
    if cluster.dashboard:
        screen.say(f"dashboard  {cluster.dashboard}")
    if url:
        screen.say(f"signals    {url}")


def _farewell(kept: Kept, store: BarStore) -> str:
    said = f"kept {kept.bars} bars of {kept.intervals} intervals"
    if kept.last_bar_end is not None:
        said += f", up to {local_time(kept.last_bar_end)}"
    said += f", and {kept.signals} signals, in {store.root}"
    if kept.latencies_ms:
        said += f"; median latency {statistics.median(kept.latencies_ms):.0f} ms"
    return said


@contextmanager
def _only_one(store: BarStore) -> Iterator[None]:
    """Hold the store for this service; a second one is refused."""
    handle = os.open(store.root / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreOriginError(
                f"another 'mystocks-scan run' works on the store {store.root}: end it, or name another with --store DIR"
            ) from None
        yield
    finally:
        os.close(handle)

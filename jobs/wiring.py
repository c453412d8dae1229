"""Where the parts are joined: settings -> strategies, engine, cluster."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from data import metrics
from data.calendar import MINUTE
from data.errors import EngineError, SettingsError
from data.schema import FRAMES
from data.settings import Settings
from data.store import BarStore
from data.symbols import KINDS
from scanner.cluster import Cluster, engine_for, make_cluster
from scanner.engines import folders, warm
from scanner.engines.base import ENGINES, Engine
from scanner.engines.base import load as load_engine
from scanner.indicators.spec import Indicator
from scanner.loading import StrategyRegistry, load
from scanner.scan import make_plan
from scanner.terms import Term
from streaming.bars import MarketBars
from streaming.tape import Tape

REPEATABLE = ("sim", "replay")
"""Feeds that give again, after a restart, what came since the last stored bar."""
TAPE = "tape"
"""The folder of a store's tape."""
F = TypeVar("F", bound=Callable[..., Any])

_SCAN_OPTIONS = (
    click.option("--frame", type=click.Choice(FRAMES), help="The bars to scan."),
    click.option(
        "--strategies",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="A file or folder of strategies; by default the built-in ones. May be repeated.",
    ),
    click.option("--universe", multiple=True, metavar="KINDS", help="Kinds of symbols: a_share,cdr by default."),
    click.option("--history-bars", type=int, metavar="N", help="How many bars indicators see."),
    click.option("--engine", metavar="NAME", help=f"auto, {', '.join(ENGINES)}."),
    click.option("--cluster", metavar="NAME", help="auto, local, cuda, inline, or tcp://host:8786."),
    click.option("--workers", type=int, metavar="N", help="Worker processes of a local cluster; 0: one a core."),
)


def scan_options(command: F) -> F:
    """The options of whatever scans."""
    for option in reversed(_SCAN_OPTIONS):
        command = option(command)
    return command


def scan_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `scan_options` as `load_settings` takes them; None where nothing was given."""
    names = ("frame", "engine", "cluster", "workers", "history_bars")
    lists = {"strategies": tuple(given["strategies"]) or None, "universe": split_list(given["universe"])}
    return {name: given[name] for name in names} | lists


@dataclass(frozen=True)
class Parts:
    """What a scan needs besides a store. The cluster starts on a thread of its own while the store is read."""

    strategies: StrategyRegistry
    engine: Engine
    reason: str
    """Why this engine."""
    starting: "Future[Cluster]"
    cold: Sequence[Indicator] = ()
    """Indicators whose kernels must be compiled before `auto` takes `vector`; `engine` is what it takes until then."""

    @property
    def cluster(self) -> Cluster:
        """The cluster, once it has started. Raises what its start raised."""
        return self.starting.result()

    def close(self) -> None:
        """Stop the cluster, if it did start."""
        if self.starting.exception() is None:
            self.starting.result().close()


def assemble(settings: Settings, *, one_off: bool = False, extra: Sequence[str] = ()) -> Parts:
    """Load the strategies (nothing starts if one does not load), choose the engine and start the cluster.

    `extra`: expressions that are computed besides. The cluster `auto` is local Dask, but for one scan alone on an
    engine that uses all cores itself: Dask's start takes longer than that scan; and for the GPU of this process.
    """
    check_kinds(settings.scan.universe)
    strategies = load(settings.scan.strategies)
    use_kernel_cache(settings)
    cluster = settings.scan.cluster
    terms = make_plan("1d", strategies.values(), extra).terms
    engine, reason, cold = choose_warm(settings.scan.engine, cluster, terms)
    if cluster == "auto":
        cluster = "inline" if engine.name == "cuda" or (one_off and engine.name != "talib") else "local"
    with_thread = ThreadPoolExecutor(1, thread_name_prefix="cluster-start")
    starting = with_thread.submit(
        make_cluster,
        cluster,
        workers=settings.scan.workers,
        dashboard_port=settings.serve.dashboard_port,
    )
    if cluster == "inline" and engine.name == "vector":
        with_thread.submit(warm.load, terms)
    with_thread.shutdown(wait=False)
    return Parts(strategies, engine, reason, starting, cold)


def live_frames(settings: Settings, strategies: StrategyRegistry) -> tuple[list[str], list[str]]:
    """(frames that the live service folds and stores, those of them that it scans), shortest first.

    It scans the base frame, every frame that a strategy names, and daily bars where it looks at them before they close;
    it folds daily bars in any case.
    """
    scanned = {settings.scan.frame or "1m", *(frame for one in strategies.values() for frame in one.frames)}
    if settings.scan.developing:
        scanned.add("1d")
    return [f for f in FRAMES if f in scanned or f == "1d"], [f for f in FRAMES if f in scanned]


def fold_of(settings: Settings) -> Callable[..., MarketBars]:
    """`MarketBars`, as patient as the settings say."""
    feed = settings.feed
    return functools.partial(MarketBars, grace_s=feed.grace_s, closing_grace_s=feed.closing_grace_s, late_s=feed.late_s)


def clock_ns(text: str) -> int:
    """`14:50` -> ns from midnight."""
    hour, minute = text.split(":")
    return (int(hour) * 60 + int(minute)) * MINUTE


def is_repeatable(feed: str) -> bool:
    """Whether a feed gives again, after a restart, what came since the last stored bar; its time is its own then."""
    return feed.partition(":")[0] in REPEATABLE


def open_tape(settings: Settings, store: BarStore) -> Tape | None:
    """The tape of a store, where the settings want one for their feed."""
    wanted = settings.feed.tape
    if wanted == "auto":
        wanted = not is_repeatable(settings.feed.name)
    if not wanted:
        return None
    sessions, on_sync = settings.feed.tape_sessions, metrics.wal_fsync.observe
    return Tape(store.root / TAPE, origin=store.origin, keep=sessions, on_sync=on_sync)


def choose_warm(name: str, cluster: str, terms: Iterable[Term]) -> tuple[Engine, str, Sequence[Indicator]]:
    """As `engine_for`, but `auto` takes `talib` while kernels that the terms need are not compiled: with these."""
    engine, reason = engine_for(name, cluster)
    cold = warm.cold(warm.needed(terms)) if name == "auto" and engine.name == "vector" else []
    if not cold:
        return engine, reason, ()
    try:
        return load_engine("talib"), f"until {count_of(cold)} compiled for vector", cold
    except EngineError:
        return engine, reason, ()


def count_of(kernels: Sequence[Indicator]) -> str:
    """`1 kernel is`, `7 kernels are`."""
    return "1 kernel is" if len(kernels) == 1 else f"{len(kernels)} kernels are"


def use_kernel_cache(settings: Settings) -> None:
    """Compiled kernels lie where the settings say, for this process and for its workers, which read the environment."""
    if settings.kernel_cache is not None:
        os.environ[folders.SETTING] = str(settings.kernel_cache)


def check_kinds(kinds: Iterable[str]) -> None:
    """Refuse a kind of symbols that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"universe must be of {', '.join(KINDS)}; got {kind!r}")


def split_list(values: Iterable[str]) -> tuple[str, ...] | None:
    """`a,b` and repeated options alike -> ("a", "b"); None where nothing was given."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip()) or None

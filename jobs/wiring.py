"""Where the parts are joined: settings -> strategies, engine, cluster."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from data.errors import SettingsError
from data.schema import FRAMES
from data.settings import Settings
from data.symbols import KINDS
from scanner.cluster import Cluster, make_cluster
from scanner.engines.base import ENGINES, Engine, choose
from scanner.loading import StrategyRegistry, load

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
    click.option("--cluster", metavar="NAME", help="auto, local, inline, or tcp://host:8786."),
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

    @property
    def cluster(self) -> Cluster:
        """The cluster, once it has started. Raises what its start raised."""
        return self.starting.result()

    def close(self) -> None:
        """Stop the cluster, if it did start."""
        if self.starting.exception() is None:
            self.starting.result().close()


def assemble(settings: Settings, *, one_off: bool = False) -> Parts:
    """Load the strategies (nothing starts if one does not load), choose the engine and start the cluster.

    The cluster `auto` is local Dask, but for one scan alone on an engine that uses all cores itself: Dask's start
    takes longer than that scan.
    """
    check_kinds(settings.scan.universe)
    strategies = load(settings.scan.strategies)
    engine, reason = choose(settings.scan.engine)
    cluster = settings.scan.cluster
    if cluster == "auto":
        cluster = "inline" if one_off and engine.name != "talib" else "local"
    with_thread = ThreadPoolExecutor(1, thread_name_prefix="cluster-start")
    starting = with_thread.submit(
        make_cluster,
        cluster,
        workers=settings.scan.workers,
        dashboard_port=settings.serve.dashboard_port,
    )
    with_thread.shutdown(wait=False)
    return Parts(strategies, engine, reason, starting)


def check_kinds(kinds: Iterable[str]) -> None:
    """Refuse a kind of symbols that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"universe must be of {', '.join(KINDS)}; got {kind!r}")


def split_list(values: Iterable[str]) -> tuple[str, ...] | None:
    """`a,b` and repeated options alike -> ("a", "b"); None where nothing was given."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip()) or None

"""Where the parts are joined: settings -> strategies, engine, cluster."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data.settings import Settings
from data.symbols import KINDS
from scanner.cluster import Cluster, make_cluster
from scanner.engines.base import Engine, choose
from scanner.loading import StrategyRegistry, load


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


def assemble(settings: Settings) -> Parts:
    """Load the strategies (nothing starts if one does not load), choose the engine and start the cluster."""
    check_kinds(settings.scan.universe)
    strategies = load(settings.scan.strategies)
    engine, reason = choose(settings.scan.engine)
    with_thread = ThreadPoolExecutor(1, thread_name_prefix="cluster-start")
    starting = with_thread.submit(
        make_cluster,
        settings.scan.cluster,
        workers=settings.scan.workers,
        dashboard_port=settings.serve.dashboard_port,
    )
    with_thread.shutdown(wait=False)
    return Parts(strategies, engine, reason, starting)


def check_kinds(kinds: Iterable[str]) -> None:
    """Refuse a kind of symbols that there is not."""
    from data.errors import SettingsError

    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"universe must be of {', '.join(KINDS)}; got {kind!r}")


def split_list(values: Iterable[str]) -> tuple[str, ...] | None:
    """`a,b` and repeated options alike -> ("a", "b"); None where nothing was given."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip()) or None


def paths_of(values: Iterable[Path]) -> tuple[Path, ...] | None:
    """Paths as settings take them; None where none were given."""
    return tuple(values) or None

"""Where shards are scanned: in this process, or on the workers of a Dask cluster."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from data.errors import MarketDataError, ScanError, UsageError
from scanner.resident import ShardTask, run_shard
from scanner.scan import ShardAnswer

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Cluster(Protocol):
    """Runs shard tasks."""

    name: str
    workers: int
    """How many shards run at once."""
    dashboard: str | None
    """URL of the Dask dashboard, where there is one."""

    def run(self, tasks: Sequence[ShardTask], *, deadline_s: float) -> list[ShardAnswer]:
        """The answers in the order of the tasks. Task k keeps its bars where it ran before. Raises ScanError."""

    def close(self) -> None:
        """Give everything back."""


class InlineCluster:
    """No cluster: the calling process scans, one shard after another. The lowest latency on one machine."""

    name = "inline"
    workers = 1
    dashboard: str | None = None

    def run(self, tasks: Sequence[ShardTask], *, deadline_s: float) -> list[ShardAnswer]:
        return [run_shard(task) for task in tasks]

    def close(self) -> None:
        pass


class DaskCluster:
    """Dask workers, local processes or those of an existing scheduler; shard k stays on worker k modulo workers.

    The client is called from one thread of its own, so that no event loop of ours is Dask's. A scan that fails or is
    late is finished in this process and counted in `late`.
    """

    def __init__(self, address: str | None = None, *, workers: int = 0, dashboard_port: int = 8787) -> None:
        self.name = address or "local"
        self.late = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dask-client")
        self._closed = threading.Event()
        self._client: Any = None
        self._cluster: Any = None
        try:
            self._thread.submit(self._start, address, workers, dashboard_port).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def _start(self, address: str | None, workers: int, dashboard_port: int) -> None:
        import dask
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster, WorkerPlugin

        dask.config.set({"distributed.comm.timeouts.connect": "10s", "distributed.admin.log-format": "%(message)s"})
        # Dask has its workers give freed memory back at once: each scan would fault its matrices in again, for half its
        # time. glibc keeps what is under both thresholds.
        environ = dask.config.get("distributed.nanny.pre-spawn-environ")
        kept = {"MALLOC_TRIM_THRESHOLD_": 1 << 29, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
        dask.config.set({"distributed.nanny.pre-spawn-environ": environ | kept})
        logging.getLogger("distributed").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another is taken, and said
        if address is None:
            self._cluster = LocalCluster(
                n_workers=workers or CPU_COUNT,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=f"127.0.0.1:{dashboard_port}",
                memory_limit=0,
            )
            self._client = Client(self._cluster)

            class Uninterrupted(WorkerPlugin):  # type: ignore[misc]
                """Ctrl-C on a terminal reaches every process of it; when workers end is for us to say."""

                def setup(self, worker: Any) -> None:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)

            self._client.register_plugin(Uninterrupted())
        else:
            try:
                self._client = Client(address, timeout="10s")
            except OSError as error:
                raise UsageError(
                    f"no Dask scheduler answers at {address!r}: {error}. Start one with 'dask scheduler', or use"
                    " --cluster local"
                ) from error
        self.dashboard: str | None = self._client.dashboard_link
        self._workers = self._alive()
        self.workers = len(self._workers)
        if not self._workers:
            raise UsageError(
                f"the Dask scheduler {self.name} has no workers. Start some with 'dask worker {self.name}'"
            )

    def _alive(self) -> list[str]:
        return sorted(self._client.scheduler_info(n_workers=-1)["workers"])

    def run(self, tasks: Sequence[ShardTask], *, deadline_s: float) -> list[ShardAnswer]:
        try:
            return self._thread.submit(self._run, tasks, deadline_s).result()
        except MarketDataError:
            raise  # what a shard says of its data, it would say here too
        except Exception as error:
            if self._closed.is_set():
                raise ScanError("the cluster was closed during a scan") from error
            self.late += 1
            log.exception("the scan of %d shards failed on the cluster; finishing it in this process", len(tasks))
            return [run_shard(task) for task in tasks]

    def _run(self, tasks: Sequence[ShardTask], deadline_s: float) -> list[ShardAnswer]:
        alive = self._alive()
        if alive != self._workers:
            self._workers = alive  # some went, or came back: their shards are read from the store again
        if not alive:
            raise ScanError("the cluster has no workers")
        keys = [f"scan-{task.frame}-{task.bar_end}-{number}-{task.trace}" for number, task in enumerate(tasks)]
        return self._map(run_shard, tasks, keys, deadline_s)

    def map(self, function: Callable[[T], R], items: Sequence[T], *, deadline_s: float) -> list[R]:
        """function(item) of each, item k on worker k modulo workers. Raises what it raises, TimeoutError, ScanError."""
        keys = [f"map-{number}-{time.time_ns()}" for number in range(len(items))]
        return self._thread.submit(self._map, function, items, keys, deadline_s).result()

    def _map(self, function: Callable[[T], R], items: Sequence[T], keys: Sequence[str], deadline_s: float) -> list[R]:
        futures = [
            self._client.submit(
                function,
                item,
                key=key,
                pure=False,
                workers=[self._workers[number % len(self._workers)]],
                allow_other_workers=True,
            )
            for number, (item, key) in enumerate(zip(items, keys, strict=True))
        ]
        try:
            self._wait(futures, deadline_s)
            answers: list[R] = self._client.gather(futures)
        except BaseException:
            self._client.cancel(futures, force=True)
            raise
        return answers

    def _wait(self, futures: Sequence[Any], deadline_s: float) -> None:
        """Until all are done. Dask never runs again what was bound to workers that are all gone: that raises too."""
        from distributed import wait

        end = time.monotonic() + deadline_s
        while True:
            left = end - time.monotonic()
            try:
                wait(futures, timeout=min(max(left, 0.0), 1.0))
                return
            except TimeoutError:
                if left <= 1.0 or not set(self._workers) & set(self._alive()):
                    raise

    def close(self) -> None:
        self._closed.set()

        def stop() -> None:
            if self._client is not None:
                self._client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=3)

        self._thread.submit(stop)
        self._thread.shutdown(wait=True)


def make_cluster(name: str, *, workers: int = 0, dashboard_port: int = 8787) -> Cluster:
    """`inline`, `local`, or the address of a Dask scheduler, tcp://host:8786. Raises UsageError for anything else."""
    if name == "inline":
        return InlineCluster()
    if name == "local":
        return DaskCluster(workers=workers, dashboard_port=dashboard_port)
    if name.startswith(("tcp://", "tls://")):
        return DaskCluster(name)
    raise UsageError(f"cluster must be auto, local, inline or tcp://host:port; got {name!r}")

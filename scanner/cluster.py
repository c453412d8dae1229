"""Where shards are scanned: in this process, or on the workers of a Dask cluster."""

import itertools
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from data.errors import EngineError, MarketDataError, ScanError, UsageError
from data.store import ReadFile
from scanner.cuda_cluster import RESOURCE, local_cuda_cluster
from scanner.engines.base import ON_CPU, Engine, choose
from scanner.engines.on_gpu import on_the_cpu
from scanner.resident import run_shard
from scanner.scan import ShardAnswer
from scanner.tasks import ShardTask

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

    def map(self, function: Callable[[T], R], items: Sequence[T], *, deadline_s: float, gpu: bool = False) -> list[R]:
        """function(item) of each, item k on worker k modulo workers; `gpu`: on those with a GPU, one at a time.

        Raises what it raises, TimeoutError, ScanError.
        """

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True)
class ClusterFigures:
    """A Dask cluster in figures. `late`: scans that it failed, since the start."""

    workers: int
    tasks: Mapping[str, int]
    """On the workers, by state."""
    memory_bytes: int
    late: int


class InlineCluster:
    """No cluster: the calling process scans, one shard after another. The lowest latency on one machine.

    `ahead`: as in `run_shard`.
    """

    name = "inline"
    workers = 1
    dashboard: str | None = None

    def __init__(self, ahead: ReadFile | None = None) -> None:
        self._ahead = ahead

    def run(self, tasks: Sequence[ShardTask], *, deadline_s: float) -> list[ShardAnswer]:
        return [run_shard(task, self._ahead) for task in tasks]

    def map(self, function: Callable[[T], R], items: Sequence[T], *, deadline_s: float, gpu: bool = False) -> list[R]:
        return [function(item) for item in items]

    def close(self) -> None:
        pass


class DaskCluster:
    """Dask workers, local processes or those of an existing scheduler; shard k stays on worker k modulo workers.

    `name`: "local", "cuda" (a worker a GPU) or an address. Tasks of the engine `cuda` go to the workers that declare
    the resource GPU, one at a time each. The client is called from one thread of its own, so that no event loop of ours
    is Dask's. A scan that fails or is late is finished in this process, on the CPU, and counted in `late`. A worker
    whose GPU is lost to it is ended once it has answered, and its nanny starts another.
    """

    def __init__(self, name: str = "local", *, workers: int = 0, dashboard_port: int = 8787) -> None:
        self.name = name
        self.late = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dask-client")
        self._closed = threading.Event()
        self._client: Any = None
        self._cluster: Any = None
        try:
            self._thread.submit(self._start, workers, dashboard_port).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def _start(self, workers: int, dashboard_port: int) -> None:
        import dask
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster, WorkerPlugin

        dask.config.set({"distributed.comm.timeouts.connect": "10s", "distributed.admin.log-format": "%(message)s"})
        # Dask has its workers give freed memory back at once: each scan would fault its matrices in again, for half its
        # time. glibc keeps what is under both thresholds.
        environ = dask.config.get("distributed.nanny.pre-spawn-environ")
        kept = {"MALLOC_TRIM_THRESHOLD_": 1 << 29, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
        dask.config.set({"distributed.nanny.pre-spawn-environ": environ | kept})
        # What `map` is given travels whole, and again where a worker died: that is no mistake to warn of.
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"})
        logging.getLogger("distributed").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another is taken, and said
        if self.name in ("local", "cuda"):
            self._cluster = (
                local_cuda_cluster(workers, dashboard_port)
                if self.name == "cuda"
                else LocalCluster(
                    n_workers=workers or CPU_COUNT,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=f"127.0.0.1:{dashboard_port}",
                    memory_limit=0,
                )
            )
            self._client = Client(self._cluster)

            class Uninterrupted(WorkerPlugin):  # type: ignore[misc]
                """Ctrl-C on a terminal reaches every process of it; when workers end is for us to say."""

                def setup(self, worker: Any) -> None:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)

            self._client.register_plugin(Uninterrupted())
        else:
            try:
                self._client = Client(self.name, timeout="10s")
            except OSError as error:
                raise UsageError(
                    f"no Dask scheduler answers at {self.name!r}: {error}. Start one with 'dask scheduler', or use"
                    " --cluster local"
                ) from error
        self.dashboard: str | None = self._client.dashboard_link
        self._workers = self._alive()
        self.workers = len(self._workers)
        if not self._workers:
            raise UsageError(
                f"the Dask scheduler {self.name} has no workers. Start some with 'dask worker {self.name}'"
            )

    def _alive(self, needs: Mapping[str, int] | None = None) -> list[str]:
        """The workers there are that declare what is needed."""
        found = self._client.scheduler_info(n_workers=-1)["workers"]
        return sorted(
            address
            for address, worker in found.items()
            if all(worker["resources"].get(name, 0) >= n for name, n in (needs or {}).items())
        )

    def _look(self, needs: Mapping[str, int]) -> None:
        """Which workers there are: some may have gone, or come back; their shards are read from the store again."""
        self._workers = self._alive(needs)
        if not self._workers:
            raise ScanError(f"the cluster has no workers{f' with the resource {RESOURCE}' if needs else ''}")

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
            return [_here(task, f"{type(error).__name__}: {error}") for task in tasks]

    def _run(self, tasks: Sequence[ShardTask], deadline_s: float) -> list[ShardAnswer]:
        needs = {RESOURCE: 1} if any(task.engine == "cuda" for task in tasks) else {}
        end = time.monotonic() + deadline_s
        for attempt in itertools.count():
            self._look(needs)
            keys = [f"scan-{task.frame}-{task.bar_end}-{n}-{task.trace}-{attempt}" for n, task in enumerate(tasks)]
            try:
                found = self._map(_run_shard, list(map(_Parcel, tasks)), keys, end - time.monotonic(), needs)
                break
            except _WorkerGoneError as error:
                log.warning("%s; scanning on those that are left", error)
        answers: list[tuple[str, ShardAnswer]] = [(address, pickle.loads(answer)) for address, answer in found]
        lost = {address for address, answer in answers if answer.report is not None and answer.report.lost}
        if lost:
            log.error("the GPU is lost to %s; ending these workers, so that others take their place", sorted(lost))
            self._client.run(os._exit, 1, workers=sorted(lost), on_error="ignore")
        return [answer for _, answer in answers]

    def map(self, function: Callable[[T], R], items: Sequence[T], *, deadline_s: float, gpu: bool = False) -> list[R]:
        if self._closed.is_set():
            raise UsageError(f"the cluster {self.name!r} was closed. Open another with scanner.cluster.make_cluster")
        keys = [f"map-{number}-{time.time_ns()}" for number in range(len(items))]
        needs = {RESOURCE: 1} if gpu else {}

        def work() -> list[R]:
            self._look(needs)
            return self._map(function, items, keys, deadline_s, needs)

        return self._thread.submit(work).result()

    def _map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        keys: Sequence[str],
        deadline_s: float,
        needs: Mapping[str, int] | None = None,
    ) -> list[R]:
        import dask

        place = {key: [self._workers[number % len(self._workers)]] for number, key in enumerate(keys)}
        # All in one message: Dask holds a second one back for some milliseconds.
        # Where one may not go where it was told to, Dask sends it to any worker, whatever it needs.
        with dask.annotate(workers=lambda key: place[key], allow_other_workers=not needs):
            futures = self._client.map(function, items, key=keys, pure=False, resources=needs)
        try:
            self._wait(futures, deadline_s, needs)
            answers: list[R] = self._client.gather(futures)
        except BaseException:
            self._client.cancel(futures, force=True)
            raise
        return answers

    def _wait(self, futures: Sequence[Any], deadline_s: float, needs: Mapping[str, int] | None) -> None:
        """Until all are done. Dask never runs again what was bound to workers that are gone: that raises too."""
        from distributed import wait

        end = time.monotonic() + deadline_s
        look_s = 0.2 if needs else 1.0
        while True:
            left = end - time.monotonic()
            try:
                wait(futures, timeout=min(max(left, 0.0), look_s))
                return
            except TimeoutError:
                gone = set(self._workers) - set(self._alive(needs))
                if needs and gone:
                    raise _WorkerGoneError(f"workers with a GPU are gone: {sorted(gone)}") from None
                if left <= look_s or gone == set(self._workers):
                    raise

    def figures(self) -> ClusterFigures:
        """What the workers said last; waits for the scan in flight. Raises what a scheduler that is gone raises."""

        def ask() -> ClusterFigures:
            said = [worker["metrics"] for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()]
            tasks: Counter[str] = Counter({"executing": 0, "ready": 0})
            for metrics in said:
                tasks.update(metrics.get("task_counts", {}))
            return ClusterFigures(len(said), tasks, sum(metrics.get("memory", 0) for metrics in said), self.late)

        return self._thread.submit(ask).result()

    def close(self) -> None:
        self._closed.set()

        def stop() -> None:
            if self._client is not None:
                self._client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=3)

        self._thread.submit(stop)
        self._thread.shutdown(wait=True)


class _WorkerGoneError(ScanError):
    """A worker went to which tasks were bound."""


class _Parcel:
    """A task as the bytes that a worker opens: on its way the scheduler opens and closes what it takes for data."""

    def __init__(self, task: ShardTask) -> None:
        self.bytes = pickle.dumps(task, protocol=5)
        self._name = task.frame, task.bar_end, task.trace, task.symbols[:1]

    def __dask_tokenize__(self) -> object:
        return self._name


def _run_shard(parcel: _Parcel) -> tuple[str, bytes]:
    """On a worker: its address, and the answer pickled, since Dask would look into every part of it."""
    from distributed import get_worker

    return get_worker().address, pickle.dumps(run_shard(pickle.loads(parcel.bytes)), protocol=5)


def _here(task: ShardTask, reason: str) -> ShardAnswer:
    """In the place of a cluster that failed. This process has no GPU: it may be the parent of those that do."""
    if task.engine != "cuda":
        return run_shard(task)
    answer = run_shard(replace(task, engine=on_the_cpu().name))
    if answer.report is not None:
        answer.report.fallbacks.append(reason)
    return answer


class Elsewhere:
    """The engine `cuda` of workers on GPUs; the little that the coordinator computes itself the CPU does."""

    name = "cuda"

    def __init__(self) -> None:
        self.run = on_the_cpu().run


def engine_for(engine: str, cluster: str) -> tuple[Engine, str]:
    """The engine for scans on a cluster, and why this one, by their names in the settings.

    Raises EngineError where it cannot run there. `auto` takes `cuda` only for workers of this machine that have GPUs.
    """
    if cluster == "local":
        if engine == "cuda":
            raise EngineError(
                "engine 'cuda' needs workers with a GPU, and those of --cluster local have none. Use --cluster cuda, or"
                " inline"
            )
        return choose(engine, ON_CPU)
    if cluster in ("auto", "inline"):
        return choose(engine)
    if engine == "cuda" and cluster != "cuda":
        return Elsewhere(), "asked for"
    chosen, reason = choose(engine, None if cluster == "cuda" else ON_CPU)
    return (Elsewhere(), reason) if chosen.name == "cuda" else (chosen, reason)


def make_cluster(name: str, *, workers: int = 0, dashboard_port: int = 8787) -> Cluster:
    """`inline`, `local`, `cuda`, or the address of a Dask scheduler, tcp://host:8786.

    Raises UsageError for anything else, EngineError for `cuda` where that cannot be.
    """
    if name == "inline":
        return InlineCluster()
    if name in ("local", "cuda") or name.startswith(("tcp://", "tls://")):
        return DaskCluster(name, workers=workers, dashboard_port=dashboard_port)
    raise UsageError(f"cluster must be auto, local, cuda, inline or tcp://host:port; got {name!r}")

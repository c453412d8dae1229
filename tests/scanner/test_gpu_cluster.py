"""Scans on Dask workers that declare a GPU: a real cluster, whose GPUs are pretended (`scanner.engines.pretend`)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.errors import EngineError, UsageError
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner import cuda_cluster
from scanner.cluster import DaskCluster, InlineCluster, engine_for, make_cluster
from scanner.engines import gpu
from scanner.engines.base import choose
from scanner.engines.report import growth
from scanner.loading import StrategyRegistry, load
from scanner.market import ScanResult, merge
from scanner.scan import make_plan
from scanner.tasks import ShardTask, split

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")

RULES = """
strategies:
  - {name: local, when: RSI(6) > 70 and close > prev(close), action: BUY}
  - {name: strong, when: rank(ROC(5)) > 0.9, action: ALERT, cooldown: 2}
"""


def pretended() -> Any:
    """A plugin that gives each worker a pretended GPU, a restarted one too, and counts the reads of its store."""
    from distributed import WorkerPlugin

    class PretendedGpu(WorkerPlugin):  # type: ignore[misc]
        name = "pretended-gpu"

        def setup(self, worker: Any) -> None:
            from scanner import ptx
            from scanner.engines import on_gpu
            from scanner.engines.on_gpu import CudaEngine
            from scanner.engines.pretend import HostDevice
            from scanner.ptx.on_cpu import PtxMachine

            module: Any = ModuleType("scanner.engines.cuda")
            module.device = HostDevice(PtxMachine({name: ptx.text(name) for name in ("RSI", "ROC", "PREV")}).launch)
            module.engine = CudaEngine(lambda: module.device)
            on_gpu.the_device = lambda: module.device
            module.reads = 0
            sys.modules["scanner.engines.cuda"] = module
            table = BarStore.table

            def counted(*args: Any, **kwargs: Any) -> Any:
                module.reads += 1
                return table(*args, **kwargs)

            BarStore.table = counted  # type: ignore[method-assign]

    return PretendedGpu()


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """A scheduler with two workers that declare a GPU, and one that does not."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", resources={"GPU": 1}
    ) as made:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", made.scheduler_address, "--nthreads", "1"]
        plain = subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL)
        yield made
        plain.terminate()
        plain.wait()


@pytest.fixture(scope="module")
def dask(workers: Any) -> Iterator[DaskCluster]:
    made = make_cluster(workers.scheduler_address)
    assert isinstance(made, DaskCluster)
    made._client.wait_for_workers(3, timeout=30)
    made._client.register_plugin(pretended())
    yield made
    made.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> StrategyRegistry:
    file = tmp_path_factory.mktemp("strategies") / "rules.yaml"
    file.write_text(RULES)
    return load([file])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, daily: pa.Table) -> BarStore:
    made = BarStore(tmp_path_factory.mktemp("market"), origin="sim")
    made.append(daily, "1d")
    return made


@pytest.fixture
def tasks(store: BarStore, registry: StrategyRegistry, simulated: SimulatedMarket, daily: pa.Table) -> Any:
    """(bar end) -> the tasks of one scan of two shards, each with the newest bars."""
    ends = sorted(set(daily["bar_end"].cast(pa.int64()).to_pylist()))
    plan = make_plan("1d", registry.values())

    def make(place: int) -> list[ShardTask]:
        rows = daily.filter(pc.equal(daily["bar_end"].cast(pa.int64()), ends[place]))
        task = ShardTask(str(store.root), "1d", None, (), ends[0], ends[place], "cuda", plan, ends[place - 1])
        each = replace(task, batch=rows, trace=time.time_ns())
        return [replace(each, symbols=shard) for shard in split(simulated.symbols, 2)]

    return make


def scan(cluster: Any, registry: StrategyRegistry, tasks: list[ShardTask], deadline_s: float = 60) -> ScanResult:
    answers = cluster.run(tasks, deadline_s=deadline_s)
    assert [answer.symbols for answer in answers] == [task.symbols for task in tasks]
    return merge(tasks[0].plan, list(registry.values()), answers, tasks[0].bar_end, choose("vector")[0])


def expected(registry: StrategyRegistry, tasks: list[ShardTask]) -> Any:
    result = scan(InlineCluster(), registry, [replace(task, engine="vector") for task in tasks])
    assert len(result.hits) > 0
    return result.hits


def engines(result: ScanResult) -> list[str]:
    return [report.engine for report in result.reports]


def told(dask: DaskCluster, what: Any) -> dict[str, Any]:
    """Worker -> what a function says of its pretended GPU."""
    return dict(dask._client.run(lambda: what(sys.modules["scanner.engines.cuda"])))


def test_tasks_go_to_workers_with_a_gpu_and_shards_stay_there(
    dask: DaskCluster, registry: StrategyRegistry, tasks: Any
) -> None:
    used = []
    for place in range(85, 105):
        result = scan(dask, registry, tasks(place))
        assert (result.hits, engines(result)) == (expected(registry, tasks(place)), ["cuda", "cuda"])
        used.append([report.after and report.after.used_bytes for report in result.reports])
    assert dask.late == 0
    launches, reads = told(dask, lambda module: module.device.launches), told(dask, lambda module: module.reads)
    assert sorted(n > 0 for n in launches.values()) == [False, True, True]
    assert [reads[address] for address in launches] == [int(n > 0) for n in launches.values()]
    assert all(map(all, used[1:])), "streams stay"
    # A row of a term that a bar's rules did not get to is not there, and what is garbage may stay for a while.
    assert [growth(column[1:], max(column) // 20) for column in zip(*used, strict=True)] == [0, 0], "and do not grow"


def test_a_killed_worker_is_rebuilt_from_the_store(dask: DaskCluster, registry: StrategyRegistry, tasks: Any) -> None:
    scan(dask, registry, tasks(110))
    with_gpu = dask._alive({"GPU": 1})
    os.kill(dask._client.run(os.getpid, workers=with_gpu[:1])[with_gpu[0]], signal.SIGKILL)
    result = scan(dask, registry, tasks(111))
    assert (result.hits, engines(result)) == (expected(registry, tasks(111)), ["cuda", "cuda"])
    dask._client.wait_for_workers(3, timeout=30)
    result = scan(dask, registry, tasks(112))
    assert (result.hits, engines(result)) == (expected(registry, tasks(112)), ["cuda", "cuda"])
    assert dask.late == 0


def test_a_worker_that_lost_its_gpu_answers_by_the_cpu_and_is_replaced(
    dask: DaskCluster, registry: StrategyRegistry, tasks: Any
) -> None:
    scan(dask, registry, tasks(113))
    broken, whole = dask._alive({"GPU": 1})

    def lose() -> int:
        from scanner.engines.device import DeviceLostError

        module: Any = sys.modules["scanner.engines.cuda"]
        module.device.fault = DeviceLostError("cudaErrorIllegalAddress")
        return os.getpid()

    dask._client.run(lose, workers=[broken])
    result = scan(dask, registry, tasks(114))
    assert result.hits == expected(registry, tasks(114))
    assert (sorted(engines(result)), result.fallbacks) == (["cuda", "vector"], ("cudaErrorIllegalAddress",))
    end = time.monotonic() + 30
    while broken in dask._alive() or len(dask._alive({"GPU": 1})) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert whole in dask._alive()
    result = scan(dask, registry, tasks(115))
    assert (result.hits, engines(result)) == (expected(registry, tasks(115)), ["cuda", "cuda"])
    assert dask.late == 0


def test_a_deadline_holds_where_no_gpu_comes_free(dask: DaskCluster, registry: StrategyRegistry, tasks: Any) -> None:
    with_gpu = dask._alive({"GPU": 1})
    busy = [
        dask._client.submit(time.sleep, 60 + n, workers=[address], resources={"GPU": 1})
        for n, address in enumerate(with_gpu)
    ]
    result = scan(dask, registry, tasks(116), deadline_s=0.5)
    assert (result.hits, engines(result)) == (expected(registry, tasks(116)), ["vector", "vector"])
    assert result.fallbacks[0].startswith("TimeoutError")
    assert dask.late == 1
    dask._client.cancel(busy, force=True)
    for pid in dask._client.run(os.getpid, workers=with_gpu).values():
        os.kill(pid, signal.SIGKILL)  # they sleep on


def test_without_any_gpu_nobody_waits_for_the_deadline(
    dask: DaskCluster, workers: Any, registry: StrategyRegistry, tasks: Any
) -> None:
    workers.scale(0)
    while dask._alive({"GPU": 1}):
        time.sleep(0.05)
    result = scan(dask, registry, tasks(117), deadline_s=3600)
    assert (result.hits, engines(result)) == (expected(registry, tasks(117)), ["vector", "vector"])
    assert result.fallbacks == ("ScanError: the cluster has no workers with the resource GPU",)
    assert dask.late == 2


def test_cluster_cuda_asks_dask_cuda_for_a_worker_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    fake: Any = ModuleType("dask_cuda")

    def local_cuda_cluster(  # as of 26.10
        CUDA_VISIBLE_DEVICES: Any = None,  # noqa: N803
        n_workers: Any = None,
        threads_per_worker: int = 1,
        memory_limit: Any = "auto",
        device_memory_limit: Any = "default",
        enable_cudf_spill: bool = False,
        local_directory: Any = None,
        protocol: Any = None,
        rmm_pool_size: Any = None,
        rmm_maximum_pool_size: Any = None,
        rmm_managed_memory: bool = False,
        rmm_async: bool = False,
        rmm_allocator_external_lib_list: Any = None,
        rmm_release_threshold: Any = None,
        rmm_log_directory: Any = None,
        rmm_track_allocations: bool = False,
        log_spilling: bool = False,
        pre_import: Any = None,
        **kwargs: Any,
    ) -> Any:
        from distributed import LocalCluster

        assert set(kwargs) == {"host", "dashboard_address", "resources"}
        asked.update(pool=rmm_pool_size, libraries=rmm_allocator_external_lib_list, tracked=rmm_track_allocations)
        asked.update(limit=device_memory_limit, spill=enable_cudf_spill, imported=pre_import, workers=n_workers)
        return LocalCluster(
            n_workers=1, threads_per_worker=threads_per_worker, protocol=protocol, memory_limit=memory_limit, **kwargs
        )

    fake.LocalCUDACluster = local_cuda_cluster
    card = gpu.Card("Pretend", (8, 6), 16 << 30)
    monkeypatch.setitem(sys.modules, "dask_cuda", fake)
    monkeypatch.setattr(gpu, "probe", lambda: gpu.Probe(True, True, 12080, (card,)))
    monkeypatch.setattr(gpu, "missing", lambda: ())
    monkeypatch.setattr(gpu, "installed", lambda module: module == "cupy")
    made = make_cluster("cuda", dashboard_port=0)
    assert isinstance(made, DaskCluster)
    assert (made.name, made.workers, made._alive({"GPU": 1})) == ("cuda", 1, made._workers)
    made.close()
    assert asked == {
        "pool": 0.3, "libraries": "cupy", "tracked": True, "limit": 0, "spill": False, "imported": "cupy",
        "workers": None,
    }  # fmt: skip
    assert {"cudf", "cupy", "rmm"} & set(sys.modules) == set()
    with pytest.raises(UsageError, match="workers must be at most 1 on --cluster cuda, one a GPU; got 3"):
        make_cluster("cuda", workers=3)
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(EngineError, match=r"--cluster cuda needs Dask-CUDA: .*mystocks-scan\[gpu\]"):
        cuda_cluster.local_cuda_cluster(1, 0)


def test_cluster_cuda_without_a_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(EngineError, match=r"needs a GPU: libcuda-that-is-nowhere.so.1 not found\. Remedy: install"):
        make_cluster("cuda")


@pytest.mark.parametrize(
    ("engine", "cluster", "taken"),
    [
        ("cuda", "tcp://host:8786", "cuda"),  # the workers' GPUs, not this machine's
        ("auto", "tcp://host:8786", choose("auto")[0].name),
        ("auto", "local", choose("auto")[0].name),
        ("vector", "cuda", "vector"),
        ("talib", "inline", "talib"),
    ],
)
def test_the_engine_for_a_cluster(engine: str, cluster: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    assert engine_for(engine, cluster)[0].name == taken


@pytest.mark.parametrize(
    ("cluster", "text"), [("local", "those of --cluster local have none"), ("inline", "needs a GPU")]
)
def test_an_engine_without_its_gpu_is_refused(cluster: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(EngineError, match=text):
        engine_for("cuda", cluster)

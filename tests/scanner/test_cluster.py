"""Shards on a real local Dask cluster: the same answers as in this process, whatever happens to its workers."""

import contextlib
import logging
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.errors import ScanError, StoreError, UsageError
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner.cluster import DaskCluster, InlineCluster, make_cluster
from scanner.engines.base import choose
from scanner.loading import StrategyRegistry, load
from scanner.market import ScanResult, merge
from scanner.resident import run_shard
from scanner.scan import make_plan
from scanner.tasks import ShardTask, split

FILES = {
    "rules.yaml": """
strategies:
  - {name: local, when: RSI(6) > 70 and close > prev(close), action: BUY}
  - {name: strong, when: rank(ROC(5)) > 0.9, action: ALERT, cooldown: 2}
""",
    "mine.py": """
from scanner import BaseStrategy, Strategy, rank

class Strong(Strategy):
    indicators = {"roc": "ROC(5)"}
    def evaluate(self, market):
        return market.hits(rank(market.indicators["roc"][-1]) > 0.9, action="ALERT")

class Old(BaseStrategy):
    indicators = ["MACD"]
    def evaluate(self, context):
        return context.signal("BUY") if context.indicators.get("MACD").hist[-1] > 0 else None
""",
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> StrategyRegistry:
    folder = tmp_path_factory.mktemp("strategies")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return load([folder])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, daily: pa.Table) -> BarStore:
    made = BarStore(tmp_path_factory.mktemp("market"), origin="sim")
    made.append(daily, "1d")
    return made


@pytest.fixture
def tasks(store: BarStore, registry: StrategyRegistry, simulated: SimulatedMarket, daily: pa.Table) -> Any:
    """(bar end, shards, with a batch) -> the tasks of one scan."""
    ends = sorted(set(daily["bar_end"].cast(pa.int64()).to_pylist()))
    plan = make_plan("1d", registry.values())

    def make(place: int, n_shards: int, *, live: bool = False) -> list[ShardTask]:
        rows = daily.filter(pc.equal(daily["bar_end"].cast(pa.int64()), ends[place]))
        batch, previous = (rows, ends[place - 1]) if live else (None, None)
        return [
            ShardTask(
                str(store.root), "1d", None, shard, ends[0], ends[place], "talib", plan, previous, batch, time.time_ns()
            )
            for shard in split(simulated.symbols, n_shards)
        ]

    return make


def scan(cluster: Any, registry: StrategyRegistry, tasks: list[ShardTask], deadline_s: float = 60) -> ScanResult:
    answers = cluster.run(tasks, deadline_s=deadline_s)
    assert [answer.symbols for answer in answers] == [task.symbols for task in tasks]
    return merge(tasks[0].plan, list(registry.values()), answers, tasks[0].bar_end, choose("talib")[0])


def test_hits_are_the_same_inline_and_on_dask_for_1_2_and_7_shards(
    dask: DaskCluster, registry: StrategyRegistry, tasks: Any
) -> None:
    expected = scan(InlineCluster(), registry, tasks(100, 1))
    assert {hit.strategy for hit in expected.hits} == {"local", "strong", "Strong", "Old"}
    for n_shards in (1, 2, 7):
        assert scan(dask, registry, tasks(100, n_shards)) == expected
        assert scan(InlineCluster(), registry, tasks(100, n_shards)) == expected
    assert (dask.late, dask.workers) == (0, 2)
    figures = dask.figures()
    assert (figures.workers, figures.late) == (2, 0)
    assert "executing" in figures.tasks
    assert figures.memory_bytes > 1 << 26
    assert dask.dashboard is not None
    assert dask.dashboard.startswith("http://127.0.0.1:")


def test_a_cluster_of_its_own_listens_on_this_machine_alone(dask: DaskCluster) -> None:
    known = dask._client.scheduler_info()
    assert dask.dashboard is not None
    for address in (known["address"], *known["workers"], dask.dashboard):
        assert re.match(r"(tcp|http)://127\.0\.0\.1:", address), address


def test_shards_stay_where_they_are_and_advance(dask: DaskCluster, registry: StrategyRegistry, tasks: Any) -> None:
    for place in range(110, 116):
        assert scan(dask, registry, tasks(place, 2, live=True)) == scan(InlineCluster(), registry, tasks(place, 1))
    assert dask.late == 0


def test_a_killed_worker_changes_no_answer(dask: DaskCluster, registry: StrategyRegistry, tasks: Any) -> None:
    expected = scan(InlineCluster(), registry, tasks(117, 2))
    scan(dask, registry, tasks(116, 2, live=True))
    before = dask.late
    victim = next(iter(dask._client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    assert scan(dask, registry, tasks(117, 2, live=True)) == expected
    assert scan(dask, registry, tasks(117, 7)) == expected
    dask._client.wait_for_workers(2, timeout=30)
    assert scan(dask, registry, tasks(118, 2, live=True)) == scan(InlineCluster(), registry, tasks(118, 1))
    assert dask.late == before


def test_a_worker_that_dies_between_advancing_and_answering_changes_no_answer(
    dask: DaskCluster, tasks: Any, tmp_path: Path
) -> None:
    """Its task is done again by another, which has no bars of that shard, or has advanced them already."""
    dask._client.wait_for_workers(2, timeout=60)
    flag = tmp_path / "die"

    def armed(path: str) -> None:
        from scanner import resident

        answer = resident.scan_shard

        def dying(*args: Any, **kwargs: Any) -> Any:
            found = answer(*args, **kwargs)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                os._exit(1)
            return found

        resident.scan_shard = dying

    def followed() -> int:
        from scanner import resident

        return sum(kept.following is not None for kept in resident._residents.values())

    def scan(n: int, live: bool) -> list[ShardTask]:
        return [replace(task, engine="vector") for task in tasks(n, 2, live=live)]

    try:
        dask.run(scan(118, False), deadline_s=120)
        dask.run(scan(119, True), deadline_s=120)
        assert sum(dask._client.run(followed).values()) == 2
        dask._client.run(armed, str(flag))
        flag.touch()
        late = dask.late
        answers = [dask.run(scan(n, True), deadline_s=120) for n in (120, 121)]
        assert not flag.exists()
        assert dask.late == late
        for n, found in zip((120, 121), answers, strict=True):
            expected = InlineCluster().run(scan(n, False), deadline_s=120)
            assert [vars(a)["hits"] for a in found] == [vars(a)["hits"] for a in expected]
            for one, other in zip(found, expected, strict=True):
                for mine, theirs in zip(one.wanted, other.wanted, strict=True):
                    np.testing.assert_array_equal(mine, theirs)
    finally:
        dask._client.restart()  # none of what was planted stays


def test_a_scan_that_is_late_or_has_lost_all_workers_is_finished_here_and_counted(
    dask: DaskCluster,
    registry: StrategyRegistry,
    tasks: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = scan(InlineCluster(), registry, tasks(100, 2))
    before = dask.late
    original = dask._client.submit
    late = tasks(100, 2)
    monkeypatch.setattr(
        dask._client, "submit", lambda function, task, **how: original(time.sleep, 20 if task is late[1] else 0, **how)
    )
    with caplog.at_level(logging.ERROR, "scanner.cluster"):
        assert scan(dask, registry, late, deadline_s=0.3) == expected
    assert dask.late == before + 1
    assert "the scan of 2 shards failed on the cluster; finishing it in this process" in caplog.text
    monkeypatch.undo()
    for pid in set(dask._client.run(os.getpid, on_error="ignore").values()):
        os.kill(pid, signal.SIGKILL)  # they sleep on
    # All workers are lost: nobody waits for the deadline.
    assert scan(dask, registry, tasks(101, 2), deadline_s=3600) == scan(InlineCluster(), registry, tasks(101, 1))


def test_what_a_shard_says_of_its_data_is_said_here(dask: DaskCluster, tasks: Any, tmp_path: Path) -> None:
    dask._client.wait_for_workers(2, timeout=60)  # another test may have just killed them
    before = dask.late
    damaged = BarStore(tmp_path / "damaged", origin="sim")
    folder = damaged.root / "bars" / "1d"
    folder.mkdir(parents=True)
    (folder / "20240102T070000-20240131T070000-4f0c2a9b1d3e.parquet").write_bytes(b"PAR1")
    broken = [replace(task, root=str(damaged.root)) for task in tasks(100, 2)]
    with pytest.raises(StoreError, match="4f0c2a9b1d3e"):
        dask.run(broken, deadline_s=60)
    assert dask.late == before


def test_a_cluster_that_was_closed_says_so(tasks: Any) -> None:
    closed = make_cluster("local", workers=1, dashboard_port=0)
    closed.close()
    with pytest.raises(ScanError, match="the cluster was closed during a scan"):
        closed.run(tasks(100, 1), deadline_s=1)
    with pytest.raises(UsageError, match=r"the cluster 'local' was closed\. Open another"):
        closed.map(len, [()], deadline_s=1)


def test_clusters_by_name() -> None:
    assert isinstance(make_cluster("inline"), InlineCluster)
    with pytest.raises(UsageError, match=r"cluster must be auto, local, cuda, inline or tcp://host:port; got 'lokal'"):
        make_cluster("lokal")


def test_an_inline_cluster_runs_here(tasks: Any) -> None:
    inline = InlineCluster()
    (answer,) = inline.run(tasks(100, 1), deadline_s=1)
    assert answer.n_symbols == run_shard(tasks(100, 1)[0]).n_symbols
    assert (inline.workers, inline.dashboard) == (1, None)
    inline.close()

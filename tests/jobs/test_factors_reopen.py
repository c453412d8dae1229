"""A quote's previous close that differs from the last close reopens that symbol's state alone, on every engine."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.factors import FactorStore
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.stages.factors import QuotedFactors
from scanner import ptx, resident
from scanner.engines import on_gpu
from scanner.engines.on_gpu import CudaEngine
from scanner.engines.pretend import HostDevice
from scanner.loading import load
from scanner.ptx.on_cpu import PtxMachine
from scanner.resident import run_shard
from scanner.running import Running
from scanner.scan import make_plan
from scanner.tasks import ShardTask

MARKET = SimulatedMarket(12, seed=7)
WANTED = ("SMA(close, 5)", "EMA(close, 4)", "RSI(3)", "prev(close, 3)", "highest(high, 6)")
STRATEGY = f"""
from scanner import Strategy

class Rows(Strategy):
    indicators = {{text: text for text in {WANTED}}}
    def evaluate(self, market):
        return []
"""
"""Asks for the terms, which shards return to nobody else."""
KERNELS = ("SMA", "EMA", "RSI", "PREV", "HIGHEST")


@pytest.fixture(params=["talib", "vector", "cuda"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each; `cuda` on a pretended GPU, whose kernels are run by the CPU."""
    if request.param == "cuda":
        if shutil.which("gcc") is None:
            pytest.skip("a C compiler is not on this machine")
        device = HostDevice(PtxMachine({name: ptx.text(name) for name in KERNELS}).launch)
        module: Any = ModuleType("scanner.engines.cuda")
        module.engine = CudaEngine(lambda: device)
        monkeypatch.setitem(sys.modules, "scanner.engines.cuda", module)
        monkeypatch.setattr(on_gpu, "the_device", lambda: device)
    return str(request.param)


def two_sessions() -> tuple[pa.Table, list[int], int, str]:
    """The last minutes of a session and the first of the next, in which one symbol's previous close is half of its last
    close; all bar ends, the place of the open, and the symbol."""
    table = MARKET.bars("1m", *MARKET.sessions[100:102])
    ends = sorted(set(table["bar_end"].cast(pa.int64()).to_pylist()))
    ends, opens = ends[228:246], 12
    table = table.filter(pc.is_in(table["bar_end"].cast(pa.int64()), pa.array(ends)))
    rows = table.to_pylist()
    whole = [symbol for symbol in MARKET.symbols if sum(row["symbol"] == symbol for row in rows) == len(ends)]
    moved = whole[1]
    last = {row["symbol"]: row["close"] for row in rows if row["bar_end"].value == ends[opens - 1]}
    for row in rows:
        if row["bar_end"].value >= ends[opens] and row["symbol"] in last:
            row["prev_close"] = last[row["symbol"]] / (2 if row["symbol"] == moved else 1)
    return pa.Table.from_pylist(rows, table.schema), ends, opens, moved


def test_a_factor_that_quotes_tell_reopens_its_symbol_and_gives_what_a_scan_from_the_store_gives(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_residents", type(resident._residents)())
    reopened: list[list[str]] = []
    replace = Running.replace

    def watched(self: Running, columns: Any, other: Any) -> None:
        reopened.append([MARKET.symbols[j] for j in columns])
        replace(self, columns, other)

    monkeypatch.setattr(Running, "replace", watched)
    table, ends, opens, moved = two_sessions()
    at = [table.filter(pc.equal(table["bar_end"].cast(pa.int64()), end)).combine_chunks() for end in ends]
    store = BarStore(tmp_path / "store", origin="sim")
    (tmp_path / "rows.py").write_text(STRATEGY)
    quoted, plan = QuotedFactors(store, "1m"), make_plan("1m", list(load([tmp_path / "rows.py"]).values()))

    def scan(n: int, *live: Any) -> list[Any]:
        answer = run_shard(
            ShardTask(str(store.root), "1m", None, MARKET.symbols, ends[0], ends[n], engine, plan, *live)
        )
        return [np.asarray(rows)[-1] for rows in answer.wanted]

    stayed = resident._residents
    for n, bars in enumerate(at):
        batch = bars.to_batches()[0]
        found = scan(n, ends[n - 1] if n else None, batch) if n else None
        store.append(batch, "1m")
        quoted.take(batch)
        if found is None:
            continue
        resident._residents = type(stayed)()
        for expression, mine, anew in zip(WANTED, found, scan(n), strict=True):
            np.testing.assert_array_equal(mine, anew, err_msg=f"{expression} at {n}")
        resident._residents = stayed
    assert reopened == ([] if engine == "talib" else [[moved]]), "TA-Lib computes all bars anew at each"
    known = FactorStore(store.root).table().to_pylist()
    assert [(row["symbol"], row["factor"]) for row in known] == [(moved, 0.5)]
    # By hand: what lies before the open is halved.
    closes = [row["close"] for n in range(opens - 2, opens + 3) for row in at[n].to_pylist() if row["symbol"] == moved]
    resident._residents = type(stayed)()
    mean = scan(opens + 2)[0][MARKET.symbols.index(moved)]
    assert mean == pytest.approx(np.mean([closes[0] / 2, closes[1] / 2, *closes[2:]]), rel=1e-12)

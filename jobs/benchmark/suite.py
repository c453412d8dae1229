"""Everything that was asked for, measured in one run on one machine."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data.errors import EngineError, UsageError
from data.panel import Panel
from data.settings import APP
from jobs.benchmark.bars import Bars, market, rectangle, simulated
from jobs.benchmark.cases import TWENTY, Row, measure, one_indicator
from jobs.benchmark.engines import Field, Outputs, Way, Work, cores
from jobs.benchmark.loop import Call
from jobs.benchmark.newest import new_bars, newest
from jobs.benchmark.scans import FIRST, scans
from jobs.benchmark.share import Processes, write
from jobs.drill import golden_bits, leaks
from jobs.drill import market as a_market
from jobs.findings import Finding
from scanner.cluster import DaskCluster
from scanner.computing import compute
from scanner.engines.base import choose, load
from scanner.engines.gpu import probe
from scanner.engines.on_gpu import CudaEngine
from scanner.indicators import kernels

CASES = ("one-indicator", "batch", "last", "history", "bar", "bar-halts", "scan")
HISTORY = 5
"""How many times as many bars `history` has as the other cases: 1,250 of 250."""
GPU_SCANS = 1000
PACKAGES = (APP, "TA-Lib", "numba", "numpy", "dask", "distributed", "pyarrow", "cupy-cuda12x", "dask-cuda", "cudf-cu12")


@dataclass(frozen=True)
class Asked:
    """What is to be measured. `market`: a store's folder or a Parquet file of daily bars; None: the simulator's."""

    cases: tuple[str, ...] = CASES
    symbols: int = 5000
    bars: int = 250
    runs: int = 5
    market: Path | None = None
    indicators: int = 55
    rules: int = 50
    """Both of `scan` alone."""


@dataclass(frozen=True)
class Report:
    """What was measured; `missing`: engine -> why it was not; `market`: what `bar-halts` was measured on.

    `gpu`: what was found about a card, its bits and its memory over many scans, where there is one.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    rows: tuple[Row, ...]
    missing: dict[str, str]
    market: str = ""
    gpu: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"machine": self.machine, "versions": self.versions, "cases": [row.as_dict() for row in self.rows]}


def run(asked: Asked, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Check and measure; `tell` is given a line before each case. Raises UnequalError, UsageError."""
    unknown = [case for case in asked.cases if case not in CASES]
    if unknown:
        raise UsageError(f"there is no case {unknown[0]!r}; one of {', '.join(CASES)}")
    rows: list[Row] = []
    halts = ""
    with ExitStack() as stack:
        ground = stack.enter_context(_ground())
        calls = tuple(map(Call.of, TWENTY))
        for case in asked.cases:
            tell(f"{case}: {asked.symbols} symbols")
            match case:
                case "one-indicator":
                    rows += one_indicator(_rectangle(asked.symbols, asked.bars), ground, asked.runs)
                case "batch" | "history":
                    n_bars = asked.bars * (HISTORY if case == "history" else 1)
                    rows += measure(case, Work(calls, _rectangle(asked.symbols, n_bars)), ground, asked.runs)
                    if asked.market is not None:
                        tell(f"{case}-market: {asked.market}")
                        rows += on_market(
                            f"{case}-market", calls, _market(asked.market).last(n_bars), ground, asked.runs
                        )
                case "last":
                    bars = _rectangle(asked.symbols, asked.bars)
                    rows += measure(case, Work(calls, bars, keep=2), ground, asked.runs)
                case "bar":
                    bars = rectangle(asked.symbols, asked.bars + new_bars(asked.runs))
                    rows += newest(case, bars, calls, ground, asked.runs)
                case "bar-halts":
                    n_bars = asked.bars + new_bars(asked.runs)
                    bars = simulated(asked.symbols, n_bars) if asked.market is None else _market(asked.market)
                    halts = bars.name
                    rows += newest(case, bars.last(n_bars), calls, ground, asked.runs)
                case "scan":
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    bars = rectangle(asked.symbols, asked.bars + FIRST + asked.runs)
                    rows += scans(bars, ground, asked.runs, folder, asked.indicators, asked.rules)
            _rectangle.cache_clear()
        gpu: tuple[Finding, ...] = ()
        if "cuda" not in ground.missing:
            tell(f"gpu: {GPU_SCANS} scans")
            gpu = look_at(load("cuda"))  # type: ignore[arg-type]
    return Report(machine(), versions(), tuple(rows), ground.missing, halts, gpu)


def look_at(engine: CudaEngine, scans: int = GPU_SCANS) -> tuple[Finding, ...]:
    """A card's golden bits, and what its memory does over many scans of a whole market."""
    return golden_bits("cuda", engine.on_gpu, kernels()), leaks(engine, a_market(), scans)


_rectangle = lru_cache(maxsize=1)(rectangle)
_market = lru_cache(maxsize=1)(market)


@contextmanager
def _ground() -> Iterator[Field]:
    """Processes, clusters and files, and what there is none of here."""
    missing: dict[str, str] = {}
    for engine in ("vector", "cuda"):
        try:
            choose(engine)
        except EngineError as error:
            missing[engine] = str(error)
    n = cores()
    with Processes(n) as processes, tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        cluster = DaskCluster(workers=n, dashboard_port=0)
        stack.callback(cluster.close)
        gpus: DaskCluster | None = None
        if "cuda" not in missing:
            try:
                gpus = DaskCluster("cuda", dashboard_port=0)
                stack.callback(gpus.close)
            except EngineError as error:
                missing["cuda-dask"] = str(error)

        def folder(bars: Bars) -> str:
            path = Path(root) / str(bars.number)
            if not path.exists():
                path.mkdir()
                write(bars, path)
            return str(path)

        yield Field(processes, cluster, gpus, folder, n, missing)


def on_market(case: str, calls: Sequence[Call], bars: Bars, ground: Field, runs: int) -> list[Row]:
    """A real market's last sessions; beside the engines on packed bars `compute`, packing and all."""
    expressions = [term for call in calls for term in call.terms]

    def call() -> dict[str, Any]:
        return dict(compute(expressions, bars.panel, "vector"))

    def outputs() -> Outputs:
        found = call()
        fields = {"close": bars.panel["close"], **found}
        packed = Panel("1d", bars.panel.times, bars.panel.symbols, fields).pack(expressions)
        return [packed.fields[expression] for expression in expressions]

    extra = [] if "vector" in ground.missing else [Way("vector-compute", ground.cores, call, outputs)]
    return measure(case, Work(tuple(calls), bars), ground, runs, extra)


def machine() -> dict[str, Any]:
    """The machine, in words and numbers; `gpu`: the card, or None."""
    cards = probe().devices
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "gpu": cards[0].name if cards else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """What computed, by release."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

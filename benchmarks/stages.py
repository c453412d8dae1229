"""From a vendor's bytes to signals, stage by stage: the whole market every 3 seconds, in one process.

    python -m benchmarks.stages [--symbols 5500] [--minutes 30] [--vendor sina] [--strategies PATH]... [--json]

A simulated session is spelled in the vendor's bytes, request by request, and goes through what the live service is made
of: the vendor's parser (lines that did not change are not parsed), the merge of providers, the fold into one-minute
bars, and where a bar closes the resident scan (stream update and rules, engine `vector`, in this process) and the
signals as objects. Neither disk nor sockets are in it. The bars are compared with the simulator's own.

Then bursts: five times twenty frames at once, a minute of the market each, as fast as they go.
"""

import argparse
import gc
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.scanning import MarketScan, origin_of
from jobs.simulated import DAILY_BARS, make_history
from scanner.cluster import InlineCluster
from scanner.engines.base import load as load_engine
from scanner.loading import load
from streaming.bars import MarketBars
from streaming.feeds.reading import Reading
from streaming.feeds.vendors import VENDORS, Vendor
from streaming.merge import Merge, Quotes
from tests.streaming.feeds.fakes import spelling
from tests.streaming.feeds.fakes.day import FakeDay, ordered

SPELLED = {"sina": spelling.sina_polled, "sina_ws": spelling.sina_pushed, "tencent": spelling.tencent}
WARM_UP = 5
"""Closed bars that are not counted: the first opens streams."""
BURST, BURSTS = 20, 5


class Way:
    """The stages, with a stopwatch for each."""

    def __init__(self, vendor: Vendor, symbols: tuple[str, ...], scan: MarketScan, origin: int, previous: int) -> None:
        self.readings = [Reading(vendor, symbols[k : k + vendor.batch]) for k in range(0, len(symbols), vendor.batch)]
        self.merge, self.own = Merge(), Quotes()
        self.merge.add(symbols)
        self.own.grow(len(self.merge))
        self.wanted = np.ones(len(self.merge), dtype=bool)
        self.bars = MarketBars(symbols, ("1m",), after={"1m": previous})
        self.scan, self.origin, self.previous = scan, origin, previous
        self.spent: dict[str, float] = defaultdict(float)
        self.n_signals = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add to a stage's time of this frame, in ms."""
        start = time.perf_counter()
        yield
        self.spent[stage] += (time.perf_counter() - start) * 1e3

    def frame(self, bodies: list[bytes], received_ns: int) -> list[pa.RecordBatch]:
        """One frame, all the way; the bars that it closed."""
        self.spent.clear()
        closed: list[pa.RecordBatch] = []
        for reading, body in zip(self.readings, bodies, strict=True):
            with self.timed("parse"):
                batch = reading.batch(body, received_ns)
            with self.timed("merge"):
                fresh = self.merge.take(batch, self.wanted, self.own, []).batch
            with self.timed("fold"):
                closed += self.bars.add(fresh)
        for bars in closed:
            end = int(bars.schema.metadata[b"bar_end"])
            with self.timed("scan and signals"):
                scanned = self.scan.scan(end, origin=self.origin, batch=bars, previous=self.previous)
            self.spent["of it, shards"] += scanned.result.elapsed_s * 1e3
            self.previous = end
            self.n_signals += len(scanned.signals)
        return closed


def spell(day: FakeDay, at: int, vendor: Vendor) -> list[bytes]:
    """Snapshot `at` as the answers to as many requests as the vendor's limit needs."""
    lines = list(map(SPELLED[vendor.name], day.quotes(at).values()))
    day._quotes.pop(at, None)
    return [b"".join(lines[k : k + vendor.batch]) for k in range(0, len(lines), vendor.batch)]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything."""
    vendor = VENDORS[given.vendor]
    market = SimulatedMarket(round(given.symbols / 0.936), seed=7)
    with tempfile.TemporaryDirectory() as folder:
        store = BarStore(Path(folder) / "sim", origin="sim-stages")
        make_history(store, market, ("1m",), given.history)
        last = store.last_bar_end("1m")
        assert last is not None
        day = FakeDay(market, market.sessions[DAILY_BARS], minutes=given.minutes + BURSTS)
        scan = MarketScan(
            store,
            "1m",
            load(tuple(given.strategies)),
            symbols=day.symbols,
            engine=load_engine("vector"),
            cluster=InlineCluster(),
            history=None,
        )
        way = Way(vendor, day.symbols, scan, origin_of(store, "1m", last, given.history), last)
        last_paced = len(day.batches) - BURSTS * BURST
        rows, bars = run(way, day, vendor, last_paced)
        burst, more = bursts(way, day, vendor, last_paced)
        day.step(len(day.batches))
        check(day, bars + more)
        n_rules = len(scan.strategies)
    return {
        "symbols": len(day.symbols),
        "vendor": vendor.name,
        "bytes_a_frame": sum(map(len, spell(day, last_paced, vendor))),
        "frames": len(rows),
        "closing": sum("scan and signals" in row for row in rows),
        "strategies": n_rules,
        "indicators": scan.plan.n_indicators,
        "signals_a_bar": round(way.n_signals / max(1, len(bars + more)), 1),
        "stages_ms": {name: _spread([row[name] for row in rows if name in row]) for name in _names(rows)},
        "closing_ms": _spread([row["all"] for row in rows if "scan and signals" in row]),
        "burst": burst,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numba", "numpy", "pyarrow")},
    }


def run(way: Way, day: FakeDay, vendor: Vendor, upto: int) -> tuple[list[dict[str, float]], list[pa.RecordBatch]]:
    """Each frame's times after the warm-up, and all bars."""
    rows: list[dict[str, float]] = []
    closed: list[pa.RecordBatch] = []
    gc.collect()
    gc.freeze()
    for at in range(upto):
        bodies = spell(day, at, vendor)
        start = time.perf_counter()
        closed += way.frame(bodies, _time(day, at))
        whole = (time.perf_counter() - start) * 1e3
        if len(closed) >= WARM_UP:
            rows.append({**way.spent, "all": whole})
    return rows, closed


def bursts(way: Way, day: FakeDay, vendor: Vendor, first: int) -> tuple[dict[str, Any], list[pa.RecordBatch]]:
    """The rest of the day, from snapshot `first` on, twenty frames at once; and the bars of it."""
    took, before = [], _rss()
    closed: list[pa.RecordBatch] = []
    for begin in range(first, len(day.batches), BURST):
        waiting = [
            (spell(day, at, vendor), _time(day, at)) for at in range(begin, min(begin + BURST, len(day.batches)))
        ]
        start = time.perf_counter()
        for bodies, received_ns in waiting:
            closed += way.frame(bodies, received_ns)
        took.append(time.perf_counter() - start)
    return {
        "frames": BURST,
        "of_market_time_s": BURST * 3,
        "seconds": round(float(np.median(took)), 3),
        "rss_growth_mib": round((_rss() - before) / 2**20, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }, closed


def check(day: FakeDay, bars: list[pa.RecordBatch]) -> None:
    """The closed bars are the simulator's own."""
    found = ordered(pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in bars]))
    ends = found["bar_end"].unique()
    wanted = day.bars()
    wanted = ordered(wanted.filter(pc.is_in(wanted["bar_end"], ends)))
    assert found.select(["symbol", "bar_end", "open", "high", "low", "close", "volume"]).equals(
        wanted.select(["symbol", "bar_end", "open", "high", "low", "close", "volume"])
    ), "the bars are not those of the market"


def _names(rows: list[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _spread(values: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), 2) for name, q in (("p50", 50), ("p90", 90), ("p99", 99))} | {
        "most": round(max(values), 2)
    }


def _time(day: FakeDay, at: int) -> int:
    return int(day.batches[at]["quote_time"].cast(pa.int64())[0].as_py())


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5500)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--history", type=int, default=250)
    parser.add_argument("--vendor", choices=SPELLED, default="sina")
    parser.add_argument("--strategies", action="append", default=[], type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = measure(given)
    if given.json:
        json.dump(report, sys.stdout)
        return
    stages = report.pop("stages_ms")
    print(report)
    print("| ms a frame | p50 | p90 | p99 | most |\n|---|--:|--:|--:|--:|")
    for name, found in (stages | {"a frame that closes a bar": report["closing_ms"]}).items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in found.values()) + " |")


if __name__ == "__main__":
    main()

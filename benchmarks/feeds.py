"""One frame of the whole market, from a vendor's bytes to a batch of ticks; and the next one, where few lines changed.

    python -m benchmarks.feeds [--symbols 5500] [--runs 40] [--changed 0.2] [--json]

Every vendor's frame is spelled from one simulated snapshot, and what is parsed is compared with that snapshot before
anything is timed. `changed` is the share of symbols that traded since the frame before, whose lines differ.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from data.simulator import SimulatedMarket
from streaming.feeds.vendors import VENDORS, Vendor
from streaming.feeds.wire import Universe
from tests.streaming.feeds.fakes import spelling
from tests.streaming.feeds.fakes.day import FakeDay

_LISTED = 0.936
"""Not all of a simulated market is listed on its first session."""
SPELLED: dict[str, Callable[[Any], bytes]] = {
    "sina": spelling.sina_polled,
    "sina_ws": spelling.sina_pushed,
    "tencent": spelling.tencent,
}


def frames_of(name: str, day: FakeDay, at: int, changed: float) -> tuple[bytes, bytes]:
    """Snapshot `at` as a vendor's frame, and the next one, in which only a share of the symbols has moved on."""
    now, later = day.quotes(at), day.quotes(at + 1)
    moved = np.random.default_rng(1).random(len(now)) < changed
    second = [later[s] if m else quote for (s, quote), m in zip(now.items(), moved, strict=True)]
    if name == "eastmoney":
        parts = (spelling.eastmoney(quote) for quote in now.values())
        full = {str(k): item for k, item in enumerate(parts)}
        fresh = {str(k): spelling.eastmoney(quote) for k, quote in enumerate(second)}
        delta = {
            key: {field: value for field, value in item.items() if full[key][field] != value}
            for key, item in fresh.items()
            if item != full[key]
        }
        first = spelling.event({"total": len(full), "diff": full}, full=True)
        return first[6:].strip(), spelling.event({"total": len(full), "diff": delta}, full=False)[6:].strip()
    return b"".join(map(SPELLED[name], now.values())), b"".join(map(SPELLED[name], second))


def check(vendor: Vendor, universe: Universe, frame: bytes, batch: pa.RecordBatch) -> None:
    """The parsed frame is the snapshot that it was spelled from; Tencent's amounts are in whole CNY."""
    parsed = vendor.parse(frame, universe)
    assert not parsed.dropped, parsed.dropped
    for name in batch.schema.names:
        got, wanted = parsed.ticks[name], batch[name]
        if name == "symbol":
            got, wanted = got.cast(pa.string()), wanted.cast(pa.string())
        if name == "amount" and vendor.name == "tencent":
            assert np.abs(got.to_numpy() - wanted.to_numpy()).max() <= 0.5
        else:
            assert got.equals(wanted), f"{vendor.name}: {name} differs"


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor alone: a machine that does other things shows in the first."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - start) * 1e3, (time.process_time() - busy) * 1e3


def measure(vendor: Vendor, day: FakeDay, at: int, runs: int, changed: float) -> dict[str, Any]:
    """Medians and spread of a whole frame, of the same again, and of one in which a share has changed."""
    first, second = frames_of(vendor.name, day, at, changed)
    universe = vendor.universe(day.symbols)
    check(vendor, universe, first, day.batches[at])

    def read(frame: bytes, memory: dict[bytes, Any]) -> int:
        return int(vendor.parse(vendor.fresh(frame, memory), universe).ticks.num_rows)

    whole, again, some = [], [], []
    for _ in range(runs):
        memory: dict[bytes, Any] = {}
        whole.append(timed(lambda memory=memory: read(first, memory)))  # type: ignore[misc]
        if vendor.name != "eastmoney":  # it sends nothing where nothing has changed
            again.append(timed(lambda memory=memory: read(first, memory)))  # type: ignore[misc]
        some.append(timed(lambda memory=memory: read(second, memory)))  # type: ignore[misc]
    found: dict[str, Any] = {"vendor": vendor.name, "bytes": len(first)}
    for name, values in (("whole", whole), ("unchanged", again), ("changed", some)):
        if values:
            wall, busy = zip(*values, strict=True)
            found[f"{name}_ms"] = round(statistics.median(wall), 2)
            found[f"{name}_p95_ms"] = round(float(np.percentile(wall, 95)), 2)
            found[f"{name}_cpu_ms"] = round(statistics.median(busy), 2)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5500)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--changed", type=float, default=0.2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    market = SimulatedMarket(round(given.symbols / _LISTED), seed=7)
    day = FakeDay(market, minutes=30)
    at = len(day.batches) - 2
    rows = [measure(vendor, day, at, given.runs, given.changed) for vendor in VENDORS.values()]
    about = {"symbols": len(day.symbols), "runs": given.runs, "changed": given.changed, "cores": os.cpu_count()}
    about |= {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    if given.json:
        json.dump(about | {"vendors": rows}, sys.stdout)
        return
    print(about)
    print("median ms by the clock (p95), and of the processor")
    print("| vendor | bytes | whole frame | nothing changed | a share changed |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[f'{k}_ms']} ({row[f'{k}_p95_ms']}), {row[f'{k}_cpu_ms']}" if f"{k}_ms" in row else "-"
            for k in ("whole", "unchanged", "changed")
        ]
        print(f"| {row['vendor']} | {row['bytes']:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

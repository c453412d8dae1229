"""What the tape costs: a batch of the whole market made durable, alone and in groups; and reading it again.

    python benchmarks/tape.py [--symbols 5500] [--batches 200] [--folder DIR]

Every batch is read back and compared before the figures are printed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.simulator import SimulatedMarket
from streaming.bars import MarketBars
from streaming.segment import Segment, segments
from streaming.tape import GROUP, Tape


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and worst, in ms."""
    p50, p99, worst = np.percentile(np.array(seconds) * 1e3, [50, 99, 100])
    return f"p50 {p50:6.2f}  p99 {p99:6.2f}  max {worst:6.2f} ms"


def main() -> int:
    """Write, read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5500)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the disk to be measured is")
    given = parser.parse_args()
    market = SimulatedMarket(given.symbols, 7)
    snapshots = market.snapshots(market.sessions[0])
    batches = [
        next(snapshots).replace_schema_metadata({"provider": "sim", "seq": str(n), "received_ns": str(time.time_ns())})
        for n in range(given.batches)
    ]
    with tempfile.TemporaryDirectory(prefix="tape-", dir=given.folder) as name:
        alone: list[float] = []
        synced: list[float] = []
        tape = Tape(Path(name) / "alone", origin="sim", keep=5, on_sync=synced.append)
        for batch in batches:
            start = time.perf_counter()
            tape.append([batch])
            alone.append(time.perf_counter() - start)
        tape.close()
        grouped = Tape(Path(name) / "grouped", origin="sim", keep=5)
        start = time.perf_counter()
        for first in range(0, len(batches), GROUP):
            grouped.append(batches[first : first + GROUP])
        together = (time.perf_counter() - start) / len(batches)
        grouped.close()
        (path,) = segments(tape.folder).values()
        start = time.perf_counter()
        again = list(Segment(path).batches())
        read = (time.perf_counter() - start) / len(again)
        start = time.perf_counter()
        for _ in Segment(path).frames():
            pass
        checked = (time.perf_counter() - start) / len(again)
        if not all(a.equals(b) and a.schema.metadata == b.schema.metadata for a, b in zip(again, batches, strict=True)):
            print("what was read is not what was written", file=sys.stderr)
            return 1
    builder = MarketBars(market.symbols, ["1m"])
    start = time.perf_counter()
    for batch in again:
        builder.add(batch)
    folded = (time.perf_counter() - start) / len(again)
    print(f"{given.batches} batches of {batches[-1].num_rows} quotes, {tape.bytes / len(batches) / 1e3:.0f} kB each")
    print(f"durable, one at a time     {spread(alone)}")
    print(f"  of it fdatasync          {spread(synced)}")
    print(f"durable, {GROUP} a sync         {together * 1e3:10.2f} ms a batch")
    print(f"opened for writing         {checked * 1e3:10.2f} ms a batch (checksums)")
    print(f"read again                 {read * 1e3:10.2f} ms a batch")
    print(f"folded again               {folded * 1e3:10.2f} ms a batch")
    return 0


if __name__ == "__main__":
    sys.exit(main())

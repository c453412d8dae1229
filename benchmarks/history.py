"""A year of signals asked: how long `mystocks-scan signals` takes on five million of them.

    python benchmarks/history.py [--days 250] [--signals 20000] [--folder DIR] [--json]

Makes the history where the folder has none (compacted a day a file, as a service leaves it; the newest day in its
batches), and asks each question in a process of its own: the least of three, start of the process included.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.files import write_parquet
from data.schema import SIGNAL
from data.signal_files import saying, stamps
from data.store import BarStore

MINUTE = 60 * 10**9
MINUTES = np.r_[np.arange(91, 211), np.arange(301, 421)]  # of the UTC day: 09:31 to 11:30, 13:01 to 15:00
QUESTIONS = {
    "the newest 50": [],
    "a symbol's newest 50": ["--symbol", "600519"],
    "all of a symbol, every field": ["--symbol", "600519", "--json"],
    "a strategy's strongest, every field": [
        "--strategy",
        "strategy_3",
        "--action",
        "buy",
        "--min-confidence",
        "0.9",
        "--json",
    ],
    "ten minutes of one day": ["--since", "2025-06-03T10:15", "--until", "2025-06-03T10:25", "--json"],
    "a symbol that has none": ["--symbol", "301999", "--json"],
}


def make(root: Path, days: int, per_day: int) -> None:
    """Write the signals of so many days, minute bars of 5,000 symbols and nine strategies."""
    rng = np.random.default_rng(1)
    day, made, before = datetime(2025, 1, 2, tzinfo=UTC), 0, None
    while made < days:
        if day.weekday() < 5:
            made += 1
            before = _day(root, day, per_day, rng, before, last=made == days)
        day += timedelta(days=1)


def _day(
    root: Path,
    day: datetime,
    count: int,
    rng: np.random.Generator,
    before: tuple[str, int] | None,
    *,
    last: bool,
) -> tuple[str, int]:
    epoch = f"{day:%Y%m%d}T010000000000abcd"
    bar = np.sort(rng.choice(MINUTES, count))
    ends = int(day.timestamp()) * 10**9 + bar * MINUTE
    stock, strategy, action = rng.integers(0, 5000, count), rng.integers(0, 9, count), rng.integers(0, 3, count)
    received = ends + 3_400_000_000
    symbols = [f"{600_000 + i}.SH" if i < 2500 else f"{i - 2499:06d}.SZ" for i in range(5000)]
    columns = {
        "id": [hashlib.sha256(f"{epoch}{i}".encode()).hexdigest() for i in range(count)],
        "epoch": [epoch] * count,
        "seq": np.arange(1, count + 1),
        "strategy": [f"strategy_{i}" for i in strategy],
        "version": ["0123456789abcdef"] * count,
        "symbol": [symbols[i] for i in stock],
        "name": [f"股票{i:04d}" for i in stock],
        "frame": ["1m"] * count,
        "bar_end": ends,
        "developing": np.zeros(count, bool),
        "action": [("BUY", "SELL", "ALERT")[i] for i in action],
        "confidence": rng.random(count).round(2),
        "price": (rng.random(count) * 100).round(2),
        "values": [f'{{"MACD(12,26,9).macd": {a:.6f}, "RSI(14)": {b:.4f}}}' for a, b in rng.random((count, 2))],
        "engine": ["vector"] * count,
        "origin": ends - 250 * 86_400 * 10**9,
        "at_limit_up": np.zeros(count, bool),
        "at_limit_down": np.zeros(count, bool),
        "revision": np.zeros(count, np.int32),
        "revokes": pa.nulls(count, pa.string()),
        "quote_ns": ends,
        "received_ns": received,
        "bar_closed_ns": received + 2_000_000,
        "scanned_ns": received + 30_000_000,
        "published_ns": received + 38_000_000,
    }
    table = pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in SIGNAL], schema=SIGNAL)
    edges = np.r_[0, np.flatnonzero(np.diff(bar)) + 1, count]
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    names = [f"{stamps(int(ends[a]), int(ends[b - 1]))}-{epoch}-{a + 1}-{b}.parquet" for a, b in spans]
    previous = {epoch: before} if before is not None else {}
    if last:
        for name, (a, b) in zip(names, spans, strict=True):
            write_parquet(root / name, saying(table.slice(a, b - a), {"previous": previous if a == 0 else {}}))
    else:
        digest = hashlib.sha256(epoch.encode()).hexdigest()[:12]
        path = root / f"{stamps(int(ends[0]), int(ends[-1]))}-c{digest}.parquet"
        write_parquet(path, saying(table, {"replaces": names, "previous": previous}))
    return epoch, count


def main() -> None:
    """Make, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=250)
    parser.add_argument("--signals", type=int, default=20_000, help="a day")
    parser.add_argument("--folder", type=Path, help="kept there, and taken from there the next time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        store = BarStore(asked.folder or Path(aside) / "market", origin="market").root
        root = store / "signals"
        if not root.exists():
            root.mkdir()
            make(root, asked.days, asked.signals)
        files = [path.stat().st_size for path in root.iterdir()]
        about = {"signals": asked.days * asked.signals, "files": len(files), "MB": round(sum(files) / 1e6)}
        print(json.dumps(about) if asked.json else about, file=sys.stderr)
        for question, options in QUESTIONS.items():
            runs = [_asked(store, options) for _ in range(3)]
            wall, cpu, lines = (min(values) for values in zip(*runs, strict=True))
            answer = {"question": question, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "lines": lines}
            text = f"{question:36} {wall:6.2f} s, of the processors {cpu:5.2f} s {lines:7} lines"
            print(json.dumps(answer) if asked.json else text, flush=True)


def _asked(store: Path, options: list[str]) -> tuple[float, float, int]:
    """Seconds, those of the processors, and the lines that came."""
    code = "import sys; from jobs.cli import main; main(sys.argv[1:])"
    start, used = time.perf_counter(), _cpu_s()
    done = subprocess.run(
        [sys.executable, "-c", code, "signals", "--store", str(store), *options],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, _cpu_s() - used, done.stdout.count("\n")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

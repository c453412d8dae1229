"""How long from a payload to its signals, in the live service: fold, scan, and the whole way to the sockets.

    python benchmarks/live.py [--symbols 5000] [--intervals 60] [--cluster local] [--subscribers 1] [--json]

Runs the real command on a fresh simulated market (a bar a second), with subscribers that read everything, and reports
medians and 99th percentiles over the intervals after the first five. `latency` runs from the receipt of the payload
that completed a bar to its signals handed to the sockets; that payload comes when the bar's grace (3.5 s of market
time) is over, which no computing shortens and which is not in it.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from streaming.client import signals

COMMAND = "import sys; from jobs.cli import main; main(['run', *sys.argv[1:], '--json', '--port', '0'])"


async def subscribe(url: str, delays: list[float]) -> None:
    """Read every signal; note how long after its publication it came, in ms."""
    async with aclosing(signals(url, reconnect=False)) as stream:
        async for message in stream:
            delay = (time.time_ns() - message["published_ns"]) / 1e6
            delays.append(delay)


async def watch(url: str, n: int, process: "subprocess.Popen[str]") -> tuple[list[float], list[dict[str, Any]]]:
    """Read what the service prints while `n` subscribers read its signals."""
    delays: list[float] = []
    readers = [asyncio.create_task(subscribe(url, delays)) for _ in range(n)]
    assert process.stdout is not None
    lines = []
    while line := await asyncio.to_thread(process.stdout.readline):
        lines.append(json.loads(line))
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return delays, lines


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run the service and reduce what it said."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", COMMAND, "--store", str(Path(folder) / "sim"), "--dashboard-port", "0"]
        command += ["--symbols", str(given.symbols), "--intervals", str(given.intervals), "--cluster", given.cluster]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            url = next(line.split()[-1] for line in process.stderr if line.startswith("signals"))
            serving_s = time.perf_counter() - started
            delays, lines = asyncio.run(watch(url, given.subscribers, process))
    steady = [line for line in lines if line["interval"] > 5]

    def spread(values: list[float]) -> dict[str, float]:
        return {"p50": round(float(np.median(values)), 1), "p99": round(float(np.percentile(values, 99)), 1)}

    return {
        "symbols": given.symbols,
        "intervals": len(steady),
        "engine": steady[-1]["engine"],
        "cluster": given.cluster,
        "subscribers": given.subscribers,
        "indicators": steady[-1]["indicators"],
        "signals_an_interval": round(float(np.mean([len(line["signals"]) for line in steady])), 1),
        "serving_after_s": round(serving_s, 2),
        "fold_ms": spread([line["fold_ms"] for line in steady]),
        "scan_ms": spread([line["scan_ms"] for line in steady]),
        "latency_ms": spread([line["latency_ms"] for line in steady]),
        "received_after_publication_ms": spread(delays or [float("nan")]),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("TA-Lib", "numpy", "distributed", "websockets")},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--intervals", type=int, default=60)
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--subscribers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    report = measure(given := parser.parse_args())
    if given.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        shown = "  ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:30} {shown}")


if __name__ == "__main__":
    main()

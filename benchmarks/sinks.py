"""What alerts and InfluxDB cost the live service: its latency without them, with them, and while they hang.

    python -m benchmarks.sinks [--symbols 5000] [--intervals 40] [--runs 3]

Runs the real command on copies of one simulated market (a bar a second), the three ways in turn. `sinks`: every signal
goes to a webhook and an InfluxDB, which this process is, on the same cores; `hanging`: both take it and never
answer.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.streaming.alerts.fakes import vendors
from tests.streaming.influx import databases

RUN = [sys.executable, "-c", "import sys; from jobs.cli import main; main(['run', *sys.argv[1:]])", "--json"]
WARM_UP = 5


def settings(webhook: int, influx: databases.Influx) -> dict[str, str]:
    """The environment that names both sinks."""
    given = {"ALERTS__CHANNELS__OWN__URL": f"json://127.0.0.1:{webhook}", "ALERTS__RULES": '[{"cooldown_s": 0}]'}
    given |= {"INFLUX__URL": influx.url, "INFLUX__BUCKET": "market", "INFLUX__ORG": "desk"}
    given |= {"INFLUX__TOKEN": databases.TOKEN, "ALERTS__DRAIN_S": "0", "INFLUX__DRAIN_S": "0"}
    return {f"MYSTOCKS_SCAN__{name}": value for name, value in given.items()}


def latencies(store: Path, options: list[str], environment: dict[str, str]) -> list[float]:
    """ms from payload to sockets of each interval after the first few."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "store"
        shutil.copytree(store, copy)
        command = [*RUN, "--store", str(copy), *options]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return [json.loads(line)["latency_ms"] for line in done.stdout.splitlines()][WARM_UP:]


def main() -> None:
    """Measure, and print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--intervals", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    options = ["--symbols", str(given.symbols), "--cluster", "inline", "--port", "0", "--dashboard-port", "0"]
    ways: dict[str, list[float]] = {"without": [], "sinks": [], "hanging": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        vendors.serving() as (good, good_port),
        vendors.serving() as (bad, bad_port),
        databases.serving(databases.Influx()) as influx,
        databases.serving(databases.Influx()) as stuck,
    ):
        bad.faults += [vendors.Fault(hang=True)] * 100_000
        stuck.faults += [databases.Fault(hang=True)] * 100_000
        store = Path(folder) / "store"
        subprocess.run([*RUN, "--store", str(store), *options, "--once"], capture_output=True, check=True)
        environments = {"without": {}, "sinks": settings(good_port, influx), "hanging": settings(bad_port, stuck)}
        for _ in range(given.runs):
            for way, environment in environments.items():
                ways[way] += latencies(store, [*options, "--intervals", str(given.intervals)], environment)
        assert good.texts, "no alert came"
        assert influx.of("signal"), "no point came"
        assert bad.asked, "nothing hung"
    for way, found in ways.items():
        p50, p99 = statistics.median(found), statistics.quantiles(found, n=100)[98]
        print(f"{way:8} {len(found):4} intervals  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")


if __name__ == "__main__":
    main()

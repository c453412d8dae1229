"""The live service for a long time: whether its memory, its file handles and its latency grow.

    python benchmarks/soak.py [--minutes 60] [--symbols 5500] [--speed 60] [--engine vector] [--cluster inline]

Runs the real command on the simulated market with one subscriber, and reads every few seconds what the service and its
workers hold: resident memory (file pages left out), open file handles, threads. Of what comes after the warm-up (a
quarter of the run, or five minutes, whichever is more) the slope is fitted to the means of the market's sessions that
were whole, for what a service holds rises and falls with the session; where fewer than five were, to those of twenty
stretches of time. Its interval is Student's at 95 %.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from streaming.client import signals

COMMAND = "import sys; from jobs.cli import main; main(['run', *sys.argv[1:], '--json', '--port', '0'])"
STRETCHES = 20
SESSIONS = 5
"""So many whole ones at least, or stretches are taken in their place."""
_T_95 = np.array(
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120]
)
"""Student's t at 97.5 %, from one degree of freedom on; of more, the last one is wide enough."""


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def held(pid: int) -> dict[str, float]:
    """What a process and its children hold now."""
    total = {"anonymous_mib": 0.0, "handles": 0.0, "threads": 0.0}
    for one in family(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
            total["handles"] += len(os.listdir(f"/proc/{one}/fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        total["anonymous_mib"] += _number(status, "RssAnon") / 1024
        total["threads"] += _number(status, "Threads")
    return total


def _number(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return float(found[1]) if found else 0.0


def stretches(sessions: Sequence[str]) -> list[list[int]]:
    """Which readings are taken together; `sessions`: the session that each was made in."""
    whole = sorted(set(sessions))[1:-1]
    if len(whole) < SESSIONS:
        return [part.tolist() for part in np.array_split(np.arange(len(sessions)), min(STRETCHES, len(sessions)))]
    return [[k for k, session in enumerate(sessions) if session == one] for one in whole]


def slope(at_h: Sequence[float], values: Sequence[float], parts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """(change an hour, half of its 95 % interval), over the means of the parts."""
    x = np.array([np.mean(np.take(at_h, part)) for part in parts])
    y = np.array([np.mean(np.take(values, part)) for part in parts])
    deviation = x - x.mean()
    found = float(deviation @ y / (deviation @ deviation))
    rest = y - y.mean() - found * deviation
    free = len(parts) - 2
    error = float(np.sqrt(rest @ rest / free / (deviation @ deviation)))
    return found, float(_T_95[min(free, len(_T_95)) - 1]) * error


async def _read_signals(url: str) -> None:
    async with aclosing(signals(url, reconnect=False)) as stream:
        async for _ in stream:
            pass


def subscriber(url: str) -> threading.Thread:
    """Reads every signal until the service ends."""

    def read() -> None:
        with suppress(Exception):  # the service's end
            asyncio.run(_read_signals(url))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run, watch, fit."""
    samples: list[dict[str, float]] = []
    sessions: list[str] = []
    latencies: list[tuple[float, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", COMMAND, "--store", str(Path(folder) / "sim"), "--dashboard-port", "0"]
        command += ["--symbols", str(given.symbols), "--speed", str(given.speed)]
        command += ["--engine", given.engine, "--cluster", given.cluster]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stderr if line.startswith("signals"))
            said: list[str] = []
            threading.Thread(target=lambda: said.extend(process.stderr or []), daemon=True).start()
            subscriber(url)
            start, out = time.monotonic(), process.stdout

            def listen() -> None:
                for line in out:
                    interval = json.loads(line)
                    latencies.append(
                        ((time.monotonic() - start) / 3600, interval["latency_ms"], interval["bar_end"][:10])
                    )

            threading.Thread(target=listen, daemon=True).start()
            while (now := time.monotonic() - start) < given.minutes * 60 and process.poll() is None:
                samples.append({"at_h": now / 3600, **held(process.pid)})
                sessions.append(latencies[-1][2] if latencies else "")
                time.sleep(given.every)
            ended = process.poll()
            process.terminate()
            process.wait(60)
    if ended is not None:
        raise SystemExit(f"the service ended by itself with {ended}: {''.join(said)[-2000:]}")
    warm = max(given.minutes / 4, min(5, given.minutes / 2)) / 60
    first = next(k for k, sample in enumerate(samples) if sample["at_h"] >= warm)
    steady, parts = samples[first:], stretches(sessions[first:])
    at = [sample["at_h"] for sample in steady]
    report: dict[str, Any] = {
        **{name: getattr(given, name) for name in ("minutes", "symbols", "speed", "engine", "cluster")},
        "intervals": len(latencies),
        "market_minutes_a_second": round(len(latencies) / (given.minutes * 60), 2),
        "samples_after_warm_up": len(steady),
        "slopes_over": f"{len(parts)} {'sessions' if len(set(sessions[first:])) >= SESSIONS + 2 else 'stretches'}",
        "warm_up_minutes": round(warm * 60, 1),
    }
    for name in ("anonymous_mib", "handles", "threads"):
        values = [sample[name] for sample in steady]
        change, half = slope(at, values, parts)
        report[name] = {
            "first": round(values[0], 1),
            "last": round(values[-1], 1),
            "most": round(max(values), 1),
            "means": [round(float(np.mean(np.take(values, part))), 1) for part in parts],
            "an_hour": round(change, 3),
            "interval_95": [round(change - half, 3), round(change + half, 3)],
        }
    late = [(hour, ms) for hour, ms, _ in latencies if hour >= warm]
    hours, all_ms = [hour for hour, _ in late], [ms for _, ms in late]
    change, half = slope(hours, all_ms, stretches([session for hour, _, session in latencies if hour >= warm]))
    report["latency_ms"] = {
        "p50": round(float(np.median(all_ms)), 1),
        "p99": round(float(np.percentile(all_ms, 99)), 1),
        "an_hour": round(change, 2),
        "interval_95": [round(change - half, 2), round(change + half, 2)],
    }
    return report | {"cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--symbols", type=int, default=5500)
    parser.add_argument("--speed", type=float, default=60)
    parser.add_argument("--engine", default="vector")
    parser.add_argument("--cluster", default="inline")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two readings")
    parser.add_argument("--json", type=Path, metavar="FILE")
    report = measure(given := parser.parse_args())
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    for name, value in report.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()

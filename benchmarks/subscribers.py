"""Thousands of subscribers of the real service, the whole market scanned beside them: from payload to signals read.

    python -m benchmarks.subscribers [--subscribers 1000] [--way inline|local|tcp|serve] [--wanted watchlist|all]
        [--symbols 5000] [--seconds 30] [--bad 3 --cycles 3] [--seed 1] [--json]

Runs `mystocks-scan run` on the simulated market (a one-minute bar a second; `--speed` for another pace) in a process of
its own, and the subscribers in `--readers` others, over loopback: plain sockets that read everything and look at the
first 4 KiB of a message (`benchmarks/readers.py`). `watchlist`: each wants `--watched` symbols of its own, drawn by the
seed, so that no two filters are alike; `all`: each wants everything. Every subscriber must have had a message for each
scan that has a signal for it, by the history, and no other: else exit code 1.

Times run from the receipt of the payload that completed a bar: `arrived`, its signals were in the subscriber's kernel;
`read`, this benchmark had them. The stages before, from the signals' own stamps: fold, scan, and from there to `read`.

With `--bad N`, `--cycles` times `--seconds` without and as long with N subscribers of everything that never read and N
that read a byte a second: side by side, the spread over the cycles, and the server's memory a second after they are
closed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.readers import STAMPS, Read, connect, read, wait_for_signals
from benchmarks.services import WAYS, Service, allow_files, cpu_s, free_port, memory_bytes
from data.history import SignalHistory
from data.simulator import SimulatedMarket

WARM_UP = 5
"""Scans that are published before anything is measured."""
SETTLE_S = 1.0
MIB = 2**20


class Crowd:
    """The subscribers, in processes of their own."""

    def __init__(self, port: int, wanted: list[dict[str, Any]], n_processes: int) -> None:
        context = multiprocessing.get_context("fork")
        self._controls: list[Connection] = []
        self.parts = [wanted[k::n_processes] for k in range(n_processes)]
        for part in self.parts:
            ours, theirs = context.Pipe()
            context.Process(target=read, args=(port, part, theirs), daemon=True).start()
            theirs.close()
            self._controls.append(ours)
        for control in self._controls:
            control.recv()

    def stop(self) -> list[Read]:
        """What each process read."""
        for control in self._controls:
            control.send("stop")
        return [control.recv() for control in self._controls]


class Bad(threading.Thread):
    """Subscribers of everything that never read, or read a byte a second; those that are cut off come again."""

    def __init__(self, port: int, n: int) -> None:
        super().__init__(daemon=True)
        self.cut_off = 0
        self._port = port
        self._deaf = [connect(port, {}, 4096) for _ in range(n)]
        self._slow = [connect(port, {}, 4096) for _ in range(n)]
        self._over = threading.Event()

    def run(self) -> None:
        """Until `close`."""
        while not self._over.wait(1.0):
            for group, reads in ((self._deaf, False), (self._slow, True)):
                for place, sock in enumerate(group):
                    try:
                        if reads:
                            sock.recv(1)
                        sock.send(b"\x8a\x80\0\0\0\0")  # a pong that nobody asked for: fails once it was cut off
                    except OSError:
                        self.cut_off += 1
                        sock.close()
                        group[place] = connect(self._port, {}, 4096)

    def close(self) -> None:
        """All of them, at once."""
        self._over.set()
        self.join()
        for sock in self._deaf + self._slow:
            sock.close()


def wanted_by(given: argparse.Namespace) -> list[dict[str, Any]]:
    """What each subscriber asks for."""
    if given.wanted == "all":
        return [{}] * given.subscribers
    rng = random.Random(given.seed)
    symbols = list(SimulatedMarket(given.symbols, 7).symbols)
    return [{"symbols": sorted(rng.sample(symbols, given.watched))} for _ in range(given.subscribers)]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run the service and its subscribers, and reduce what they saw."""
    allow_files(given.subscribers + 500)
    wanted = wanted_by(given)
    report: dict[str, Any] = {"command": " ".join(["python -m benchmarks.subscribers", *sys.argv[1:]])}
    report["connection_kib"] = connection_kib(wanted)
    with tempfile.TemporaryDirectory(prefix="subscribers-") as folder:
        options = ["--symbols", str(given.symbols), f"--speed={given.speed}"]
        service = Service(given.way, Path(folder), options)
        try:
            wait_for_scans(service, 1)
            crowd = Crowd(service.port, wanted, given.readers)
            wait_for_scans(service, WARM_UP)
            began, busy = time.time_ns(), {pid: cpu_s(pid) for pid in service.pids}
            phases = [phase for _ in range(given.cycles) for phase in run_phases(service, given)]
            ended = time.time_ns()
            report["service_cpu_s"] = round(sum(cpu_s(pid) - busy.get(pid, 0) for pid in service.pids), 2)
            report["service_mib"] = round(memory_bytes(service.pid) / MIB, 1)
            wait_for_scans(service, 1)
            time.sleep(SETTLE_S)
            found = crowd.stop()
        finally:
            service.stop()
        wrong = check(Path(folder) / "store", crowd, found, began, ended)
    report |= {
        "way": given.way,
        "wanted": given.wanted,
        "subscribers": given.subscribers,
        "symbols": given.symbols,
        "seed": given.seed,
        "seconds": round((ended - began) / 1e9, 1),
        **reduce(found, began, ended),
        "readers_cpu_s": round(sum(one.cpu_s for one in found), 1),
        "service_cpu_ms_an_interval": 0.0,
        "wrong": wrong,
        "lost": dict(Counter(reason for part in found for reason in part.lost)),
    }
    report["service_cpu_ms_an_interval"] = round(1e3 * report.pop("service_cpu_s") / report["intervals"], 1)
    if given.bad:
        report["bad"] = beside(found, phases)
    report |= {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("websockets", "distributed", "pyarrow", "numpy")},
    }
    return report


def connection_kib(wanted: list[dict[str, Any]]) -> float:
    """What a subscriber takes of a process that does nothing but serve."""
    with tempfile.TemporaryDirectory(prefix="subscribers-") as folder:
        port = free_port()
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.mortal", folder, str(port), "-1"])
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with suppress(ConnectionRefusedError):  # it is not there yet
                    for _ in range(100):  # the first ones take more, once
                        connect(port, {}).close()
                    break
                time.sleep(0.05)
            before = memory_bytes(process.pid)
            crowd = Crowd(port, wanted, 1)
            found = (memory_bytes(process.pid) - before) / 1024 / len(wanted)
            crowd.stop()
        finally:
            process.kill()
            process.wait()
    return round(found, 1)


def wait_for_scans(service: Service, n: int) -> None:
    """Return once so many more have been sent."""
    probe = connect(service.port, {})
    for _ in range(n):
        wait_for_signals(probe)
    probe.close()


def run_phases(service: Service, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One cycle: a while without bad subscribers, and as long with them."""
    phases: list[dict[str, Any]] = [{"from": time.time_ns(), "bad": False}]
    time.sleep(given.seconds)
    phases[-1]["upto"] = time.time_ns()
    if given.bad:
        calm = memory_bytes(service.pid)
        bad = Bad(service.port, given.bad)
        phases.append({"from": time.time_ns(), "bad": True})
        bad.start()
        most, until = calm, time.monotonic() + given.seconds
        while time.monotonic() < until:
            time.sleep(0.25)
            most = max(most, memory_bytes(service.pid))
        phases[-1]["upto"] = time.time_ns()
        bad.close()
        time.sleep(1.0)
        after = memory_bytes(service.pid)
        mib = {"before": calm, "most": most, "a_second_after": after}
        phases[-1] |= {"cut_off": bad.cut_off, "mib": {k: round(v / MIB, 1) for k, v in mib.items()}}
    return phases


def rows(found: list[Read], began: int, ended: int) -> tuple[Any, Any]:
    """Messages of signals published between two moments: their stamps (messages, 5), and arrived and read, ns."""
    stamps = {seq: row for part in found for seq, row in part.stamps.items()}
    seqs = np.concatenate([np.array(part.seq, dtype=np.int64) for part in found])
    times = np.concatenate([np.column_stack([part.arrived_ns, part.read_ns]) for part in found if part.seq])
    known = np.array(sorted(stamps), dtype=np.int64)
    table = np.array([stamps[int(seq)] for seq in known], dtype=np.int64).reshape(-1, len(STAMPS))
    rows = table[np.searchsorted(known, seqs)]
    inside = (rows[:, -1] >= began) & (rows[:, -1] < ended)
    return rows[inside], times[inside]


def spread(ns: Any) -> dict[str, float]:
    """p50, p99 and the most, in ms."""
    values = {"p50": np.percentile(ns, 50), "p99": np.percentile(ns, 99), "most": np.max(ns)}
    return {name: round(float(value) / 1e6, 1) for name, value in values.items()}


def reduce(found: list[Read], began: int, ended: int) -> dict[str, Any]:
    """The figures."""
    stamps, times = rows(found, began, ended)
    received, closed, scanned = (
        stamps[:, STAMPS.index(f"{name}_ns")] for name in ("received", "bar_closed", "scanned")
    )
    arrived, read_ = times[:, 0], times[:, 1]
    return {
        "intervals": len(np.unique(received)),
        "messages": len(times),
        "mib_read": round(sum(part.n_bytes for part in found) / MIB, 1),
        "ms": {
            "fold": spread(closed - received),
            "scan": spread(scanned - closed),
            "scanned to arrived": spread(arrived - scanned),
            "payload to arrived": spread(arrived - received),
            "payload to read": spread(read_ - received),
        },
    }


def beside(found: list[Read], phases: list[dict[str, Any]]) -> dict[str, Any]:
    """Each phase's percentiles, and whether those with bad subscribers lie within the spread of those without."""
    shown: dict[str, Any] = {"without": [], "with": []}
    for phase in phases:
        stamps, times = rows(found, phase["from"], phase["upto"])
        about = spread(times[:, 0] - stamps[:, STAMPS.index("received_ns")])
        shown["with" if phase["bad"] else "without"].append(
            about | {k: phase[k] for k in ("cut_off", "mib") if k in phase}
        )
    for kind in ("without", "with"):
        p99 = [phase["p99"] for phase in shown[kind]]
        shown[f"p99 {kind}"] = f"{min(p99)} to {max(p99)}"
    return shown


def check(store: Path, crowd: Crowd, found: list[Read], began: int, ended: int) -> int:
    """How many messages are missing, or came to somebody who had not asked for them."""
    table = SignalHistory(store / "signals").query(newest_first=False)
    inside = table.filter(
        pc.and_(pc.greater_equal(table["published_ns"], began), pc.less(table["published_ns"], ended))
    )
    scans: dict[int, tuple[int, set[str]]] = {}
    for at, seq, symbol in zip(*(inside[name].to_pylist() for name in ("published_ns", "seq", "symbol")), strict=True):
        last, symbols = scans.get(at, (0, set()))
        symbols.add(symbol)
        scans[at] = max(last, seq), symbols
    assert scans, "nothing was published"
    lasts = {last for last, _ in scans.values()}
    wrong = 0
    for wanted, part in zip(crowd.parts, found, strict=True):
        had: list[set[int]] = [set() for _ in wanted]
        n_had = [0] * len(wanted)
        for who, seq in zip(part.who, part.seq, strict=True):
            if seq in lasts:
                had[who].add(seq)
                n_had[who] += 1
        for who, one in enumerate(wanted):
            watched = one.get("symbols")
            due = {last for last, fired in scans.values() if watched is None or not fired.isdisjoint(watched)}
            wrong += len(due ^ had[who]) + n_had[who] - len(had[who])
        wrong += len(part.lost)
    return wrong


def show(report: Mapping[str, Any]) -> None:
    """As text."""
    for name, value in report.items():
        if name == "ms":
            print(f"{'ms':24}" + "".join(f"{column:>9}" for column in ("p50", "p99", "most")))
            for stage, found in value.items():
                print(f"  {stage:22}" + "".join(f"{number:9.1f}" for number in found.values()))
        elif name == "bad":
            print(f"p99 without bad ones    {value['p99 without']} ms; with them {value['p99 with']} ms")
            for phase in value["with"]:
                mib = phase["mib"]
                print(
                    f"  {phase['cut_off']} cut off; memory {mib['before']} MiB, at most {mib['most']},"
                    f" {mib['a_second_after']} a second after they were closed"
                )
        else:
            print(f"{name:24}{value}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--way", choices=WAYS, default="inline")
    parser.add_argument("--wanted", choices=("watchlist", "all"), default="watchlist")
    parser.add_argument("--watched", type=int, default=50)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--readers", type=int, default=1, help="processes that the subscribers are in")
    parser.add_argument("--bad", type=int, default=0)
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the service does not outlive this
    report = measure(given)
    if given.json:
        print(json.dumps(report))
    else:
        show(report)
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""The real service in each of the ways it can be run, as processes of its own: for the benchmarks of subscribers.

inline    one process, Dask's part of it too
local     one process and two Dask workers that it starts
tcp       one process; a Dask scheduler and two workers that it does not start
serve     feed, scan and serve as three processes that meet on a Redis
"""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

WAYS = ("inline", "local", "tcp", "serve")
COMMAND = "import sys; from jobs.cli import main; main(['run', *sys.argv[1:], '--dashboard-port', '0'])"
SERVE = COMMAND.replace(", '--dashboard-port', '0'", "")
PATIENCE_S = 120.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def allow_files(n: int) -> None:
    """Let this process and those it starts open `n` files. Exits, saying so, where the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= n:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, max(n, hard)))
    except (ValueError, OSError):
        sys.exit(
            f"{n} open files are needed and {hard} allowed (ulimit -Hn): raise the limit, or take fewer --subscribers"
        )


def memory_bytes(pid: int) -> int:
    """What a process has of its own: neither files nor what it shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_(?:Clean|Dirty): +(\d+)", text)) * 1024


def cpu_s(pid: int) -> float:
    """Seconds of the processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Service:
    """A running service on a store of its own below `folder`; `pid` is the process that serves, `url` its address."""

    def __init__(self, way: str, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        options = ["--store", str(folder / "store"), *options]
        try:
            if way == "serve":
                port = free_port()
                quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
                self._start("redis", ["redis-server", "--port", str(port), *quiet])
                self._said("redis", "eady to accept connections", self._started[-1])
                bus = ["--bus", f"redis://127.0.0.1:{port}/0"]
                scan = [option for option in options if not option.startswith("--speed=")]
                self._run("scan", [*scan, *bus, "--role", "scan", "--cluster", "inline"], COMMAND)
                self._said("scan", r"engine +(\w+)")
                serve = self._run("serve", [*scan, *bus, "--role", "serve", "--port", "0"], SERVE)
                self._run("feed", [*options, *bus, "--role", "feed"], SERVE)
                name = "serve"
            else:
                cluster = way
                if way == "tcp":
                    port = free_port()
                    cluster = f"tcp://127.0.0.1:{port}"
                    dask = [sys.executable, "-m", "dask"]
                    here = ["--host", "127.0.0.1", "--no-dashboard"]
                    self._start("scheduler", [*dask, "scheduler", "--port", str(port), *here])
                    for number in range(2):
                        threads = ["--nthreads", "1", "--no-dashboard"]
                        self._start(f"worker{number}", [*dask, "worker", cluster, *threads])
                serve = self._run("run", [*options, "--cluster", cluster, "--port", "0"], COMMAND)
                name = "run"
            self.pid = serve.pid
            self.url = self._said(name, r"signals +(ws://\S+)", serve)
            self.port = int(self.url.split(":")[2].split("/")[0])
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> list[int]:
        """Of all its processes, and of those that they started."""
        found = [process.pid for process in self._started if process.poll() is None]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def stop(self) -> None:
        """End it, and return when it has."""
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, name: str, options: Sequence[str], command: str) -> "subprocess.Popen[bytes]":
        return self._start(name, [sys.executable, "-c", command, *options])

    def _start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL if "-c" in command else log, stderr=log)
        self._started.append(process)
        return process

    def _said(self, name: str, pattern: str, process: "subprocess.Popen[bytes] | None" = None) -> str:
        """What a process says that fits; exits with all it said where it ends before."""
        until = time.monotonic() + PATIENCE_S
        while True:
            text = (self.folder / f"{name}.log").read_text()
            if found := re.search(pattern, text):
                return found[found.re.groups]
            if time.monotonic() > until or (process is not None and process.poll() is not None):
                sys.exit(f"{name} did not say {pattern!r}: {text}")
            time.sleep(0.05)

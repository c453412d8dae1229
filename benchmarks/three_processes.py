"""Feed, scan and serve as three processes over a real Redis, killed at random moments: bars and signals must be those
of one process that nobody kills.

    python benchmarks/three_processes.py [--kills 60] [--symbols 300] [--seed 1] [--intervals 480] [--kill scan,redis]

All run `mystocks-scan run` on the simulated market, as fast as it goes. What is killed (SIGKILL) and started again is
drawn from `--kill`: scan, feed, serve, redis, which keeps nothing on disk, or all (everything at once). A subscriber of
/ws/signals reconnects and resumes. Every bar and every signal up to the last interval must be equal, to the bit, none
twice, and the subscriber must have had each signal of the history once. Exit code 1 where anything is not so.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.calendar import bar_ends
from data.history import SignalHistory
from data.simulator import SimulatedMarket
from data.store import BarStore
from streaming.client import signals

FIRST = 250
"""Place of the first live session among the market's."""
BEFORE_ALL = ("00000000T0000000000000000", 0)
KINDS = ("scan", "feed", "serve", "redis", "all")
PATIENCE_S = 60.0


def run(log: str, options: list[str]) -> None:
    """`mystocks-scan run` in a process of its own."""
    import jobs.cli

    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    jobs.cli.main(["run", *options])


def subscribe(url: str, path: str) -> None:
    """Write the id of each signal to a file as it comes."""

    async def read() -> None:
        with open(path, "a") as file:
            async for one in signals(url, since=BEFORE_ALL, backoff_s=(0.05, 0.5), notice=lambda text: None):
                file.write(one["id"] + "\n")
                file.flush()

    asyncio.run(read())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class World:
    """The processes under test, by what they do."""

    def __init__(self, folder: Path, symbols: int, engine: str) -> None:
        self.folder, self.store = folder, folder / "three"
        self.kills: Counter[str] = Counter()
        self._redis_port, self._port = free_port(), free_port()
        self.url = f"ws://127.0.0.1:{self._port}/ws/signals"
        common = ["--symbols", str(symbols), "--store"]
        scanning = ["--engine", engine, "--cluster", "inline", "--dashboard-port", "0"]
        bus = [*common, str(self.store), "--bus", f"redis://127.0.0.1:{self._redis_port}/0", "--role"]
        self._options = {
            "feed": [*bus, "feed", "--speed", "0"],
            "scan": [*bus, "scan", *scanning],
            "serve": [*bus, "serve", "--port", str(self._port)],
            "calm": [*common, str(folder / "one"), "--speed", "0", "--port", "0", *scanning],
        }
        # One server of ready processes: to import everything takes longer than many of these lives.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(
            ["jobs.cli", "jobs.commands.run", "streaming.redis_bus", f"scanner.engines.{engine}", "streaming.client"]
        )
        self._running: dict[str, BaseProcess | subprocess.Popen[bytes]] = {}

    def start(self, name: str, *more: str) -> BaseProcess | subprocess.Popen[bytes]:
        """Start one of them."""
        process: BaseProcess | subprocess.Popen[bytes]
        if name == "redis":
            command = ["redis-server", "--port", str(self._redis_port), "--save", "", "--appendonly", "no"]
            process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            while (line := process.stdout.readline()) and b"eady to accept connections" not in line:
                pass
        else:
            if name == "subscriber":
                target: Any = subscribe
                args: tuple[Any, ...] = (self.url, str(self.folder / "subscriber.txt"))
            else:
                target, args = run, (str(self.folder / f"{name}.log"), [*self._options[name], *more])
            process = self._processes.Process(target=target, args=args)
            process.start()
        self._running[name] = process
        return process

    def kill(self, what: str) -> None:
        """Kill and start again."""
        self.check()
        self.kills[what] += 1
        names = ("redis", "feed", "scan", "serve") if what == "all" else (what,)
        for name in names:
            self._end(name, signal.SIGKILL)
        for name in names:
            self.start(name)

    def stop(self, *names: str) -> None:
        """End them as an operator does."""
        for name in names:
            self._end(name, signal.SIGTERM)

    def check(self) -> None:
        """Raise if one of them has ended by itself; who came just when there was no Redis is started again."""
        for name, process in list(self._running.items()):
            ended = process.poll() if isinstance(process, subprocess.Popen) else process.exitcode
            if ended == 1 and self.said(name).rstrip().splitlines()[-1].startswith("Error: no Redis answers"):
                self.start(name)
            elif ended is not None and (name != "calm" or ended):
                raise RuntimeError(f"{name} has ended with {ended}:\n{self.said(name)}")

    def said(self, name: str) -> str:
        """The end of what one of them printed."""
        path = self.folder / f"{name}.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._running.pop(name)
        assert process.pid is not None
        with suppress(ProcessLookupError):  # it came when there was no Redis, and said so
            os.kill(process.pid, how)
        if isinstance(process, subprocess.Popen):
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        else:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
                raise RuntimeError(f"{name} did not end:\n{self.said(name)}")

    def close(self) -> None:
        """End whatever runs."""
        for process in self._running.values():
            process.kill()
            process.join() if isinstance(process, BaseProcess) else process.wait()


def last_bar(folder: Path) -> int:
    """The newest minute stored, UTC ns; 0 for none."""
    return BarStore(folder).last_bar_end("1m") or 0 if (folder / "store.json").exists() else 0


def wait_for(folder: Path, bar_end: int, world: World) -> None:
    """Return once a bar is stored."""
    newest, since = 0, time.monotonic()
    while newest < bar_end:
        world.check()
        if (now := last_bar(folder)) > newest:
            newest, since = now, time.monotonic()
        if time.monotonic() > since + PATIENCE_S:
            raise RuntimeError(f"no bar for {PATIENCE_S:.0f} s: " + "".join(map(world.said, ("feed", "scan"))))
        time.sleep(0.02)


def bars_of(folder: Path, after: int, upto: int) -> pa.Table:
    """Bars, in order."""
    table = BarStore(folder).table("1m", after=after, upto=upto).drop_columns(["known_at"])
    table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
    return table.sort_by([("bar_end", "ascending"), ("symbol", "ascending"), ("revision", "ascending")])


def signals_of(folder: Path, upto: int) -> list[tuple[Any, ...]]:
    """Signals up to a bar, without what says when they came about."""
    table = SignalHistory(folder / "signals").query(upto=upto, newest_first=False)
    names = ("id", "price", "confidence", "values", "engine", "origin", "at_limit_up", "at_limit_down", "name")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def differences(world: World, after: int, upto: int) -> list[str]:
    """What is not as it should be."""
    found = []
    one, three = world.folder / "one", world.store
    bars, calm_bars = bars_of(three, after, upto), bars_of(one, after, upto)
    if not bars.equals(calm_bars):
        found.append(f"{bars.num_rows} bars, not {calm_bars.num_rows}, or other ones")
    fired, calm_fired = signals_of(three, upto), signals_of(one, upto)
    if fired != calm_fired:
        found.append(f"{len(set(fired) ^ set(calm_fired))} of {len(calm_fired)} signals differ")
    kept = SignalHistory(three / "signals").query()["id"].to_pylist()
    had = (world.folder / "subscriber.txt").read_text().split()
    if twice := len(kept) - len(set(kept)):
        found.append(f"{twice} signals are in the history twice")
    if twice := len(had) - len(set(had)):
        found.append(f"the subscriber had {twice} signals twice")
    if lacking := len(set(kept) - set(had)):
        found.append(f"the subscriber lacks {lacking} of {len(kept)} signals")
    return found


def main() -> int:
    """Kill, go on, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--kill", default=",".join(KINDS), help="what is killed, drawn evenly; once each, first")
    parser.add_argument("--symbols", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--intervals", type=int, default=480)
    parser.add_argument("--engine", default="talib")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    kinds = given.kill.split(",")
    market = SimulatedMarket(given.symbols, 7)
    days = market.sessions[FIRST : FIRST + given.intervals // 240 + 1]
    ends = [int(end) for day in days for end in bar_ends(day, "1m")][: given.intervals]
    plan = sorted(zip(rng.sample(ends[:-1], given.kills), (kinds * given.kills)[: given.kills], strict=True))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="three-processes-") as name:
        world = World(Path(name), given.symbols, given.engine)
        try:
            calm = world.start("calm", "--intervals", str(given.intervals))
            for part in ("redis", "serve", "feed", "scan", "subscriber"):
                world.start(part)
            for bar_end, what in plan:
                wait_for(world.store, bar_end, world)
                world.kill(what)
            wait_for(world.store, ends[-1], world)
            wait_for(world.folder / "one", ends[-1], world)
            world.stop("feed", "scan")
            assert isinstance(calm, BaseProcess)
            calm.join()
            n_kept = SignalHistory(world.store / "signals").query().num_rows
            until = time.monotonic() + PATIENCE_S
            while (world.folder / "subscriber.txt").read_text().count("\n") < n_kept and time.monotonic() < until:
                time.sleep(0.05)
            found = differences(world, ends[0] - 1, ends[-1])
            n_bars, n_signals = (
                bars_of(world.store, ends[0] - 1, ends[-1]).num_rows,
                len(signals_of(world.store, ends[-1])),
            )
            world.stop("serve")
        finally:
            world.close()
    kills = ", ".join(f"{n} of {what}" for what, n in sorted(world.kills.items()))
    print(
        f"seed {given.seed}: {given.kills} kills ({kills}) in {time.monotonic() - started:.0f} s, {given.intervals}"
        f" intervals of {given.symbols} symbols, {n_bars} bars and {n_signals} signals:"
        f" {'; '.join(found) or 'equal to those of one process'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

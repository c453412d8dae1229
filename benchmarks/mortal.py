"""Services of /ws/signals that can be killed and started again on one store and port: for `benchmarks.oracle`.

light    history, bus, serving stage and server as the live service has them, with a ring of 30 signals, 64 KiB a
         subscriber and made-up scans, some fifty a second; starting again it appends its last scans once more, and
         now and then it compacts the history
real     `mystocks-scan run` on the simulated market
roles    the same as feed, scan and serve over a Redis; what is killed is serve, scan or both
"""

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.services import COMMAND, SERVE, free_port
from data.history import SignalHistory
from data.signal import ACTIONS, Signal, to_batch
from jobs.stages.serving import Serving
from streaming.bus import SIGNALS, EventBus
from streaming.server import SignalServer

ROOT = Path(__file__).resolve().parents[1]
WORLDS = ("light", "real", "roles")
POINTS = ("", "kept", "keeping")
"""Where a service ends itself: nowhere; when signals are durable and not yet on the bus; before they are durable."""
STRATEGIES = ("macd", "rsi", "boll")
RULES = """
strategies:
  - {name: macd, frame: 1m, when: "cross_over(close, SMA(close, 5))", action: BUY, confidence: 0.9}
  - {name: rsi, frame: 1m, when: "cross_under(close, SMA(close, 5))", action: SELL, confidence: 0.5}
  - {name: boll, frame: 1m, when: "close > open and volume > SMA(volume, 5)", action: ALERT, confidence: 0.2}
"""
SYMBOLS = 40
_END = 1_748_223_000 * 10**9
_MORTAL = """
import os, signal, sys
from streaming.bus import EventBus, SIGNALS
from data import history
left = int(sys.argv.pop(1))
def dies(call, counts):
    def dying(*given, **named):
        global left
        left -= counts(*given)
        if left < 0: os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return dying
"""
_AT = {
    "kept": "EventBus.publish = dies(EventBus.publish, lambda self, topic, batch: topic == SIGNALS)\n",
    "keeping": "history.write_parquet = dies(history.write_parquet, lambda *given: 1)\n",
}


class Mortal:
    """A service of one of the `WORLDS` below `folder`."""

    def __init__(self, world: str, folder: Path, seed: int) -> None:
        self.world, self.folder, self.seed = world, folder, seed
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/ws/signals"
        self.signals = folder / ("signals" if world == "light" else "store/signals")
        self._redis_port = free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "rules.yaml").write_text(RULES)

    def start(self, dies: str = "", after: int = 0) -> None:
        """Start what does not run; `dies`: of `POINTS`, where it ends itself `after` so many times."""
        store = ["--store", str(self.folder / "store"), "--symbols", str(SYMBOLS)]
        rules = ["--strategies", str(self.folder / "rules.yaml")]
        scan = ["--engine", "talib", "--cluster", "inline", *rules]
        bus = ["--bus", f"redis://127.0.0.1:{self._redis_port}/0", "--role"]
        if self.world == "light":
            self._run(
                "light", [sys.executable, "-m", "benchmarks.mortal", str(self.folder), str(self.port), str(self.seed)]
            )
        elif self.world == "real":
            mortal = [sys.executable, "-c", _MORTAL + _AT[dies] + COMMAND, str(after)] if dies else []
            options = [*store, *scan, "--speed", "600", "--port", str(self.port)]
            self._run("run", [*(mortal or [sys.executable, "-c", COMMAND]), *options])
        else:
            quiet = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
            self._run("redis", ["redis-server", "--port", str(self._redis_port), *quiet])
            time.sleep(0.5)
            self._run("scan", [sys.executable, "-c", COMMAND, *store, *scan, *bus, "scan"])
            self._run("serve", [sys.executable, "-c", SERVE, *store, *bus, "serve", "--port", str(self.port)])
            self._run("feed", [sys.executable, "-c", SERVE, *store, *rules, *bus, "feed", "--speed", "600"])

    def wait(self) -> None:
        """Return once one that ends itself has."""
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def kill(self, rng: random.Random) -> str:
        """End it by SIGKILL; what it was."""
        names = {"light": ("light",), "real": ("run",), "roles": rng.choice((("serve",), ("scan",), ("scan", "serve")))}
        killed = names[self.world]
        ended = [self._running.pop(name) for name in killed]
        for process in ended:
            process.kill()
        for process in ended:
            process.wait()
        return "+".join(killed)

    def quiet(self) -> None:
        """End what makes signals, so that what is left can be read."""
        if self.world == "light":
            (self.folder / "quiet").touch()
        elif self.world == "real":
            self._end("run")  # and serve from the history, as another process can
            self._start_serving()
        else:
            self._end("feed")

    def close(self) -> None:
        """End everything."""
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running.clear()

    @property
    def cut_off(self) -> int:
        """How many subscribers were, by what was logged."""
        return sum(path.read_text().count("cut off") for path in self.folder.glob("*.log"))

    def said(self) -> str:
        """What they printed last."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))

    def check(self) -> None:
        """Raises RuntimeError where one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} has ended with {process.returncode}:\n{self.said()}")

    def _start_serving(self) -> None:
        command = [sys.executable, "-m", "benchmarks.mortal", str(self.folder / "store"), str(self.port), "-1"]
        self._run("light", command)

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    def _run(self, name: str, command: Sequence[str]) -> None:
        if name in self._running:
            return
        with open(self.folder / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)


def scan_of(seed: int, bar: int) -> list[Signal]:
    """A made-up scan: always the same for the same bar."""
    rng = random.Random(f"{seed} {bar}")
    one = Signal("macd", "v1", "600000.SH", "1m", _END + bar * 60 * 10**9, "BUY", 1.0, 10.5, "talib", _END)
    return [
        one.like(
            {
                "symbol": f"{600_000 + number}.SH",
                "strategy": rng.choice(STRATEGIES),
                "action": rng.choice(ACTIONS),
                "confidence": rng.choice((0.2, 0.5, 0.9)),
                "name": "x" * 500,
                "values": {"RSI(14)": rng.random() * 100, "none": None},
            }
        )
        for number in rng.sample(range(SYMBOLS), rng.randrange(1, 15))
    ]


async def light(folder: Path, port: int, seed: int) -> None:
    """The world `light`, until it is killed; with a negative seed it only serves."""
    history = SignalHistory(folder / "signals")
    replay = history.since
    server = SignalServer("127.0.0.1", port, epoch=history.epoch, replay=replay, ring=30, max_client_bytes=64 * 1024)
    await server.start()
    bus = EventBus()
    serving = Serving(bus, server)
    stage = asyncio.create_task(serving.run())
    bar = 0 if seed < 0 else max(0, len(set(history.query()["bar_end"].to_pylist())) - 2)
    while seed >= 0 and not (folder / "quiet").exists():
        stored = await asyncio.to_thread(history.append, scan_of(seed, bar))
        bar += 1
        if bar % 100 == 0:
            await asyncio.to_thread(history.compact)
        if stored:
            await bus.publish(SIGNALS, to_batch(stored))
            await serving.reached(stored[-1].seq)
        await asyncio.sleep(0.01)
    await stage


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("seed", type=int)
    given = parser.parse_args()
    asyncio.run(light(given.folder, given.port, given.seed))

"""Kill the live service at random moments, many times, on one store: it must read whole, and the next run goes on.

    python benchmarks/crash_run.py [--rounds 50] [--symbols 300] [--seed 1] [--longest-s 6.0] [--cluster inline]

After each SIGKILL every file is read, checksums and all: no bar and no signal may be there twice, and every bar must be
the simulated market's own, without a gap between the first bar end and the last, in each of several frames. A last run
then goes on from there, and every session that is over has its longer bars. Another service, with its own store, does
the same without being killed: every signal must be there once, with the same values. Exit code 1 where anything is not
so.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data.calendar import bar_ends, local_day
from data.history import SignalHistory
from data.panel import Panel
from data.simulator import SimulatedMarket
from data.store import BarStore

RULES = """
strategies:
  - {name: minute, frame: 1m, when: "cross_over(close, SMA(close, 5))", action: BUY}
  - {name: five, frame: 5m, when: "cross_over(close, SMA(close, 5))", action: BUY, cooldown: 2}
  - {name: hour, frame: 60m, when: close > open, action: BUY}
  - {name: day, frame: 1d, when: "close > SMA(close, 5)", action: BUY, cooldown: 2}
"""
HISTORY = 250
"""One-minute bar ends that a simulated store begins with."""
PROCESSES = multiprocessing.get_context("forkserver")
"""One server of ready processes: to import everything takes longer than most of these lives."""


def serve(store: Path, options: Sequence[str]) -> None:
    """The live service, silently."""
    from jobs.cli import main

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    main(["run", "--store", str(store), "--json", "--speed", "0", "--port", "0", "--dashboard-port", "0", *options])


def start(store: Path, *options: str) -> ForkServerProcess:
    """The live service, at work."""
    process = PROCESSES.Process(target=serve, args=(store, options))
    process.start()
    return process


def faults(folder: Path, market: SimulatedMarket) -> list[str]:
    """What is wrong with a store; nothing should be."""
    if not (folder / "store.json").exists():
        return []
    store = BarStore(folder)
    found = []
    for frame in store.frames():
        for file in store.files(frame):
            pq.read_table(file.path, page_checksum_verification=True)
        table = store.table(frame)
        n_keys = table.group_by(["symbol", "bar_end", "revision"]).aggregate([]).num_rows
        if n_keys != table.num_rows:
            found.append(f"{table.num_rows - n_keys} {frame} bars are there twice")
        stored = Panel.from_table(table, frame)
        days = np.unique(local_day(stored.times))
        own = Panel.from_table(market.bars(frame, *days), frame, stored.symbols)
        rows = np.searchsorted(own.times, stored.times)
        if not np.array_equal(own.times[rows[0] : rows[-1] + 1], stored.times):
            found.append(f"bar ends are missing among the {frame} bars")
        prices = ("open", "high", "low", "close", "volume")
        found += [
            f"{name} of the {frame} bars differs from the market's"
            for name in prices
            if not np.allclose(stored[name], own[name][rows], rtol=1e-12, atol=0, equal_nan=True)
        ]
    ids = SignalHistory(folder / "signals").query()["id"].to_pylist()
    if len(ids) != len(set(ids)):
        found.append(f"{len(ids) - len(set(ids))} signals are there twice")
    return found


def lacking(folder: Path) -> list[str]:
    """The sessions that are over and lack longer bars."""
    store = BarStore(folder)
    minutes = set(store.bar_ends("1m"))
    over = [end for end in minutes if int(bar_ends(local_day(np.array([end]))[0], "1d")[0]) == end]
    return [f"{frame} bars are missing" for frame in ("5m", "60m", "1d") if not set(over) <= set(store.bar_ends(frame))]


def signals(folder: Path) -> list[tuple[Any, ...]]:
    """The signals of a store, without what says when they came about."""
    table = SignalHistory(folder / "signals").query(newest_first=False)
    names = ("id", "price", "confidence", "values", "engine", "origin", "at_limit_up", "at_limit_down", "name")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def main() -> int:
    """Kill, look, and go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--symbols", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest-s", type=float, default=6.0, help="the longest that a service lives")
    parser.add_argument("--cluster", default="inline")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    market = SimulatedMarket(given.symbols, 7)
    options: tuple[str, ...] = ("--symbols", str(given.symbols), "--cluster", given.cluster)
    PROCESSES.set_forkserver_preload(["jobs.commands.run", "scanner.engines.vector", "pandas"])  # pyarrow loads it
    ready = PROCESSES.Process()
    ready.start()
    ready.join()
    failures, bars = 0, 0
    with tempfile.TemporaryDirectory(prefix="crash-run-") as name:
        folder = Path(name) / "sim"
        rules = Path(name) / "rules.yaml"
        rules.write_text(RULES)
        options = (*options, "--strategies", str(rules), "--engine", "vector")
        for round_ in range(given.rounds):
            process = start(folder, *options)
            process.join(rng.uniform(0, given.longest_s))
            process.kill()
            process.join()
            found = faults(folder, market)
            failures += bool(found)
            bars = len(BarStore(folder).bar_ends("1m")) if (folder / "store.json").exists() else 0
            print(f"round {round_ + 1}: {bars} one-minute bar ends, {'; '.join(found) or 'whole'}", flush=True)
        process = start(folder, *options, "--intervals", "3")
        process.join()
        after = len(BarStore(folder).bar_ends("1m"))
        found = faults(folder, market) + lacking(folder)
        calm = Path(name) / "calm"
        start(calm, *options, "--intervals", str(after - HISTORY)).join()
        mine, other = signals(folder), signals(calm)
        if mine != other:
            found.append(f"{len(set(mine) ^ set(other))} of {len(other)} signals differ from those of a calm run")
        failures += bool(found) or process.exitcode != 0 or after != max(bars, HISTORY) + 3
    said = "; ".join(found) or "whole"
    print(
        f"{given.rounds} kills, {failures} failures; the last run ended with {process.exitcode}, {after} bar ends and"
        f" {len(other)} signals: {said}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

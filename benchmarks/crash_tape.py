"""Kill the live service at random moments of days whose quotes come once: bars and signals must be a calm day's.

    python benchmarks/crash_tape.py [--rounds 200] [--symbols 300] [--seed 1] [--longest-s 2.0] [--more N]

The market is the simulated one, but its feed gives no quote again that is on the service's tape: what a killed service
had received and not made a bar of is nowhere else. Each round starts the service and kills it after a random time; as
many sessions as that takes go by. Then it runs to the end of the last session (or for N more batches), and another
service, with its own store, does the same without being killed. Every bar (to the bit, and the market's own), every
signal and its values must be equal, none twice, and every batch must be on the tape once. Exit code 1 where anything is
not so.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import bar_ends
from data.history import SignalHistory
from data.panel import Panel
from data.schema import FRAMES
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.live import LiveService
from jobs.scanning import MarketScan
from jobs.simulated import keep_names, make_history
from jobs.stages.feeding import Feeding
from jobs.stages.scanning import Scanning
from scanner.cluster import make_cluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies
from streaming.bus import EventBus
from streaming.segment import Segment, segments
from streaming.tape import Tape

SCANNED = ("1m", "5m", "1d")
FRAME = FRAMES[0]
HISTORY_BARS = 250
PER_SESSION = 4803
ENDLESS = 2**62
FIRST = 250
"""Place of the first live session among the market's."""


class OnceFeed:
    """The snapshots of the live sessions up to a number, without the first `skip`, which are on the tape."""

    name = "once"

    def __init__(self, market: SimulatedMarket, skip: int, upto: int, pause_s: float) -> None:
        self._market, self._skip, self._upto, self._pause_s = market, skip, upto, pause_s
        self._closed = False

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        """What has not been given yet."""
        done, skip = divmod(self._skip, PER_SESSION)
        seq = self._skip
        for session in self._market.sessions[FIRST + done :]:
            snapshots = self._market.snapshots(session, int(bar_ends(session, FRAME)[max(skip - 2, 0) // 20]))
            if skip == 0:
                snapshots = self._market.snapshots(session)
            elif skip >= 2:
                skip = (skip - 2) % 20
            for batch in snapshots:
                if skip:
                    skip -= 1
                    continue
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
                if self._closed or seq == self._upto:
                    return
                seq += 1
                yield batch.replace_schema_metadata(
                    {"provider": self.name, "seq": str(seq), "received_ns": str(time.time_ns())}
                )

    async def close(self) -> None:
        """End the frames."""
        self._closed = True


def on_tape(folder: Path) -> int:
    """How many batches a tape has."""
    return sum(frame.kind == b"T" for path in segments(folder).values() for frame in Segment(path).frames())


def serve(folder: Path, n_symbols: int, upto: int, pause_s: float) -> None:
    """The live service, until it has had so many batches or is killed."""
    market = SimulatedMarket(n_symbols, 7)
    store = BarStore(folder)
    history = SignalHistory(store.root / "signals")
    scans = [
        MarketScan(
            store,
            frame,
            load_strategies(()),
            symbols=market.symbols,
            engine=load("talib"),
            cluster=make_cluster("inline"),
            history=history,
        )
        for frame in SCANNED
    ]
    bus = EventBus()
    feed = OnceFeed(market, on_tape(folder / "tape"), upto, pause_s)
    tape = Tape(folder / "tape", origin=store.origin, keep=250)
    feeding = Feeding(store, feed, bus, symbols=market.symbols, frames=FRAMES, tape=tape)
    scanning = Scanning(
        store,
        bus,
        scans,
        frames=FRAMES,
        history_bars=HISTORY_BARS,
        on_interval=lambda _: None,
        on_session=lambda day: keep_names(store, market, day),
    )

    asyncio.run(LiveService(bus, [feeding, scanning]).run())


def begun(folder: Path, market: SimulatedMarket, n_symbols: int) -> BarStore:
    """A store with its history."""
    store = BarStore(folder, origin=f"sim-{n_symbols}-7")
    make_history(store, market, FRAMES, HISTORY_BARS)
    return store


def signals(store: BarStore) -> list[tuple[Any, ...]]:
    """The signals of a store, without what says when they came about."""
    table = SignalHistory(store.root / "signals").query(newest_first=False)
    names = ("id", "price", "confidence", "values", "engine", "origin", "at_limit_up", "at_limit_down", "name")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def differences(broken: BarStore, calm: BarStore, market: SimulatedMarket, upto: int) -> list[str]:
    """What is not as it should be."""
    found = []
    sessions = market.sessions[FIRST : FIRST + (upto - 1) // PER_SESSION + 1]
    before = int(bar_ends(sessions[0], FRAME)[0]) - 1
    for frame in FRAMES:
        tables = [store.table(frame, after=before) for store in (broken, calm)]
        if tables[1].num_rows == 0 and frame != FRAME:
            continue  # none has closed yet
        n_keys = tables[0].group_by(["symbol", "bar_end", "revision"]).aggregate([]).num_rows
        if n_keys != tables[0].num_rows:
            found.append(f"{tables[0].num_rows - n_keys} {frame} bars are there twice")
        ours, theirs = (Panel.from_table(table, frame) for table in tables)
        own = Panel.from_table(market.bars(frame, *sessions), frame, theirs.symbols)  # those who traded so far
        for name in ("open", "high", "low", "close", "volume", "amount"):
            if not np.array_equal(ours[name], theirs[name], equal_nan=True):
                found.append(f"{name} of the {frame} bars differs from the calm day's")
            rows = np.isin(own.times, theirs.times)
            if (frame, name) != ("1d", "amount") and not np.array_equal(ours[name], own[name][rows], equal_nan=True):
                found.append(f"{name} of the {frame} bars differs from the market's")
    mine, other = signals(broken), signals(calm)
    if len({row[0] for row in mine}) != len(mine):
        found.append(f"{len(mine) - len({row[0] for row in mine})} signals are there twice")
    if mine != other:
        found.append(f"{len(set(mine) ^ set(other))} of {len(other)} signals differ from the calm day's")
    if on_tape(broken.root / "tape") != upto:
        found.append(f"{on_tape(broken.root / 'tape')} batches are on the tape")
    return found


def main() -> int:
    """Kill, go on, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest-s", type=float, default=2.0, help="the longest that a service lives")
    parser.add_argument("--pause-ms", type=float, default=0.0, help="between two frames")
    parser.add_argument("--more", type=int, default=0, help="batches after the last kill; 0: to the session's end")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    market = SimulatedMarket(given.symbols, 7)
    # One server of ready processes: to import everything takes longer than most of these lives.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["jobs.live", "jobs.simulated", "scanner.engines.talib", "scanner.loading"])
    started = time.monotonic()
    kills = 0
    with tempfile.TemporaryDirectory(prefix="crash-tape-") as name:
        broken = begun(Path(name) / "broken", market, given.symbols)
        tape = broken.root / "tape"
        for _ in range(given.rounds):
            process = processes.Process(target=serve, args=(broken.root, given.symbols, ENDLESS, given.pause_ms / 1e3))
            process.start()
            process.join(rng.uniform(0, given.longest_s))
            kills += process.is_alive()
            process.kill()
            process.join()
        n_killed, killed_s = on_tape(tape), time.monotonic() - started
        upto = n_killed + given.more if given.more else (n_killed // PER_SESSION + 1) * PER_SESSION
        calm = begun(Path(name) / "calm", market, given.symbols)
        for store in (broken, calm):
            serve(store.root, given.symbols, upto, 0.0)
        found = differences(broken, calm, market, upto)
        n_bars = calm.table(FRAME, after=int(bar_ends(market.sessions[FIRST], FRAME)[0]) - 1).num_rows
        n_signals = len(signals(calm))
    print(
        f"seed {given.seed}: {kills} kills of {given.rounds} in {killed_s:.0f} s, within the first {n_killed} of"
        f" {upto} batches ({PER_SESSION} a session); {n_bars} bars of {given.symbols} symbols and"
        f" {n_signals} signals: {'; '.join(found) or 'equal to those of a calm day'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

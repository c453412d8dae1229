"""Kill an import at random moments, many times: the store must read whole, hold no bar twice, and be completed.

    python benchmarks/crash_import.py FILE_OR_FOLDER [--rounds 50] [--seed 1]

Each round starts the real command on a fresh store and kills it with SIGKILL at a random moment of its life; then the
same command runs to its end and its store must equal that of an import that nobody disturbed. Exit code 1 where it
does not.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from data.schema import BAR
from data.store import BarStore

COMMAND = "import sys; from jobs.cli import main; main(['import', *sys.argv[1:], '--json'])"


def start(source: Path, store: Path) -> "subprocess.Popen[str]":
    """The import command, at work."""
    command = [sys.executable, "-c", COMMAND, str(source), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents(store: Path) -> pa.Table:
    """Every row of a store, sorted, without the time it was stored. Raises StoreError where a file is damaged."""
    table = BarStore(store).table("1d").select(BAR.names)
    table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
    return table.sort_by([("bar_end", "ascending"), ("symbol", "ascending"), ("revision", "ascending")])


def keys(table: pa.Table) -> int:
    """How many different keys a table has."""
    return int(table.group_by(["symbol", "bar_end", "revision"]).aggregate([]).num_rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="crash-import-"))
    began = time.perf_counter()
    with start(options.source, folder / "whole") as whole:
        if whole.wait() != 0:
            return 1
    life_s = time.perf_counter() - began
    wanted = contents(folder / "whole")
    print(f"undisturbed: {wanted.num_rows} rows in {life_s:.1f} s")
    failures = 0
    stored_when_killed = []
    for round_ in range(options.rounds):
        store = folder / "killed"
        with start(options.source, store) as killed:
            time.sleep(rng.uniform(0.3, 1.0) * life_s)
            killed.send_signal(signal.SIGKILL)
        left = contents(store) if (store / "store.json").exists() else wanted.slice(0, 0)
        twice = left.num_rows - keys(left)
        with start(options.source, store) as again:
            assert again.stdout is not None
            report = json.loads(again.stdout.read())
        completed = contents(store).equals(wanted) and report["duplicates"] >= left.num_rows
        stored_when_killed.append(left.num_rows)
        failures += bool(twice) or not completed
        print(
            f"round {round_ + 1}: {'alive' if killed.returncode != -signal.SIGKILL else 'killed'} with {left.num_rows}"
            f" rows, {twice} twice, {'completed' if completed else 'NOT COMPLETED'}",
            flush=True,
        )
        shutil.rmtree(store)
    shutil.rmtree(folder)
    amid = sum(0 < n < wanted.num_rows for n in stored_when_killed)
    print(f"{options.rounds} kills, {amid} of them amid storing, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

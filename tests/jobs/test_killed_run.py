"""A killed `run` leaves a store that reads whole, and the next goes on: the long form is benchmarks/crash_run.py."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_at_random_moments_it_stores_the_bars_and_signals_of_a_calm_run() -> None:
    command = [sys.executable, "benchmarks/crash_run.py", "--rounds", "3", "--symbols", "20", "--seed", "2"]
    done = subprocess.run(
        [*command, "--longest-s", "2.0"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills, 0 failures" in done.stdout
    assert done.stdout.rstrip().endswith("signals: whole")

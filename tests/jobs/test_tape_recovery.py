"""What a killed service had received is not lost: the long form is benchmarks/crash_tape.py."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.settings import FeedSettings, Settings
from data.store import BarStore
from jobs.wiring import open_tape

ROOT = Path(__file__).parents[2]


def test_killed_at_random_moments_it_makes_the_bars_and_signals_of_a_calm_day() -> None:
    command = [sys.executable, "benchmarks/crash_tape.py", "--rounds", "3", "--symbols", "20", "--seed", "3"]
    done = subprocess.run(
        [*command, "--longest-s", "2.0", "--more", "120"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to those of a calm day" in done.stdout


@pytest.mark.parametrize(
    ("name", "wanted", "there"),
    [
        ("sim", "auto", False),
        ("replay:x.tape", "auto", False),
        ("sina,tencent", "auto", True),
        ("sim", True, True),
        ("sina", False, False),
    ],
)
def test_quotes_that_cannot_be_asked_for_again_are_taped(name: str, wanted: Any, there: bool, tmp_path: Path) -> None:
    settings = Settings(feed=FeedSettings(name=name, tape=wanted, tape_sessions=3))
    tape = open_tape(settings, BarStore(tmp_path, origin="market"))
    assert (tape is not None) == there
    if tape is not None:
        assert (tape.folder, tape.origin, tape.keep) == (tmp_path / "tape", "market", 3)

"""What a killed service had received is not lost: the long form is benchmarks/crash_tape.py."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.schema import AFTER_HOURS
from data.settings import FeedSettings, Settings
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.stages.recovery import going_on
from jobs.wiring import open_tape
from streaming.tape import Tape

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


def test_a_session_is_folded_again_until_its_trades_after_hours_are_stored(tmp_path: Path) -> None:
    market = SimulatedMarket(4, 7)
    day, store = market.sessions[0], BarStore(tmp_path / "s", origin="sim")
    tape = Tape(store.root / "tape", origin="sim", keep=3)
    batch = next(iter(market.snapshots(day)))
    received_ns = str(batch["quote_time"][0].value)
    tape.append([batch.replace_schema_metadata({"provider": "sim", "seq": "1", "received_ns": received_ns})])
    tape.close()
    bars = market.bars("1m", day)
    close = pc.max(bars["bar_end"])
    store.append(bars.filter(pc.less(bars["bar_end"], close)), "1m")

    def folded_again() -> int:
        return len(going_on(store, ("1m",), Tape(store.root / "tape", origin="sim", keep=3)).tail)

    assert folded_again() == 1
    store.append(bars.filter(pc.equal(bars["bar_end"], close)), "1m")
    assert folded_again() == 1, "killed between 15:00 and the end of the trades after hours"
    trades = {"symbol": [market.symbols[0]], "day": [day.astype(object)], "volume": [100.0], "amount": [1000.0]}
    store.append_after_hours(pa.table(trades).cast(AFTER_HOURS))
    assert folded_again() == 0

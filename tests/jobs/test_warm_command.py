"""A first start, whose kernels are not compiled: scans run on `talib`, then `vector` takes over; and `warm`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data.history import SignalHistory
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner.engines import folders

MARKET = SimulatedMarket(20, seed=5)
RULES = """
strategies:
  - {name: every, when: MOM(3) > -1e9, action: ALERT}
"""
KDJ = "  - {name: golden, when: KDJ().k > -1e9, action: ALERT}\n"
ENTRY = "from jobs.cli import main; main()"


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a command whose cache of kernels is empty at first."""
    (tmp_path / "rules.yaml").write_text(RULES)
    environment = {**os.environ, folders.SETTING: str(tmp_path / "cache")}

    def begin(*args: str, entry: str = ENTRY) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", entry, *args]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return begin


@pytest.fixture
def store(tmp_path: Path) -> Path:
    BarStore(tmp_path / "market", origin="market").append(MARKET.bars("1d", *MARKET.sessions[:40]), "1d")
    return tmp_path / "market"


def ended(process: "subprocess.Popen[str]", code: int = 0) -> tuple[Any, str]:
    """What it printed, parsed, and what it said."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return json.loads(out), err


def test_one_scan_runs_on_what_is_there(start: Any, store: Path, tmp_path: Path) -> None:
    scan = ("scan", "--json", "--dry-run", "--store", str(store), "--strategies", str(tmp_path / "rules.yaml"))
    first, said = ended(start(*scan, "--cluster", "inline"))
    assert first["engine"] == "talib"
    assert "Note: 2 kernels are not compiled on this machine yet" in said
    assert "'mystocks-scan warm' compiles what is missing" in said
    told, _ = ended(start("warm", "MOM", "PREV", "--json"))
    assert (told["kernels"], told["compiled"], told["refused"]) == (2, 2, {})
    second, said = ended(start(*scan))
    assert second["engine"] == "vector"
    assert "Note" not in said
    assert {s["engine"] for s in second["signals"]} == {"vector"}
    assert [s["id"] for s in second["signals"]] == [s["id"] for s in first["signals"]] != []


def test_without_numba_scans_run_on_talib(start: Any, store: Path, tmp_path: Path) -> None:
    scan = ("scan", "--json", "--dry-run", "--store", str(store), "--strategies", str(tmp_path / "rules.yaml"))
    (tmp_path / "rules.yaml").write_text(RULES + KDJ)
    found, said = ended(start(*scan, "--cluster", "inline", entry=f"import sys; sys.modules['numba'] = None; {ENTRY}"))
    assert found["engine"] == "talib"
    assert {s["strategy"] for s in found["signals"]} == {"every", "golden"}  # KDJ's kernel as numpy among them
    assert "Note" not in said


def test_the_live_service_changes_its_engine_once_kernels_are_compiled(start: Any, tmp_path: Path) -> None:
    store = tmp_path / "sim"
    run = (
        *("run", "--json", "--store", str(store), "--symbols", "20", "--speed", "600", "--port", "0"),
        *("--cluster", "inline", "--strategies", str(tmp_path / "rules.yaml")),
    )
    process = start(*run)
    try:
        engines = []
        until = time.monotonic() + 90
        for line in process.stdout:
            engines.append(json.loads(line)["engine"])
            if engines[-1] == "vector" or time.monotonic() > until:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert engines[0] == "talib"
    assert engines == sorted(engines)
    assert engines[-1] == "vector", said
    assert "engine     talib: until 2 kernels are compiled for vector" in said
    assert "engine     vector from here on: 2 kernels are compiled" in said
    table = SignalHistory(store / "signals").query(newest_first=False)
    recorded = table["engine"].to_pylist()
    assert recorded == sorted(recorded)
    assert {"talib", "vector"} == set(recorded)
    again = start(*run, "--intervals", "1")
    out, said = again.communicate(timeout=60)
    assert {json.loads(line)["engine"] for line in out.splitlines()} == {"vector"}, said


def test_warm_knows_what_it_cannot_compile(start: Any) -> None:
    process = start("warm", "MOMM")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no kernel is called 'MOMM'; did you mean 'MOM'?" in said

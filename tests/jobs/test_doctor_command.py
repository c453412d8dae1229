"""`mystocks-scan doctor`: what it finds on machines in good and in bad health."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from data.schema import FRAMES
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs import doctor, gpu_checks
from jobs.cli import cli
from scanner.indicators import catalog

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on free ports, with stores of its own, on a day that the calendar knows."""
    for name in ("PATH", "SIM_PATH"):
        monkeypatch.setenv(f"MYSTOCKS_SCAN__STORE__{name}", str(tmp_path / name))
    for name in ("PORT", "DASHBOARD_PORT"):
        monkeypatch.setenv(f"MYSTOCKS_SCAN__SERVE__{name}", "0")
    on_day(monkeypatch, date(2025, 5, 26))

    def invoke(*args: str) -> Result:
        result = CliRunner().invoke(cli, ["doctor", *args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def on_day(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    class Today(date):
        @classmethod
        def today(cls) -> "Today":
            return cls(day.year, day.month, day.day)

    monkeypatch.setattr(doctor, "date", Today)


def findings(result: Result, check: str) -> list[tuple[str, str, str]]:
    found = json.loads(result.stdout)["checks"]
    return [(row["status"], row["text"], row["remedy"]) for row in found if row["check"] == check]


def a_store(root: Path, origin: str) -> BarStore:
    store = BarStore(root, origin=origin)
    market = SimulatedMarket(20)
    store.append(market.bars("1d", *market.sessions[:3]), "1d")
    return store


def market_day(number: int) -> str:
    return str(SimulatedMarket(20).sessions[number])


def test_a_healthy_machine(run: Run, tmp_path: Path) -> None:
    store = a_store(tmp_path / "SIM_PATH", "sim")
    result = run("--json")
    told = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert {row["check"] for row in told["checks"]} == {"settings", *doctor.CHECKS}
    assert [row for row in told["checks"] if row["status"] == "FAIL"] == []
    assert result.exit_code == 0
    ((status, text, _),) = findings(result, "store")
    assert status == "OK"
    assert f"{store.root} (sim): 1d: {len(store.symbols('1d'))} symbols up to {market_day(2)} 15:00" in text
    assert ("OK", "talib runs, and its RSI(14) is the one worked out by hand", "") in findings(result, "engines")


def test_the_report_for_people_has_a_line_for_each_and_a_remedy_under_what_needs_one(run: Run) -> None:
    lines = run().stdout.splitlines()
    assert lines[1].startswith("OK    python      Python 3.")
    (at,) = [number for number, line in enumerate(lines) if line.startswith("WARN  store")]
    assert "nothing is stored yet" in lines[at]
    assert lines[at + 1].split()[:3] == ["->", "'mystocks-scan", "import"]
    assert "to look at" in lines[-1]


def test_where_settings_come_from(run: Run, tmp_path: Path) -> None:
    ((_, text, _),) = findings(run("--json"), "settings")
    assert text.startswith("no file, so the defaults; environment: MYSTOCKS_SCAN__SERVE__DASHBOARD_PORT, ")
    (tmp_path / "mine.yaml").write_text("scan: {workers: 2}")
    ((_, text, _),) = findings(run("--json", "-c", str(tmp_path / "mine.yaml")), "settings")
    assert text.startswith(f"{tmp_path / 'mine.yaml'}; ")


def test_a_package_outside_its_range_or_missing_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor,
        "requires",
        lambda name: ["numpy<1.0", "no-such-package>=3", "click>=8", "no-such-extra; extra == 'gpu'"],
    )
    result = run("--json")
    assert result.exit_code == 1
    number, missing, good = findings(result, "packages")
    assert number == ("FAIL", f"numpy {np.__version__} is outside <1.0", "pip install 'numpy<1.0'")
    assert missing == ("FAIL", "no-such-package is not installed", "pip install 'no-such-package>=3'")
    assert good[1].startswith("mystocks-scan ")
    assert "no-such-extra" not in good[1]


def test_a_damaged_store_fails_and_names_the_file(run: Run, tmp_path: Path) -> None:
    store = a_store(tmp_path / "PATH", "market")
    (file,) = store.files("1d")
    file.path.write_bytes(b"PAR1 and nothing else")
    result = run("--json")
    assert result.exit_code == 1
    ((status, text, _),) = findings(result, "store")
    assert (status, str(file.path) in text) == ("FAIL", True)


def test_old_bars_of_a_real_market_are_a_warning_and_fiction_has_no_age(run: Run, tmp_path: Path) -> None:
    a_store(tmp_path / "PATH", "market")
    a_store(tmp_path / "SIM_PATH", "sim")
    told = findings(run("--json"), "store")
    assert [status for status, _, _ in told] == ["OK", "WARN", "OK"]
    assert told[1][2] == "import newer files"


def test_the_store_that_is_named_is_the_one_looked_at(run: Run, tmp_path: Path) -> None:
    a_store(tmp_path / "other", "sim")
    assert str(tmp_path / "other") in findings(run("--json", "--store", str(tmp_path / "other")), "store")[0][1]


@pytest.mark.parametrize(
    ("day", "status"), [(date(2026, 12, 1), "OK"), (date(2026, 12, 2), "WARN"), (date(2027, 1, 1), "FAIL")]
)
def test_the_calendar_s_end(day: date, status: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Until2026(doctor.TradingCalendar):
        def __init__(self, overlay: Path | None = None) -> None:
            super().__init__(overlay)
            self.last = date(2026, 12, 31)

    monkeypatch.setattr(doctor, "TradingCalendar", Until2026)
    on_day(monkeypatch, day)
    ((told, text, remedy),) = findings(run("--json"), "calendar")
    assert (told, "2026-12-31" in text, "exchange-calendars" in remedy) == (status, True, status != "OK")


def test_a_port_in_use_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__PORT", str(port))
        first, second = findings(run("--json"), "ports")
    assert (first[0], f"127.0.0.1:{port}" in first[1], "--port N" in first[2]) == ("WARN", True, True)
    assert second[0] == "OK"


def test_strategies_that_do_not_load_fail_with_their_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("strategies: [{name: x, when: clsoe > 1, action: BUY}]")
    monkeypatch.setenv("MYSTOCKS_SCAN__SCAN__STRATEGIES", json.dumps([str(path)]))
    ((status, text, _),) = findings(run("--json"), "strategies")
    assert (status, text.startswith(f"{path}:1:30: ")) == ("FAIL", True)


def test_an_engine_that_computes_wrong_numbers_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "GOLDEN_RSI", np.array([200 / 3, 69.0]))
    result = run("--json")
    assert result.exit_code == 1
    said = "talib says 66.666667, 69.767442 for an RSI(14) of 66.666667, 69.000000"
    assert ("FAIL", said) in [finding[:2] for finding in findings(result, "engines")]


def test_a_check_that_raises_does_not_hide_the_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: object) -> Any:
        raise ZeroDivisionError("by chance")

    monkeypatch.setitem(doctor.CHECKS, "disk", broken)
    result = run("--json")
    assert findings(result, "disk")[0][:2] == ("FAIL", "ZeroDivisionError: by chance")
    assert findings(result, "terminal") != []


def test_little_disk_and_memory_are_warnings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(doctor, "LEAST_MEMORY_BYTES", 1 << 60)
    result = run("--json")
    assert result.exit_code == 0
    for check in ("disk", "machine"):
        assert [status for status, _, _ in findings(result, check)] == ["WARN"]


DRIVER = """
#include <stdio.h>
#include <stddef.h>
#include <unistd.h>
int cuDriverGetVersion(int *v) { *v = %(version)d; return 0; }
int cuInit(unsigned f) { sleep(%(sleep)d); return %(init)d; }
int cuDeviceGetCount(int *n) { *n = %(count)d; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { return snprintf(s, n, "Pretend %%d", d) < 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = (size_t)16 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? %(major)d : a == 76 ? 6 : -1; return 0; }
"""
GOOD = {"version": 12080, "sleep": 0, "init": 0, "count": 1, "major": 8}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")
@pytest.mark.parametrize(
    ("driver", "status", "text"),
    [
        (GOOD, "WARN", "Pretend 0 (compute 8.6, 16.0 GiB), driver for CUDA 12.8; missing: cupy-cuda12x"),
        (GOOD | {"count": 2}, "WARN", "Pretend 1 (compute 8.6"),
        (GOOD | {"version": 11040}, "WARN", "speaks CUDA 11.4, and 12.0 is the least"),
        (GOOD | {"init": 100}, "WARN", "finds no device"),
        (GOOD | {"init": 803}, "WARN", "different versions"),
        (GOOD | {"init": 999}, "WARN", "cuInit failed with error 999"),
        (GOOD | {"count": 0}, "WARN", "finds no device"),
        (GOOD | {"major": 6}, "WARN", "Pretend 0 has 6.6"),
        (GOOD | {"sleep": 30}, "WARN", "has not answered"),
    ],
)
def test_what_a_driver_says(
    driver: dict[str, int], status: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "driver.c"
    source.write_text(DRIVER % driver)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(gpu_checks, "GPU_PATIENCE_S", 1.0 if driver["sleep"] else 30.0)
    (found,) = gpu_checks.check_gpu(doctor.Settings())
    assert (found.status, text in found.text) == (status, True)
    assert bool(found.remedy) == (status == "WARN")


def test_a_gpu_s_process_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [found.status for found in gpu_checks.check_gpu_drill(doctor.Settings())] == ["OK"]
    card = gpu_checks.gpu.Card("Pretend", (8, 6), 16 << 30)
    monkeypatch.setattr(gpu_checks.gpu, "probe", lambda: gpu_checks.gpu.Probe(True, True, 12080, (card,)))
    monkeypatch.setattr(gpu_checks.gpu, "missing", lambda: ())
    (found,) = gpu_checks.check_gpu_drill(doctor.Settings())
    assert (found.status, found.remedy) == ("FAIL", "use --engine vector, and send this report")
    assert found.text.startswith("the GPU's process ended with 1: data.errors.EngineError: engine 'cuda' needs a GPU")


def test_a_slow_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_SYNC_S", 0.0)
    ((status, text),) = [(found.status, found.text) for found in doctor.check_sync(doctor.Settings())]
    assert (status, "4 KiB are on the disk after" in text) == ("WARN", True)


def test_no_driver_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks.gpu, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    found = gpu_checks.gpu.probe()
    assert (found.usable, found.installed, found.reason) == (False, False, "libcuda-that-is-nowhere.so.1 not found")


def test_full_computes_and_scans_on_a_cluster_with_the_answer_of_this_process(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [catalog[name] for name in ("SMA", "RSI", "KDJ")]
    monkeypatch.setattr(doctor, "kernels", lambda: few)
    small = doctor.market(50, 60)
    monkeypatch.setattr(doctor, "market", lambda: small)
    result = run("--json", "--full")
    ((status, text, _),) = findings(result, "cluster")
    assert (status, "local: 2 workers" in text) == ("OK", True)
    golden = findings(result, "golden")
    assert {status for status, _, _ in golden} == {"OK"}
    assert any(" indicators, 50 x 60, in " in text for _, text, _ in golden)
    assert findings(result, "gpu-drill") == [
        ("OK", "no usable GPU: its bits, memory and failures were not looked at", "")
    ]


def test_frames_that_are_stored_are_all_told(run: Run, tmp_path: Path) -> None:
    store = a_store(tmp_path / "SIM_PATH", "sim")
    market = SimulatedMarket(20)
    store.append(market.bars("60m", market.sessions[0]), "60m")
    ((_, text, _),) = findings(run("--json"), "store")
    assert [frame for frame in FRAMES if f"{frame}: " in text] == ["60m", "1d"]
    assert f"60m: {len(store.symbols('60m'))} symbols up to {market_day(0)} 15:00" in text

"""What the wheel holds, and that it works where somebody else's files have our packages' names."""

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "jobs", "scanner", "streaming")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, away from the checkout; no network."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder with modules that have the names of our packages, and of what Dask's workers import first."""
    for name in (*ROOMS, "tests"):
        (tmp_path / f"{name}.py").write_text(
            f"raise SystemExit('the module {name} of the working folder was loaded')\n"
        )
    return tmp_path


def mystocks_scan(installed: Path, folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """The installed console script, run in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(installed), "HOME": str(folder)}
    return subprocess.run(
        [installed / "bin" / "mystocks-scan", *args], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_wheel_holds_the_four_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packaged = {name for name in names if ".dist-info/" not in name}
    sources = {
        file.relative_to(ROOT).as_posix()
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert packaged == sources
    assert {"data/settings.py", "jobs/commands/scan.py", "scanner/strategies/builtin.yaml"} <= packaged
    assert {name.partition("/")[2] for name in names - packaged} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "-info/" in name
        }
    assert about["entry_points.txt"] == "[console_scripts]\nmystocks-scan = jobs.cli:main\n"
    assert "Root-Is-Purelib: true" in about["WHEEL"]
    metadata = Parser().parsestr(about["METADATA"])
    assert (metadata["Name"], metadata["Requires-Python"], metadata["License-Expression"]) == (
        "mystocks-scan",
        ">=3.11",
        "MIT",
    )
    assert {"gpu", "test"} <= set(metadata.get_all("Provides-Extra", []))
    assert str(metadata.get_payload()).startswith("# mystocks-scan")


def test_the_console_script_takes_its_own_modules_wherever_it_runs(installed: Path, hostile: Path) -> None:
    version = mystocks_scan(installed, hostile, "--version")
    assert version.stdout.startswith("mystocks-scan, version "), version.stderr
    listed = mystocks_scan(installed, hostile, "indicators", "--json")
    assert json.loads(listed.stdout.splitlines()[0])["name"], listed.stderr
    told = mystocks_scan(installed, hostile, "scan", "--help")
    assert "--as-of" in told.stdout, told.stderr
    strategies = mystocks_scan(installed, hostile, "strategies", "list", "--json")
    assert json.loads(strategies.stdout.splitlines()[0])["place"].startswith(str(installed)), strategies.stderr


def test_dask_workers_take_them_too(installed: Path, hostile: Path) -> None:
    done = mystocks_scan(installed, hostile, "doctor", "--full", "--json")
    assert done.stdout, done.stderr
    (cluster,) = [row for row in json.loads(done.stdout)["checks"] if row["check"] == "cluster"]
    assert cluster["status"] == "OK", cluster["text"]

"""`mystocks-scan import`: its report, its exit codes, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from data.calendar import TradingCalendar
from data.errors import StoreOriginError, UsageError
from data.schema import BAR
from data.store import BarStore
from jobs.cli import cli, main

HEADER = "code,date,open,high,low,close,volume,amount"
ROWS = ["600000,2025-05-22,10,11,9,10,1000,10000", "000001,2025-05-22,20,21,19,20,1000,20000"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "all.csv"
    path.write_text("\n".join([HEADER, *ROWS, "600000,2025-05-24,10,11,9,10,1000,10000"]))
    return path


def run(store: Path, *args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["import", "--store", str(store), *map(str, args)], catch_exceptions=False)


def test_json_is_one_line_that_says_what_became_of_every_row(file: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "store", file, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert {"files": 1, "read": 3, "stored": 2, "duplicates": 0, "symbols": 2}.items() <= report.items()
    assert report["refused"] == {"not a session": 1}
    assert report["elapsed_s"] > 0
    assert Path(report["rejects"]).parent == tmp_path / "store" / "rejects"
    report = json.loads(run(tmp_path / "store", file, "--json").stdout)
    assert (report["stored"], report["duplicates"]) == (0, 2)


def test_a_person_reads_lines_where_no_terminal_is(file: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "store", file)
    assert "stored: 2\nduplicates: 0\nrefused: 1\n  not a session: 1\nsymbols: 2" in result.stdout
    assert f"store: {tmp_path / 'store'}" in result.stdout


def test_options_reach_the_import(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(store, file)
    assert json.loads(run(store, file, "--adjusted", "qfq", "--json").stdout)["stored"] == 2
    file.write_text("\n".join([HEADER, ROWS[0].replace("9,10,", "9,10.5,")]))
    assert json.loads(run(store, file, "--json").stdout)["refused"] == {"conflicting duplicate": 1}
    assert json.loads(run(store, file, "--revise", "--json").stdout)["stored"] == 1
    assert BarStore(store).table("1d", adjusted="qfq").num_rows == 2
    assert BarStore(store).table("1d").num_rows == 3


def test_exit_codes_say_whether_anything_could_be_read(file: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "store", tmp_path / "none.csv").exit_code == 2
    assert run(tmp_path / "store", file, "--adjusted", "xfq").exit_code == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        run(tmp_path / "store", tmp_path / "empty")
    assert not (tmp_path / "store").exists()
    file.write_text("this is no table")
    with pytest.raises(SystemExit, match="1"):
        main(["import", str(file), "--store", str(tmp_path / "store")])
    file.write_text("\n".join([HEADER, ROWS[0], "no row"]))
    with pytest.raises(SystemExit, match="0"):
        main(["import", str(file), "--store", str(tmp_path / "store")])
    BarStore(tmp_path / "sim", origin="sim")
    with pytest.raises(StoreOriginError):
        run(tmp_path / "sim", file)


def test_help_names_what_is_understood() -> None:
    text = " ".join(CliRunner().invoke(cli, ["import", "--help"]).stdout.split())
    for word in ("000001.csv", "20250523.csv", "tushare", "GBK", "lots", "--adjusted", "--revise", "Exit code"):
        assert word in text


_COMMAND = "import sys; from jobs.cli import main; main(['import', *sys.argv[1:], '--json'])"


def _import(store: Path, file: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _COMMAND, str(file), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])


def _contents(store: BarStore) -> pa.Table:
    table = store.table("1d").select(BAR.names)
    table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
    return table.sort_by([("bar_end", "ascending"), ("symbol", "ascending"), ("revision", "ascending")])


def test_killed_at_any_moment_the_store_reads_whole_and_the_same_command_completes_it(tmp_path: Path) -> None:
    days = TradingCalendar().sessions(np.datetime64("2022-01-04").item(), np.datetime64("2024-12-31").item())
    rows = [f"{600000 + n},{day},10,11,9,10,{1000 + n},{10 * (1000 + n)}" for n in range(40) for day in days]
    file = tmp_path / "all.csv"
    file.write_text("\n".join([HEADER, *rows]))
    with _import(tmp_path / "whole", file) as whole:
        assert whole.wait() == 0
    wanted = _contents(BarStore(tmp_path / "whole"))
    assert wanted.num_rows == len(rows)
    for n_files in (1, 9, 30):
        store, folder = tmp_path / str(n_files), tmp_path / str(n_files) / "bars" / "1d"
        with _import(store, file) as killed:
            while killed.poll() is None and not (folder.is_dir() and len(os.listdir(folder)) >= n_files):
                time.sleep(0.0005)
            killed.send_signal(signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL
        stored = _contents(BarStore(store))
        assert 0 <= stored.num_rows < len(rows)
        assert stored.group_by(["symbol", "bar_end", "revision"]).aggregate([]).num_rows == stored.num_rows
        with _import(store, file) as again:
            assert again.stdout is not None
            report = json.loads(again.stdout.read())
        assert (report["stored"], report["duplicates"]) == (len(rows) - stored.num_rows, stored.num_rows)
        assert _contents(BarStore(store)).equals(wanted)

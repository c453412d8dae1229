"""`mystocks-scan factors`, and a scan whose prices it puts on one basis."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from click.testing import CliRunner, Result

from data.calendar import bar_ends, day_ns
from data.schema import BAR
from data.store import BarStore
from jobs.cli import cli

SYMBOL = "600519.SH"
SCAN = ("scan", "--json", "--dry-run", "--cluster", "inline", "--engine", "talib", "--frame", "1d")


def command(*args: str) -> Result:
    return CliRunner().invoke(cli, ["factors", *args], standalone_mode=False)


def store(path: Path) -> Path:
    """40 daily bars at 10, and from the 31st on at 5: two shares for one, as a file without previous closes has it."""
    days = np.arange("2024-05-01", "2024-07-20", dtype="datetime64[D]")
    days = days[np.is_busday(days)][:40]
    close = np.where(np.arange(40) < 30, 10.0, 5.0)
    columns: dict[str, Any] = {
        "symbol": [SYMBOL] * 40,
        "bar_start": [int(day_ns(np.array([day]))[0]) for day in days],
        "bar_end": [int(bar_ends(day, "1d")[0]) for day in days],
        **dict.fromkeys(("open", "high", "low", "close"), close),
        "volume": [1000.0] * 40,
        "amount": close * 1000,
        "prev_close": [None] * 40,
        "flags": [0] * 40,
        "revision": [0] * 40,
    }
    table = pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in BAR}, schema=BAR)
    BarStore(path, origin="market").append(table, "1d")
    (path / "factors.csv").write_text(
        f"symbol,day,factor\n{SYMBOL[:6]},{days[30]},0.5\n123,{days[30]},0.5\n600519,soon,0.5\n"
    )
    return path


def signals(path: Path) -> list[tuple[float, dict[str, float]]]:
    """(price, values) of what a scan of the newest bar fires."""
    rules = path / "rules.yaml"
    rules.write_text("strategies:\n  - {name: average, action: ALERT, when: SMA(20) > 0}\n")
    done = CliRunner().invoke(
        cli,
        [*SCAN, "--store", str(path), "--strategies", str(rules)],
    )
    assert done.exit_code == 0, done.output
    return [(signal["price"], signal["values"]) for signal in json.loads(done.stdout)["signals"]]


def test_imported_factors_are_listed_and_refused_rows_told(tmp_path: Path) -> None:
    path = store(tmp_path / "s")
    assert command("list", "--store", str(path)).stderr == "No factors.\n"
    done = command("import", str(path / "factors.csv"), "--store", str(path))
    assert done.return_value == 0
    assert done.stdout == "1 factors from 1 files; 2 rows refused\n"
    assert "factors.csv: row 2: '123' is no known symbol" in done.stderr
    (row,) = map(json.loads, command("list", "--store", str(path), "--json").stdout.splitlines())
    assert (row["symbol"], row["factor"], row["origin"]) == (SYMBOL, 0.5, "import")
    assert "0.500000" in command("list", "--store", str(path), "--symbol", "sh600519").stdout
    assert command("list", "--store", str(path), "--symbol", "000001").stdout == ""
    (path / "bad.csv").write_text("symbol,day,factor\nx,y,z\n")
    assert command("import", str(path / "bad.csv"), "--store", str(path), "--json").return_value == 1


def test_a_scan_sees_one_basis_and_a_gap_that_is_explained_is_not_silent(tmp_path: Path) -> None:
    path = store(tmp_path / "s")
    assert signals(path) == [], "an unexplained gap within the rule's window"
    command("import", str(path / "factors.csv"), "--store", str(path))
    assert signals(path) == [(5.0, {"SMA(20)": 5.0})], "prices stay raw, averages stand on today's basis"

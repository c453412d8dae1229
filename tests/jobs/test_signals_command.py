"""`mystocks-scan signals`, and the store that a command takes when none is named."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from data.errors import StoreOriginError, UnknownSymbolError
from data.history import SignalHistory
from data.schema import SIGNAL
from data.signal import Signal
from data.store import BarStore
from jobs.cli import cli
from jobs.options import open_store

DAY = 86_400 * 10**9
CLOSE = 1_748_242_800 * 10**9  # 2025-05-26 15:00 in Shanghai


def fired(day: int, symbol: str, action: str = "BUY", strategy: str = "macd_golden_cross", **more: Any) -> Signal:
    values = {"MACD(12,26,9).macd": 1.25, "RSI(14)": None}
    return Signal(strategy, "v1", symbol, "1d", CLOSE + day * DAY, action, 0.8, 1523.5, "talib", 0, values, **more)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = BarStore(tmp_path / "market", origin="market").root
    history = SignalHistory(root / "signals")
    history.append([fired(0, "600519.SH", name="贵州茅台"), fired(0, "000001.SZ", "SELL", "rsi", name="平安银行")])
    history.append([fired(1, "600519.SH", "SELL", at_limit_up=True), fired(2, "430047.BJ", "ALERT", name="A股")])
    return root


def signals(store: Path, *args: str) -> Result:
    result = CliRunner().invoke(cli, ["signals", "--store", str(store), *args], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_is_newest_first_in_utc_and_as_it_was_published(store: Path) -> None:
    got = rows(signals(store, "--json"))
    assert [row["bar_end"][:10] for row in got] == ["2025-05-28", "2025-05-27", "2025-05-26", "2025-05-26"]
    assert got[0]["bar_end"] == "2025-05-28T07:00:00Z"
    assert list(got[0]) == SIGNAL.names
    assert got[-1]["values"] == {"MACD(12,26,9).macd": 1.25, "RSI(14)": None}
    assert signals(store, "--format", "json").stdout == signals(store, "--json").stdout


@pytest.mark.parametrize(
    ("args", "symbols"),
    [
        (["--since", "2025-05-27"], ["430047.BJ", "600519.SH"]),
        (["--since", "20250526", "--until", "2025-05-26"], ["000001.SZ", "600519.SH"]),
        (["--until", "2025-05-25"], []),
        (["--symbol", "sh600519"], ["600519.SH", "600519.SH"]),
        (["--symbol", "600519", "--symbol", "sz.000001", "--until", "20250526"], ["000001.SZ", "600519.SH"]),
        (["--action", "buy"], ["600519.SH"]),
        (["--strategy", "rsi"], ["000001.SZ"]),
        (["--limit", "1"], ["430047.BJ"]),
    ],
)
def test_what_is_asked_for(store: Path, args: list[str], symbols: list[str]) -> None:
    assert [row["symbol"] for row in rows(signals(store, "--json", *args))] == symbols


def test_the_table_has_times_in_shanghai_and_columns_that_stand_under_each_other(store: Path) -> None:
    lines = signals(store).stdout.splitlines()
    body = [line for line in lines if "2025-" in line]
    assert [line.split()[:3] for line in body][:2] == [
        ["2025-05-28", "15:00", "430047.BJ"],
        ["2025-05-27", "15:00", "600519.SH"],
    ]
    assert "贵州茅台" in body[3]
    assert "涨停" in body[1]
    # In cells, not in characters: a Chinese name takes two a character.
    heads = next(line for line in lines if "action" in line)
    place = heads.index("action")
    for line, action in zip(body, ["ALERT", "SELL", "SELL", "BUY"], strict=True):
        assert cell_len(line[: line.index(action)]) == place
    assert "RSI(14)" not in "".join(lines)


def test_verbose_shows_the_values(store: Path) -> None:
    assert "MACD(12,26,9).macd = 1.25, RSI(14) = -" in signals(store, "-v").stdout


def test_red_is_up_and_green_is_down(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in signals(store).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    line = next(line for line in signals(store, "--action", "BUY").stdout.splitlines() if "600519" in line)
    assert "\x1b[31m" in line
    line = next(line for line in signals(store, "--action", "SELL").stdout.splitlines() if "600519" in line)
    assert "\x1b[32m" in line
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in signals(store).stdout


def test_a_table_says_when_it_is_not_all(store: Path) -> None:
    SignalHistory(store / "signals").append([fired(day, "600519.SH") for day in range(10, 70)])
    result = signals(store)
    assert result.stdout.count("600519.SH") == 50
    assert "--limit" in result.stderr
    assert signals(store, "--limit", "100").stdout.count("600519.SH") == 62
    assert len(rows(signals(store, "--json"))) == 64


def test_files(store: Path, tmp_path: Path) -> None:
    everything = SignalHistory(store / "signals").query()
    result = signals(store, "--format", "parquet", "-o", str(tmp_path / "out.parquet"))
    assert (result.stdout, result.stderr) == ("", f"4 signals written to {tmp_path / 'out.parquet'}\n")
    assert pq.read_table(tmp_path / "out.parquet").equals(everything)
    signals(store, "--format", "csv", "-o", str(tmp_path / "out.csv"))
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert text == signals(store, "--format", "csv").stdout
    got = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in got] == everything["id"].to_pylist()
    assert got[3]["name"] == "贵州茅台"
    assert json.loads(got[3]["values"])["MACD(12,26,9).macd"] == 1.25
    signals(store, "--json", "-o", str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == signals(store, "--json").stdout
    signals(store, "-o", str(tmp_path / "out.txt"))
    assert "600519.SH" in (tmp_path / "out.txt").read_text(encoding="utf-8")


def test_an_empty_history(tmp_path: Path) -> None:
    root = BarStore(tmp_path / "market", origin="market").root
    assert signals(root).stdout == ""
    assert signals(root).stderr == "No signals.\n"
    assert signals(root, "--json").stdout == ""
    assert not (root / "signals").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--format", "parquet"], "--output"),
        (["--json", "--format", "csv"], "contradict"),
        (["--since", "2025-05-27", "--until", "2025-05-26"], "before"),
        (["--since", "yesterday"], "yesterday"),
        (["--limit", "0"], "0"),
        (["--action", "HOLD"], "HOLD"),
    ],
)
def test_what_makes_no_sense_is_refused(store: Path, args: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["signals", "--store", str(store), *args])
    assert result.exit_code == 2
    assert words in result.stderr


def test_an_unknown_symbol_is_named(store: Path) -> None:
    with pytest.raises(UnknownSymbolError, match="999"):
        signals(store, "--symbol", "999")


CHOICE = """
import sys
from data.errors import StoreOriginError
from jobs.options import open_store
for origin in sys.argv[1:]:
    try:
        print("store", open_store(None, None, origin=origin or None).root)
    except StoreOriginError as error:
        print("refused", error)
"""


def test_the_market_is_the_store_and_the_simulation_stands_in_for_it_aloud(tmp_path: Path) -> None:
    # In processes of their own: where the user's folders are is read once.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_SCAN__")}
    environment |= {"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    def choose(*origins: str, **more: str) -> tuple[list[str], str]:
        done = subprocess.run(
            [sys.executable, "-c", CHOICE, *origins],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])} | more,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines(), done.stderr

    usual, sim = f"store {tmp_path}/mystocks-scan/market", f"store {tmp_path}/mystocks-scan/sim"
    (nothing, made, instead), told = choose("", "sim", "")
    assert nothing.startswith("refused")
    assert "import" in nothing
    assert (made, instead) == (sim, sim)
    assert told.count("simulated") == 1
    # Who chose a store gets no other.
    (mine,), told = choose("", MYSTOCKS_SCAN__STORE__PATH=str(tmp_path / "mine"))
    assert mine.startswith("refused")
    assert "mine" in mine
    assert choose("market", "", "sim") == ([usual, usual, sim], "")


def test_a_named_store_is_taken_or_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreOriginError, match="no store at"):
        open_store(None, tmp_path / "x")
    assert open_store(None, tmp_path / "x", origin="sim").origin == "sim"
    assert open_store(None, tmp_path / "x").origin == "sim"
    with pytest.raises(StoreOriginError, match="never"):
        open_store(None, tmp_path / "x", origin="market")

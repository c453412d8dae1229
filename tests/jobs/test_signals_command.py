"""`mystocks-scan signals`, and the store that a command takes when none is named."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from data.errors import StaleDataError, StoreOriginError, UnknownSymbolError, UsageError
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
        (["--since", "2025-05-26T15:00:01"], ["430047.BJ", "600519.SH"]),
        (["--since", "2025-05-26 15:00", "--until", "2025-05-26T07:00Z"], ["000001.SZ", "600519.SH"]),
        (["--until", "2025-05-26T14:59"], []),
        (["--frame", "1m"], []),
        (["--frame", "1d", "--min-confidence", "0.9"], []),
        (["--developing"], []),
        (["--closed", "--limit", "1"], ["430047.BJ"]),
        (["--epoch", "20200101T0000000000000000"], []),
    ],
)
def test_what_is_asked_for(store: Path, args: list[str], symbols: list[str]) -> None:
    assert [row["symbol"] for row in rows(signals(store, "--json", *args))] == symbols


@pytest.mark.parametrize(
    ("args", "symbols"),
    [
        (["--since", "today"], ["430047.BJ"]),
        (["--since", "15:00"], ["430047.BJ"]),
        (["--since", "15:01"], []),
        (["--since", "-24h"], ["430047.BJ", "600519.SH"]),
        (["--since", "-1d", "--until", "-30m"], ["600519.SH"]),
    ],
)
def test_times_of_a_simulated_market_count_from_its_newest_signal(
    tmp_path: Path, args: list[str], symbols: list[str]
) -> None:
    root = BarStore(tmp_path / "sim", origin="sim").root
    SignalHistory(root / "signals").append([fired(0, "000001.SZ"), fired(1, "600519.SH"), fired(2, "430047.BJ")])
    assert [row["symbol"] for row in rows(signals(root, "--json", *args))] == symbols


def test_times_of_a_market_are_the_clocks(store: Path) -> None:
    now = time.time_ns()
    SignalHistory(store / "signals").append([replace(fired(0, "600000.SH"), bar_end=now)])
    assert [row["symbol"] for row in rows(signals(store, "--json", "--since", "-1h"))] == ["600000.SH"]


def test_a_place_gives_what_was_published_after_it(store: Path) -> None:
    history = SignalHistory(store / "signals")
    epoch = rows(signals(store, "--json"))[0]["epoch"]
    history.append([fired(-5, "000002.SZ")])
    got = rows(signals(store, "--json", "--since", f"{epoch}:3"))
    assert [row["symbol"] for row in got] == ["430047.BJ", "000002.SZ"]
    history.compact()
    assert rows(signals(store, "--json", "--since", f"{epoch}:3")) == got
    assert [row["symbol"] for row in rows(signals(store, "--json", "--epoch", history.epoch))] == ["000002.SZ"]
    with pytest.raises(StaleDataError, match=f"{epoch}:9") as raised:
        signals(store, "--since", f"{epoch}:9")
    assert raised.value.exit_code == 3


def test_what_was_taken_back(store: Path) -> None:
    (first, _), *_ = [SignalHistory(store / "signals").append([fired(7, "600519.SH"), fired(7, "000001.SZ")])]
    SignalHistory(store / "signals").append([replace(first, revision=1, revokes=first.id)])
    day = ["--since", "2025-06-02", "--json"]
    assert [row["symbol"] for row in rows(signals(store, *day, "--standing"))] == ["000001.SZ"]
    taken_back = rows(signals(store, *day, "--revoked"))
    assert [row["revokes"] for row in taken_back] == [first.id, None]
    assert "revoked" in signals(store, "--revoked").stdout


def test_a_symbol_by_its_name(store: Path) -> None:
    day = np.array([20_000]).astype("datetime64[D]")
    names = pa.table({"symbol": ["600519.SH"], "day": day, "name": ["贵州茅台"]})
    BarStore(store).append_names(names)
    assert {row["symbol"] for row in rows(signals(store, "--json", "--symbol", "茅台"))} == {"600519.SH"}
    with pytest.raises(UsageError, match="五粮液"):
        signals(store, "--symbol", "五粮液")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_damaged_file_is_reported_and_the_others_answer(store: Path, compacted: bool) -> None:
    if compacted:
        SignalHistory(store / "signals").append([fired(0, "600000.SH")])
        SignalHistory(store / "signals").compact()
    damaged = min((store / "signals").glob("*.parquet"))

    def left(*args: str) -> list[str]:
        result = CliRunner().invoke(cli, ["signals", "--store", str(store), *args, "--json"], standalone_mode=False)
        assert (result.return_value, result.stderr.count(damaged.name)) == (1, 1), result.stderr
        return [row["symbol"] for row in rows(result)]

    content = bytearray(damaged.read_bytes())
    for place in range(100, 3000, 100):  # in every column
        content[place] ^= 255
    damaged.write_bytes(content)
    assert left() == left("--standing") == left("--action", "SELL", "--action", "ALERT") == ["430047.BJ", "600519.SH"]
    damaged.write_bytes(b"nothing")
    assert left() == left("--closed") == ["430047.BJ", "600519.SH"]


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


def test_no_name_of_a_strategy_is_cut_where_there_is_room(store: Path) -> None:
    name = "a_name_that_is_longer_than_any_column_would_be"
    SignalHistory(store / "signals").append([fired(3, "600000.SH", strategy=name)])
    assert name in signals(store).stdout


def test_verbose_shows_the_stages(store: Path) -> None:
    ms = 10**6
    received = CLOSE + 3_400 * ms
    stamps = {"quote_ns": CLOSE + 3_000 * ms, "received_ns": received, "bar_closed_ns": received + 2 * ms}
    stamps |= {"scanned_ns": received + 32 * ms}
    history = SignalHistory(store / "signals", clock=lambda: received + 40 * ms)
    (stored,) = history.append([fired(0, "600000.SH", **stamps)])
    text = signals(store, "-v", "--symbol", "600000").stdout
    assert "quote 2025-05-26 15:00:03.000, received 2025-05-26 15:00:03.400" in text
    for part in ("quote age 400.0 ms", "fold 2.0 ms", "scan 30.0 ms", "publish 8.0 ms", "quote to signal 40.0 ms"):
        assert part in text
    assert f"    {stored.epoch}:{stored.seq}\n    {stored.id}\n" in text
    assert "stored bars" in signals(store, "-v", "--symbol", "430047").stdout


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
        (["--since", "2025-02-30"], "2025-02-30"),
        (["--since", "25:00"], "25:00"),
        (["--until", "20250526T070000123456a3f1:12"], "20250526T"),
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

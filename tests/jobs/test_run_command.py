"""The live service as a user runs it: a process of its own, real sockets, a real store."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.calendar import bar_ends
from data.history import SignalHistory
from data.panel import Panel
from data.signal import iso
from data.simulator import SimulatedMarket
from data.store import BarStore
from streaming.client import signals

SYMBOLS = 80
MARKET = SimulatedMarket(SYMBOLS, 7)
LIVE = MARKET.sessions[250]
"""The first session that a fresh simulated store sees live."""


def command(store: Path, *options: str) -> list[str]:
    run = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--json", "--cluster", "inline"]
    run += ["--engine", "talib"]  # auto's changes when kernels are compiled
    return [*run, "--store", str(store), "--symbols", str(SYMBOLS), "--port", "0", *options]


def run(store: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(store, *options), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Starts services; whatever still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(store: Path, *options: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command(store, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(word):
            return line.split()[-1]
    raise AssertionError(f"the service ended without saying {word!r}")


def stored_minutes(store: Path) -> Panel:
    return BarStore(store).panel("1m")


def assert_whole(store: Path) -> None:
    """Every file reads, no bar is twice, and every bar is the simulated market's own."""
    table = BarStore(store).table("1m")
    keys = list(zip(table["symbol"].to_pylist(), table["bar_end"].cast("int64").to_pylist(), strict=True))
    assert len(keys) == len(set(keys))
    stored = stored_minutes(store)
    expected = Panel.from_table(MARKET.bars("1m", *MARKET.sessions[248:253]), "1m", stored.symbols)
    rows = np.searchsorted(expected.times, stored.times)
    for name in ("open", "high", "low", "close", "volume", "amount"):
        np.testing.assert_array_equal(stored[name], expected[name][rows], err_msg=name)


def assert_signals_once(store: Path) -> None:
    table = SignalHistory(store / "signals").query(newest_first=False)
    ids = table["id"].to_pylist()
    assert len(ids) == len(set(ids))
    for epoch in set(table["epoch"].to_pylist()):
        numbers = sorted(
            n for e, n in zip(table["epoch"].to_pylist(), table["seq"].to_pylist(), strict=True) if e == epoch
        )
        assert numbers == list(range(1, len(numbers) + 1))


def test_first_start_makes_history_and_every_interval_is_a_line(tmp_path: Path) -> None:
    done = run(tmp_path / "sim", "--speed", "0", "--intervals", "3")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ends = [iso(int(end)) for end in (bar_ends(MARKET.sessions[249], "1m")[-1], *bar_ends(LIVE, "1m")[:3])]
    assert [line["bar_end"] for line in lines] == ends
    assert len(stored_minutes(tmp_path / "sim").times) == 250 + 3
    assert len(BarStore(tmp_path / "sim").bar_ends("1d")) == 250
    published = sum(len(line["signals"]) for line in lines)
    assert published == SignalHistory(tmp_path / "sim" / "signals").query().num_rows > 0
    assert "kept" in done.stderr
    assert_whole(tmp_path / "sim")


def test_the_next_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    run(tmp_path / "sim", "--speed", "0", "--intervals", "2")
    done = run(tmp_path / "sim", "--speed", "0", "--intervals", "2")

    assert done.returncode == 0, done.stderr
    ends = [json.loads(line)["bar_end"] for line in done.stdout.splitlines()]
    assert ends == [iso(int(end)) for end in bar_ends(LIVE, "1m")[1:4]]
    assert_whole(tmp_path / "sim")
    assert_signals_once(tmp_path / "sim")


def test_a_restart_changes_no_signal(tmp_path: Path) -> None:
    run(tmp_path / "broken", "--speed", "0", "--intervals", "3")
    run(tmp_path / "broken", "--speed", "0", "--intervals", "3")
    run(tmp_path / "whole", "--speed", "0", "--intervals", "6")

    def rows(store: Path) -> list[Any]:
        table = SignalHistory(store / "signals").query(newest_first=False)
        return sorted(zip(*(table[name].to_pylist() for name in ("id", "price", "values", "origin")), strict=True))

    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_a_session_ends_with_its_daily_bars_and_one_file(tmp_path: Path) -> None:
    done = run(tmp_path / "sim", "--speed", "0", "--intervals", "242")

    assert done.returncode == 0, done.stderr
    store = BarStore(tmp_path / "sim")
    daily, expected = (
        store.panel("1d", after=int(bar_ends(LIVE, "1d")[0]) - 1),
        Panel.from_table(MARKET.bars("1d", LIVE)),
    )
    assert daily.symbols == expected.symbols
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(daily[name], expected[name], rtol=1e-12, err_msg=name)
    assert len(store.files("1m")) <= 4
    assert_whole(tmp_path / "sim")
    assert_signals_once(tmp_path / "sim")


def test_subscribers_get_what_the_history_keeps(tmp_path: Path, started: Any) -> None:
    process = started(tmp_path / "sim", "--speed", "120")
    url = read_until(process, "signals")

    async def take(n: int) -> list[Any]:
        found = []
        async with aclosing(signals(url)) as stream:
            async for message in stream:
                found.append(message)
                if len(found) == n:
                    break
        return found

    received = asyncio.run(asyncio.wait_for(take(20), 60))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    table = SignalHistory(tmp_path / "sim" / "signals").query(newest_first=False)
    known = {(e, n): i for e, n, i in zip(*(table[c].to_pylist() for c in ("epoch", "seq", "id")), strict=True)}
    assert [known[message["epoch"], message["seq"]] for message in received] == [message["id"] for message in received]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_told_to_stop_it_drains_and_says_what_was_kept(
    tmp_path: Path, started: Any, number: signal.Signals, code: int
) -> None:
    process = started(tmp_path / "sim", "--speed", "60")
    read_until(process, "signals")
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=5)

    assert process.returncode == code, err
    last = json.loads(out.splitlines()[-1])["bar_end"] if out else None
    newest = BarStore(tmp_path / "sim").last_bar_end("1m")
    assert newest is not None
    assert last is None or last == iso(newest)
    assert "kept" in err
    assert_whole(tmp_path / "sim")


def test_a_killed_run_loses_nothing_and_is_completed(tmp_path: Path, started: Any) -> None:
    random.seed(4)
    store = tmp_path / "sim"
    for _ in range(4):
        process = started(store, "--speed", "0")
        time.sleep(random.uniform(0.5, 4.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if (store / "bars" / "1m").is_dir() and BarStore(store).files("1m"):
            assert_whole(store)
    done = run(store, "--speed", "0", "--intervals", "2")

    assert done.returncode == 0, done.stderr
    assert_whole(store)
    assert_signals_once(store)
    stored = stored_minutes(store)
    ends = np.concatenate([bar_ends(session, "1m") for session in MARKET.sessions[248:253]])
    first = np.searchsorted(ends, stored.times[0])
    np.testing.assert_array_equal(stored.times, ends[first : first + len(stored.times)])


RULES = """
strategies:
  - {name: minute, when: close > 0, action: ALERT}
  - {name: five, frame: [5m, 15m], when: close > open, action: BUY}
"""


def test_frames_that_strategies_name_go_on_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    ends: list[tuple[str, str]] = []
    for intervals in ("7", "9"):
        done = run(
            tmp_path / "sim", "--speed", "0", "--intervals", intervals, "--strategies", str(tmp_path / "rules.yaml")
        )
        assert done.returncode == 0, done.stderr
        ends += [(line["frame"], line["bar_end"]) for line in map(json.loads, done.stdout.splitlines())]
    live = [(frame, end) for frame, end in dict.fromkeys(ends) if end > iso(int(bar_ends(LIVE, "1m")[0]) - 1)]

    minutes = [iso(int(end)) for end in bar_ends(LIVE, "1m")[:16]]
    expected = [("1m", end) for end in minutes]
    for place, frame in ((15, "15m"), (15, "5m"), (10, "5m"), (5, "5m")):
        expected.insert(place, (frame, minutes[place - 1]))
    assert live == expected
    store = BarStore(tmp_path / "sim")
    for frame in ("5m", "15m"):
        stored = store.panel(frame, after=int(bar_ends(LIVE, "1m")[0]) - 1)
        own = Panel.from_table(MARKET.bars(frame, LIVE), frame, stored.symbols)
        for name in ("open", "high", "low", "close", "volume", "amount"):
            np.testing.assert_array_equal(stored[name], own[name][: len(stored.times)], err_msg=f"{frame} {name}")
        assert len(store.panel(frame, upto=int(bar_ends(LIVE, "1m")[0]) - 1).times) == 250
    assert_whole(tmp_path / "sim")
    assert_signals_once(tmp_path / "sim")


def test_sigusr1_scans_the_daily_bar_as_it_is(tmp_path: Path, started: Any) -> None:
    process = started(tmp_path / "sim", "--speed", "60", "--developing", "14:50")
    lines = (json.loads(line) for line in process.stdout)
    next(line for line in lines if line["bar_end"] > iso(int(bar_ends(LIVE, "1m")[0])))
    process.send_signal(signal.SIGUSR1)
    look = next(line for line in lines if line["developing"])

    assert (look["frame"], look["bar_end"]) == ("1d", iso(int(bar_ends(LIVE, "1d")[0])))
    assert all(row["developing"] for row in look["signals"])
    assert BarStore(tmp_path / "sim").last_bar_end("1d") == int(bar_ends(MARKET.sessions[249], "1d")[0])


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "sim", "--developing", "14.50")

    assert done.returncode == 2
    assert "a time of day is written HH:MM, as 14:50; got '14.50'" in done.stderr


def test_once_scans_the_newest_bar_and_ends(tmp_path: Path) -> None:
    done = run(tmp_path / "sim", "--once")

    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert line["bar_end"] == iso(int(bar_ends(MARKET.sessions[249], "1m")[-1]))
    assert line["signals"]


def test_two_runs_on_one_store_are_refused(tmp_path: Path, started: Any) -> None:
    read_until(started(tmp_path / "sim", "--speed", "1"), "signals")
    done = run(tmp_path / "sim")

    assert done.returncode == 2
    assert "another 'mystocks-scan run' works on the store" in done.stderr


def test_a_taken_port_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path / "sim", "--port", port)

    assert done.returncode == 2
    assert f"serve.port {port}" in done.stderr
    assert not (tmp_path / "sim" / "bars").exists()


def test_another_simulated_market_needs_another_store(tmp_path: Path) -> None:
    run(tmp_path / "sim", "--once")
    done = run(tmp_path / "sim", "--once", "--symbols", "50")

    assert done.returncode == 2
    assert "'sim-80-7'" in done.stderr
    assert "--store" in done.stderr


def test_a_strategy_that_does_not_load_stops_it_before_anything_runs(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("strategies:\n  - {name: x, when: RSJ(14) > 3, action: BUY}\n")
    done = run(tmp_path / "sim", "--strategies", str(bad))

    assert done.returncode == 2
    assert f"{bad}:2:" in done.stderr
    assert "did you mean 'RSI'?" in done.stderr


def test_a_python_strategy_that_raises_is_switched_off_and_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from scanner import Strategy\n"
        "class Broken(Strategy):\n"
        "    def evaluate(self, market):\n"
        "        raise ZeroDivisionError('mine')\n"
        "class Fine(Strategy):\n"
        "    indicators = {'c': 'close'}\n"
        "    def evaluate(self, market):\n"
        "        return market.hits(market.indicators['c'][-1] > 0, action='ALERT')\n"
    )
    done = run(tmp_path / "sim", "--strategies", str(file), "--speed", "0", "--intervals", "2")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line["failed"]) for line in lines] == [["Broken"], [], []]
    assert all({s["strategy"] for s in line["signals"]} == {"Fine"} for line in lines)

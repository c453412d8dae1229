"""Roles: who may run what with which options, and three processes over a real Redis as one."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.errors import StoreOriginError
from data.settings import BusSettings, RunSettings, Settings
from data.signal import Signal
from data.store import BarStore
from jobs.cli import main
from jobs.roles import bus_name, only_one, open_bus
from jobs.screen import JsonScreen, LineScreen
from streaming.bus import EventBus, bar_topic, tick_topic
from streaming.ports import SharedBus

ROOT = Path(__file__).parents[2]
BUS = "redis://:secret@127.0.0.1:1/0"


def test_three_processes_of_which_one_is_killed_do_what_one_does(redis_server: Any) -> None:
    """The short form of benchmarks/three_processes.py, in which everything is killed."""
    command = [sys.executable, "benchmarks/three_processes.py", "--symbols", "15", "--intervals", "25"]
    done = subprocess.run(
        [*command, "--kills", "2", "--kill", "scan,redis"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of redis, 1 of scan" in done.stdout
    assert "equal to those of one process" in done.stdout


def refused(capsys: pytest.CaptureFixture[str], *options: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["run", *options])
    assert ended.value.code == code
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("role", ["feed", "scan", "serve"])
def test_a_role_needs_a_bus_to_meet_the_others(role: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "--role", role, "--store", str(tmp_path / "new"))
    assert f"--role {role} needs a bus between processes: name one with --bus redis://" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("role", "options", "words"),
    [
        ("feed", ["--engine", "talib"], "--engine means nothing to --role feed: give it to --role scan"),
        ("feed", ["--cluster", "inline"], "--cluster means nothing to --role feed"),
        ("feed", ["--port", "0"], "--port means nothing to --role feed: give it to --role serve"),
        ("feed", ["--intervals", "3"], "--intervals means nothing to --role feed"),
        ("scan", ["--speed", "0"], "--speed means nothing to --role scan: give it to --role feed"),
        ("serve", ["--metrics-port", "0"], "--metrics-port means nothing to --role serve: give it to --role feed and"),
        ("scan", ["--once"], "--once means nothing to --role scan: it is for a run in one process"),
        ("serve", ["--frame", "5m"], "--frame means nothing to --role serve: give it to --role feed and --role scan"),
        ("serve", ["--strategies", "x.yaml"], "--strategies means nothing to --role serve"),
        ("serve", ["--universe", "etf"], "--universe means nothing to --role serve"),
    ],
)
def test_options_of_another_role_are_refused_by_name(
    role: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert words in refused(capsys, "--bus", BUS, "--role", role, "--store", str(tmp_path / "new"), *options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("role", ["all", "feed", "scan", "serve"])
def test_no_redis_ends_every_role_with_what_to_do_and_no_password(
    role: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = {"all": ["--port", "0", "--cluster", "inline"], "scan": ["--cluster", "inline"], "serve": ["--port", "0"]}
    said = refused(
        capsys, "--bus", BUS, "--role", role, "--store", str(tmp_path), "--symbols", "5", *options.get(role, []), code=1
    )
    assert "no Redis answers at redis://:***@127.0.0.1:1/0" in said
    assert "Start one (redis-server), correct --bus, or leave it out" in said
    assert "secret" not in said


def test_a_feed_says_which_bars_it_handed_over_and_a_server_which_signals(capsys: pytest.CaptureFixture[str]) -> None:
    end = 1_748_223_060 * 10**9
    signal = Signal("macd", "v1", "600000.SH", "1m", end, "BUY", 0.8, 10.5, "talib", end, {"a": 1.5}, name="浦发")
    bars = pa.record_batch({"symbol": ["600000.SH", "600519.SH"]})
    for screen in (LineScreen(), JsonScreen()):
        for revision, developing in ((0, 0), (2, 0), (0, 1)):
            about = {"frame": "1m", "bar_end": str(end), "revision": str(revision), "developing": str(developing)}
            screen.fed(bar_topic("1m"), bars.replace_schema_metadata(about))
        screen.fed(tick_topic(), bars)
        screen.served([signal], 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "2025-05-26 09:31  1m  2 bars",
        "2025-05-26 09:31  1m  2 bars, revision 2",
        "2025-05-26 09:31  1m  2 bars, still open",
        "2025-05-26 09:31  1 signals  3 clients",
        "  BUY    600000.SH  10.50  macd  浦发",
    ]
    assert [json.loads(line).get("bars") for line in lines[5:]] == [2, 2, 2, None]
    assert json.loads(lines[8])["signals"][0]["symbol"] == "600000.SH"


def test_a_store_has_one_feed_and_one_scan(tmp_path: Path) -> None:
    store = BarStore(tmp_path, origin="sim")
    with only_one(store, "feed"), only_one(store, "scan"), only_one(store, "serve"), only_one(store, "serve"):
        for role, stage in (("feed", "feed"), ("scan", "scan"), ("all", "feed")):
            with (
                pytest.raises(StoreOriginError, match=rf"works on the store .* \(its role has {stage} in it\): end it"),
                only_one(store, role),
            ):
                pass
    with only_one(store, "all"), pytest.raises(StoreOriginError, match="has scan in it"), only_one(store, "scan"):
        pass


def test_a_store_has_a_bus_of_its_own_also_when_it_is_made_anew(tmp_path: Path) -> None:
    names = {bus_name(BarStore(tmp_path / name, origin="sim")) for name in "ab"}
    assert len(names) == 2
    assert bus_name(BarStore(tmp_path / "a")) in names
    assert all(name.startswith("sim-") for name in names)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["bus", "store.json"]


def test_bars_wait_for_a_scan_that_comes_after_the_feed(tmp_path: Path, redis_server: Any) -> None:
    async def run() -> None:
        store = BarStore(tmp_path, origin="sim")
        url = BusSettings(url=redis_server.url)
        feed = await open_bus(Settings(bus=url, run=RunSettings(role="feed")), store)
        scan = await open_bus(Settings(bus=url, run=RunSettings(role="scan")), store)
        assert isinstance(feed, SharedBus)
        batch = pa.record_batch({"symbol": pa.array(["600519.SH"]).dictionary_encode(), "close": [1.0]})
        await feed.publish(bar_topic("1m"), batch)
        async for event in scan.subscribe(bar_topic("*"), size=8, name="scan"):
            assert event.batch.equals(batch)
            break
        await feed.close()
        await scan.close()
        assert isinstance(await open_bus(Settings(), store), EventBus)

    asyncio.run(run())

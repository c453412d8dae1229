"""`mystocks-scan watch`, against a real server."""

import asyncio
import json
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from data.errors import FeedError, UnknownSymbolError
from data.history import SignalHistory
from data.signal import Signal
from jobs.cli import cli
from streaming.server import SignalServer

CLOSE = 1_748_242_800 * 10**9  # 2025-05-26 15:00 in Shanghai
BUY = Signal("macd_golden_cross", "v1", "600519.SH", "1d", CLOSE, "BUY", 0.8, 1523.5, "talib", 0, name="贵州茅台")
SELL = replace(BUY, symbol="000001.SZ", action="SELL", strategy="a_name_that_is_longer_than_its_column", name=None)


class Service:
    """A server on a loop of its own, that publishes when somebody has subscribed."""

    def __init__(self, root: Path) -> None:
        self.history = SignalHistory(root)
        self.server = SignalServer("127.0.0.1", 0, epoch=self.history.epoch, replay=self.history.since)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.call(self.server.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def serve(self, minute: int) -> None:
        """Wait for a subscriber, then publish."""
        while not any(client.live for client in self.server._clients):
            await asyncio.sleep(0.005)
        batch = [replace(one, bar_end=CLOSE + minute * 60 * 10**9) for one in (BUY, SELL, replace(BUY, action="ALERT"))]
        await self.server.publish([one.to_dict() for one in self.history.append(batch)])

    def end(self) -> None:
        self.call(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.end()


@pytest.fixture
def watch(service: Service) -> Callable[..., Result]:
    def run(*args: str) -> Result:
        published = asyncio.run_coroutine_threadsafe(service.serve(service.server.seq), service.loop)
        result = CliRunner().invoke(cli, ["watch", "--url", service.server.url, *args], catch_exceptions=False)
        published.result(60)
        assert result.exit_code == 0, result.stderr
        return result

    return run


def test_json_is_what_the_server_sends(watch: Callable[..., Result], service: Service) -> None:
    lines = watch("--json", "--count", "3").stdout.splitlines()
    stored = service.history.query(newest_first=False)
    assert [json.loads(line)["id"] for line in lines] == stored["id"].to_pylist()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]


def test_lines_stand_under_their_titles(watch: Callable[..., Result]) -> None:
    title, buy, sell, _ = watch("--count", "3").stdout.splitlines()
    assert buy.split() == [
        "2025-05-26",
        "15:00",
        "600519.SH",
        "贵州茅台",
        "BUY",
        "macd_golden_cross",
        "1d",
        "1523.50",
        "0.80",
    ]
    for line, action, frame in ((buy, "BUY", "1d"), (sell, "SELL", "1d")):
        assert cell_len(line[: line.index(action)]) == title.index("action")
        assert cell_len(line[: line.index(f" {frame} ") + 1]) == title.index("frame")


@pytest.mark.parametrize(
    ("args", "seqs"),
    [
        (["--symbol", "sz000001"], [2]),
        (["--action", "alert", "--action", "SELL"], [2, 3]),
        (["--strategy", "macd_golden_cross", "--min-confidence", "0.8"], [1, 3]),
    ],
)
def test_only_what_is_asked_for(watch: Callable[..., Result], args: list[str], seqs: list[int]) -> None:
    lines = watch("--json", "--count", str(len(seqs)), *args).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == seqs


def test_red_is_up_and_green_is_down(watch: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, buy, sell, _ = watch("--count", "3").stdout.splitlines()
    assert buy.startswith("\x1b[31m")
    assert sell.startswith("\x1b[32m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in watch("--count", "3").stdout


def test_the_server_of_the_settings_is_the_default(
    service: Service, watch: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = asyncio.run_coroutine_threadsafe(service.serve(0), service.loop)
    (tmp_path / "mine.yaml").write_text(f"serve: {{port: {service.server.port}}}")
    result = CliRunner().invoke(cli, ["watch", "--count", "1", "--json", "-c", str(tmp_path / "mine.yaml")])
    published.result(60)
    assert result.exit_code == 0, result.output


def test_mistakes_are_named(service: Service) -> None:
    with pytest.raises(UnknownSymbolError, match="999"):
        CliRunner().invoke(cli, ["watch", "--symbol", "999"], catch_exceptions=False)
    with pytest.raises(FeedError, match="404"):
        CliRunner().invoke(cli, ["watch", "--url", f"{service.server.url}x"], catch_exceptions=False)
    result = CliRunner().invoke(cli, ["watch", "--min-confidence", "80"])
    assert (result.exit_code, "80" in result.stderr) == (2, True)


def test_a_lost_connection_is_told_and_ctrl_c_ends_it_without_a_traceback(service: Service) -> None:
    code = "import sys; from jobs.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "watch", "--json", "--url", service.server.url]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        service.call(service.serve(0))
        seen = [json.loads(process.stdout.readline())["seq"] for _ in range(3)]

        async def interrupt() -> None:
            for client in list(service.server._clients):
                client.connection.transport.abort()
            while service.server._clients:
                await asyncio.sleep(0.005)
            await service.serve(1)

        service.call(interrupt())
        assert "connecting again" in process.stderr.readline()
        seen += [json.loads(process.stdout.readline())["seq"] for _ in range(3)]
        assert seen == [1, 2, 3, 4, 5, 6]
        process.send_signal(signals.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err


def test_a_reader_that_goes_away_ends_it_quietly(service: Service) -> None:
    code = "import sys; from jobs.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "watch", "--json", "--url", service.server.url]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        service.call(service.serve(0))
        process.stdout.readline()
        process.stdout.close()
        deadline = time.monotonic() + 60
        minute = 1
        while process.poll() is None and time.monotonic() < deadline:
            batch = [replace(BUY, bar_end=CLOSE + minute * 60 * 10**9)]
            service.call(service.server.publish([one.to_dict() for one in service.history.append(batch)]))
            minute += 1
        assert process.wait(60) in (0, 1)  # click says 1
        assert process.stderr.read() == ""

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

import numpy as np
import pyarrow as pa
import pytest
import trustme
from click.testing import CliRunner, Result
from rich.cells import cell_len

from data.errors import FeedError, SettingsError, UnknownSymbolError, UsageError
from data.history import SignalHistory
from data.signal import Signal
from data.store import BarStore
from jobs.cli import cli
from jobs.signal_lines import Columns, duration
from streaming import tokens
from streaming.access import Access
from streaming.server import SignalServer
from streaming.tls import Certificate
from streaming.tokens import Tokens

CLOSE = 1_748_242_800 * 10**9  # 2025-05-26 15:00 in Shanghai
BUY = Signal("macd_golden_cross", "v1", "600519.SH", "1d", CLOSE, "BUY", 0.8, 1523.5, "talib", 0, name="贵州茅台")
SELL = replace(BUY, symbol="000001.SZ", action="SELL", strategy="a_name_that_is_longer_than_its_column", name=None)


class Service:
    """A server on a loop of its own, that publishes when somebody has subscribed."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.history = SignalHistory(root)
        self.server = SignalServer("127.0.0.1", 0, epoch=self.history.epoch, replay=self.history.since, **more)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.call(self.server.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def alone(self) -> None:
        """Wait until those who have gone are gone here too."""
        while self.server.clients:
            await asyncio.sleep(0.005)

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
        service.call(service.alone())
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


def published(service: Service, *signals: Signal) -> list[Signal]:
    stored = service.history.append(signals)
    service.call(service.server.publish([signal.to_dict() for signal in stored]))
    return stored


def started(service: Service, *args: str) -> Result:
    """The command on what was published before; it ends by --count."""
    result = CliRunner().invoke(cli, ["watch", "--url", service.server.url, *args], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def bars(*minutes: int) -> list[Signal]:
    return [replace(BUY, bar_end=CLOSE + minute * 60 * 10**9) for minute in minutes]


def seqs(result: Result) -> list[int]:
    return [json.loads(line)["seq"] for line in result.stdout.splitlines()]


def test_a_place_to_begin_at(service: Service) -> None:
    epoch = published(service, *bars(0, 1, 2))[0].epoch
    assert seqs(started(service, "--json", "--since", f"{epoch}:1", "--count", "2")) == [2, 3]
    for wrong in (f"{epoch}:x", epoch, "7"):
        result = CliRunner().invoke(cli, ["watch", "--since", wrong])
        assert (result.exit_code, "EPOCH:SEQ" in result.stderr) == (2, True)


def test_the_place_outlives_the_command(service: Service, watch: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "place.json"
    resume = ["--json", "--resume", str(file)]
    assert seqs(watch(*resume, "--count", "2")) == [1, 2]
    epoch = service.history.epoch
    assert json.loads(file.read_text()) == {"epoch": epoch, "seq": 2}  # in the middle of a message
    published(service, *bars(60, 61))
    assert seqs(started(service, *resume, "--count", "3")) == [3, 4, 5]
    # Where nothing was wanted the place moves too, with the next message that is.
    published(service, *bars(62, 63), replace(SELL, bar_end=CLOSE + 64 * 60 * 10**9))
    assert seqs(started(service, *resume, "--count", "1", "--action", "SELL")) == [8]
    assert json.loads(file.read_text()) == {"epoch": epoch, "seq": 8}
    file.write_text(json.dumps({"epoch": epoch, "seq": 99}))
    result = watch(*resume, "--count", "1")
    assert "signals were missed" in result.stderr
    file.write_text("{")
    with pytest.raises(UsageError, match=r"place\.json"):
        started(service, *resume)
    with pytest.raises(UsageError, match="--since"):
        started(service, *resume, "--since", f"{epoch}:1")


def test_what_a_signal_is_stands_beside_it(service: Service) -> None:
    (first,) = published(service, replace(BUY, developing=True, at_limit_up=True))
    published(service, replace(BUY, revision=2), replace(BUY, revision=3, revokes=first.id))
    lines = started(service, "--since", f"{first.epoch}:0", "--count", "3").stdout.splitlines()[1:]
    for line, words in zip(lines, ("涨停 developing", "revision 2", "revision 3 revoked"), strict=True):
        assert line.endswith(words)


def test_verbose_shows_how_long_it_was_on_its_way(service: Service) -> None:
    now = time.time_ns()
    (first, *_) = published(service, replace(BUY, received_ns=now - 90 * 10**9), replace(SELL))
    title, buy, sell = started(service, "-v", "--since", f"{first.epoch}:0", "--count", "2").stdout.splitlines()
    assert title.split()[-1] == "lag"
    assert 90 <= int(buy.split()[-2]) < 600
    assert buy.split()[-1] == "s"
    assert sell.split()[-1] == "0.80"


def test_columns_fit_the_terminal() -> None:
    signal = replace(SELL, name="平安银行")
    for width in range(40, 160):
        columns = Columns(width, lag=width % 2 == 0, of_today=width % 4 < 2)
        head, row = columns.head().plain, columns.row(signal, 5 * 10**6).plain
        assert max(cell_len(head), cell_len(row)) <= width
        assert cell_len(row[: row.index("SELL")]) == head.index("action")
        for word in ("15:00", "000001.SZ", "1523.50"):
            assert word in row or width < 60
    assert "2025-05-26 15:00" in Columns(160).row(signal).plain
    assert "a_name_that_is_longer" in Columns(84, of_today=True).row(signal).plain
    assert "05-26 15:00" in Columns(84).row(signal).plain
    for width in (40, 80, 160):  # what a signal is is never cut off: it may go on in the next line
        assert Columns(width).row(replace(signal, developing=True)).plain.endswith("developing")


def test_how_long() -> None:
    ms = 10**6
    lengths = {5 * ms: "5 ms", 9_999 * ms: "9999 ms", 75_000 * ms: "75 s", 3600_000 * ms: "60 min", 10**14: "28 h"}
    assert {ns: duration(ns) for ns in lengths} == lengths
    assert max(map(len, lengths.values())) <= 7


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Service, str, Path]]:
    """A service that asks for tokens, one of them, and the file of their hashes."""
    file = tmp_path / "tokens.json"
    _, token = tokens.add(file, "mine")
    running = Service(tmp_path / "signals", access=Access(Tokens(file), required=True))
    yield running, token, file
    running.end()


def test_a_token_opens_and_is_never_shown(
    guarded: tuple[Service, str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service, token, _ = guarded
    (first,) = published(service, BUY)
    ask = ["--json", "--since", f"{first.epoch}:0", "--count", "1"]
    results = [started(service, *ask, "--token", token, "-vv")]
    config = tmp_path / "mine.yaml"
    config.write_text(f"watch: {{token: {token}}}")
    results.append(started(service, *ask, "-c", str(config)))
    monkeypatch.setenv("MYSTOCKS_SCAN__WATCH__TOKEN", token)
    results.append(started(service, *ask))
    for result in results:
        assert seqs(result) == [1]
        assert token not in result.output
    monkeypatch.setenv("MYSTOCKS_SCAN__WATCH__TOKEN", "mss_wrong")
    for more in ([], ["--token", "mss_other"]):
        with pytest.raises(FeedError, match=r"401: it needs a token.*mystocks-scan token new") as raised:
            started(service, *ask, *more)
        assert "mss_" not in str(raised.value)
    config.write_text(f"watch: {{token: [{token}]}}")
    monkeypatch.delenv("MYSTOCKS_SCAN__WATCH__TOKEN")
    with pytest.raises(SettingsError) as refused:
        started(service, "-c", str(config))
    assert token not in str(refused.value)


def test_a_token_that_is_revoked_ends_it_with_a_remedy(guarded: tuple[Service, str, Path]) -> None:
    service, token, file = guarded

    async def revoke() -> None:
        while not any(client.live for client in service.server._clients):
            await asyncio.sleep(0.005)
        tokens.remove(file, "mine")

    asyncio.run_coroutine_threadsafe(revoke(), service.loop)
    with pytest.raises(FeedError, match="no longer: 'mystocks-scan token new'"):
        started(service, "--token", token)


def test_what_is_too_long_to_ask_ends_it_with_a_remedy(service: Service) -> None:
    symbols = [part for number in range(2000) for part in ("--symbol", f"{600_000 + number}.SH")]
    with pytest.raises(FeedError, match="fewer symbols"):
        started(service, *symbols)


def test_over_tls_with_an_authority_of_one_s_own(tmp_path: Path) -> None:
    authority, both, ca = trustme.CA(), tmp_path / "both.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(both)
    authority.cert_pem.write_to_path(ca)
    service = Service(tmp_path / "signals", certificate=Certificate(both))
    try:
        (first,) = published(service, BUY)
        ask = ["--json", "--since", f"{first.epoch}:0", "--count", "1"]
        assert seqs(started(service, *ask, "--cafile", str(ca))) == [1]
        with pytest.raises(FeedError, match="certificate"):
            started(service, *ask)
        both.write_text("no certificate")
        with pytest.raises(UsageError, match=r"both\.pem"):
            started(service, "--cafile", str(both))
    finally:
        service.end()
    with pytest.raises(UsageError, match="wss"):
        CliRunner().invoke(cli, ["watch", "--cafile", str(ca)], catch_exceptions=False)


def test_names_of_symbols_are_those_of_the_store(watch: Callable[..., Result], tmp_path: Path) -> None:
    store = BarStore(tmp_path / "market", origin="market")
    day = np.array([20_000]).astype("datetime64[D]")
    store.append_names(pa.table({"symbol": ["000001.SZ"], "day": day, "name": ["平安银行"]}))
    assert seqs(watch("--json", "--symbol", "平安", "--store", str(store.root), "--count", "1")) == [2]

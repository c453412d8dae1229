"""The example clients in Python, as processes, against a real server that is killed and started again."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.schema import SIGNAL
from data.signal import Signal
from streaming.client import CLOSED, ENDED
from streaming.closing import Close

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients" / "python"


def blocks(name: str) -> list[str]:
    """The programs of docs/subscribers.md under a mark."""
    text = (ROOT / "docs" / "subscribers.md").read_text(encoding="utf-8")
    return re.findall(rf"^<!-- {name} -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Server:
    """`clients/tests/server.py`, with a history in a folder."""

    def __init__(self, folder: Path, port: int = 0, *options: str) -> None:
        self._process = _started(ROOT / "clients" / "tests" / "server.py", str(folder), str(port), *options)
        about = self._answer()
        self.url, self.epoch, self.token = about["url"], about["epoch"], about["token"]
        self.port = int(self.url.split(":")[2].split("/")[0])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.stderr and self._process.stderr.read()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def publish(self, *signals: dict[str, Any]) -> list[str]:
        """The ids of what was published."""
        ids: list[str] = self.ask(publish=signals)["ids"]
        return ids

    def subscribed(self) -> None:
        """Return when somebody has subscribed."""
        while not self.ask()["live"]:
            pass

    def left(self) -> None:
        """Return when nobody is connected any more."""
        while self.ask()["clients"]:
            pass

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _started(*command: str | Path, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | more
    pipe = subprocess.PIPE
    command = (sys.executable, *command)
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Ctrl-C: its exit code, and what it said."""
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, errors


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[Server]]:
    """The server that runs, as a list of one, so that a test may put another in its place."""
    running = [Server(tmp_path / "signals")]
    yield running
    running[0].kill()


def restarted(running: list[Server], folder: Path) -> None:
    running[0].kill()
    running[0] = Server(folder, running[0].port)


def test_the_one_with_websockets_alone_is_short() -> None:
    assert len((CLIENTS / "plain.py").read_text(encoding="utf-8").splitlines()) < 60


def test_the_one_with_websockets_alone_misses_and_doubles_nothing(server: list[Server], tmp_path: Path) -> None:
    place = tmp_path / "place.json"

    def start() -> subprocess.Popen[str]:
        return _started(CLIENTS / "plain.py", server[0].url, str(place))

    def ids(process: subprocess.Popen[str], number: int) -> list[str]:
        assert process.stdout is not None
        return [json.loads(process.stdout.readline())["id"] for _ in range(number)]

    client = start()
    server[0].subscribed()
    published = server[0].publish({}, {"action": "ALERT"}, {"action": "SELL", "name": "贵州茅台"})
    assert ids(client, 2) == [published[0], published[2]]
    server[0].ask(drop=True)
    assert ids(client, 0) + server[0].publish({}) == ids(client, 1)
    restarted(server, tmp_path / "signals")  # a new epoch
    assert server[0].publish({}, {}) == ids(client, 2)
    code, errors = _ended(client)
    assert (code, errors.count("connecting again")) == (130, 2)
    assert "Traceback" not in errors
    between = server[0].publish({})
    client = start()
    assert ids(client, 1) == between
    assert _ended(client) == (130, "")
    assert json.loads(place.read_text()) == {"epoch": server[0].epoch, "seq": 3}
    server[0].left()
    place.write_text(json.dumps({"epoch": "20200101T0000000000000000", "seq": 7}))
    client = start()
    server[0].subscribed()
    assert server[0].publish({}) == ids(client, 1)
    assert "missed" in _ended(client)[1]


def test_the_one_on_our_own_client(server: list[Server], tmp_path: Path) -> None:
    client = _started(CLIENTS / "subscribe.py", server[0].url)
    assert client.stdout is not None
    server[0].subscribed()
    server[0].publish({"action": "ALERT"}, {"confidence": 0.3}, {"name": "贵州茅台"})
    assert client.stdout.readline() == "600519.SH 贵州茅台 BUY 10.0 {'RSI(14)': 25.5}\n"
    restarted(server, tmp_path / "signals")
    server[0].publish({"symbol": "000001.SZ", "action": "SELL"})
    assert client.stdout.readline().startswith("000001.SZ  SELL")
    code, errors = _ended(client)
    assert (code, "connecting again" in errors, "Traceback" in errors) == (130, True, False)


@pytest.mark.parametrize("program", ["plain.py", "subscribe.py"])
def test_a_token_opens_and_another_is_refused(program: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "signals", 0, "--token")
    arguments = (CLIENTS / program, server.url, *([str(tmp_path / "place.json")] if program == "plain.py" else []))
    client = _started(*arguments, MYSTOCKS_SCAN__WATCH__TOKEN=server.token)
    server.subscribed()
    server.publish({})
    assert client.stdout is not None
    assert "600519.SH" in client.stdout.readline()
    assert _ended(client)[0] == 130
    refused = _started(*arguments, MYSTOCKS_SCAN__WATCH__TOKEN="mss_wrong")
    _, errors = refused.communicate(timeout=60)
    assert (refused.returncode, "401" in errors, "mss_wrong" in errors) == (1, True, False)
    server.kill()


@pytest.mark.parametrize("name", ["client python", "client websockets"])
def test_the_shortest_programs_of_the_page(name: str, server: list[Server], tmp_path: Path) -> None:
    (text,) = blocks(name)
    program = tmp_path / "program.py"
    program.write_text(text.replace("ws://127.0.0.1:8765/ws/signals", server[0].url), encoding="utf-8")
    client = _started(program)
    assert client.stdout is not None
    server[0].subscribed()
    server[0].publish({}, {"symbol": "000001.SZ", "action": "SELL"})
    assert [client.stdout.readline() for _ in range(2)] == ["600519.SH BUY 10.0\n", "000001.SZ SELL 10.0\n"]
    restarted(server, tmp_path / "signals")
    server[0].publish({"symbol": "000002.SZ"})
    assert client.stdout.readline() == "000002.SZ BUY 10.0\n"
    client.kill()
    client.communicate()


def test_the_signal_of_the_page_has_every_field() -> None:
    (text,) = blocks("signal")
    row = json.loads(text)
    assert list(row) == SIGNAL.names
    made = Signal.from_dict(row)
    assert {name: value for name, value in made.to_dict().items() if name != "id"} | {"id": row["id"]} == row


def test_every_close_code_is_on_the_page_and_in_the_clients() -> None:
    page = (ROOT / "docs" / "subscribers.md").read_text(encoding="utf-8")
    module = (ROOT / "clients" / "javascript" / "signals.js").read_text(encoding="utf-8")
    for code in Close:
        assert str(int(code)) in page
        assert str(int(code)) in module
        assert (code in CLOSED) != (code in ENDED)

"""InfluxDB on this machine: one that parses each line strictly and answers as its versions do, and Debian's own."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import line_protocol_parser
import pytest

TOKEN = "my-s3cret-token=="
Key = tuple[str, tuple[tuple[str, str], ...], int]


@dataclass
class Fault:
    """What an answer is instead; `hang`: none, until the server ends."""

    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


class Influx:
    """A database with one bucket, `market` of the organisation `desk`; refuses points whose line says `poison`.

    `version` 2 takes all of a batch or nothing, 22 what is right of it, as 3 does, which lists what is not.
    """

    def __init__(self, version: int = 2, forward: str | None = None) -> None:
        self.version, self.forward, self.token = version, forward, TOKEN
        self.points: dict[Key, dict[str, Any]] = {}
        self.faults: deque[Fault] = deque()
        self.requests: list[int] = []
        """How many lines each had."""
        self.more, self.over = threading.Condition(), threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, n: int) -> None:
        """Until so many requests have come."""
        with self.more:
            assert self.more.wait_for(lambda: len(self.requests) >= n, 10), self.requests

    def of(self, measurement: str) -> list[tuple[dict[str, str], dict[str, Any], int]]:
        """(tags, fields, time) of a measurement's points, by time."""
        found = [(dict(tags), fields, at) for (name, tags, at), fields in self.points.items() if name == measurement]
        return sorted(found, key=lambda point: point[2])

    def answer(self, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True, strict_parsing=True))
        lines = body.decode("utf-8").split("\n")
        fault = self.faults.popleft() if self.faults else None
        with self.more:
            self.requests.append(len(lines))
            self.more.notify_all()
        if fault is not None:
            if fault.hang:
                self.over.wait()
            return fault.status, fault.headers, b'{"code":"internal error","message":"busy"}'
        if url.path != "/api/v2/write" or query.get("precision") != "ns":
            return 404, {}, b'{"code":"not found","message":"path not found"}'
        if headers["Authorization"] != f"Token {self.token}":
            return 401, {}, b'{"code":"unauthorized","message":"unauthorized access"}'
        if query.get("bucket") != "market" or (self.version != 3 and query.get("org") != "desk"):
            return 404, {}, b'{"code":"not found","message":"bucket \\"x\\" not found"}'
        return self._write(lines, body)

    def _write(self, lines: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            try:
                point = line_protocol_parser.parse_line(line)
                if point is None or point["time"] is None or "poison" in line:
                    raise line_protocol_parser.LineFormatError("poison")
                good.append(point)
            except line_protocol_parser.LineFormatError as error:
                bad.append({"original_line": line, "line_number": number, "error_message": str(error)})
        if bad and self.version == 2:
            said = {"code": "invalid", "message": f"unable to parse {bad[0]['original_line']!r}: {len(bad)} bad"}
            return 400, {}, json.dumps(said).encode()
        for point in good:
            key = (point["measurement"], tuple(sorted(point["tags"].items())), point["time"])
            self.points.setdefault(key, {}).update(point["fields"])
        if self.forward is not None:
            _post(f"{self.forward}/write?db=market&precision=ns", body)
        if bad and self.version == 22:
            said = {
                "code": "unprocessable entity",
                "message": f"failure writing points: partial write: x dropped={len(bad)}",
            }
            return 422, {}, json.dumps(said).encode()
        if bad:
            said = {"error": "partial write of line protocol occurred", "data": bad[:100]}  # type: ignore[dict-item]
            return 400, {}, json.dumps(said).encode()
        return 204, {}, b""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    influx: Influx

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, said = self.server.influx.answer(self.path, self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args: Any) -> None:
        """Nothing: tests look at what was written."""


@contextmanager
def serving(influx: Influx, port: int = 0) -> Iterator[Influx]:
    """The database on a port."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.influx, influx.port = influx, server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield influx
    finally:
        influx.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def influxd(folder: Path) -> Iterator[str]:
    """The address of an influxd of its own, with the database `market`."""
    if shutil.which("influxd") is None:
        pytest.skip("influxd, of Debian's package influxdb, is missing")
    port, rpc = free_port(), free_port()
    (folder / "influxdb.conf").write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{rpc}"\n[meta]\ndir = "{folder}/meta"\n'
        f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n[monitor]\nstore-enabled = false\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\n'
    )
    log = (folder / "log").open("wb")
    process = subprocess.Popen(["influxd", "-config", str(folder / "influxdb.conf")], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(500):
            try:
                query(url, "CREATE DATABASE market", method="POST")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.02)
        yield url
    finally:
        process.kill()
        process.wait()
        log.close()


def query(url: str, influxql: str, *, method: str = "GET") -> list[dict[str, Any]]:
    """The rows of an answer; times in ns."""
    asked = urllib.parse.urlencode({"db": "market", "epoch": "ns", "q": influxql})
    with urllib.request.urlopen(urllib.request.Request(f"{url}/query?{asked}", method=method), timeout=10) as answer:
        (result,) = json.load(answer)["results"]
    assert "error" not in result, result
    return [
        dict(zip(series["columns"], row, strict=True)) | series.get("tags", {})
        for series in result.get("series", [])
        for row in series["values"]
    ]


def _post(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=10) as answer:
        assert answer.status == 204


def filled(influxql: str, **variables: str) -> str:
    """A query as Grafana sends it, over all time."""
    known = {"timeFilter": "time > 0 AND time < now()", "__interval": "1m"} | variables
    return re.sub(r"\$(\w+)", lambda name: known[name[1]], influxql)

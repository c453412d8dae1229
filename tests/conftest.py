"""What several tests stand on."""

import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

MANY = 1000
"""So many tests use all kernels."""
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Of many tests, those of kernels among them will be some."""
    if len(session.items) > MANY and not session.config.option.collectonly:
        _compile_kernels()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Once for all workers, who find nothing left to compile."""
    _compile_kernels()


def _compile_kernels() -> None:
    """On all cores, before the first test: within it each kernel would be compiled in turn."""
    from scanner.engines.warm import Warming, cold
    from scanner.indicators import kernels

    if needed := cold(kernels()):
        warming = Warming(needed, priority=0)
        warming.wait()
        warming.close()


@pytest.fixture(scope="session")
def market() -> Path:
    """The folder of the real market, which lies beside the checkout on machines that have it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "market"
    if not (folder / "ashare_daily_2020_2025.parquet").is_file():
        pytest.skip(f"the real market is not on this machine: {folder} is missing")
    return folder


class RedisServer:
    """A redis-server of the tests' own: on a free port, with nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Returns once it takes connections. What an earlier one knew is forgotten."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = []
        while "eady to accept connections" not in (line := process.stdout.readline()):
            said.append(line)
            assert line, "".join(said)
        self._process = process

    def stop(self) -> None:
        """As by a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def forget(self) -> None:
        """Empty it, without a restart."""
        with socket.create_connection(("127.0.0.1", self.port)) as to:
            to.sendall(b"FLUSHALL\r\n")
            assert to.recv(100) == b"+OK\r\n"


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on this machine")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """A running redis-server that knows nothing."""
    if not _redis_server.running:
        _redis_server.start()
    _redis_server.forget()
    return _redis_server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Report) -> Report:
    """Where CI is set a skip is a failure, unless its reason begins with one of CI_LACKS."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report)
        if not _lacked(reason):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} skips here, where nothing that it needs may be missing: {reason}"
    return report


def _lacks() -> dict[str, int | None]:
    """CI_LACKS, `a|b=3`: how the reason of a skip may begin -> how many of these there have to be, where it says so."""
    pairs = [part.partition("=") for part in os.environ.get("CI_LACKS", "").split("|") if part]
    return {start: int(number) if number else None for start, _, number in pairs}


def _reason(report: Report) -> str:
    assert isinstance(report.longrepr, tuple)
    return str(report.longrepr[2]).removeprefix("Skipped: ")


def _lacked(reason: str) -> list[str]:
    return [start for start in _lacks() if reason.startswith(start)]


_skipped: dict[str, str] = {}
"""Node -> reason. With several workers each collects all, and this is where all their reports come together."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = _reason(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped[report.nodeid] = _reason(report)


def _miscounted() -> list[str]:
    counted = (
        [(start, number) for start, number in _lacks().items() if number is not None] if os.environ.get("CI") else []
    )
    skips = Counter(start for reason in _skipped.values() for start in _lacked(reason))
    return [
        f"{skips[start]} tests skip because of {start!r}, where CI_LACKS says {number}"
        for start, number in counted
        if skips[start] != number
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and _miscounted() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _miscounted():
        terminalreporter.write_line(f"ERROR {line}", red=True)

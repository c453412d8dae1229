"""What several tests stand on."""

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

MANY = 1000
"""So many tests use all kernels."""
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_collection_finish(session: pytest.Session) -> None:
    """On all cores, before the first test: within it each kernel would be compiled in turn."""
    if len(session.items) > MANY and not session.config.option.collectonly:
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Report) -> Report:
    """Where CI is set a skip is a failure, unless its reason begins with one of CI_LACKS."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        assert isinstance(report.longrepr, tuple)
        reason = report.longrepr[2].removeprefix("Skipped: ")
        lacks = [start for start in _lacks() if reason.startswith(start)]
        _skips.update(lacks)
        if not lacks:
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} skips here, where nothing that it needs may be missing: {reason}"
    return report


def _lacks() -> dict[str, int | None]:
    """CI_LACKS, `a|b=3`: how the reason of a skip may begin -> how many of these there have to be, where it says so."""
    pairs = [part.partition("=") for part in os.environ.get("CI_LACKS", "").split("|") if part]
    return {start: int(number) if number else None for start, _, number in pairs}


_skips: Counter[str] = Counter()
"""By the start of their reason."""


def _miscounted() -> list[str]:
    counted = (
        [(start, number) for start, number in _lacks().items() if number is not None] if os.environ.get("CI") else []
    )
    return [
        f"{_skips[start]} tests skip because of {start!r}, where CI_LACKS says {number}"
        for start, number in counted
        if _skips[start] != number
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _miscounted() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _miscounted():
        terminalreporter.write_line(f"ERROR {line}", red=True)

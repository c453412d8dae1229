"""What several tests stand on."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


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
    """Where CI is set a skip is a failure, unless its reason begins with one of CI_LACKS (a|b|c)."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        assert isinstance(report.longrepr, tuple)
        reason = report.longrepr[2].removeprefix("Skipped: ")
        lacks = [start for start in os.environ.get("CI_LACKS", "").split("|") if start]
        if not reason.startswith(tuple(lacks)):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} skips here, where nothing that it needs may be missing: {reason}"
    return report

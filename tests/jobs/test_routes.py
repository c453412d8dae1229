"""What the service answers over HTTP."""

import asyncio
from pathlib import Path

import pytest

from data.errors import UsageError
from data.settings import Settings
from data.store import BarStore
from jobs.monitor import Monitor
from jobs.routes import open_routes, routes


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(Settings(), BarStore(tmp_path / "sim", origin="sim"), live=False)


def test_who_asks_for_its_health_is_told_that_it_is_there(monitor: Monitor) -> None:
    answer = asyncio.run(open_routes(monitor)["/healthz"]({}))
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_metrics_are_what_prometheus_reads(monitor: Monitor) -> None:
    answer = asyncio.run(routes(monitor)["/metrics"]({}))
    assert (answer.status, answer.content_type.partition(";")[0]) == (200, "text/plain")
    assert b"\nmystocks_scan_fallbacks_total " in answer.body


def test_with_exemplars_they_are_openmetrics(monitor: Monitor) -> None:
    answer = asyncio.run(routes(monitor)["/metrics"]({"format": "openmetrics"}))
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    with pytest.raises(UsageError, match="format must be text or openmetrics; got 'xml'"):
        asyncio.run(routes(monitor)["/metrics"]({"format": "xml"}))

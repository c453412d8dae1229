"""What the service answers over HTTP."""

import asyncio

from jobs.routes import open_routes, routes


def test_who_asks_for_its_health_is_told_that_it_is_there() -> None:
    answer = asyncio.run(open_routes()["/healthz"]({}))
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_metrics_are_what_prometheus_reads() -> None:
    answer = asyncio.run(routes()["/metrics"]({}))
    assert (answer.status, answer.content_type.partition(";")[0]) == (200, "text/plain")
    assert b"\nmystocks_scan_fallbacks_total " in answer.body

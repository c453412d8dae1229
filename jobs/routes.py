"""What `run` answers over HTTP beside /ws/signals: path -> route, those that a token is asked for and the open ones."""

from collections.abc import Mapping

from data import metrics
from data.errors import UsageError
from jobs.monitor import Monitor
from streaming.http import Answer, Route


def routes(monitor: Monitor) -> dict[str, Route]:
    """Those that ask for a token where one is needed."""
    return {"/metrics": _metrics}


def open_routes(monitor: Monitor) -> dict[str, Route]:
    """Those that ask nobody who he is, and so tell nothing worth knowing."""

    async def ready(query: Mapping[str, str]) -> Answer:
        """200 where the process does its work, else 503; as JSON each check and why."""
        well, said = await monitor.ready()
        return Answer(200 if well else 503, "application/json", said)

    return {"/healthz": _healthz, "/readyz": ready}


async def _healthz(query: Mapping[str, str]) -> Answer:
    """The process answers."""
    return Answer.text(200, "ok")


async def _metrics(query: Mapping[str, str]) -> Answer:
    """All metrics, as Prometheus reads them; with `format=openmetrics` with exemplars."""
    match query.get("format", "text"):
        case "text":
            return Answer(200, metrics.CONTENT_TYPE, metrics.exposition())
        case "openmetrics":
            return Answer(200, metrics.OPENMETRICS_TYPE, metrics.exposition(exemplars=True))
        case other:
            raise UsageError(f"format must be text or openmetrics; got {other[:40]!r}")

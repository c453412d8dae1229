"""What `run` answers over HTTP beside /ws/signals: path -> route, those that a token is asked for and the open ones."""

from collections.abc import Mapping

from data import metrics
from streaming.http import Answer, Route


def routes() -> dict[str, Route]:
    """Those that ask for a token where one is needed."""
    return {"/metrics": _metrics}


def open_routes() -> dict[str, Route]:
    """Those that ask nobody who he is, and so tell nothing worth knowing."""
    return {"/healthz": _healthz}


async def _healthz(query: Mapping[str, str]) -> Answer:
    """The process answers."""
    return Answer.text(200, "ok")


async def _metrics(query: Mapping[str, str]) -> Answer:
    """All metrics, as Prometheus reads them."""
    return Answer(200, metrics.CONTENT_TYPE, metrics.exposition())

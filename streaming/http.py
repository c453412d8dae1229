"""HTTP beside the WebSocket, on the same port: exact paths to functions, GET and HEAD alone.

A route knows nothing of connections: it takes the query's values and returns an Answer. What it raises becomes a
status: UsageError 400, missing data 404, both with their text; anything else 500, and the log has it. Nothing stops the
server. Every answer carries the headers that keep a browser from doing more with it than show it.
"""

import http
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from data.errors import MarketDataError, StaleDataError, StoreError, UsageError

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer; an Answer's own headers stand before them."""
MAX_FIELDS = 32
"""Values that a query may have."""
MAX_AT_ONCE = 64
"""Answers that may be in the making."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers: a status of HTTP, what the body is, the body, and more headers."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, text: str, headers: Mapping[str, str] | None = None) -> "Answer":
        """Plain text, one line."""
        return cls(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="backslashreplace"), headers or {})


Route = Callable[[Mapping[str, str]], Awaitable[Answer]]
"""The query's values, one of each name, to the answer."""


class Routes:
    """Routes by their exact paths."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._n_running = 0

    async def answer(self, request: Request) -> Answer:
        """What they say to a request; never raises."""
        path, _, query = request.path.partition("?")
        route = self._routes.get(path)
        if route is None:
            return Answer.text(404, "nothing here")
        if request.method not in ("GET", "HEAD"):
            return Answer.text(405, f"{path} is read with GET", {"Allow": "GET, HEAD"})
        if self._n_running >= MAX_AT_ONCE:
            return Answer.text(503, "too much is asked for at once", {"Retry-After": "1"})
        self._n_running += 1
        try:
            return await route(_values(query))
        except UsageError as error:
            return Answer.text(400, str(error))
        except Exception as error:
            if isinstance(error, MarketDataError | StaleDataError) and not isinstance(error, StoreError):
                return Answer.text(404, str(error))
            log.exception("%s failed", path)
            return Answer.text(500, "this failed; the service's log has the reason")
        finally:
            self._n_running -= 1


def head_of(answer: Answer) -> Response:
    """What is sent before the body, after which the connection ends."""
    headers = Headers({**SECURITY_HEADERS, **answer.headers})
    headers["Content-Type"] = answer.content_type
    headers["Content-Length"] = str(len(answer.body))
    headers["Connection"] = "close"
    return Response(answer.status, http.HTTPStatus(answer.status).phrase, headers)


def _values(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise UsageError(f"the query must be at most {MAX_FIELDS} values in UTF-8, name=value&name=value") from error
    values = dict(pairs)
    if len(values) < len(pairs):
        raise UsageError("the query must give each value once")
    return values

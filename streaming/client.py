"""A subscriber of /ws/signals that reconnects, and goes on where it was."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from ipaddress import ip_address
from ssl import SSLCertVerificationError, SSLContext
from typing import Any, Literal

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

from data.errors import FeedError, UsageError
from streaming.closing import Close
from streaming.filter import Filter

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
OPEN_TIMEOUT_S = 10.0

_TOKEN = "'mystocks-scan token new' makes one where the service runs"
REFUSED: Mapping[int, str] = {
    401: f"it needs a token, or does not know the one it was shown: {_TOKEN}",
    403: "it refuses this origin: the setting serve.origins there allows it",
    404: "nothing is there: signals are at /ws/signals of the host and port that 'mystocks-scan run' says",
    421: "without a token it is reached by its address or as localhost alone",
}
"""The status of HTTP that no retry can mend, in words."""
RETRIED = frozenset({408, 429})
"""Those below 500 that one can."""
ENDED: Mapping[int, str] = {
    1009: "what it was asked is too long: ask for fewer symbols, or for all and choose among them",
    Close.UNAUTHORISED: f"the token is not known there, or no longer: {_TOKEN}",
}
"""The code of a close that no retry can mend, in words."""
CLOSED: Mapping[int, str] = {
    1001: "the service stops",
    1011: "the service failed, and its log has the reason",
    Close.SLOW: "too much was left unread: ask for less, or read sooner",
    Close.GAP: "the service has lost signals that came next",
    Close.TOO_MANY: "it was said too much, or there are too many connections from here",
}
"""The code of a close after which coming back helps, in words."""

log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.websockets")
_library_log.setLevel(logging.WARNING)  # below that it shows headers, and with them the token


async def signals(
    url: str,
    *,
    filters: Filter | None = None,
    since: tuple[str, int] | None = None,
    token: str | None = None,
    ssl: SSLContext | None = None,
    reconnect: bool = True,
    on_place: Callable[[str, int], None] = lambda epoch, seq: None,
    backoff_s: tuple[float, float] = (0.5, 30.0),
    notice: Callable[[str], None] = log.warning,
) -> AsyncGenerator[dict[str, Any], None]:
    """Signals as they are published, each a dict as `Signal.to_dict` gives it; without end while it reconnects.

    `since`: the (epoch, seq) of the last signal seen; what followed comes first. `on_place` is told where to go on from
    when the signals up to there have been taken, also where none of them was wanted. `token`: who asks. `ssl`: whom to
    believe, for wss://; by default the authorities of the system. `backoff_s`: the first and the longest wait before
    connecting again, doubled each time and shortened at random. `notice` is told of lost connections and of gaps.
    Raises UsageError where the URL or the filter is refused, FeedError where there is nothing of the kind at the URL,
    the token or its certificate is not believed or, without `reconnect`, when the connection is lost.
    """
    request = {"type": "subscribe", **(filters or Filter()).to_dict()}
    proxy: Literal[True] | None = (
        None if _is_here(url) else True
    )  # a proxy of the environment cannot reach this machine
    tls: dict[str, Any] = {} if ssl is None else {"ssl": ssl}  # the library takes no None for wss://
    place, attempt = since, 0
    while True:
        try:
            async with connect(
                url,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=OPEN_TIMEOUT_S,
                proxy=proxy,
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                **tls,
                logger=_library_log,
            ) as connection:
                more = {} if place is None else {"since": {"epoch": place[0], "seq": place[1]}}
                await connection.send(json.dumps(request | more))
                async for text in connection:
                    message = _parsed(text, url)
                    kind, data = message["type"], message["data"]
                    if kind == "error":
                        raise UsageError(f"{url} refused to subscribe: {data['reason']}")
                    if kind == "subscribed":
                        attempt = 0
                        if data.get("recovered") is False:
                            notice(f"signals were missed: {data['reason']}")
                    if kind == "signals":
                        for signal in data:
                            yield signal
                    if kind in ("subscribed", "signals"):
                        place = message["epoch"], message["seq"]
                        on_place(*place)
                reason = _why(connection.close_code)
        except InvalidStatus as error:
            status = error.response.status_code
            reason = f"it answers {status}"
            if 400 <= status < 500 and status not in RETRIED:
                words = f": {REFUSED[status]}" if status in REFUSED else ""
                raise FeedError(f"there are no signals at {url}: {reason}{words}") from error
        except ConnectionClosed as error:
            code = None if error.rcvd is None else error.rcvd.code
            if code is not None and code in ENDED:
                raise FeedError(f"{url}: {ENDED[code]}") from error
            reason = _why(code)
        except SSLCertVerificationError as error:
            raise FeedError(f"{url}: its certificate is not believed: {error.verify_message}") from error
        except (OSError, WebSocketException) as error:
            reason = str(error) or type(error).__name__
        if not reconnect:
            raise FeedError(f"{url}: {reason}")
        first, longest = backoff_s
        delay = min(longest, first * 2 ** min(attempt, 30)) * random.uniform(0.5, 1)
        attempt += 1
        notice(f"{url}: {reason}; connecting again in {delay:.1f} s")
        await asyncio.sleep(delay)


def _why(code: int | None) -> str:
    """Why a connection ended, by the code that the server closed it with."""
    if code is None:
        return "the connection was lost"
    return CLOSED.get(code, f"the service closed the connection ({code})")


def _parsed(text: str | bytes, url: str) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(text)
        if message["v"] == 1 and {"epoch", "seq", "type", "data"} <= set(message):
            return message
    except (ValueError, TypeError, KeyError):
        pass
    raise FeedError(f"what {url} sends is not the protocol of signals, version 1: {text[:80]!r}")


def _is_here(url: str) -> bool:
    """Whether it is this machine. Raises UsageError where it is no URL of a WebSocket."""
    try:
        host = parse_uri(url).host
    except (InvalidURI, ValueError) as error:
        raise UsageError(f"the URL must look like ws://127.0.0.1:8765/ws/signals; got {url!r}: {error}") from error
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

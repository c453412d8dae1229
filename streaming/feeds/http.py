"""HTTP as vendors speak it: clients that look like a browser, and what goes wrong, in our words."""

import logging
import ssl
from functools import cache

import httpx

from data.errors import BannedError, FeedError

# Each request is counted where it is made; a line of log for each would be all that a log holds.
logging.getLogger("httpx").setLevel(logging.WARNING)

CONNECT_S = 10.0
_BANS = (403, 418, 429, 456)
"""What vendors answer to whom they have banned; 456 is Sina's."""
_BAN_PAGES = (b"kinsoku jikou desu", b"<html", b"<!doctype")
_SHOWN = 80


@cache
def _tls() -> ssl.SSLContext:
    # Loading the certificates takes longer than all else about a client.
    return httpx.create_ssl_context()


def open_client(headers: dict[str, str], *, read_s: float | None) -> httpx.AsyncClient:
    """A client that follows no redirect; `read_s` between two pieces of an answer, None for any time."""
    timeout = httpx.Timeout(CONNECT_S, read=read_s, pool=None)
    return httpx.AsyncClient(headers=headers, timeout=timeout, verify=_tls(), limits=httpx.Limits(keepalive_expiry=60))


def reason_of(error: Exception) -> str:
    """One word for what went wrong with a request, as it is counted."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "timeout"
    if isinstance(error, httpx.RemoteProtocolError):
        return "truncated"
    return "connection"


def check_ban(name: str, status: int, body: bytes) -> None:
    """Raise BannedError where an answer says so: by its status, or by a page in place of quotes."""
    page = body[:512].lower().lstrip()
    if status in _BANS or page.startswith(_BAN_PAGES):
        raise BannedError(f"{name} has banned this address for a while: HTTP {status}, {shown(body)}")


def lost(name: str, reason: str, error: Exception | None = None) -> FeedError:
    """The error of a connection that cannot go on."""
    said = f": {type(error).__name__} {error}" if error is not None else ""
    return FeedError(f"the connection to {name} is lost ({reason}){said}", reason=reason)


def shown(body: bytes) -> str:
    """The beginning of an answer, for a message."""
    return repr(body[:_SHOWN].decode("gb18030", errors="replace"))

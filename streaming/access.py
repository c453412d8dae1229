"""Access: who may subscribe and read, by the headers of his request.

A page of another site that a browser on this machine shows may open a WebSocket to 127.0.0.1, and by moving its own
name there (DNS rebinding) even reads what it fetches. So an Origin must be that of the request's Host or be allowed;
and who shows no token, where none is needed, must have come by a name that no one can move: an address, localhost, or
the host of an allowed origin. A token says enough by itself, as browsers send none on their own.

The token travels as `Authorization: Bearer TOKEN` or, from a page, which cannot set headers, as the subprotocol
`bearer.TOKEN` beside `mystocks-scan.v1`; never in a URL, which is logged everywhere.
"""

import ipaddress
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers, MultipleValuesError
from websockets.typing import Subprotocol

from data.errors import SettingsError
from streaming.closing import Close
from streaming.tokens import Tokens

SUBPROTOCOL = Subprotocol("mystocks-scan.v1")
LOG_EVERY_S = 10.0
_BEARER = "bearer."
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
_PORTS = {"http": 80, "https": 443}

log = logging.getLogger(__name__)


class DeniedError(Exception):
    """A request that is refused: the word it is counted by, the status of HTTP, and the text of the answer."""

    def __init__(self, reason: str, status: int, text: str) -> None:
        super().__init__(text)
        self.reason, self.status = reason, status
        self.headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}

    @property
    def close(self) -> Close | None:
        """What a page is told in place of the status, None where it is not for the page to know."""
        return {401: Close.UNAUTHORISED, 429: Close.TOO_MANY}.get(self.status)


class Access:
    """Decides on requests. `required`: a token is, also from this machine. `origins`: of pages of other sites, as
    `https://scanner.example`, or `null` for pages from files.

    Raises SettingsError for an origin that is none.
    """

    def __init__(self, tokens: Tokens | None = None, *, required: bool = False, origins: Collection[str] = ()) -> None:
        self.tokens, self.required = tokens, required
        self._origins = frozenset(origin.lower() for origin in origins)
        for origin in self._origins - {"null"}:
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin):
                raise SettingsError(f"serve.origins must be like https://scanner.example:8443, or null; got {origin!r}")
        self._hosts = {urlsplit(origin).hostname for origin in self._origins - {"null"}}

    def check(self, headers: Headers, *, required: bool = False) -> str | None:
        """The digest of the token that was shown, None where none was and none is needed.

        `required`: one is. Raises DeniedError.
        """
        try:
            host, origin = headers.get("Host"), headers.get("Origin")
            shown = _token(headers)
        except MultipleValuesError:
            raise DeniedError("malformed", 400, "Host, Origin and Authorization may each be given once") from None
        if origin is not None and origin.lower() not in self._origins and not _same(origin, host):
            raise DeniedError("origin", 403, "a page of another origin may not read this; allow it by serve.origins")
        if shown is not None:
            if self.tokens is not None:
                self.tokens.refresh()
                if digest := self.tokens.digest_of(shown):
                    return digest
            raise DeniedError("token", 401, "the token is not known here")
        if required or self.required:
            raise DeniedError("token", 401, "this needs a token: Authorization: Bearer TOKEN")
        if any(name in headers for name in _FORWARDED):
            raise DeniedError("token", 401, "what a proxy forwards is not of this machine: it needs a token")
        if not self._is_fixed(host):
            raise DeniedError(
                "host", 421, "without a token this is reached by its address or as localhost; see serve.origins"
            )
        return None

    def _is_fixed(self, host: str | None) -> bool:
        """Whether nobody but who runs this decides where the name leads."""
        name = _parts(f"//{host}")[0]
        if not host or not name:
            return False
        return name == "localhost" or name.endswith(".localhost") or name in self._hosts or _is_address(name)


def select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours where it is offered, so that a token beside it is never sent back."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class Refusals:
    """Counts what was refused, by reason, and logs it: of each reason one line in ten seconds at most."""

    def __init__(self, on_refused: Callable[[str], None] = lambda reason: None) -> None:
        self.counts: Counter[str] = Counter()
        self._on_refused = on_refused
        self._logged: dict[str, tuple[float, int]] = {}

    def add(self, reason: str, who: str, text: str) -> None:
        """Count one. `who`: an address; `text`: what was said to him, with nothing of his own in it."""
        self.counts[reason] += 1
        self._on_refused(reason)
        at, counted = self._logged.get(reason, (-LOG_EVERY_S, 0))
        now = time.monotonic()
        if now - at >= LOG_EVERY_S:
            self._logged[reason] = now, self.counts[reason]
            more = self.counts[reason] - counted - 1
            held = f"; and {more} more since the last line" if more > 0 else ""
            log.warning("refused %s (%s): %s%s", who, reason, text, held)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(headers: Headers) -> str | None:
    """The token that was shown, None where none was."""
    scheme, _, token = (headers.get("Authorization") or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    offered = [one.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for one in value.split(",")]
    return next((one.removeprefix(_BEARER) for one in offered if one.startswith(_BEARER)), None)


def _same(origin: str, host: str | None) -> bool:
    """Whether the page came from the very host and port that the request goes to."""
    scheme = origin.partition(":")[0].lower()
    usual = _PORTS.get(scheme)
    name, port = _parts(origin)
    wanted, wanted_port = _parts(f"//{host}")
    return bool(host and usual and name and (name, port or usual) == (wanted, wanted_port or usual))


def _parts(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

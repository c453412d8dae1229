"""The server of /ws/signals and of the HTTP beside it: listening, who is let in, and the end.

What is said on a connection is in streaming/conversation.py, what is sent to all in streaming/broadcast.py.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from data import metrics
from data.errors import SettingsError
from streaming import http
from streaming.access import Access, DeniedError, Refusals, is_loopback, select_subprotocol
from streaming.broadcast import Broadcast, Client, Replay
from streaming.closing import Close
from streaming.conversation import converse
from streaming.door import Door, Limits
from streaming.http import Answer, Route
from streaming.limited import CLOSE_TIMEOUT_S, LINGER_S, Limited
from streaming.tls import Certificate

PATH = "/ws/signals"
WATCH_S = 1.0
"""How often it is looked whether tokens were revoked or the certificate was renewed."""

log = logging.getLogger(__name__)
_library_log = logging.getLogger(f"{__name__}.websockets")
_library_log.setLevel(logging.WARNING)  # below that it shows headers, and with them tokens


class SignalServer:
    """Serves `ws://host:port/ws/signals` and routes of HTTP, from the event loop that starts it.

    `epoch`, `replay`, `ring`, `max_client_bytes`: the Broadcast's, whose `publish` and `begin` are the server's.
    `hello`: more values for the hello message, or what makes them. `routes`, `open_routes`: exact path -> what answers
    there; the open ones ask nobody who he is. `access`: who may come in; by default everybody on this machine, and
    nobody else. `on_refused` is told why something was refused, in one word. `path`: where signals are; None: this
    process has none, and serves routes alone.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        epoch: str,
        hello: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        replay: Replay | None = None,
        ring: int = 10_000,
        max_client_bytes: int = 1024 * 1024,
        routes: Mapping[str, Route] | None = None,
        open_routes: Mapping[str, Route] | None = None,
        access: Access | None = None,
        limits: Limits | None = None,
        certificate: Certificate | None = None,
        on_refused: Callable[[str], None] = lambda reason: None,
        path: str | None = PATH,
    ) -> None:
        self.host, self.port = host, port
        self._path = path
        self.stream = Broadcast(epoch=epoch, replay=replay, ring=ring, max_client_bytes=max_client_bytes)
        self.publish, self.begin = self.stream.publish, self.stream.begin
        self.refusals = Refusals(on_refused)
        self.door = Door(limits or Limits(), self.refusals)
        self._clients = self.stream.clients
        self._hello = hello
        self._open = frozenset(open_routes or ())
        self._routes = http.Routes({**(routes or {}), **(open_routes or {})})
        self._access = access or Access()
        self._asks = self._access.required or not is_loopback(host)
        self._certificate = certificate
        self._holders: dict[Client, str] = {}
        self._server: Server | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> str:
        """Of the newest signal."""
        return self.stream.epoch

    @property
    def seq(self) -> int:
        """Of the newest signal."""
        return self.stream.seq

    @property
    def dropped(self) -> int:
        """How many were cut off for not reading."""
        return self.stream.dropped

    @property
    def url(self) -> str:
        """What a subscriber connects to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._certificate else 'ws'}://{host}:{self.port}{self._path or ''}"

    @property
    def clients(self) -> int:
        """Connections, subscribed or not."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen; `port` is then the one that was taken.

        Raises SettingsError where others could come in and none has a token, for tokens or a certificate that cannot be
        used, and for an address that cannot be listened at.
        """
        self.check()

        class Connection(Limited):
            door = self.door

        limits = self.door.limits
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls = {
                "ssl": self._certificate.context,
                "ssl_handshake_timeout": limits.handshake_s,
                "ssl_shutdown_timeout": LINGER_S,
            }
        self._server = await serve(
            self._handle,
            sock=self._listen(),
            process_request=self._route,
            process_response=self._responded,
            select_subprotocol=select_subprotocol,
            create_connection=Connection,
            compression=None,  # it costs three times the time and memory a message, and signals are small
            server_header=None,
            max_size=limits.message_bytes,
            open_timeout=limits.answer_s,
            close_timeout=CLOSE_TIMEOUT_S,
            logger=_library_log,
            **tls,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        metrics.ws_clients.set_function(lambda: self.clients)
        metrics.ws_send_buffer.set_function(self.stream.unread_bytes)
        self._watching = asyncio.create_task(self._watch())
        if self._certificate is None and not is_loopback(self.host):
            log.warning("%s is not encrypted: who listens on the way has signals and tokens (--certificate)", self.url)

    async def stop(self) -> None:
        """Say goodbye (close code 1001) and end, within two seconds also where somebody does not listen."""
        server, self._server = self._server, None
        if server is None:
            return
        assert self._watching is not None
        self._watching.cancel()
        server.close()
        for _ in range(2):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await server.wait_closed()
                    return
            except TimeoutError:
                self.door.turn_out()
                for client in self._clients:
                    client.connection.transport.abort()

    def check(self) -> None:
        """Read the tokens, as `start` does. Raises SettingsError where one is needed and there is none."""
        tokens = self._access.tokens
        if tokens is not None:
            tokens.load()
        if self._asks and not tokens:
            why = "is required to have tokens" if self._access.required else "can be reached from other machines"
            where = f" in {tokens.path}" if tokens is not None else ""
            raise SettingsError(
                f"serve.host {self.host} {why}, and there is no token{where}: make one with 'mystocks-scan token new'."
                f" From another machine it can also be reached without, by 'ssh -L {self.port}:127.0.0.1:{self.port}'"
            )

    def _listen(self) -> socket.socket:
        try:
            return self.door.listen(self.host, self.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"serve.host {self.host}, serve.port {self.port}: {error}") from error
            raise SettingsError(
                f"serve.port {self.port} on {self.host} is taken by another program (another 'mystocks-scan run'?)."
                " Choose another with --port; 0 takes any free one"
            ) from error

    async def _watch(self) -> None:
        """End the connections of tokens that are revoked; take a renewed certificate."""
        closing: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(WATCH_S)
            if self._certificate is not None:
                self._certificate.refresh()
            tokens = self._access.tokens
            if tokens is None:
                continue
            tokens.refresh()
            for client in [client for client, digest in self._holders.items() if digest not in tokens]:
                del self._holders[client]
                client.live = False
                task = asyncio.create_task(client.connection.close(Close.UNAUTHORISED, "the token was revoked"))
                closing.add(task)
                task.add_done_callback(closing.discard)

    async def _route(self, connection: ServerConnection, request: Request) -> None:
        """Answer a request over HTTP, but for one that may have its WebSocket."""
        assert isinstance(connection, Limited)
        path = request.path.partition("?")[0]
        upgrades = path == self._path and any(
            value.lower() == "websocket" for value in request.headers.get_all("Upgrade")
        )
        try:
            if path not in self._open:
                connection.holder = self._access.check(request.headers, required=self._asks)
            if self.door.is_crowded(connection.address):
                raise DeniedError("address", 429, "there are too many connections from this address")
        except DeniedError as denied:
            connection.refuse(denied.reason, str(denied))
            if upgrades and "Origin" in request.headers and denied.close:
                connection.denied = denied  # a browser hides the status from its page, but not a close code
                return
            answer = Answer.text(denied.status, str(denied), denied.headers)
        else:
            if upgrades:
                return
            if path == self._path:
                answer = Answer.text(426, "signals come over a WebSocket", {"Upgrade": "websocket"})
            else:
                answer = await self._routes.answer(request)
        await connection.answer(http.head_of(answer), b"" if request.method == "HEAD" else answer.body)

    def _responded(self, connection: ServerConnection, request: Request, response: Response) -> None:
        """Look at what the library says to a handshake."""
        assert isinstance(connection, Limited)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS and connection.state is State.CONNECTING:
            connection.declined()

    async def _handle(self, connection: ServerConnection) -> None:
        """A WebSocket from its handshake to its end."""
        assert isinstance(connection, Limited)
        connection.opened()
        if connection.denied is not None:
            await connection.close(connection.denied.close or 1008, str(connection.denied))
            return
        client = Client(connection)
        self._clients.add(client)
        if connection.holder is not None:
            self._holders[client] = connection.holder
        try:
            hello = self._hello() if callable(self._hello) else self._hello or {}
            await converse(self.stream, client, hello, lambda reason: connection.refuse("message", reason))
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            self._holders.pop(client, None)

"""The server of /ws/signals and of the HTTP beside it: listening, and one connection from hello to its end.

Every message of the server is one JSON object, `{"v": 1, "epoch", "seq", "type", "data"}`. (epoch, seq) is a place in
the stream of signals: everything up to it was sent on this connection or not wanted there.

    hello        on connecting; data: version, epoch, seq of the last signal
    subscribed   the answer to subscribe; with `since`, data: recovered, and a reason where it is false
    signals      data: a list of signals, each with its own epoch and seq; one message a scan, or a page of a replay
    unsubscribed, pong
    error        data: reason; the connection lives

A client says `{"type": "subscribe", "symbols", "strategies", "actions", "min_confidence", "since": {"epoch", "seq"}}`,
all but the type optional; `{"type": "unsubscribe"}`; `{"type": "ping"}`. Nothing is sent before it subscribes.
"""

import asyncio
import errno
import ipaddress
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from data import metrics
from data.errors import SettingsError, UsageError
from streaming import http
from streaming.broadcast import Broadcast, Client, Replay
from streaming.filter import FIELDS, Filter, short
from streaming.http import Route

PATH = "/ws/signals"
MAX_MESSAGE_BYTES = 16 * 1024
CLOSE_TIMEOUT_S = 1.0


class SignalServer:
    """Serves `ws://host:port/ws/signals` and routes of HTTP, from the event loop that starts it.

    `epoch`, `replay`, `ring`, `max_client_bytes`: the Broadcast's, whose `publish` and `begin` are the server's.
    `hello`: more values for the hello message, or what makes them. `routes`, `open_routes`: exact path -> what answers
    there; the open ones ask nobody who he is.
    Raises SettingsError for a host that is not this machine (nobody is asked who he is yet) and for a port in use.
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
    ) -> None:
        if not _is_loopback(host):
            raise SettingsError(
                "serve.host must be an address of this machine alone (127.0.0.1, ::1, localhost), because nobody is"
                f" asked for a password; got {host!r}. From elsewhere reach it through 'ssh -L {port}:127.0.0.1:{port}'"
            )
        self.host, self.port = host, port
        self.stream = Broadcast(epoch=epoch, replay=replay, ring=ring, max_client_bytes=max_client_bytes)
        self.publish, self.begin = self.stream.publish, self.stream.begin
        self._clients = self.stream.clients
        self._hello = hello
        self._routes = {**(routes or {}), **(open_routes or {})}
        self._server: Server | None = None

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
        return f"ws://{host}:{self.port}{PATH}"

    @property
    def clients(self) -> int:
        """Connections, subscribed or not."""
        return len(self._clients)

    async def start(self) -> None:
        """Listen; `port` is then the one that was taken."""
        try:
            self._server = await serve(
                self._handle,
                self.host,
                self.port,
                process_request=self._route,
                compression=None,  # it costs three times the time and memory a message, and signals are small
                max_size=MAX_MESSAGE_BYTES,
                close_timeout=CLOSE_TIMEOUT_S,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise SettingsError(
                f"serve.port {self.port} on {self.host} is taken by another program (another 'mystocks-scan run'?)."
                " Choose another with --port; 0 takes any free one"
            ) from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        metrics.ws_clients.set_function(lambda: self.clients)
        metrics.ws_send_buffer.set_function(self.stream.unread_bytes)

    async def stop(self) -> None:
        """Say goodbye (close code 1001) and end, within two seconds also where somebody does not listen."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for _ in range(2):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await server.wait_closed()
                    return
            except TimeoutError:
                for client in self._clients:
                    client.connection.transport.abort()

    async def _route(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.partition("?")[0] == PATH:
            return None
        return http.to_response(await http.answer(self._routes, request), head=request.method == "HEAD")

    async def _handle(self, connection: ServerConnection) -> None:
        """One subscriber, from hello to the end of its connection."""
        client = Client(connection)
        self._clients.add(client)
        try:
            more = self._hello() if callable(self._hello) else self._hello or {}
            data = {"version": version("mystocks-scan"), "epoch": self.epoch, "seq": self.seq, **more}
            await self.stream.tell(client, "hello", data)
            async for message in connection:
                try:
                    await self._on_message(client, message)
                except UsageError as error:
                    await self.stream.tell(client, "error", {"reason": str(error)})
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)

    async def _on_message(self, client: Client, text: str | bytes) -> None:
        try:
            message = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise UsageError(f"a message must be one JSON object in a text frame; got {short(text)}")
        kind = message.pop("type", None)
        if kind == "ping":
            await self.stream.tell(client, "pong", {})
        elif kind == "unsubscribe":
            client.live = False
            await self.stream.tell(client, "unsubscribed", {})
        elif kind == "subscribe":
            if unknown := set(message) - {*FIELDS, "since"}:
                raise UsageError(f"subscribe has no {short(min(unknown))}; it has {', '.join(FIELDS)} and since")
            since = _place(message.get("since"))
            await self.stream.subscribe(client, Filter.parse(message), since)
        else:
            raise UsageError(f"type must be subscribe, unsubscribe or ping; got {short(kind)}")


def _place(since: Any) -> tuple[str, int] | None:
    """The place a client asks to go on from."""
    if since is None:
        return None
    if isinstance(since, dict) and set(since) == {"epoch", "seq"}:
        epoch, seq = since["epoch"], since["seq"]
        if isinstance(epoch, str) and isinstance(seq, int) and not isinstance(seq, bool) and seq >= 0:
            return epoch, seq
    raise UsageError(f'since must be {{"epoch": text, "seq": integer from 0 on}}; got {short(since)}')


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

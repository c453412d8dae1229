"""The server of /ws/signals: every scan's signals to every subscriber, in order, without gap or duplicate.

Every message of the server is one JSON object, `{"v": 1, "epoch", "seq", "type", "data"}`. (epoch, seq) is a place in
the stream of signals: everything up to it was sent on this connection or not wanted there.

    hello        on connecting; data: version, epoch, seq of the last signal
    subscribed   the answer to subscribe; with `since`, data: recovered, and a reason where it is false
    signals      data: a list of signals, each with its own epoch and seq; one message a scan, or a page of a replay
    unsubscribed, pong
    error        data: reason; the connection lives

A client says `{"type": "subscribe", "symbols", "strategies", "actions", "min_confidence", "since": {"epoch", "seq"}}`,
all but the type optional; `{"type": "unsubscribe"}`; `{"type": "ping"}`. Nothing is sent before it subscribes.

No send to one subscriber waits for another. Live messages are written to the transport's buffer, and who leaves more
than `max_client_bytes` of them unread is cut off (a keepalive ping would wait behind that very buffer). A replay is
sent in pages that wait for their own reader, and ends in one step without waiting at the newest signal.
"""

import asyncio
import errno
import http
import ipaddress
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from typing import Any

import pyarrow as pa
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from data import metrics
from data.errors import MystocksScanError, SettingsError, UsageError
from data.signal import from_table
from streaming.filter import FIELDS, Filter, short

PATH = "/ws/signals"
MAX_MESSAGE_BYTES = 16 * 1024
PAGE = 500
"""Signals a message of a replay holds at most."""
CHUNK = 500
"""Subscribers written to before the event loop's other tasks have a turn."""
SEND_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 1.0

Replay = Callable[[str, int, int], pa.Table | None]
"""(epoch, seq, limit) -> the signals after that place, or None where it is not known: `SignalHistory.since`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A published signal and its JSON, encoded once for everybody."""

    seq: int
    signal: Mapping[str, Any]
    text: str


@dataclass(eq=False, slots=True)
class _Client:
    """A connection, what it wants, how far in this epoch it was served, and whether it takes part in `publish`."""

    connection: ServerConnection
    filter: Filter = field(default_factory=Filter)
    seq: int = 0
    live: bool = False


class SignalServer:
    """Serves `ws://host:port/ws/signals`, `/healthz` and `/metrics`, from the event loop that starts it.

    `epoch`: the history's. `replay` gives what the ring (the newest `ring` signals, in memory) no longer holds.
    `hello`: more values for the hello message, or what makes them. `dropped` counts who was cut off for not reading.
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
    ) -> None:
        if not _is_loopback(host):
            raise SettingsError(
                "serve.host must be an address of this machine alone (127.0.0.1, ::1, localhost), because nobody is"
                f" asked for a password; got {host!r}. From elsewhere reach it through 'ssh -L {port}:127.0.0.1:{port}'"
            )
        self.host, self.port = host, port
        self.epoch, self.seq = epoch, 0
        self.dropped = 0
        self._hello = hello
        self._replay = replay
        self._ring: deque[_Sent] = deque()
        self._ring_size = ring
        self._max_client_bytes = max_client_bytes
        self._clients: set[_Client] = set()
        self._server: Server | None = None

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

    async def publish(self, signals: Sequence[Mapping[str, Any]]) -> None:
        """Send a scan's signals (`Signal.to_dict`, as the history numbered them) to all who want them, as one message.

        Raises UsageError where they do not follow what was published before. Cancelled half-way it loses nothing: the
        next call sends what a subscriber lacks.
        """
        if not signals:
            return
        for number, signal in enumerate(signals, self.seq + 1):
            if (signal["epoch"], signal["seq"]) != (self.epoch, number):
                raise UsageError(
                    f"the next signal to publish must be number {number} of epoch {self.epoch};"
                    f" got number {signal['seq']} of {signal['epoch']}"
                )
        self._ring.extend([_Sent(signal["seq"], signal, _json(signal)) for signal in signals])
        self.seq = signals[-1]["seq"]
        while len(self._ring) > max(self._ring_size, len(signals)):
            self._ring.popleft()
        clients = list(self._clients)
        texts: dict[tuple[Filter, int, int], str | None] = {}
        for start in range(0, len(clients), CHUNK):
            if start:
                await asyncio.sleep(0)
            self._serve_live(clients[start : start + CHUNK], texts)

    def begin(self, epoch: str, seq: int = 0) -> None:
        """Go on behind signal `seq` of another epoch, as where another process writes the history and has restarted.

        Whoever lacks something in between is cut off, and resumes.
        """
        for client in list(self._clients):
            if client.live and (seq or client.seq < self.seq):
                self._drop(client)
            elif client.live:
                client.seq = 0
        self.epoch, self.seq = epoch, seq
        self._ring.clear()

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

    def _serve_live(self, clients: Iterable[_Client], texts: dict[tuple[Filter, int, int], str | None]) -> None:
        """Write to each live client what it lacks, in one message for all who want the same; never waits."""
        groups: dict[tuple[Filter, int, int], list[_Client]] = {}
        for client in clients:
            if client.live and client.seq < self.seq:
                if (
                    client.connection.transport.get_write_buffer_size() > self._max_client_bytes
                    or client.seq < self._ring_start() - 1
                ):
                    self._drop(client)
                else:
                    groups.setdefault((client.filter, client.seq, self.seq), []).append(client)
        for key, members in groups.items():
            if key not in texts:
                texts[key] = _message(self.epoch, self._after(key[1]), key[0])
            if (text := texts[key]) is not None:
                broadcast([client.connection for client in members], text)
            for client in members:
                client.seq = self.seq

    def _ring_start(self) -> int:
        return self._ring[0].seq if self._ring else self.seq + 1

    def _after(self, seq: int) -> list[_Sent]:
        """What the ring holds after `seq`, oldest first."""
        newer = []
        for sent in reversed(self._ring):
            if sent.seq <= seq:
                break
            newer.append(sent)
        return newer[::-1]

    def _drop(self, client: _Client) -> None:
        client.live = False
        self.dropped += 1
        log.warning("cut off %s, which does not read its signals", client.connection.remote_address)
        client.connection.transport.abort()

    def _route(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "ok\n")
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, metrics.exposition().decode())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = metrics.CONTENT_TYPE
            return response
        if path != PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"nothing here; signals are at {PATH}\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        """One subscriber, from hello to the end of its connection."""
        client = _Client(connection)
        self._clients.add(client)
        try:
            more = self._hello() if callable(self._hello) else self._hello or {}
            data = {"version": version("mystocks-scan"), "epoch": self.epoch, "seq": self.seq, **more}
            await self._tell(client, "hello", data)
            async for message in connection:
                try:
                    await self._on_message(client, message)
                except UsageError as error:
                    await self._tell(client, "error", {"reason": str(error)})
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)

    async def _on_message(self, client: _Client, text: str | bytes) -> None:
        try:
            message = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise UsageError(f"a message must be one JSON object in a text frame; got {short(text)}")
        kind = message.pop("type", None)
        if kind == "ping":
            await self._tell(client, "pong", {})
        elif kind == "unsubscribe":
            client.live = False
            await self._tell(client, "unsubscribed", {})
        elif kind == "subscribe":
            if unknown := set(message) - {*FIELDS, "since"}:
                raise UsageError(f"subscribe has no {short(min(unknown))}; it has {', '.join(FIELDS)} and since")
            since = _place(message.get("since"))
            wanted = Filter.parse(message)
            client.live, client.filter = False, wanted
            await self._subscribe(client, since)
        else:
            raise UsageError(f"type must be subscribe, unsubscribe or ping; got {short(kind)}")

    async def _subscribe(self, client: _Client, since: tuple[str, int] | None) -> None:
        """Serve what was published after `since`, page by page, then go live.

        Live messages neither overtake a page nor repeat one: until then this client has no part in them, and between
        finding that nothing is missing and going live nothing waits.
        """
        epoch, seq = since or (self.epoch, self.seq)
        answer: dict[str, Any] | None = {} if since is None else {"recovered": True}
        while answer is not None or (epoch, seq) != (self.epoch, self.seq):
            try:
                runs = await self._missed(epoch, seq)
            except _LostError as lost:
                epoch, seq, runs = self.epoch, self.seq, []
                answer = {"recovered": False, "reason": str(lost)}
            if answer is not None:
                await self._tell(client, "subscribed", answer, (epoch, seq))
                answer = None
            for name, sent in runs:
                for start in range(0, len(sent), PAGE):
                    if (text := _message(name, sent[start : start + PAGE], client.filter)) is not None:
                        await self._send(client, text)
                epoch, seq = name, sent[-1].seq
            if not runs and epoch != self.epoch:
                epoch, seq = self.epoch, 0
        client.seq, client.live = seq, True

    async def _missed(self, epoch: str, seq: int) -> list[tuple[str, list[_Sent]]]:
        """Published signals after a place, oldest first, as (epoch, signals); the next ones, not always all of them.

        Raises _LostError where neither the ring nor the history can vouch for the place.
        """
        if (epoch, seq) > (self.epoch, self.seq):
            raise _LostError(f"signal {seq} of epoch {epoch} was not published here")
        if epoch == self.epoch and seq >= self._ring_start() - 1:
            newer = self._after(seq)
            return [(epoch, newer)] if newer else []
        if self._replay is None:
            raise _LostError(f"signal {seq} of epoch {epoch} is no longer in memory, and this server keeps no history")
        try:
            table = await asyncio.to_thread(self._replay, epoch, seq, PAGE)
        except (MystocksScanError, OSError):
            log.exception("the history of signals could not be read")
            raise _LostError("the history of signals could not be read") from None
        # What is in the history but not published yet will come live.
        signals = [s for s in from_table(table) if (s.epoch, s.seq) <= (self.epoch, self.seq)] if table else []
        if table is None or (epoch == self.epoch and not signals):
            raise _LostError(f"the history does not hold what followed signal {seq} of epoch {epoch}")
        rows = [(s.epoch, _Sent(s.seq, row := s.to_dict(), _json(row))) for s in signals]
        return [(name, [one for _, one in run]) for name, run in groupby(rows, key=lambda row: row[0])]

    async def _tell(
        self, client: _Client, kind: str, data: Mapping[str, Any], place: tuple[str, int] | None = None
    ) -> None:
        """Send a message that is not one of signals."""
        epoch, seq = place or (self.epoch, client.seq if client.live else self.seq)
        await self._send(client, _envelope(epoch, seq, kind, json.dumps(data, separators=(",", ":"))))

    async def _send(self, client: _Client, text: str) -> None:
        """Send to one client, waiting for it alone, and not for ever."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await client.connection.send(text)
        except TimeoutError:
            self._drop(client)


class _LostError(Exception):
    """A place from which the stream cannot go on without a gap."""


def _message(epoch: str, sent: Sequence[_Sent], wanted: Filter) -> str | None:
    """The message `signals`, its place that of the last one; None where none is wanted."""
    texts = [one.text for one in sent if wanted.wants(one.signal)]
    return _envelope(epoch, sent[-1].seq, "signals", f"[{','.join(texts)}]") if texts else None


def _envelope(epoch: str, seq: int, kind: str, data: str) -> str:
    """A message around `data`, which is JSON already."""
    return f'{{"v":1,"epoch":{json.dumps(epoch)},"seq":{seq},"type":"{kind}","data":{data}}}'


def _json(signal: Mapping[str, Any]) -> str:
    return json.dumps(signal, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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

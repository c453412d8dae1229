"""The stream of signals: what was published, to every subscriber, in order, without gap or duplicate.

(epoch, seq) is a place in the stream: everything up to it was sent on a connection or not wanted there. A client that
is not `live` has no part in `publish`; `subscribe` brings it up to the newest signal and makes it live.

No send to one subscriber waits for another. Live messages are written to the transport's buffer: a frame is made once
for all who want the same. Signals never conflate, so who leaves more than `max_client_bytes` of them unread is told to
go and is gone within a second of it, whether anything more is published or not; a keepalive ping would
wait behind that very buffer. A replay is sent in pages that wait for their own reader, and ends in one step without
waiting at the newest signal.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from data import metrics
from data.errors import MystocksScanError, UsageError
from data.signal import from_table
from streaming.closing import Close
from streaming.filter import Filter
from streaming.ring import Ring, Sent, Stretch

PAGE = 500
"""Signals a message of a replay holds at most."""
CHUNK = 500
"""Subscribers written to before the event loop's other tasks have a turn."""
SEND_TIMEOUT_S = 20.0
OVER_S = 0.4
"""How long a subscriber may have more than its bytes unread, where nothing is added to them."""
GOING_S = 0.4
"""How long one that was told to go has for reading that."""

Replay = Callable[[str, int, int], pa.Table | None]
"""(epoch, seq, limit) -> the signals after that place, or None where it is not known: `SignalHistory.since`."""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Client:
    """A connection, what it wants, how far in this epoch it was served, and whether it takes part in `publish`."""

    connection: ServerConnection
    filter: Filter = field(default_factory=Filter)
    seq: int = 0
    live: bool = False
    watched: bool = False
    """Whether it has too much unread, and somebody will look again."""


class Broadcast:
    """The stream and its clients.

    `epoch`: the history's. `replay` gives what the ring (the newest `ring` signals, in memory) no longer holds.
    `clients` holds the connections, live or not: who opens and closes them adds and discards. `dropped` counts who was
    cut off.
    """

    def __init__(self, *, epoch: str, replay: Replay | None, ring: int, max_client_bytes: int) -> None:
        self.epoch, self.seq = epoch, 0
        self.dropped = 0
        self.clients: set[Client] = set()
        self._replay = replay
        self._ring = Ring(ring)
        self._max_client_bytes = max_client_bytes

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
        self._ring.add(signals)
        self.seq = signals[-1]["seq"]
        groups: dict[Filter, list[Client]] = {}
        for client in self.clients:
            groups.setdefault(client.filter, []).append(client)
        stretches: dict[int, Stretch] = {}
        n_seen = n_sent = 0
        try:
            for wanted, clients in groups.items():
                frames: dict[tuple[int, int], bytes | None] = {}
                for client in clients:
                    if n_seen and n_seen % CHUNK == 0:
                        await asyncio.sleep(0)
                    n_seen += 1
                    if client.live and client.seq < self.seq and client.filter == wanted:
                        n_sent += self._serve(client, frames, stretches)
        finally:
            metrics.ws_messages.inc(n_sent)

    def begin(self, epoch: str, seq: int = 0) -> None:
        """Go on behind signal `seq` of another epoch, as where another process writes the history and has restarted.

        Whoever lacks something in between is cut off, and resumes.
        """
        for client in list(self.clients):
            if client.live and (seq or client.seq < self.seq):
                self._evict(client, Close.GAP, "gap")
            elif client.live:
                client.seq = 0
        self.epoch, self.seq = epoch, seq
        self._ring.clear()

    async def subscribe(self, client: Client, wanted: Filter, since: tuple[str, int] | None) -> None:
        """Serve what was published after `since`, page by page, then go live.

        Live messages neither overtake a page nor repeat one: until then this client has no part in them, and between
        finding that nothing is missing and going live nothing waits.
        """
        epoch, seq = since or (self.epoch, self.seq)
        client.live, client.filter = False, wanted
        answer: dict[str, Any] | None = {} if since is None else {"recovered": True}
        while answer is not None or (epoch, seq) != (self.epoch, self.seq):
            try:
                runs = await self._missed(epoch, seq)
            except _LostError as lost:
                epoch, seq, runs = self.epoch, self.seq, []
                answer = {"recovered": False, "reason": str(lost)}
            if answer is not None:
                if since is not None:
                    metrics.ws_recoveries.labels(str(answer["recovered"]).lower()).inc()
                await self.tell(client, "subscribed", answer, (epoch, seq))
                answer = None
            for name, sent in runs:
                for start in range(0, len(sent), PAGE):
                    page = Stretch(sent[start : start + PAGE])
                    if (text := _message(name, page, client.filter)) is not None:
                        await self._send(client, text)
                epoch, seq = name, sent[-1].seq
            if not runs and epoch != self.epoch:
                epoch, seq = self.epoch, 0
        client.seq, client.live = seq, True

    async def tell(
        self, client: Client, kind: str, data: Mapping[str, Any], place: tuple[str, int] | None = None
    ) -> None:
        """Send one client a message that is not one of signals, at the place it has reached."""
        epoch, seq = place or (self.epoch, client.seq if client.live else self.seq)
        await self._send(client, _envelope(epoch, seq, kind, json.dumps(data, separators=(",", ":")).encode()))

    def unread_bytes(self) -> int:
        """The most that one subscriber has been sent and its connection has not taken."""
        return max((client.connection.transport.get_write_buffer_size() for client in self.clients), default=0)

    def _serve(
        self, client: Client, frames: dict[tuple[int, int], bytes | None], stretches: dict[int, Stretch]
    ) -> bool:
        """Write to a live client what it lacks, if anything; never waits. `frames` (of its filter) and `stretches`
        are made once for all."""
        transport = client.connection.transport
        if client.seq < self._before_ring():
            self._evict(client, Close.GAP, "gap")
            return False
        if transport.get_write_buffer_size() > self._max_client_bytes:
            self._evict(client, Close.SLOW, "slow")
            return False
        between = client.seq, self.seq
        if between not in frames:
            stretch = stretches.get(client.seq) or self._ring.after(client.seq)
            assert stretch is not None
            stretches[client.seq] = stretch
            message = _message(self.epoch, stretch, client.filter)
            frames[between] = None if message is None else Frame(Opcode.TEXT, message).serialize(mask=False)
        client.seq = self.seq
        if (frame := frames[between]) is None or client.connection.state is not State.OPEN:
            return False
        transport.write(frame)  # what the connection's own `send` would write, without making it anew for each
        if not client.watched and transport.get_write_buffer_size() > self._max_client_bytes:
            client.watched = True
            asyncio.get_running_loop().call_later(OVER_S, self._look, client)
        return True

    def _look(self, client: Client) -> None:
        client.watched = False
        if client.live and client.connection.transport.get_write_buffer_size() > self._max_client_bytes:
            self._evict(client, Close.SLOW, "slow")

    def _before_ring(self) -> int:
        """The place from which on the ring has everything."""
        return self.seq if self._ring.first is None else self._ring.first - 1

    async def _missed(self, epoch: str, seq: int) -> list[tuple[str, Sequence[Sent]]]:
        """Published signals after a place, oldest first, as (epoch, signals); the next ones, not always all of them.

        Raises _LostError where neither the ring nor the history can vouch for the place.
        """
        if (epoch, seq) > (self.epoch, self.seq):
            raise _LostError(f"signal {seq} of epoch {epoch} was not published here")
        if epoch == self.epoch and seq >= self._before_ring():
            newer = self._ring.after(seq)
            return [(epoch, newer.sent)] if newer is not None else []
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
        rows = [(s.epoch, Sent.of(s.to_dict())) for s in signals]
        return [(name, [one for _, one in run]) for name, run in groupby(rows, key=lambda row: row[0])]

    async def _send(self, client: Client, text: bytes) -> None:
        """Send to one client, waiting for it alone, and not for ever."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await client.connection.send(text, text=True)
                metrics.ws_messages.inc()
        except TimeoutError:
            self._evict(client, Close.SLOW, "slow")

    def _evict(self, client: Client, code: Close, reason: str) -> None:
        """Tell a client to go, behind what it has not read, and cut it off soon."""
        client.live = False
        self.dropped += 1
        metrics.ws_evicted.labels(reason).inc()
        connection = client.connection
        unread = connection.transport.get_write_buffer_size()
        log.warning("cut off %s: %s, %d bytes unread", connection.remote_address, reason, unread)
        if connection.state is State.OPEN:
            connection.protocol.send_close(code, reason)
            for data in connection.protocol.data_to_send():
                connection.transport.write(data)
        asyncio.get_running_loop().call_later(GOING_S, _cut, connection)


def _cut(connection: ServerConnection) -> None:
    """End a connection with all that is still to be sent on it, in this process and in the system."""
    with suppress(OSError):  # it is closed already
        reset = struct.pack("ii", 1, 0)
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    connection.transport.abort()


class _LostError(Exception):
    """A place from which the stream cannot go on without a gap."""


def _message(epoch: str, stretch: Stretch, wanted: Filter) -> bytes | None:
    """The message `signals`, its place that of the stretch's last one; None where none is wanted."""
    texts = stretch.wanted(wanted)
    return _envelope(epoch, stretch.last, "signals", b"[%b]" % b",".join(texts)) if texts else None


def _envelope(epoch: str, seq: int, kind: str, data: bytes) -> bytes:
    """A message around `data`, which is JSON already."""
    return b'{"v":1,"epoch":%b,"seq":%d,"type":"%b","data":%b}' % (json.dumps(epoch).encode(), seq, kind.encode(), data)

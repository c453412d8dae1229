"""The stream of signals: what was published, to every subscriber, in order, without gap or duplicate.

(epoch, seq) is a place in the stream: everything up to it was sent on a connection or not wanted there. A client that
is not `live` has no part in `publish`; `subscribe` brings it up to the newest signal and makes it live.

No send to one subscriber waits for another. Live messages are written to the transport's buffer, and who leaves more
than `max_client_bytes` of them unread is cut off (a keepalive ping would wait behind that very buffer). A replay is
sent in pages that wait for their own reader, and ends in one step without waiting at the newest signal.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
from websockets.asyncio.server import ServerConnection, broadcast

from data.errors import MystocksScanError, UsageError
from data.signal import from_table
from streaming.filter import Filter

PAGE = 500
"""Signals a message of a replay holds at most."""
CHUNK = 500
"""Subscribers written to before the event loop's other tasks have a turn."""
SEND_TIMEOUT_S = 20.0

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
class Client:
    """A connection, what it wants, how far in this epoch it was served, and whether it takes part in `publish`."""

    connection: ServerConnection
    filter: Filter = field(default_factory=Filter)
    seq: int = 0
    live: bool = False


class Broadcast:
    """The stream and its clients.

    `epoch`: the history's. `replay` gives what the ring (the newest `ring` signals, in memory) no longer holds.
    `clients` holds the connections, live or not: who opens and closes them adds and discards. `dropped` counts who was
    cut off for not reading.
    """

    def __init__(self, *, epoch: str, replay: Replay | None, ring: int, max_client_bytes: int) -> None:
        self.epoch, self.seq = epoch, 0
        self.dropped = 0
        self.clients: set[Client] = set()
        self._replay = replay
        self._ring: deque[_Sent] = deque()
        self._ring_size = ring
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
        self._ring.extend([_Sent(signal["seq"], signal, _json(signal)) for signal in signals])
        self.seq = signals[-1]["seq"]
        while len(self._ring) > max(self._ring_size, len(signals)):
            self._ring.popleft()
        clients = list(self.clients)
        texts: dict[tuple[Filter, int, int], str | None] = {}
        for start in range(0, len(clients), CHUNK):
            if start:
                await asyncio.sleep(0)
            self._serve_live(clients[start : start + CHUNK], texts)

    def begin(self, epoch: str, seq: int = 0) -> None:
        """Go on behind signal `seq` of another epoch, as where another process writes the history and has restarted.

        Whoever lacks something in between is cut off, and resumes.
        """
        for client in list(self.clients):
            if client.live and (seq or client.seq < self.seq):
                self._drop(client)
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
                await self.tell(client, "subscribed", answer, (epoch, seq))
                answer = None
            for name, sent in runs:
                for start in range(0, len(sent), PAGE):
                    if (text := _message(name, sent[start : start + PAGE], client.filter)) is not None:
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
        await self._send(client, _envelope(epoch, seq, kind, json.dumps(data, separators=(",", ":"))))

    def _serve_live(self, clients: Iterable[Client], texts: dict[tuple[Filter, int, int], str | None]) -> None:
        """Write to each live client what it lacks, in one message for all who want the same; never waits."""
        groups: dict[tuple[Filter, int, int], list[Client]] = {}
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

    async def _send(self, client: Client, text: str) -> None:
        """Send to one client, waiting for it alone, and not for ever."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await client.connection.send(text)
        except TimeoutError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        client.live = False
        self.dropped += 1
        log.warning("cut off %s, which does not read its signals", client.connection.remote_address)
        client.connection.transport.abort()


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

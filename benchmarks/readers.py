"""Many subscribers of /ws/signals in one process, as cheap as Python allows: for `benchmarks.subscribers`.

Each is a plain socket, read by one epoll loop into one buffer. Of a message only the first 4 KiB are looked at, for its
sequence number and its first signal's stamps, and those once a message, not once a subscriber; the rest is counted and
thrown away. Two times are taken of each: when the kernel had its last byte (SO_TIMESTAMPNS), which owes nothing to this
process, and when it was read here.
"""

import json
import os
import re
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

SO_TIMESTAMPNS = 35
HEAD = 4096
STAMPS = ("quote_ns", "received_ns", "bar_closed_ns", "scanned_ns", "published_ns")
_SEQ = re.compile(rb'"seq":(\d+),"type":"signals"')
_STAMPS = re.compile(b",".join(rb'"%s":(\d+)' % name.encode() for name in STAMPS))
_KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = "GET /ws/signals HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + _KEY + "\r\n"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@dataclass
class Read:
    """What a process's subscribers read: a row a message, `who` counting within the process; times in UTC ns."""

    who: list[int] = field(default_factory=list)
    seq: list[int] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    read_ns: list[int] = field(default_factory=list)
    stamps: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    n_bytes: int = 0
    cpu_s: float = 0.0


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame as clients send it; the mask is zero."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else struct.pack("!BH", 0x80 | 126, length)
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


def connect(port: int, wanted: Mapping[str, Any], receive_bytes: int | None = None) -> socket.socket:
    """A subscriber that has been told `subscribed`; nothing that came behind it is read yet."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", port))
    sock.sendall(UPGRADE.format(f"127.0.0.1:{port}").encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        if not (byte := sock.recv(1)):
            raise ConnectionError(f"the server refuses more subscribers: {answer[:200]!r}")
        answer += byte
    if not answer.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"the server refuses more subscribers: {answer[:200]!r}")
    _frame(sock)  # hello
    sock.sendall(masked(TEXT, json.dumps({"type": "subscribe", **wanted}).encode()))
    said = json.loads(_frame(sock))
    if said["type"] != "subscribed":
        raise ConnectionError(f"the server refuses to subscribe: {said}")
    return sock


def _exactly(sock: socket.socket, n: int) -> bytes:
    found = b""
    while len(found) < n:
        found += (more := sock.recv(n - len(found)))
        if not more:
            raise ConnectionError("the server closed the connection")
    return found


def _frame(sock: socket.socket) -> bytes:
    size = _exactly(sock, 2)[1]
    if size == 126:
        size = struct.unpack("!H", _exactly(sock, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", _exactly(sock, 8))[0]
    return _exactly(sock, size)


def wait_for_signals(sock: socket.socket) -> None:
    """Return when the next signals have come to a subscriber."""
    while not _SEQ.search(_frame(sock), 0, 200):
        pass


class _Subscriber:
    """One socket, and where in the stream of frames it is."""

    __slots__ = ("head", "header", "left", "number", "opcode", "sock")

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number, self.sock = number, sock
        self.header, self.head = b"", b""
        self.opcode = self.left = 0

    def take(self, data: memoryview, out: Read, arrived_ns: int, read_ns: int) -> None:
        """Bytes as they come."""
        at, end = 0, len(data)
        while at < end:
            if not self.left:
                want = 2 if len(self.header) < 2 else {126: 4, 127: 10}.get(self.header[1] & 127, 2)
                take = min(want - len(self.header), end - at)
                self.header += bytes(data[at : at + take])
                at += take
                want = 2 if len(self.header) < 2 else {126: 4, 127: 10}.get(self.header[1] & 127, 2)
                if len(self.header) < want:
                    continue
                self.opcode = self.header[0] & 15
                self.left = self.header[1] if want == 2 else int.from_bytes(self.header[2:], "big")
                self.header, self.head = b"", b""
                if self.left:
                    continue
            take = min(self.left, end - at)
            if (room := HEAD - len(self.head)) > 0 and take:
                self.head += bytes(data[at : at + min(take, room)])
            at += take
            self.left -= take
            if not self.left:
                self._whole(out, arrived_ns, read_ns)

    def _whole(self, out: Read, arrived_ns: int, read_ns: int) -> None:
        if self.opcode == PING:
            self.sock.send(masked(PONG, self.head))
        elif self.opcode == CLOSE:
            out.lost.append(f"{int.from_bytes(self.head[:2], 'big')} {self.head[2:].decode()}")
        elif found := _SEQ.search(self.head, 0, 200):
            seq = int(found[1])
            out.who.append(self.number)
            out.seq.append(seq)
            out.arrived_ns.append(arrived_ns)
            out.read_ns.append(read_ns)
            if seq not in out.stamps:
                stamps = _STAMPS.search(self.head)
                assert stamps is not None, self.head
                out.stamps[seq] = tuple(map(int, stamps.groups()))


class _Readers:
    """All of a process, and what they read."""

    def __init__(self) -> None:
        self.out = Read()
        self._subscribers: dict[int, _Subscriber] = {}
        self._poll = select.epoll()
        self._buffer = memoryview(bytearray(1 << 20))

    def add(self, number: int, sock: socket.socket) -> None:
        """One more."""
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        self._subscribers[sock.fileno()] = _Subscriber(number, sock)
        self._poll.register(sock, select.EPOLLIN)

    def turn(self, timeout_s: float) -> None:
        """Read what there is; wait so long for something."""
        for fd, _ in self._poll.poll(timeout_s):
            subscriber = self._subscribers[fd]
            try:
                n, about, _, _ = subscriber.sock.recvmsg_into([self._buffer], 64)
            except BlockingIOError:
                continue
            except OSError as error:
                n, about = 0, []
                self.out.lost.append(str(error))
            read_ns = time.time_ns()
            if n == 0:
                self.out.lost.append("closed")
                self._poll.unregister(fd)
                subscriber.sock.close()
                del self._subscribers[fd]
                continue
            self.out.n_bytes += n
            seconds, ns = struct.unpack("qq", about[0][2][:16]) if about else divmod(read_ns, 10**9)
            subscriber.take(self._buffer[:n], self.out, seconds * 10**9 + ns, read_ns)


def read(port: int, wanted: Sequence[Mapping[str, Any]], control: Connection) -> None:
    """A process: subscribe all, say so, read until told to stop, hand over what was read."""
    readers = _Readers()
    for number, one in enumerate(wanted):
        readers.add(number, connect(port, one))
        readers.turn(0)  # those that are there already are sent signals, and asked whether they live
    control.send("ready")
    began = time.process_time()
    while not control.poll():
        readers.turn(0.05)
    control.recv()
    readers.out.cpu_s = time.process_time() - began
    control.send(readers.out)
    os._exit(0)  # thousands of sockets at once

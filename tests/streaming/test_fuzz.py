"""Whatever comes over a raw socket: the service lives, others miss nothing, limits hold, refusals are counted, nothing
is left behind."""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.door import Limits
from tests.streaming.attacked import (
    BINARY,
    CLOSE,
    CONT,
    LIMITS,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Attacked,
    drained,
    end_of,
    frame,
    in_pieces,
    pour,
)

MIB = 2**20


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    service = Attacked()
    yield service
    service.close()


ping = frame(TEXT, b'{"type": "ping"}')

# What is said after the handshake -> the code that ends the connection, and by what the refusal is counted.
FRAMES: dict[str, tuple[bytes, int, str]] = {
    "text that is not UTF-8": (frame(TEXT, b'{"type": "\xff\xfe"}'), 1007, "utf8"),
    "UTF-8 cut in two": (frame(TEXT, b"\xe8\xb4"), 1007, "utf8"),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007, "utf8"),
    "a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007, "utf8"),
    "a message that is too long": (frame(TEXT, b" " * (LIMITS.message_bytes + 1)), 1009, "oversize"),
    "a length of a GiB": (frame(TEXT, length=2**30), 1009, "oversize"),
    "the longest length": (frame(TEXT, length=2**63 - 1), 1009, "oversize"),
    "a length beyond the longest": (frame(TEXT, length=2**64 - 1), 1009, "oversize"),
    "fragments that are too long together": (
        frame(TEXT, b" " * 6000, fin=False) + frame(CONT, b" " * 6000, fin=False) + frame(CONT, b" " * 6000),
        1009,
        "oversize",
    ),
    "a continuation of nothing": (frame(CONT, b"{}"), 1002, "protocol"),
    "a message within a message": (frame(TEXT, b"{", fin=False) + ping, 1002, "protocol"),
    "a frame that is not masked": (frame(TEXT, b"{}", masked=False), 1002, "protocol"),
    **{f"reserved bit {bit}": (frame(TEXT, b"{}", rsv=bit), 1002, "protocol") for bit in (1, 2, 4)},
    **{f"opcode {code}": (frame(code), 1002, "protocol") for code in (3, 7, 11, 15)},
    "a ping in fragments": (frame(PING, fin=False), 1002, "protocol"),
    "a ping that is too long": (frame(PING, b"x" * 126), 1002, "protocol"),
    "a close of one byte": (frame(CLOSE, b"x"), 1002, "protocol"),
    "a close with no code there is": (frame(CLOSE, struct.pack("!H", 5)), 1002, "protocol"),
    "a close with a code that is never sent": (frame(CLOSE, struct.pack("!H", 1006)), 1002, "protocol"),
    "a flood of messages": (ping * (LIMITS.messages + 5), 4429, "rate"),
    "a flood of pings": (frame(PING) * (LIMITS.messages + 5), 4429, "rate"),
    "a flood of pongs": (frame(PONG, b"x") * (LIMITS.messages + 5), 4429, "rate"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_against_the_protocol_end_their_connection_alone(attacked: Attacked, name: str) -> None:
    said, code, reason = FRAMES[name]
    before = attacked.refused
    with attacked.upgraded() as sock:
        sock.sendall(said)
        end = end_of(drained(sock))
        assert end is not None
        assert end[0] == code
    attacked.well()
    assert attacked.refused - before == {reason: 1}


def test_a_flood_of_subscriptions_and_one_of_nonsense(attacked: Attacked) -> None:
    for text, more in ((b'{"type": "subscribe"}', 0), (b"nonsense", LIMITS.messages)):
        before = attacked.refused
        with attacked.upgraded() as sock:
            pour(sock, lambda text=text: frame(TEXT, text) * 100, 8 * MIB)  # type: ignore[misc]
            drained(sock)
        attacked.well()
        counted = attacked.refused - before
        assert counted["rate"] == 1
        assert counted["message"] <= more + 5


@pytest.mark.parametrize("payload", [b"", b" "])
def test_a_message_of_endless_fragments_ends(attacked: Attacked, payload: bytes) -> None:
    before = attacked.refused
    with attacked.upgraded() as sock:
        sock.sendall(frame(TEXT, payload, fin=False))
        assert pour(sock, lambda: frame(CONT, payload, fin=False) * 1000, 64 * MIB) < 16 * MIB
    attacked.well()
    assert attacked.refused - before == {"rate": 1}


def test_a_bad_message_is_counted_and_the_connection_lives(attacked: Attacked) -> None:
    before = attacked.refused
    with attacked.upgraded() as sock:
        for said in (frame(BINARY, b"\x00"), frame(TEXT, b"[" * 9000), frame(TEXT, b'{"type": "\\ud800"}')):
            sock.sendall(said)
            assert b'"type":"error"' in sock.recv(4096)
        sock.sendall(frame(TEXT, b'{"type":', fin=False) + frame(PING, b"x") + frame(CONT, b'"ping"}'))
        got = b""
        while b'"type":"pong"' not in got:
            got += sock.recv(4096)
        assert b"\x8a\x01x" in got
    attacked.well()
    assert attacked.refused - before == {"message": 3}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("said", [b"", ping[:1], ping[:-1], frame(TEXT, b"{", fin=False)])
def test_who_leaves_in_the_middle_leaves_nothing(attacked: Attacked, said: bytes, reset: bool) -> None:
    with attacked.upgraded() as sock:
        sock.sendall(said)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    attacked.well()


def test_what_comes_with_the_handshake_is_heard_after_it(attacked: Attacked) -> None:
    with attacked.raw() as sock:
        sock.sendall(UPGRADE.encode() + ping)
        got = b""
        while b'"pong"' not in got:
            got += sock.recv(4096)
        sock.sendall(frame(CLOSE, struct.pack("!H", 1000)))
        got += drained(sock)
    assert got.startswith(b"HTTP/1.1 101 ")
    assert got.index(b'"hello"') < got.index(b'"pong"')
    assert end_of(got) == (1000, "")
    attacked.well()


# The handshake

HEAD = "GET /echo HTTP/1.1\r\nHost: localhost\r\n"

# What is said in place of a handshake -> the status of the answer, 0 where there is none, and what is counted.
REQUESTS: dict[str, tuple[str | bytes, int, str | None]] = {
    "nothing but line ends": ("\r\n\r\n", 0, "malformed"),
    "bytes": (bytes(range(256)) + b"\r\n\r\n", 0, "malformed"),
    "a greeting of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\n", 0, "malformed"),
    "frames": (ping * 3 + b"\r\n", 0, "malformed"),
    "another protocol": ("EHLO localhost\r\n", 0, "malformed"),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, "malformed"),
    "HTTP/1.0": ("GET /echo?a=1 HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, None),
    "HTTP/1.0 for a WebSocket": (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 505, "malformed"),
    "no Host": ("GET /echo HTTP/1.1\r\n\r\n", 421, "host"),
    "another Host": ("GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "host"),
    "two Hosts": (f"{HEAD}Host: localhost\r\n\r\n", 400, "malformed"),
    "another origin": (UPGRADE.replace("Host", "Origin: http://evil.example\r\nHost"), 403, "origin"),
    "a line of the other system": (HEAD.replace("\r\n", "\n") + "\n", 0, "malformed"),
    "a header without a colon": (f"{HEAD}X\r\n\r\n", 0, "malformed"),
    "a header that goes on": (f"{HEAD}X: a\r\n b\r\n\r\n", 0, "malformed"),
    "a NUL": (f"{HEAD}X: \0\r\n\r\n", 0, "malformed"),
    "a path that is not ASCII": ("GET /贵州 HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, "malformed"),
    "two spaces": ("GET  /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, "malformed"),
    "a long path": (f"GET /{'x' * 9000} HTTP/1.1\r\n", 414, "request_size"),
    "a long header": (f"{HEAD}X: {'x' * 9000}\r\n", 431, "request_size"),
    "many headers": (HEAD + "X: x\r\n" * 130 + "\r\n", 431, "request_size"),
    "much of a request": (HEAD + ("X: " + "x" * 5000 + "\r\n") * 4 + "\r\n", 431, "request_size"),
    "POST": (HEAD.replace("GET", "POST") + "Content-Length: 0\r\n\r\n", 405, None),
    "POST with a body": (HEAD.replace("GET", "POST") + "Content-Length: 9\r\n\r\nx=1&y=222", 0, "malformed"),
    "a body in chunks": (HEAD + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "malformed"),
    "a method of one's own": (HEAD.replace("GET", "SCAN") + "\r\n", 405, None),
    "a WebSocket by POST": (UPGRADE.replace("GET", "POST"), 405, "malformed"),
    "no key": (UPGRADE.replace("Sec-WebSocket-Key", "X"), 400, "malformed"),
    "a short key": (UPGRADE.replace("AAAA", "AA"), 400, "malformed"),
    "a version of before": (UPGRADE.replace("Version: 13", "Version: 8"), 400, "malformed"),
    "no upgrade": (UPGRADE.replace("Upgrade: websocket", "X: x"), 426, None),
    "an upgrade to something else": (UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c"), 426, None),
    "a WebSocket elsewhere": (UPGRADE.replace("/ws/signals", "/echo"), 200, None),
    "a full address": ("GET http://localhost/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, None),
    **{
        path: (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, None)
        for path in (
            "/../../etc/passwd",
            "/echo/../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
            "/%65cho",
            "//echo",
            "/echo%00",
            "/echo;x",
            "/..\\..\\x",
            "*",
            "/ws/signals/",
        )
    },
    "a query that is not UTF-8": ("GET /echo?a=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, None),
    "many requests at once": (f"{HEAD}\r\n" * 100, 200, None),
    "a request and a body that nobody asked for": (f"{HEAD}\r\n" + "x" * 5000, 200, None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_that_are_none_are_refused_and_the_others_answered_once(attacked: Attacked, name: str) -> None:
    said, status, reason = REQUESTS[name]
    before = attacked.refused
    with attacked.raw() as sock:
        sock.sendall(said if isinstance(said, bytes) else said.encode())
        answer = drained(sock)
    assert answer.count(b"HTTP/1.1 ") == (status > 0)
    assert status == 0 or answer.startswith(f"HTTP/1.1 {status} ".encode())
    attacked.well()
    assert attacked.refused - before == ({reason: 1} if reason else {})


def test_who_has_said_all_and_listens_is_answered(attacked: Attacked) -> None:
    with attacked.raw() as sock:
        sock.sendall(f"{HEAD}\r\n".encode())
        sock.shutdown(socket.SHUT_WR)
        assert b"200 OK" in drained(sock)
    attacked.well()


def test_a_request_without_end_ends(attacked: Attacked) -> None:
    before = attacked.refused
    for line in (b"x", b"X: x\r\n"):
        with attacked.raw() as sock:
            sock.sendall(HEAD.encode())
            assert pour(sock, lambda line=line: line * 10_000, 64 * MIB) < 16 * MIB  # type: ignore[misc]
    attacked.well()
    assert attacked.refused - before == {"request_size": 2}


def test_a_handshake_a_byte_at_a_time_has_its_time(attacked: Attacked) -> None:
    before = attacked.refused
    with attacked.raw() as sock:
        sock.settimeout(0.02)
        got = b""
        for byte in UPGRADE.encode() * 100:
            try:
                sock.sendall(bytes([byte]))
                got += sock.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if b"408 " in got:
                break
    assert got.startswith(b"HTTP/1.1 408 ")
    attacked.well()
    assert attacked.refused - before == {"handshake": 1}


def test_500_half_open_connections_keep_nobody_out(attacked: Attacked) -> None:
    before = attacked.refused
    socks = []
    for number in range(500):
        socks.append(attacked.raw())
        with suppress(ConnectionError):  # this one is out already
            socks[-1].sendall(HEAD.encode()[: number % 40])
        assert attacked.server.door.half_open <= LIMITS.half_open
    with attacked.upgraded() as sock:  # somebody who means it
        sock.sendall(ping)
        assert b'"pong"' in sock.recv(4096)
    for sock in socks:
        drained(sock)
        sock.close()
    attacked.well()
    counted = attacked.refused - before
    assert counted["half_open"] > 0
    assert counted["half_open"] + counted["handshake"] == counted.total() == 500


def test_no_more_connections_than_may_be() -> None:
    attacked = Attacked(Limits(connections=20))
    socks = [attacked.upgraded() for _ in range(19)]
    for _ in range(20):
        with attacked.raw() as sock:
            assert drained(sock) == b""
    assert len(attacked.server.door) == 20
    for sock in socks:
        sock.close()
    attacked.well()
    assert attacked.refused == {"connections": 20}
    attacked.close()


# Whatever else

frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, CONT, BINARY, CLOSE, PING, PONG, 3, 11]),
    st.binary(max_size=200) | st.sampled_from([b'{"type": "ping"}', b'{"type": "subscribe"}', b" " * 20_000]),
    fin=st.booleans() | st.just(True),
    rsv=st.just(0) | st.integers(0, 7),
    masked=st.just(True) | st.booleans(),
    length=st.none() | st.integers(0, 2**64 - 1),
)
lines = st.lists(
    st.sampled_from([*UPGRADE.encode().splitlines(keepends=True), b"GET / HTTP/1.1\r\n", b"Origin: x\r\n", b"\r\n"])
    | st.binary(max_size=80),
    max_size=12,
).map(b"".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(frames | st.binary(max_size=50), max_size=12).map(b"".join), st.randoms(use_true_random=False))
def test_whatever_follows_the_handshake(attacked: Attacked, said: bytes, rng: random.Random) -> None:
    with attacked.upgraded() as sock:
        in_pieces(sock, said, rng)
    attacked.well()


@settings(max_examples=40, deadline=None)
@given(lines | st.binary(max_size=300), st.randoms(use_true_random=False))
def test_whatever_comes_in_place_of_a_handshake(attacked: Attacked, said: bytes, rng: random.Random) -> None:
    with attacked.raw() as sock:
        in_pieces(sock, said, rng)
    attacked.well()

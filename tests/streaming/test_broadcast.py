"""The server of /ws/signals, over real sockets."""

import asyncio
import json
import random
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from data.errors import SettingsError, StoreError, UsageError
from data.history import SignalHistory
from data.signal import Signal
from streaming import broadcast
from streaming.server import SignalServer

MINUTE = 60 * 10**9
END = 1_748_223_000 * 10**9
EPOCH = "20250526T013000123456abcd"

Message = dict[str, Any]


def fired(bar: int, count: int = 1, **more: Any) -> list[Signal]:
    """A scan's signals, not yet numbered."""
    one = Signal(
        "macd", "v1", "600000.SH", "1m", END + bar * MINUTE, "BUY", 0.8, 10.5, "talib", END, {"a": 1.5}, name="浦发"
    )
    return [replace(one, symbol=f"{600_000 + stock}.SH", **more) for stock in range(count)]


def numbered(first: int, *scans: list[Signal]) -> list[Message]:
    """One scan's signals as the history would have numbered them."""
    signals = [signal for scan in scans for signal in scan]
    return [replace(signal, epoch=EPOCH, seq=seq).to_dict() for seq, signal in enumerate(signals, first)]


@asynccontextmanager
async def serving(epoch: str = EPOCH, **more: Any) -> AsyncIterator[SignalServer]:
    server = SignalServer("127.0.0.1", 0, epoch=epoch, **more)
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(60):
            await server.stop()


async def said(client: ClientConnection) -> Message:
    async with asyncio.timeout(30):
        message: Message = json.loads(await client.recv())
    return message


async def ask(client: ClientConnection, **message: Any) -> Message:
    await client.send(json.dumps(message))
    return await said(client)


@asynccontextmanager
async def subscribed(server: SignalServer, **wanted: Any) -> AsyncIterator[ClientConnection]:
    async with connect(server.url, proxy=None, max_size=None) as client:
        assert (await said(client))["type"] == "hello"
        assert (await ask(client, type="subscribe", **wanted))["type"] == "subscribed"
        yield client


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_scan_is_one_message_and_its_place_is_that_of_its_last_signal() -> None:
    async def test() -> None:
        async with serving(hello=lambda: {"feed": "sim"}) as server, connect(server.url, proxy=None) as client:
            hello = await said(client)
            assert {k: hello[k] for k in ("v", "epoch", "seq", "type")} == {
                "v": 1,
                "epoch": EPOCH,
                "seq": 0,
                "type": "hello",
            }
            assert hello["data"]["feed"] == "sim"
            assert hello["data"]["version"]
            await server.publish(numbered(1, fired(0)))  # before it subscribed
            answer = await ask(client, type="subscribe")
            assert (answer["type"], answer["seq"], answer["data"]) == ("subscribed", 1, {})
            batch = numbered(2, fired(1, 3))
            await server.publish(batch)
            await server.publish([])
            message = await said(client)
            assert message == {"v": 1, "epoch": EPOCH, "seq": 4, "type": "signals", "data": batch}
            assert [signal["seq"] for signal in message["data"]] == [2, 3, 4]
            assert (await ask(client, type="ping"))["type"] == "pong"
            assert (await ask(client, type="unsubscribe"))["type"] == "unsubscribed"
            await server.publish(numbered(5, fired(2)))
            pong = await ask(client, type="ping")
            assert (pong["type"], pong["seq"]) == ("pong", 5)

    run(test())


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"symbols": ["sh600000"]}, [1, 3, 4]),
        ({"symbols": ["600001", "000001.SZ"]}, [2]),
        ({"strategies": ["rsi", "boll"]}, [3]),
        ({"actions": ["SELL"]}, [4]),
        ({"min_confidence": 0.8}, [1, 2, 3]),
        ({"symbols": ["600000.SH"], "min_confidence": 0.8, "actions": ["BUY", "SELL"], "strategies": ["macd"]}, [1]),
        ({"symbols": ["600005.SH"]}, []),
        ({"symbols": None, "min_confidence": 1}, []),
    ],
)
@pytest.mark.parametrize("replayed", [False, True])
def test_filters_live_and_in_a_replay(wanted: Message, numbers: list[int], replayed: bool) -> None:
    batch = numbered(1, fired(0, 2), fired(0, strategy="rsi"), fired(0, action="SELL", confidence=0.5))

    async def test() -> None:
        async with serving() as server:
            if replayed:
                await server.publish(batch)
                wanted["since"] = {"epoch": EPOCH, "seq": 0}
            async with subscribed(server, **wanted) as client:
                if not replayed:
                    await server.publish(batch)
                await client.send('{"type": "ping"}')
                got = []
                while (message := await said(client))["type"] == "signals":
                    got += [signal["seq"] for signal in message["data"]]
                assert got == numbers
                assert (message["type"], message["seq"]) == ("pong", 4)

    run(test())


def test_subscribing_again_takes_the_place_of_the_first() -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server, symbols=["600000.SH"]) as client:
            await server.publish(numbered(1, fired(0, 2)))
            assert [s["seq"] for s in (await said(client))["data"]] == [1]
            assert (await ask(client, type="subscribe", symbols=["600001.SH"]))["seq"] == 2
            await server.publish(numbered(3, fired(1, 2)))
            assert [s["seq"] for s in (await said(client))["data"]] == [4]

    run(test())


BAD = [
    ("{", "JSON"),
    ("[]", "JSON"),
    ("null", "JSON"),
    ("[" * 16_000, "JSON"),
    (b'{"type": "ping"}', "text frame"),
    ("{}", "None"),
    ('{"type": ["ping"]}', "type"),
    ('{"type": "quote"}', "quote"),
    ('{"type": "subscribe", "symbol": ["600519"]}', "'symbol'"),
    ('{"type": "subscribe", "symbols": "600519"}', "symbols"),
    ('{"type": "subscribe", "symbols": []}', "not empty"),
    ('{"type": "subscribe", "symbols": [600519]}', "600519"),
    ('{"type": "subscribe", "symbols": ["999"]}', "999"),
    ('{"type": "subscribe", "actions": ["HOLD"]}', "HOLD"),
    ('{"type": "subscribe", "min_confidence": "high"}', "high"),
    ('{"type": "subscribe", "min_confidence": true}', "True"),
    ('{"type": "subscribe", "min_confidence": NaN}', "nan"),
    ('{"type": "subscribe", "min_confidence": 80}', "80"),
    ('{"type": "subscribe", "since": 5}', "since"),
    ('{"type": "subscribe", "since": {"epoch": "x", "seq": true}}', "since"),
    ('{"type": "subscribe", "since": {"epoch": "x", "seq": -1}}', "since"),
    ('{"type": "subscribe", "since": {"epoch": "\\ud800"}}', "since"),
]


def test_a_bad_message_is_answered_with_its_reason_and_changes_nothing() -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server, symbols=["600001.SH"]) as client:
            for number, (text, words) in enumerate(BAD, 1):
                await client.send(text)
                answer = await said(client)
                assert answer["type"] == "error"
                assert words in answer["data"]["reason"]
                assert len(answer["data"]["reason"]) < 300
                await server.publish(numbered(2 * number - 1, fired(number, 2)))
                assert [s["seq"] for s in (await said(client))["data"]] == [2 * number]

    run(test())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
subscribes = st.fixed_dictionaries(
    {"type": st.just("subscribe")},
    optional={
        "symbols": json_values | st.lists(st.text(max_size=9)),
        "strategies": json_values,
        "min_confidence": json_values,
        "since": json_values
        | st.fixed_dictionaries({"epoch": st.text() | st.just(EPOCH), "seq": st.integers(0) | st.just(10**30)}),
    },
)
messages = st.text() | st.binary(max_size=64) | json_values.map(json.dumps) | subscribes.map(json.dumps)


@settings(max_examples=40, deadline=None)
@given(st.lists(messages, min_size=1, max_size=12))
def test_whatever_a_client_says_it_is_answered_and_others_are_served(said_by_client: list[str | bytes]) -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server) as other, subscribed(server) as client:
            for text in said_by_client:
                with suppress(UnicodeEncodeError):  # a lone surrogate cannot be sent at all
                    await client.send(text)
                    assert (await said(client))["type"] in ("error", "subscribed")
            assert (await ask(client, type="ping"))["type"] == "pong"
            await server.publish(numbered(1, fired(0)))
            assert (await said(other))["seq"] == 1

    run(test())


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_whatever_bytes_arrive_others_are_served(noise: bytes, after_the_handshake: bool) -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server) as other:
            if after_the_handshake:
                async with connect(server.url, proxy=None, close_timeout=1) as client:
                    client.transport.write(noise)
                    client.transport.abort()
            else:
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(noise)
                writer.close()
                await writer.wait_closed()
            await server.publish(numbered(1, fired(0)))
            assert (await said(other))["seq"] == 1

    run(test())


def test_a_message_that_is_too_long_ends_the_connection_and_no_other() -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server) as other, subscribed(server) as client:
            await client.send(json.dumps({"type": "ping", "x": "x" * 16 * 1024}))
            with pytest.raises(ConnectionClosedError) as closed:
                await said(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
            await server.publish(numbered(1, fired(0)))
            assert (await said(other))["seq"] == 1
            assert server.clients == 1

    run(test())


def test_a_port_that_is_taken_is_named_with_the_remedy() -> None:
    async def test() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            server = SignalServer("127.0.0.1", other.getsockname()[1], epoch=EPOCH)
            with pytest.raises(SettingsError, match=rf"{other.getsockname()[1]}.*--port"):
                await server.start()
            await server.stop()

    run(test())


def test_what_does_not_follow_is_not_published() -> None:
    async def test() -> None:
        async with serving() as server, subscribed(server) as client:
            for wrong in (numbered(2, fired(0)), [s | {"epoch": "x"} for s in numbered(1, fired(0))]):
                with pytest.raises(UsageError, match="number 1 of epoch"):
                    await server.publish(wrong)
            await server.publish(numbered(1, fired(0)))
            assert (await said(client))["seq"] == 1

    run(test())


@asynccontextmanager
async def deaf(server: SignalServer, **wanted: Any) -> AsyncIterator[socket.socket]:
    """A subscriber that never reads what it is sent."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        upgrade = (
            f"GET /ws/signals HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n"
        )
        text = json.dumps({"type": "subscribe", **wanted}).encode()
        await loop.sock_sendall(sock, upgrade.encode() + bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        yield sock


def test_who_does_not_read_is_cut_off_and_the_others_miss_nothing() -> None:
    async def test() -> None:
        async with serving(max_client_bytes=100_000) as server, subscribed(server) as client, deaf(server):
            while not all(one.live for one in server._clients) or server.clients < 2:
                await asyncio.sleep(0)
            got, sent = [], 0
            batch = fired(0, 200)
            for _ in range(500):
                await server.publish(numbered(sent + 1, batch))
                sent += len(batch)
                got += [signal["seq"] for signal in (await said(client))["data"]]
                if server.dropped:
                    break
            assert server.dropped == 1
            assert got == list(range(1, sent + 1))
            while server.clients > 1:
                await asyncio.sleep(0)
            await server.publish(numbered(sent + 1, fired(1)))
            assert (await said(client))["seq"] == sent + 1
            assert server.dropped == 1

    run(test())


def test_one_big_scan_does_not_cut_off_who_reads() -> None:
    async def test() -> None:
        async with serving(max_client_bytes=1000, ring=10) as server, subscribed(server) as client:
            await server.publish(numbered(1, fired(0, 5000)))
            assert len((await said(client))["data"]) == 5000
            assert server.dropped == 0

    run(test())


def test_a_replay_that_nobody_reads_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "SEND_TIMEOUT_S", 0.2)

    async def test() -> None:
        async with serving(ring=50_000) as server:
            await server.publish(numbered(1, fired(0, 30_000)))
            async with deaf(server, since={"epoch": EPOCH, "seq": 0}):
                while not server.dropped:
                    await asyncio.sleep(0.01)
                while server.clients:
                    await asyncio.sleep(0.01)

    run(test())


def test_stopping_waits_for_nobody_who_does_not_read() -> None:
    async def test() -> None:
        async with serving(max_client_bytes=10**9, ring=50_000) as server, subscribed(server) as client, deaf(server):
            while not all(one.live for one in server._clients) or server.clients < 2:
                await asyncio.sleep(0)
            await server.publish(numbered(1, fired(0, 30_000)))
            await said(client)
            _, silent = await asyncio.open_connection("127.0.0.1", server.port)
            async with asyncio.timeout(8):  # its own time-outs, of opening and of keeping alive, are longer
                await server.stop()
                await server.stop()
            silent.close()
            with pytest.raises(ConnectionClosed) as closed:
                await said(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001

    run(test())


def test_a_publish_that_is_cancelled_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "CHUNK", 1)

    async def test() -> None:
        async with (
            serving() as server,
            subscribed(server) as one,
            subscribed(server) as two,
            subscribed(server) as three,
        ):
            half = asyncio.create_task(server.publish(numbered(1, fired(0))))
            await asyncio.sleep(0)
            half.cancel()
            with pytest.raises(asyncio.CancelledError):
                await half
            await asyncio.gather(server.publish(numbered(2, fired(1))), server.publish(numbered(3, fired(2))))
            for client in (one, two, three):
                got: list[int] = []
                while len(got) < 3:
                    got += [signal["seq"] for signal in (await said(client))["data"]]
                assert got == [1, 2, 3]

    run(test())


# Resuming


async def collect(client: ClientConnection, upto: tuple[str, int]) -> list[tuple[str, int]]:
    """The signals that come, until one has that place. Each message's place is that of the last signal of its scan."""
    got: list[tuple[str, int]] = []
    while not got or got[-1] < upto:
        message = await said(client)
        got += [(signal["epoch"], signal["seq"]) for signal in message["data"]]
        assert (message["epoch"], message["seq"]) == got[-1]
    return got


def numbers(epoch: str, first: int, last: int) -> list[tuple[str, int]]:
    return [(epoch, number) for number in range(first, last + 1)]


def test_resuming_from_memory_then_live() -> None:
    async def test() -> None:
        async with serving() as server:
            await server.publish(numbered(1, fired(0, 5)))
            for seen in range(6):
                async with subscribed(server, since={"epoch": EPOCH, "seq": seen}) as client:
                    last = server.seq + 1
                    await server.publish(numbered(last, fired(seen + 1)))
                    assert await collect(client, (EPOCH, last)) == numbers(EPOCH, seen + 1, last)

    run(test())


def test_resuming_across_a_restart_from_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "PAGE", 3)
    first = SignalHistory(tmp_path)
    for bar in range(4):
        first.append(fired(bar, 2))  # durable, and nobody was told
    history = SignalHistory(tmp_path)

    async def test() -> None:
        async with serving(history.epoch, replay=history.since, ring=2) as server:
            for seen, own in ((0, 0), (3, 4), (8, 8)):
                while server.seq < own:
                    await server.publish([s.to_dict() for s in history.append(fired(100 + server.seq))])
                async with subscribed(server, since={"epoch": first.epoch, "seq": seen}) as client:
                    await server.publish([s.to_dict() for s in history.append(fired(100 + server.seq))])
                    expected = numbers(first.epoch, seen + 1, 8) + numbers(history.epoch, 1, own + 1)
                    assert await collect(client, (history.epoch, own + 1)) == expected

    run(test())


def test_what_is_durable_but_not_published_yet_comes_once(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    stored = [signal.to_dict() for bar in range(8) for signal in history.append(fired(bar))]

    async def test() -> None:
        async with serving(history.epoch, replay=history.since, ring=1) as server:
            for one in stored[:3]:
                await server.publish([one])
            async with subscribed(server, since={"epoch": history.epoch, "seq": 0}) as client:
                got = await collect(client, (history.epoch, 3))
                await server.publish(stored[3:])
                assert got + await collect(client, (history.epoch, 8)) == numbers(history.epoch, 1, 8)

    run(test())


def test_who_subscribes_anew_gets_nothing_live_before_the_replay_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "PAGE", 1)
    history = SignalHistory(tmp_path)
    goes_on = threading.Event()

    def replay(epoch: str, seq: int, limit: int) -> Any:
        assert seq == 0 or goes_on.wait(60)
        return history.since(epoch, seq, limit)

    async def test() -> None:
        async with serving(history.epoch, replay=replay, ring=1) as server, subscribed(server) as client:
            for bar in range(4):
                await server.publish([signal.to_dict() for signal in history.append(fired(bar))])
            assert await collect(client, (history.epoch, 4)) == numbers(history.epoch, 1, 4)
            answer = await ask(client, type="subscribe", since={"epoch": history.epoch, "seq": 0})
            assert answer["data"] == {"recovered": True}
            got = await collect(client, (history.epoch, 1))
            await server.publish([signal.to_dict() for signal in history.append(fired(4))])
            goes_on.set()
            assert got + await collect(client, (history.epoch, 5)) == numbers(history.epoch, 1, 5)

    run(test())


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ({"epoch": EPOCH, "seq": 4}, "not published"),
        ({"epoch": "20990101T000000000000abcd", "seq": 0}, "not published"),
        ({"epoch": "20200101T000000000000abcd", "seq": 1}, "does not hold"),
        ({"epoch": "", "seq": 1}, "does not hold"),
        ({"epoch": "\ud800", "seq": 10**40}, "not published"),
    ],
)
def test_a_place_from_which_nobody_can_go_on_is_said_to_be_one(tmp_path: Path, since: Message, words: str) -> None:
    async def test() -> None:
        async with serving(replay=SignalHistory(tmp_path).since) as server, connect(server.url, proxy=None) as client:
            await server.publish(numbered(1, fired(0, 3)))
            await said(client)
            answer = await ask(client, type="subscribe", since=since)
            assert (answer["type"], answer["epoch"], answer["seq"]) == ("subscribed", EPOCH, 3)
            assert answer["data"]["recovered"] is False
            assert words in answer["data"]["reason"]
            await server.publish(numbered(4, fired(1)))
            assert await collect(client, (EPOCH, 4)) == numbers(EPOCH, 4, 4)

    run(test())


def test_without_a_history_or_with_a_damaged_one_a_gap_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def damaged(epoch: str, seq: int, limit: int) -> None:
        raise StoreError("x.parquet: damaged")

    async def test() -> None:
        for replay, words in ((None, "no history"), (damaged, "could not be read")):
            async with serving(replay=replay, ring=1) as server, connect(server.url, proxy=None) as client:
                await server.publish(numbered(1, fired(0)))
                await server.publish(numbered(2, fired(1)))
                await said(client)
                answer = await ask(client, type="subscribe", since={"epoch": EPOCH, "seq": 0})
                assert answer["data"]["recovered"] is False
                assert words in answer["data"]["reason"]

    run(test())
    assert "x.parquet: damaged" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_no_gap_and_no_duplicate_whatever_the_moment_of_resuming(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "PAGE", 4)
    monkeypatch.setattr(broadcast, "CHUNK", 2)
    rng = random.Random(seed)
    history = SignalHistory(tmp_path)
    last = 300

    async def publish(server: SignalServer) -> None:
        bar = 0
        while server.seq < last:
            scan = fired(bar, min(rng.randrange(1, 9), last - server.seq))
            stored = await asyncio.to_thread(history.append, scan)
            await server.publish([signal.to_dict() for signal in stored])
            bar += 1

    async def follow(server: SignalServer, patience: Iterable[int]) -> None:
        seen = 0
        for messages in patience:
            async with subscribed(server, since={"epoch": history.epoch, "seq": seen}) as client:
                for number in range(messages):
                    message = await said(client)
                    if (
                        number == 3
                    ):  # the same on the connection that is there: what was under way comes before the answer
                        await client.send(
                            json.dumps({"type": "subscribe", "since": {"epoch": history.epoch, "seq": seen}})
                        )
                        while message["type"] == "signals":
                            message = await said(client)
                        assert message["data"] == {"recovered": True}
                        continue
                    for signal in message["data"]:
                        assert signal["seq"] == seen + 1
                        seen += 1
                    if seen == last:
                        return
        raise AssertionError(f"only {seen} of {last} came")

    async def test() -> None:
        async with serving(history.epoch, replay=history.since, ring=10) as server, asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(follow(server, [rng.randrange(1, 12) for _ in range(last)]))
            tasks.create_task(publish(server))

    run(test())

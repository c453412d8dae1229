"""HTTP on the port of the signals, asked by httpx and by hand."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from data.errors import StaleDataError, StoreError, UnknownSymbolError
from streaming.door import Limits
from streaming.http import MAX_FIELDS, SECURITY_HEADERS, Answer, Route
from streaming.server import SignalServer


async def echo(query: Mapping[str, str]) -> Answer:
    return Answer.text(200, repr(dict(query)), {"Cache-Control": "max-age=60"})


def failing(error: Exception) -> Route:
    async def route(query: Mapping[str, str]) -> Answer:
        raise error

    return route


async def large(query: Mapping[str, str]) -> Answer:
    return Answer(200, "application/octet-stream", b"x" * int(query["size"]))


ROUTES = {
    "/echo": echo,
    "/large": large,
    "/usage": failing(UnknownSymbolError("no symbol '99'")),
    "/stale": failing(StaleDataError("no bars of 600519.SH")),
    "/damaged": failing(StoreError("/home/me/store/x.parquet is damaged")),
    "/broken": failing(ZeroDivisionError("secret")),
}


@asynccontextmanager
async def serving(**more: Any) -> AsyncIterator[SignalServer]:
    server = SignalServer("127.0.0.1", 0, epoch="e", routes=ROUTES, open_routes={"/open": echo}, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def ask(path: str, method: str = "GET", **more: Any) -> httpx.Response:
    async def test() -> httpx.Response:
        async with serving() as server, httpx.AsyncClient(trust_env=False) as client:
            return await client.request(method, f"http://127.0.0.1:{server.port}{path}", **more)

    return asyncio.run(test())


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_route_has_the_query_s_values_and_its_answer_is_sent_with_the_headers_of_all() -> None:
    answer = ask("/echo?symbol=600519.SH&name=%E8%B4%B5%E5%B7%9E&empty=&plus=a+b")
    assert answer.status_code == 200
    assert answer.text == "{'symbol': '600519.SH', 'name': '贵州', 'empty': '', 'plus': 'a b'}\n"
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == ("max-age=60" if name == "Cache-Control" else value)
    assert ask("/open").text == "{}\n"


@pytest.mark.parametrize(
    ("path", "method", "status", "words"),
    [
        ("/echo?a=1&a=2", "GET", 400, "once"),
        ("/echo?a=%FF", "GET", 400, "UTF-8"),
        ("/echo?" + "&".join(f"a{n}=" for n in range(MAX_FIELDS + 1)), "GET", 400, f"at most {MAX_FIELDS}"),
        ("/usage", "GET", 400, "no symbol '99'"),
        ("/stale", "GET", 404, "no bars of 600519.SH"),
        ("/echo/", "GET", 404, "nothing here"),
        ("/x/../echo", "GET", 404, "nothing here"),
        ("/%65cho", "GET", 404, "nothing here"),
        ("/", "GET", 404, "nothing here"),
        ("/echo", "DELETE", 405, "GET"),
        ("/ws/signals", "GET", 426, "WebSocket"),
    ],
)
def test_what_cannot_be_answered_is_said_with_its_reason(path: str, method: str, status: int, words: str) -> None:
    async def test() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
            assert head.split()[1] == str(status)
            assert words in body

    run(test())


@pytest.mark.parametrize("path", ["/damaged", "/broken"])
def test_what_fails_is_logged_and_its_reason_is_not_sent(path: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(path)
    assert (answer.status_code, answer.text) == (500, "this failed; the service's log has the reason\n")
    assert f"{path} failed" in caplog.text
    assert "Traceback" in caplog.text


def test_head_is_get_without_the_body() -> None:
    answer = ask("/echo?a=1", "HEAD")
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "11")


def test_a_query_of_the_websocket_s_path_says_nothing() -> None:
    async def test() -> None:
        async with serving() as server, connect(f"{server.url}?from=a+page", proxy=None) as client:
            assert '"hello"' in str(await client.recv())

    run(test())


def test_a_large_answer_comes_whole_to_a_reader_of_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.limited.LINGER_S", 0.2)
    size = 8 * 2**20

    async def test() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=4096)
            writer.write(f"GET /large?size={size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            (connection,) = server.door._guests
            for _ in range(20):  # much longer than what is left of an answer may take
                await asyncio.sleep(0.02)
            assert connection in server.door._guests
            got = 0
            while data := await reader.read(2**20):
                got += len(data)
            writer.close()
            assert got == size

    run(test())


def test_who_does_not_read_an_answer_has_so_long_for_it() -> None:
    async def test() -> None:
        async with serving(limits=Limits(answer_s=0.3)) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=4096)
            writer.write(b"GET /large?size=9000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(30):
                while not len(server.door):
                    await asyncio.sleep(0.001)
                while len(server.door):
                    await asyncio.sleep(0.001)
            writer.close()

    run(test())


def test_so_many_answers_are_in_the_making_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.http.MAX_AT_ONCE", 2)
    goes_on = asyncio.Event()

    async def slow(query: Mapping[str, str]) -> Answer:
        await goes_on.wait()
        return Answer.text(200, "done")

    async def test() -> None:
        server = SignalServer("127.0.0.1", 0, epoch="e", routes={"/slow": slow, "/echo": echo})
        await server.start()
        url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(trust_env=False) as client:
            waiting = [asyncio.create_task(client.get(f"{url}/slow")) for _ in range(2)]
            while server._routes._n_running < 2:
                await asyncio.sleep(0.001)
            answer = await client.get(f"{url}/echo")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            goes_on.set()
            assert [one.text for one in await asyncio.gather(*waiting)] == ["done\n", "done\n"]
            assert (await client.get(f"{url}/echo")).status_code == 200
        await server.stop()

    run(test())

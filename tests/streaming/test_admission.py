"""Who is let in by a server, over real sockets: tokens, pages, crowds, TLS."""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from data.errors import FeedError, SettingsError
from streaming import server as server_module
from streaming.access import Access
from streaming.client import signals
from streaming.door import Door, Limits, home
from streaming.http import Answer
from streaming.server import SignalServer
from streaming.tls import Certificate
from streaming.tokens import Tokens, add, remove


async def answer(query: Mapping[str, str]) -> Answer:
    return Answer.text(200, "bars")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@asynccontextmanager
async def serving(access: Access | None = None, host: str = "127.0.0.1", **more: Any) -> AsyncIterator[SignalServer]:
    routes = {"routes": {"/bars": answer}, "open_routes": {"/page": answer}}
    server = SignalServer(host, 0, epoch="e", access=access, **routes, **more)
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(30):
            await server.stop()


async def greeted(client: ClientConnection) -> None:
    async with asyncio.timeout(30):
        assert json.loads(await client.recv())["type"] == "hello"


async def refused(url: str, **more: Any) -> int:
    with pytest.raises(InvalidStatus) as error:
        async with connect(url, proxy=None, **more):
            pass
    return error.value.response.status_code


async def closed(client: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(30):
        await client.wait_closed()
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com"])
def test_others_are_let_in_with_a_token_or_not_at_all(host: str, path: Path) -> None:
    for access in (None, Access(), Access(Tokens(path))):
        with pytest.raises(SettingsError, match=r"serve\.host .* no token.*'mystocks-scan token new'"):
            run(SignalServer(host, 8765, epoch="e", access=access).start())


def test_a_setting_asks_this_machine_for_a_token_too(path: Path) -> None:
    with pytest.raises(SettingsError, match="required"):
        run(SignalServer("127.0.0.1", 0, epoch="e", access=Access(Tokens(path), required=True)).start())


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.77"])
def test_an_address_that_is_not_of_this_machine_is_named(host: str, path: Path) -> None:
    add(path)
    with pytest.raises(SettingsError, match=rf"serve\.host {host}"):
        run(SignalServer(host, 0, epoch="e", access=Access(Tokens(path))).start())


def test_where_others_can_come_in_everything_but_open_routes_asks_for_a_token(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, token = add(path)

    async def test() -> None:
        async with serving(Access(Tokens(path)), "0.0.0.0") as server:
            url = f"ws://127.0.0.1:{server.port}/ws/signals"
            assert await refused(url) == 401
            assert await refused(url, additional_headers=bearer("x")) == 401
            assert await refused(f"{url}?token={token}") == 401
            async with connect(url, proxy=None, additional_headers=bearer(token)) as client:
                await greeted(client)
            async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{server.port}") as http:
                without = await http.get("/bars")
                assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert (await http.get("/bars", headers=bearer(token))).text == "bars\n"
                assert (await http.get("/page")).text == "bars\n"
            assert server.refusals.counts == {"token": 4}

    run(test())
    assert "is not encrypted" in caplog.text


def test_a_page_shows_its_token_beside_the_subprotocol_and_is_told_by_a_code(path: Path) -> None:
    _, token = add(path)

    async def test() -> None:
        async with serving(Access(Tokens(path), required=True)) as server:
            page: dict[str, Any] = {"proxy": None, "origin": Origin(f"http://127.0.0.1:{server.port}")}
            offered = [Subprotocol("mystocks-scan.v1"), Subprotocol(f"bearer.{token}")]
            async with connect(server.url, subprotocols=offered, **page) as client:
                assert client.subprotocol == "mystocks-scan.v1"
                await greeted(client)
            for wrong in (offered[:1], [*offered[:1], Subprotocol("bearer.x")]):
                async with connect(server.url, subprotocols=wrong, **page) as client:
                    assert (await closed(client))[0] == 4401
            async with connect(server.url, **page) as client:
                assert (await closed(client))[0] == 4401
            assert await refused(server.url, origin=Origin("https://evil.example"), subprotocols=offered) == 403
            assert server.refusals.counts == {"token": 3, "origin": 1}
            assert server.clients == 0

    run(test())


def test_a_page_of_another_site_learns_nothing_on_this_machine() -> None:
    async def test() -> None:
        async with serving() as server, httpx.AsyncClient(trust_env=False) as http:
            here = f"127.0.0.1:{server.port}"
            assert await refused(server.url, origin=Origin("https://evil.example")) == 403
            rebound = {"Host": f"evil.example:{server.port}", "Origin": f"http://evil.example:{server.port}"}
            assert (await http.get(f"http://{here}/bars", headers=rebound)).status_code == 421
            assert (await http.get(f"http://{here}/bars", headers={"Host": "evil.example"})).status_code == 421
            assert (await http.get(f"http://{here}/bars", headers={"X-Forwarded-For": "8.8.8.8"})).status_code == 401
            plain = await http.get(f"http://{here}/bars")
            assert plain.status_code == 200
            assert "Access-Control-Allow-Origin" not in plain.headers
            assert plain.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert server.refusals.counts == {"origin": 1, "host": 2, "token": 1}

    run(test())


def test_a_token_made_while_the_server_runs_lets_in_and_a_revoked_one_is_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WATCH_S", 0.01)
    add(path, "other")

    async def test() -> None:
        async with serving(Access(Tokens(path), required=True)) as server:
            name, token = add(path)
            with_token = connect(server.url, proxy=None, additional_headers=bearer(token))
            _, other = add(path)
            with_other = connect(server.url, proxy=None, additional_headers=bearer(other))
            async with with_token as client, with_other as stays:
                await greeted(client)
                await greeted(stays)
                remove(path, name)
                assert await closed(client) == (4401, "the token was revoked")
                assert await refused(server.url, additional_headers=bearer(token)) == 401
                await stays.send('{"type": "ping"}')
                assert json.loads(await stays.recv())["type"] == "pong"

    run(test())


def test_the_client_shows_its_token_and_ends_where_it_is_not_known(path: Path) -> None:
    _, token = add(path)

    async def test() -> None:
        async with serving(Access(Tokens(path), required=True)) as server:
            with pytest.raises(FeedError, match="401"):
                await anext(signals(server.url, token="x"))
            stream = signals(server.url, token=token)
            first = asyncio.ensure_future(anext(stream))
            while not any(client.live for client in server._clients):
                await asyncio.sleep(0.001)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await stream.aclose()

    run(test())


def test_no_token_is_ever_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, token = add(path)
    wrong = "mss_" + "w" * 43

    async def test() -> None:
        async with serving(Access(Tokens(path), required=True)) as server:
            for shown in (token, wrong):
                with pytest.raises((FeedError, TimeoutError)):
                    async with asyncio.timeout(0.3):
                        await anext(signals(server.url, token=shown))
                offered = [Subprotocol("mystocks-scan.v1"), Subprotocol(f"bearer.{shown}")]
                origin = Origin(f"http://127.0.0.1:{server.port}")
                quiet = logging.getLogger("quiet")
                quiet.setLevel(logging.ERROR)
                async with connect(server.url, proxy=None, subprotocols=offered, origin=origin, logger=quiet):
                    pass

    with caplog.at_level(logging.DEBUG):
        run(test())
    assert "refused" in caplog.text
    assert token not in caplog.text
    assert wrong not in caplog.text


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def write(authority: trustme.CA, file: Path, name: str = "127.0.0.1") -> Path:
    """A certificate, its chain and its key in one file."""
    aside = file.with_suffix(".new")
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(aside)
    os.replace(aside, file)
    return file


def test_over_tls_with_an_authority_of_one_s_own(tmp_path: Path, authority: trustme.CA) -> None:
    async def test() -> None:
        certificate = Certificate(write(authority, tmp_path / "both.pem"))
        async with serving(certificate=certificate) as server:
            assert server.url.startswith("wss://")
            stream = signals(server.url, ssl=trust(authority))
            first = asyncio.ensure_future(anext(stream))
            while not any(client.live for client in server._clients):
                await asyncio.sleep(0.001)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await stream.aclose()
            url = server.url.replace("wss://", "https://").replace("/ws/signals", "/bars")
            async with httpx.AsyncClient(trust_env=False, verify=trust(authority)) as http:
                assert (await http.get(url)).text == "bars\n"
            with pytest.raises(FeedError, match="certificate is not believed"):
                await anext(signals(server.url))
            with pytest.raises(FeedError):
                await anext(signals(server.url.replace("wss://", "ws://"), reconnect=False))

    run(test())


def test_a_renewed_certificate_is_taken_and_a_damaged_one_is_not(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WATCH_S", 0.01)
    file = write(authority, tmp_path / "both.pem")

    async def serial(server: SignalServer) -> str:
        async with connect(server.url, proxy=None, ssl=trust(authority)) as client:
            return str(client.transport.get_extra_info("peercert")["serialNumber"])

    async def test() -> None:
        async with serving(certificate=Certificate(file)) as server, asyncio.timeout(60):
            first = await serial(server)
            write(authority, file)
            while (second := await serial(server)) == first:
                pass
            file.write_text("damaged")
            while "stays in use" not in caplog.text:
                await asyncio.sleep(0.005)
            assert await serial(server) == second

    run(test())


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, authority: trustme.CA) -> None:
    file = write(authority, tmp_path / "both.pem")
    other = write(authority, tmp_path / "other.pem")
    (tmp_path / "empty.pem").touch()
    for certificate, key in ((tmp_path / "none.pem", None), (file, other), (tmp_path / "empty.pem", None)):
        with pytest.raises(SettingsError, match=rf"serve\.certificate {certificate}"):
            Certificate(certificate, key)


def test_what_is_no_tls_is_counted_and_has_its_time(tmp_path: Path, authority: trustme.CA) -> None:
    async def test() -> None:
        certificate = Certificate(write(authority, tmp_path / "both.pem"))
        async with serving(certificate=certificate, limits=Limits(handshake_s=0.2)) as server, asyncio.timeout(30):
            for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(said)
                with suppress(ConnectionError):
                    await reader.read()
                writer.close()
            while len(server.door):
                await asyncio.sleep(0.001)
            assert server.refusals.counts == {"tls": 2}
            async with connect(server.url, proxy=None, ssl=trust(authority)) as client:
                await greeted(client)

    run(test())


# Crowds


def test_an_address_has_so_many_connections_and_this_machine_any_number() -> None:
    door = Door(Limits(per_address=2), SignalServer("127.0.0.1", 0, epoch="e").refusals)
    here, there = ("127.0.0.1", 1), ("192.0.2.1", 1)
    door._count.update({home(here): 50, home(there): 2})
    assert not door.is_crowded(there)
    door._count.update({home(there): 1})
    assert door.is_crowded(there)
    assert not door.is_crowded(here)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth0"),
    ],
)
def test_what_one_subscriber_is_given_counts_as_one_address(one: str, other: str) -> None:
    assert home((one, 1, 0, 0)) == home((other, 2))
    assert home(("2001:db8:1:3::1", 1, 0, 0)) != home((one, 1))


def test_who_comes_from_a_crowded_address_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.door._is_here", lambda address: False)

    async def test() -> None:
        async with serving(limits=Limits(per_address=2)) as server:
            one, two = connect(server.url, proxy=None), connect(server.url, proxy=None)
            async with one as first, two as second:
                await greeted(first)
                await greeted(second)
                assert await refused(server.url) == 429
                origin = Origin(f"http://127.0.0.1:{server.port}")
                async with connect(server.url, proxy=None, origin=origin) as third:
                    assert (await closed(third))[0] == 4429
            while len(server.door):
                await asyncio.sleep(0.001)
            async with connect(server.url, proxy=None) as client:
                await greeted(client)
            assert server.refusals.counts == {"address": 2}

    run(test())

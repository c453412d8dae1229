"""Who may come in, by the headers of his request."""

import logging
from pathlib import Path

import pytest
from websockets.datastructures import Headers

from data.errors import SettingsError
from streaming.access import Access, DeniedError, Refusals
from streaming.tokens import Tokens, add


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "tokens.json"


@pytest.fixture(scope="module")
def token(path: Path) -> str:
    return add(path, "phone")[1]


@pytest.fixture
def access(path: Path, token: str) -> Access:
    tokens = Tokens(path)
    tokens.load()
    return Access(tokens, origins=["https://Scanner.example", "http://dash.lan:3000"])


def verdict(access: Access, headers: dict[str, str] | list[tuple[str, str]], **more: bool) -> str:
    """The reason of a refusal, else "in"."""
    try:
        access.check(Headers(headers), **more)
    except DeniedError as denied:
        return denied.reason
    return "in"


HERE = "127.0.0.1:8765"


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        (HERE, None, "in"),  # no browser
        (HERE, f"http://{HERE}", "in"),
        (HERE, f"https://{HERE}", "in"),
        ("localhost:8765", "http://localhost:8765", "in"),
        ("[::1]:8765", "http://[::1]:8765", "in"),
        ("127.0.0.1", "http://127.0.0.1:80", "in"),
        ("127.0.0.1:443", "https://127.0.0.1", "in"),
        (HERE, "HTTP://127.0.0.1:8765", "in"),
        (HERE, "https://evil.example", "origin"),  # a page of another site opens a WebSocket to this machine
        (HERE, "http://localhost:8765", "origin"),
        (HERE, "http://127.0.0.1:3000", "origin"),
        (HERE, "http://127.0.0.1:8765.evil.example", "origin"),
        (HERE, "http://evil.example#127.0.0.1:8765", "origin"),
        (HERE, "http://127.0.0.1:x", "origin"),
        (HERE, "http://[::1", "origin"),
        (HERE, "null", "origin"),
        (HERE, "", "origin"),
        (HERE, "file://127.0.0.1:8765", "origin"),
        (
            "evil.example:8765",
            "http://evil.example:8765",
            "host",
        ),  # DNS rebinding: it is the same origin to the browser
        ("evil.example:8765", None, "host"),  # and fetch sends no Origin with a GET
        ("localhost.evil.example", None, "host"),
        ("127.0.0.1.evil.example", None, "host"),
        ("", None, "host"),
        ("x@127.0.0.1:8765", None, "in"),
        ("[::1", None, "host"),
        ("scanner.example", None, "in"),
        ("scanner.example", "https://scanner.example", "in"),
        (HERE, "https://scanner.example", "in"),
        (HERE, "https://scanner.example:8443", "origin"),
        (HERE, "http://scanner.example", "origin"),
        (HERE, "http://dash.lan:3000", "in"),
    ],
)
def test_pages_of_other_origins_and_names_that_can_be_moved_are_refused(
    access: Access, host: str, origin: str | None, expected: str
) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert verdict(access, headers) == expected


def test_without_a_host_nobody_comes_in(access: Access) -> None:
    assert verdict(access, {}) == "host"


def test_a_token_comes_as_a_header_or_beside_the_subprotocol(access: Access, token: str) -> None:
    for shown in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token} "},
        {"Sec-WebSocket-Protocol": f"mystocks-scan.v1, bearer.{token}"},
        {"Sec-WebSocket-Protocol": f"bearer.{token}"},
    ):
        for more in ({}, {"X-Forwarded-For": "1.2.3.4"}, {"Host": "evil.example"}):
            assert verdict(access, {"Host": HERE, **shown, **more}, required=True) == "in"
    assert (
        verdict(access, {"Host": HERE, "Authorization": f"Bearer {token}", "Origin": "http://evil.example"}) == "origin"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic cGhvbmU6eA=="},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Sec-WebSocket-Protocol": "mystocks-scan.v1"},
        {"Sec-WebSocket-Protocol": "mystocks-scan.v1, bearer."},
        {"Cookie": "bearer=x"},
    ],
)
def test_where_a_token_is_needed_nothing_else_will_do(access: Access, headers: dict[str, str]) -> None:
    assert verdict(access, {"Host": HERE, **headers}, required=True) == "token"
    assert verdict(Access(access.tokens, required=True), {"Host": HERE, **headers}) == "token"
    assert verdict(Access(), {"Host": HERE, **headers}, required=True) == "token"


def test_a_wrong_token_is_refused_where_none_is_needed_too(access: Access) -> None:
    assert verdict(access, {"Host": HERE, "Authorization": "Bearer x"}) == "token"
    assert verdict(Access(), {"Host": HERE, "Authorization": "Bearer x"}) == "token"


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Real-IP"])
def test_what_a_proxy_brings_is_not_of_this_machine(access: Access, name: str) -> None:
    assert verdict(access, {"Host": HERE, name: "203.0.113.7"}) == "token"


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization"])
def test_headers_that_contradict_themselves_are_refused(access: Access, name: str) -> None:
    assert verdict(access, [("Host", HERE), (name, "a"), (name, "b")]) == "malformed"


@pytest.mark.parametrize(
    "origin", ["*", "scanner.example", "https://scanner.example/", "ws://x", "https://*.x", "https://"]
)
def test_an_origin_that_is_none_is_refused_with_an_example(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"serve\.origins.*https://scanner\.example"):
        Access(origins=[origin])


def test_pages_from_files_are_allowed_by_name() -> None:
    assert verdict(Access(origins=["null"]), {"Host": HERE, "Origin": "null"}) == "in"


def test_each_refusal_is_counted_and_a_flood_of_them_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    refusals = Refusals(told.append)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            refusals.add("token", "192.0.2.1", "the token is not known here")
        refusals.add("origin", "192.0.2.1", "another origin")
    assert refusals.counts == {"token": 1000, "origin": 1}
    assert len(told) == 1001
    assert len(caplog.records) == 2

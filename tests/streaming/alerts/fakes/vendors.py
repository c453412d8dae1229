"""The services that alerts go to, on this machine: TLS servers under the vendors' own names, which check what they are
sent as the vendors document it, answer in their words, and go wrong where they are told to."""

import base64
import hashlib
import hmac
import html
import json
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import trustme

TOKEN, SECRET = "tok4dingtalk9876543210", "SECabcdef0123456789"
KEY = "693axxx6-7aoc-4bc4-97a0-0ec2sifa5aaa"
HOOK = "xxxxfeishu-1111-2222-3333"
BOT, CHAT = "123456789:AAtelegramBotTokenForTests_0123456", "-1001234567890"
HOSTS = ("oapi.dingtalk.com", "qyapi.weixin.qq.com", "open.feishu.cn", "api.telegram.org")
URLS = {
    "dingtalk": f"dingtalk://{SECRET}@{TOKEN}",
    "wecom": f"wecombot://{KEY}",
    "feishu": f"feishu://{HOOK}",
    "telegram": f"tgram://{BOT}/{CHAT}",
}
SECRETS = (TOKEN, SECRET, KEY, HOOK, BOT, BOT.partition(":")[2])


@dataclass
class Fault:
    """What an answer is instead. `hang`: none, until the server ends."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class Asked:
    """A request, and what it told people."""

    host: str
    path: str
    headers: dict[str, str]
    body: bytes
    text: str | None = None


class Vendors:
    """Answers for all hosts; `faults` are used up first, one an answer."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.faults: deque[Fault] = deque()
        self.more = threading.Condition()
        self.over = threading.Event()

    @property
    def texts(self) -> list[str]:
        """What people have been told."""
        return [one.text for one in self.asked if one.text is not None]

    def wait(self, n: int, timeout_s: float = 10.0) -> None:
        """Until so many requests have come."""
        with self.more:
            assert self.more.wait_for(lambda: len(self.asked) >= n, timeout_s), f"{len(self.asked)} of {n} requests"

    def answer(self, host: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body."""
        asked = Asked(host, target, headers, body)
        status, said, more = 200, b"", dict[str, str]()
        fault = self.faults.popleft() if self.faults else None
        if fault is None:
            url = urlsplit(target)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, answered, asked.text = _OF_HOST.get(host, webhook)(url.path, query, body)
            said = json.dumps(answered, ensure_ascii=False).encode()
        else:
            status, more = fault.status, fault.headers
            said = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
        with self.more:
            self.asked.append(asked)
            self.more.notify_all()
        if fault is not None and fault.hang:
            self.over.wait()
        return status, more, said


Answered = tuple[int, dict[str, Any], str | None]


def dingtalk(path: str, query: dict[str, str], body: bytes) -> Answered:
    """As the custom robot with a signature."""
    said = json.loads(body)
    if path != "/robot/send" or query.get("access_token") != TOKEN:
        return 200, {"errcode": 300001, "errmsg": "token is not exist"}, None
    stamp = query.get("timestamp", "0")
    signed = hmac.new(SECRET.encode(), f"{stamp}\n{SECRET}".encode(), hashlib.sha256).digest()
    if abs(time.time() * 1000 - int(stamp)) > 3_600_000 or query.get("sign") != base64.b64encode(signed).decode():
        return 200, {"errcode": 310000, "errmsg": "sign not match"}, None
    if len(body) > 20_000:
        return 200, {"errcode": 460101, "errmsg": "message too long, exceed 20000 bytes"}, None
    assert said["msgtype"] == "text"
    return 200, {"errcode": 0, "errmsg": "ok"}, said["text"]["content"]


def wecom(path: str, query: dict[str, str], body: bytes) -> Answered:
    """As a group robot."""
    said = json.loads(body)
    if path != "/cgi-bin/webhook/send" or query.get("key") != KEY:
        return 200, {"errcode": 93000, "errmsg": "invalid webhook url, hint: [1732]"}, None
    if len(said["text"]["content"].encode()) > 2048:
        return 200, {"errcode": 40058, "errmsg": "text.content exceed max length 2048. invalid Request Parameter"}, None
    assert said["msgtype"] == "text"
    return 200, {"errcode": 0, "errmsg": "ok"}, said["text"]["content"]


def feishu(path: str, query: dict[str, str], body: bytes) -> Answered:
    """As a custom robot of the second version."""
    said = json.loads(body)
    if path.rstrip("/") != f"/open-apis/bot/v2/hook/{HOOK}":
        return 400, {"code": 19001, "msg": "param invalid: incoming webhook access token invalid", "data": {}}, None
    if len(body) > 20 * 1024 or said["msg_type"] != "text":
        return 400, {"code": 9499, "msg": "Bad Request", "data": {}}, None
    return (
        200,
        {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"},
        said["content"]["text"],
    )


def telegram(path: str, query: dict[str, str], body: bytes) -> Answered:
    """As the Bot API."""
    said = json.loads(body)
    if path != f"/bot{BOT}/sendMessage":
        return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}, None
    if str(said["chat_id"]) != CHAT:
        return 400, {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"}, None
    text = said["text"]
    if said.get("parse_mode") == "HTML":
        tags = set(re.findall(r"</?([^\s>/]*)", text))
        if not tags <= {"b", "i", "u", "s", "a", "code", "pre"}:
            description = f"Bad Request: can't parse entities: Unsupported start tag {sorted(tags)}"
            return 400, {"ok": False, "error_code": 400, "description": description}, None
        text = html.unescape(re.sub(r"</?[a-z]+>", "", text))
    if len(text) > 4096:
        return 400, {"ok": False, "error_code": 400, "description": "Bad Request: message is too long"}, None
    return 200, {"ok": True, "result": {"message_id": 1, "text": text}}, text


def webhook(path: str, query: dict[str, str], body: bytes) -> Answered:
    """As somebody's own server."""
    said = json.loads(body)
    return 200, {"ok": True}, f"{said['title']}\r\n{said['message']}"


_OF_HOST: dict[str, Callable[[str, dict[str, str], bytes], Answered]] = dict(
    zip(HOSTS, (dingtalk, wecom, feishu, telegram), strict=True)
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    vendors: Vendors

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        host = self.headers["Host"].partition(":")[0]
        status, headers, said = self.server.vendors.answer(host, self.path, dict(self.headers), body)
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args: Any) -> None:
        """Nothing: tests look at what was asked."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[tuple[Vendors, int]]:
    """A server on a free port, with TLS where there is a context."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.vendors = Vendors()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.vendors, server.server_port
    finally:
        server.vendors.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def at_home(folder: Path) -> Iterator[Vendors]:
    """The vendors' hosts are this machine: their names lead here, and the certificate for them is trusted.

    Only the name's lookup and the list of trusted authorities differ from the world; everything between is real.
    """
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HOSTS).configure_cert(context)
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(str(trusted))
    lookup = socket.getaddrinfo
    with serving(context) as (vendors, port):

        def here(host: Any, asked: Any, *args: Any, **given: Any) -> Any:
            return lookup("127.0.0.1", port, *args, **given) if host in HOSTS else lookup(host, asked, *args, **given)

        with (
            mock.patch.object(socket, "getaddrinfo", here),
            mock.patch.dict("os.environ", {"REQUESTS_CA_BUNDLE": str(trusted), "NO_PROXY": "*"}),
        ):
            yield vendors

"""Mail, against a real SMTP server that wants TLS and a password."""

import socket
import ssl
from collections.abc import Iterator
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

from streaming.alerts.channels import AppriseChannel
from streaming.alerts.delivery import ChannelError


class Mailbox:
    """Keeps what is delivered; refuses one receiver."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"me@example.com", b"passw0rd"), handled=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Mailbox, int]]:
    box, authority = Mailbox(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        authenticator=check,
        auth_required=True,
        tls_context=context,
        require_starttls=True,
    )
    controller.start()
    yield box, port
    controller.stop()


def channel(port: int, password: str = "passw0rd", to: str = "you@example.com") -> AppriseChannel:
    query = f"smtp=localhost&from=me@example.com&to={to}&mode=starttls"
    return AppriseChannel("mail", f"mailtos://me%40example.com:{password}@example.com:{port}?{query}")


def test_a_mail_has_subject_and_text_as_they_were_written(server: tuple[Mailbox, int]) -> None:
    box, port = server
    text = "平安银行 000001.SZ BUY\nx < 3 & <script>alert(1)</script>"
    channel(port).send("mystocks-scan: 1 signal", text)
    (mail,) = box.mails
    assert str(make_header(decode_header(mail["Subject"]))) == "mystocks-scan: 1 signal"
    assert "you@example.com" in mail["To"]
    (part,) = [part for part in mail.walk() if not part.is_multipart()]
    assert part.get_content_type() == "text/plain"
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.decode().splitlines() == text.splitlines()


@pytest.mark.parametrize(("password", "to"), [("wr0ngpass", "you@example.com"), ("passw0rd", "nobody@example.com")])
def test_a_mail_that_is_refused_says_so_and_tells_no_password(
    server: tuple[Mailbox, int], password: str, to: str
) -> None:
    box, port = server
    with pytest.raises(ChannelError) as raised:
        channel(port, password, to).send("t", "b")
    assert not box.mails
    assert not raised.value.for_good
    assert {"wr0ngpass", "passw0rd"}.isdisjoint(str(raised.value).split())
    assert ("535" if to.startswith("you") else "550") in str(raised.value)

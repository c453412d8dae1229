"""Channels: Apprise's own plugins against servers that check and answer as the vendors document it."""

import io
import logging
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import SettingsError
from streaming.alerts.channels import AppriseChannel
from streaming.alerts.delivery import ChannelError
from tests.streaming.alerts.fakes.vendors import HOOK, KEY, SECRETS, TOKEN, URLS, Fault, Vendors, at_home, serving

TITLE = "mystocks-scan: 2 signals"
BODY = '平安银行 000001.SZ BUY macd & more\n"x" < 3 * 5_000_#\n<script>alert(1)</script> @all \\ 100%'


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    with at_home(tmp_path) as vendors:
        yield vendors


def refused(name: str, url: str | None = None) -> ChannelError:
    with pytest.raises(ChannelError) as raised:
        AppriseChannel(name, url or URLS[name]).send(TITLE, BODY)
    return raised.value


@pytest.mark.parametrize("name", URLS)
def test_people_read_what_was_sent_to_the_letter(vendors: Vendors, name: str) -> None:
    AppriseChannel(name, URLS[name]).send(TITLE, BODY)
    (text,) = vendors.texts
    assert text.replace("\r\n", "\n").replace("\xa0", " ") == f"{TITLE}\n{BODY}"


def test_a_webhook_gets_json(vendors: Vendors) -> None:
    with serving() as (own, port):
        AppriseChannel("own", f"json://someone:password@127.0.0.1:{port}/hooks/1?+X-Key=abcdefgh").send(TITLE, BODY)
    (asked,) = own.asked
    assert (asked.path, asked.text) == ("/hooks/1", f"{TITLE}\r\n{BODY}")
    assert asked.headers["X-Key"] == "abcdefgh"
    assert asked.headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("name", URLS)
def test_a_message_of_the_greatest_size_is_taken_and_a_longer_one_is_known_to_be_too_long(
    vendors: Vendors, name: str
) -> None:
    channel = AppriseChannel(name, URLS[name])
    n = bisect_left(range(25_000), True, key=lambda n: not channel.fits(TITLE, "中" * n)) - 1
    channel.send(TITLE, "中" * n)
    assert len(vendors.texts) == 1
    assert not channel.fits(TITLE, "中" * (n + 1))
    assert n > {"dingtalk": 3000, "wecom": 650, "feishu": 3000, "telegram": 4000}[name]


@pytest.mark.parametrize(
    ("name", "answer", "reason", "for_good"),
    [
        ("dingtalk", {"errcode": 310000, "errmsg": "keywords not in content"}, "refused", True),
        ("dingtalk", {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}, "limited", False),
        ("dingtalk", {"errcode": -1, "errmsg": "system busy"}, "refused", False),
        ("wecom", {"errcode": 45009, "errmsg": "api freq out of limit"}, "limited", False),
        ("wecom", {"errcode": 93000, "errmsg": "invalid webhook url"}, "refused", True),
        ("feishu", {"code": 11232, "msg": "frequency limited"}, "limited", False),
        ("feishu", {"code": 19024, "msg": "Key Words Not Found"}, "refused", True),
    ],
)
def test_a_refusal_with_status_200_is_a_refusal(
    vendors: Vendors, name: str, answer: dict[str, object], reason: str, for_good: bool
) -> None:
    vendors.faults.append(Fault(body=answer))
    error = refused(name)
    assert (error.reason, error.for_good) == (reason, for_good)
    assert str(answer.get("errmsg", answer.get("msg"))) in str(error)
    assert (error.pause_s > 0) == (reason == "limited")


def test_a_signature_that_does_not_match_is_refused_for_good(vendors: Vendors) -> None:
    error = refused("dingtalk", f"dingtalk://SECwrong@{TOKEN}")
    assert (error.reason, error.for_good) == ("refused", True)
    assert "sign not match" in str(error)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("dingtalk://unknowntoken", "token is not exist"),
        ("wecombot://unknown-key", "invalid webhook url"),
        ("feishu://unknown-hook", "access token invalid"),
        ("tgram://123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAA/-1001", "Unauthorized"),
    ],
)
def test_an_unknown_token_is_refused_for_good(vendors: Vendors, url: str, said: str) -> None:
    error = refused("x", url)
    assert (error.reason, error.for_good) == ("refused", True)
    assert said in str(error)


@pytest.mark.parametrize("name", URLS)
def test_429_says_how_long_to_wait(vendors: Vendors, name: str) -> None:
    telegrams = {"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 7}}
    vendors.faults += [
        Fault(429, telegrams if name == "telegram" else b"slow down", {"Retry-After": "7"}),
        Fault(429),
        Fault(503, b"<html>busy</html>", {"Retry-After": "9000"}),
    ]
    assert (refused(name).reason, vendors.faults) != ("refused", [])
    errors = [refused(name), refused(name)]
    assert [(error.reason, error.for_good, error.pause_s) for error in errors] == [
        ("limited", False, 60.0),
        ("refused", False, 600.0),
    ]


@pytest.mark.parametrize("url", ["json://127.0.0.1:1", "mailto://127.0.0.1:1?from=a@b.com&to=c@d.com"])
def test_nobody_there_is_worth_another_attempt(url: str) -> None:
    error = refused("x", url)
    assert not error.for_good
    assert "refused" in str(error)


def test_a_certificate_of_another_is_not_trusted(vendors: Vendors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    error = refused("wecom")
    assert (error.reason, str(error)) == ("unreachable", "its certificate is not trusted")
    assert not vendors.texts


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a service run with -vv would write; pytest's own handler hears loggers that nobody else hears."""
    root, text = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def test_secrets_stand_nowhere(vendors: Vendors, log: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("streaming").debug("heard")
    said = []
    for name, url in URLS.items():
        channel = AppriseChannel(name, url)
        said.append(f"{channel.masked} {channel.service}")
        channel.send(TITLE, BODY)
        echo = {"errcode": 1, "code": 1, "errmsg": url, "msg": url, "description": url}
        for fault in (Fault(body=echo), Fault(400, echo), Fault(500)):
            vendors.faults.append(fault)
            if fault.status != 200 or name != "telegram":
                said.append(str(refused(name)))
            else:
                channel.send(TITLE, BODY)
    said.append(AppriseChannel("own", "json://someone:passw0rd@127.0.0.1/hooks/s3cret?+X-Key=k3y").masked)
    said.append(AppriseChannel("mail", "mailtos://someone:passw0rd@example.com?to=a@example.com").masked)
    out, err = capfd.readouterr()
    everything = "\n".join([*said, log.getvalue(), out, err])
    assert "heard" in everything
    assert "***" in everything
    assert [secret for secret in (*SECRETS, "passw0rd", "s3cret", "k3y") if secret in everything] == []


@pytest.mark.parametrize("url", ["nonsense", "", "dingtalk://", f"feishu://{HOOK} {KEY}!", f"unknown://{KEY}"])
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str, log: io.StringIO) -> None:
    with pytest.raises(SettingsError, match=r"alerts\.channels\.desk\.url") as raised:
        AppriseChannel("desk", url)
    assert KEY not in str(raised.value) + log.getvalue()

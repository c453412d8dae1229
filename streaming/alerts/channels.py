"""The channels of alerts, through Apprise, which is imported here alone.

Apprise says whether a message was sent. Why it was not stands in its log, and that DingTalk, WeCom and Feishu answer a
refusal with HTTP status 200 escapes it. So what its plugins were answered is read here too: docs/decisions/0020.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote

from data.errors import SettingsError
from data.settings import APP
from streaming.alerts.delivery import ChannelError

try:
    import apprise
    from apprise.plugins.base import NotifyBase
except ImportError as error:  # an extra
    raise SettingsError("alerts need Apprise: pip install 'mystocks-scan[alerts]'") from error

LONGEST_BODY = 20_000
"""Characters of a message where the channel itself takes more."""
BY_HOST = frozenset({"json", "xml", "form", "mailto"})
"""Schemes whose addresses are shown by their host alone: anything else of them may be a secret."""
EXACT = "Socket Exception: "
"""How Apprise's log begins where it says what went wrong."""
SENT = range(200, 300)
BUSY = frozenset({408, 425, 429})
"""Client errors that ask for another attempt."""


def _utf8(text: str) -> int:
    return len(text.encode())


def _escaped(text: str) -> int:
    return len(json.dumps(text))


@dataclass(frozen=True)
class Vendor:
    """What is to be known of a service beyond Apprise: how long its messages may be, and how that is measured; the
    field of its answer that is 0 where it took the message; its codes that ask for patience, and those that stay."""

    longest: int
    measure: Callable[[str], int] = len
    code: str = ""
    limited: frozenset[int] = frozenset()
    final: frozenset[int] = frozenset()


VENDORS: Mapping[str, Vendor] = {
    # https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages: 20 a minute, 20,000 bytes a request.
    "dingtalk": Vendor(
        19_500, _escaped, "errcode", frozenset({130101, 410100}), frozenset({310000, 300001, 300005, 400101, 400102})
    ),
    # https://developer.work.weixin.qq.com/document/path/91770: 20 a minute, 2,048 bytes of UTF-8.
    "wecombot": Vendor(2_048, _utf8, "errcode", frozenset({45009, 45033}), frozenset({93000, 40008, 40058, 44004})),
    # https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot: 100 a minute, 5 a second, requests of 20 KB.
    "feishu": Vendor(19_500, _escaped, "code", frozenset({11232}), frozenset({19001, 19002, 19021, 19022, 19024})),
    # https://core.telegram.org/bots/api#sendmessage: 4,096 characters; it says with HTTP's statuses what went wrong.
    "tgram": Vendor(4_096),
}


class AppriseChannel:
    """One address of Apprise's; fulfils `streaming.alerts.delivery.Channel`. Each message has a plugin of its own."""

    def __init__(self, name: str, url: str) -> None:
        """Raises SettingsError where Apprise does not know the address; what is wrong with it is not repeated."""
        self.name = name
        self._url = url
        with _Overhearing():
            plugin = self._plugin()
        whole, masked = str(plugin.url()), str(plugin.url(privacy=True))  # type: ignore[no-untyped-call]
        schema = whole.partition(":")[0]
        self._vendor = VENDORS.get(schema, Vendor(min(plugin.body_maxlen, LONGEST_BODY)))
        self.service = str(plugin.service_name)
        self.masked = masked.partition("?")[0].rstrip("/")
        if schema.rstrip("s") in BY_HOST:
            self.masked = f"{schema}://{plugin.host or ''}{f':{plugin.port}' if plugin.port else ''}/***"
        self._secrets = _secrets(f"{url} {whole}", self.masked)
        module = sys.modules[type(plugin).__module__]
        if isinstance(requests := getattr(module, "requests", None), ModuleType):
            # The plugin's module has one name for it, and its calls go by that name.
            vars(module)["requests"] = _Listening(requests)

    def fits(self, title: str, body: str) -> bool:
        """See `Channel`."""
        return self._vendor.measure(f"{title}\r\n{body}") <= self._vendor.longest

    def send(self, title: str, body: str) -> None:
        """See `Channel`."""
        with _Overhearing() as heard:
            sender = apprise.Apprise(self._plugin(), asset=_asset())
            taken = sender.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT)
        if error := self._refusal(heard) or (None if taken else self._trouble(heard)):
            raise error

    def _plugin(self) -> NotifyBase:
        plugin = apprise.Apprise.instantiate(self._url, asset=_asset())
        if not isinstance(plugin, NotifyBase):
            raise SettingsError(
                f"alerts.channels.{self.name}.url is no address that Apprise knows: docs/alerts.md shows how they look"
            )
        return plugin

    def _refusal(self, heard: "_Heard") -> ChannelError | None:
        """What an HTTP answer says against the message."""
        for answer in heard.answers:
            status, said = answer.status_code, _object(answer)
            code = said.get(self._vendor.code, 0) if self._vendor.code else 0
            if status in SENT and code == 0:
                continue
            text = said.get("errmsg") or said.get("msg") or said.get("description") or answer.reason or ""
            shown = f"HTTP {status}" if status not in SENT else f"{self._vendor.code} {code}"
            text = self._clean(f"{shown}: {text}")
            if status == 429 or code in self._vendor.limited:
                return ChannelError(text, reason="limited", pause_s=_pause_s(answer, said))
            final = code in self._vendor.final if status in SENT else status < 500 and status not in BUSY
            return ChannelError(text, reason="refused", for_good=final, pause_s=_pause_s(answer, said, 0.0))
        return None

    def _trouble(self, heard: "_Heard") -> ChannelError:
        """What Apprise said where no answer came."""
        if heard.errors:
            return ChannelError(heard.errors[-1], reason="unreachable")
        exact = [text.removeprefix(EXACT) for text in heard.said if text.startswith(EXACT)]
        return ChannelError(self._clean((exact or heard.said or ["Apprise says no more"])[-1]), reason="error")

    def _clean(self, text: str) -> str:
        """A vendor's or a library's words, on one line, without secrets, never long."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= 200 else f"{text[:199]}…"


def _asset() -> apprise.AppriseAsset:
    """No threads of Apprise's own: its pool would wait at the end for one that hangs."""
    return apprise.AppriseAsset(app_id=APP, app_desc=APP, app_url="", async_mode=False, service_timeout=0)


class _Heard:
    """What happened while one thread sent one message."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.errors: list[str] = []
        self.said: list[str] = []


class _Overhearing:
    """Within it, this thread's answers and what Apprise logs are kept, and go nowhere else: they hold secrets."""

    def __enter__(self) -> _Heard:
        _hearing.now = _Heard()
        return _hearing.now

    def __exit__(self, *_: object) -> None:
        _hearing.now = None


class _Hearing(threading.local):
    now: _Heard | None = None


_hearing = _Hearing()


class _Listening:
    """`requests`, as a plugin calls it, with what it was answered kept aside."""

    def __init__(self, requests: ModuleType) -> None:
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

    def post(self, url: str, **given: Any) -> Any:
        """As `requests.post`."""
        return self.request("POST", url, **given)

    def request(self, method: str, url: str, **given: Any) -> Any:
        """As `requests.request`."""
        params = given.get("params")
        if isinstance(params, dict) and isinstance(sign := params.get("sign"), str):
            # DingTalk's signature comes percent-encoded, and would be once more: it would not match.
            given["params"] = params | {"sign": unquote(sign)}
        heard = _hearing.now or _Heard()
        try:
            answer = self._requests.request(method, url, **given)
        except self._requests.RequestException as error:
            heard.errors.append(_why(error))
            raise
        heard.answers.append(answer)
        return answer


class _Log(logging.Handler):
    """Keeps what Apprise says in a thread that listens; nothing of it reaches other logs."""

    def emit(self, record: logging.LogRecord) -> None:
        if (heard := _hearing.now) is not None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING or text.startswith(EXACT):
                heard.said.append(text)


def _quieten() -> None:
    """Apprise's log holds addresses, and urllib3's too, at the level of -vv."""
    log = logging.getLogger("apprise")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    log.addHandler(_Log())
    logging.getLogger("urllib3").setLevel(logging.WARNING)


_quieten()


def _object(answer: Any) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _pause_s(answer: Any, said: Mapping[str, Any], otherwise: float = 60.0) -> float:
    """So long a channel asks to be left alone, ten minutes at most."""
    parameters = said.get("parameters")
    told = parameters.get("retry_after") if isinstance(parameters, dict) else None
    try:
        return min(max(float(told if told is not None else answer.headers.get("Retry-After", "")), 0.0), 600.0)
    except (TypeError, ValueError):
        return otherwise


def _why(error: Exception) -> str:
    """A connection's fault in few words; the exception's own hold the address."""
    text = f"{type(error).__name__} {error}".lower()
    for sign, words in (
        ("certificate", "its certificate is not trusted"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("refused", "connection refused"),
        ("resolve", "its name does not resolve"),
        ("resolution", "its name does not resolve"),
        ("unreachable", "no route to it"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}"


def _secrets(addresses: str, masked: str) -> list[str]:
    """The parts of an address that its masked form does not show, longest first."""
    parts = {part for text in (addresses, unquote(addresses)) for part in re.split(r"[/:@?&=,#\s]+", text)}
    parts -= set(re.split(r"[^\w.-]+", masked))
    parts = {part for part in parts if len(part) >= 4}
    return sorted(parts | {quote(part, safe="") for part in parts}, key=len, reverse=True)

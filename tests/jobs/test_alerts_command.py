"""`mystocks-scan alerts`: list, test, retry, against servers on this machine."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from data.errors import SettingsError, UsageError
from data.settings import load_settings
from data.store import BarStore
from jobs.cli import cli
from streaming.alerts.channels import AppriseChannel
from streaming.alerts.letters import DeadLetters
from tests.streaming.alerts.fakes.vendors import SECRETS, URLS, Fault, Vendors, at_home, serving

SETTINGS = """
alerts:
  channels:
    desk: {{url: "{dingtalk}", per_minute: 2}}
    own: {{url: "json://127.0.0.1:{port}/hooks/s3cr3t"}}
  rules:
    - {{channels: [desk], strategies: [macd], actions: [buy], min_confidence: 0.5, cooldown_s: 60}}
    - {{symbols: ["600519", "SZ000001"]}}
"""


class Town:
    """DingTalk, a webhook of one's own, and the settings for both."""

    def __init__(self, folder: Path, dingtalk: Vendors, own: Vendors, port: int) -> None:
        self.folder, self.dingtalk, self.own = folder, dingtalk, own
        self.settings(SETTINGS.format(dingtalk=URLS["dingtalk"], port=port))

    def settings(self, text: str) -> None:
        (self.folder / "mystocks-scan.yaml").write_text(text)

    def call(self, *args: str) -> Result:
        config = ["--config", str(self.folder / "mystocks-scan.yaml")]
        done = CliRunner().invoke(cli, ["alerts", *args, *config], standalone_mode=False)
        shown = done.output + done.stderr + str(done.exception)
        assert [secret for secret in (*SECRETS, "s3cr3t") if secret in shown] == []
        return done

    def rows(self, *args: str) -> tuple[Any, list[dict[str, Any]]]:
        done = self.call(*args, "--json")
        assert done.exception is None, done.exception
        return done.return_value, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with at_home(tmp_path) as dingtalk, serving() as (own, port):
        yield Town(tmp_path, dingtalk, own, port)


def test_list_shows_channels_and_rules_and_no_secret(town: Town) -> None:
    _, rows = town.rows("list")
    desk, own, first, second = rows
    assert (desk["service"], desk["per_minute"], own["service"]) == ("DingTalk", 2, "JSON")
    assert desk["address"].startswith("dingtalk://")
    assert own["address"].startswith("json://127.0.0.1:")
    assert first == {
        "rule": 1,
        "channels": ["desk"],
        "strategies": ["macd"],
        "actions": ["BUY"],
        "min_confidence": 0.5,
        "cooldown_s": 60,
    }
    assert (second["channels"], second["symbols"]) == (["desk", "own"], ["000001.SZ", "600519.SH"])
    assert "DingTalk" in town.call("list").stdout


def test_test_sends_to_all_and_says_of_each_what_became_of_it(town: Town) -> None:
    town.own.faults.append(Fault(404))
    code, (desk, own) = town.rows("test")
    assert (code, desk["ok"], own["ok"], own["result"]) == (1, True, False, "HTTP 404: Not Found")
    (text,) = town.dingtalk.texts
    assert text.startswith("mystocks-scan: test")
    assert "the channel desk" in text
    code, (own,) = town.rows("test", "--channel", "own")
    assert (code, own["ok"], len(town.dingtalk.texts)) == (0, True, 1)
    assert "sent" in town.call("test").stdout


def test_a_channel_that_hangs_is_said_to_hang_and_the_other_is_told(town: Town) -> None:
    (town.folder / "mystocks-scan.yaml").write_text(
        (town.folder / "mystocks-scan.yaml").read_text().replace("per_minute: 2", "timeout_s: 0.3")
    )
    town.dingtalk.faults.append(Fault(hang=True))
    code, (desk, own) = town.rows("test")
    assert (code, desk["result"], own["ok"]) == (1, "no answer within 0.3 s", True)


def test_doctor_looks_at_channels_and_shows_no_secret(town: Town) -> None:
    config = str(town.folder / "mystocks-scan.yaml")
    done = CliRunner().invoke(cli, ["doctor", "--json", "--config", config], standalone_mode=False)
    assert [secret for secret in (*SECRETS, "s3cr3t") if secret in done.output] == []
    (found,) = [one for one in json.loads(done.stdout)["checks"] if one["check"] == "sinks"]
    assert (found["status"], "desk (DingTalk), own (JSON)" in found["text"]) == ("OK", True)
    assert not town.dingtalk.asked


@pytest.mark.parametrize("args", [("test",), ("list",)])
def test_without_channels_there_is_nothing_to_test(town: Town, args: tuple[str, ...]) -> None:
    town.settings("alerts: {}")
    with pytest.raises(UsageError, match=r"alerts\.channels"):
        raise town.call(*args).exception or AssertionError


def test_without_apprise_it_is_said_what_to_install(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.delitem(sys.modules, "streaming.alerts.channels")
    with pytest.raises(SettingsError, match=r"pip install 'mystocks-scan\[alerts\]'"):
        raise town.call("test").exception or AssertionError


def test_an_unknown_channel_is_named(town: Town) -> None:
    with pytest.raises(UsageError, match="no channel 'dest'; there are desk, own"):
        raise town.call("test", "--channel", "dest").exception or AssertionError


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{channels: [dest]}", "rule 1: no channel 'dest'"),
        ("{actions: [HOLD]}", "rule 1: actions must be among"),
        ("{symbols: ['12']}", "rule 1: "),
        ("{min_confidence: 2}", "min_confidence"),
        ("{strategy: [macd]}", r"alerts\.rules\.0\.strategy"),
    ],
)
def test_a_rule_that_is_wrong_is_refused_and_named(town: Town, rule: str, said: str) -> None:
    channels = (town.folder / "mystocks-scan.yaml").read_text().partition("  rules")[0]
    town.settings(f"{channels}  rules: [{rule}]\n")
    with pytest.raises(SettingsError, match=said):
        raise town.call("list").exception or AssertionError


def test_the_document_s_settings_are_settings_and_its_addresses_are_addresses(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    (block,) = re.findall(r"^<!-- alerts -->\n```yaml\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mystocks-scan.yaml"
    path.write_text(block)
    done = CliRunner().invoke(cli, ["alerts", "list", "--json", "--config", str(path)], standalone_mode=False)
    assert done.exception is None
    assert len(done.stdout.splitlines()) == 5
    addresses = re.findall(r"^\| \w+ \| `(\w+://[^`]+)`", document, re.MULTILINE)
    assert len(addresses) == 6
    for address in addresses:
        AppriseChannel(
            "x", address.replace("BOT_TOKEN", "123456789:AAAAAAAAAAAAAAAAAAAAAAAAAA").replace("CHAT_ID", "1")
        )


def letter(channel: str, n: int) -> dict[str, Any]:
    at = f"2026-03-02T01:3{n}:00Z"
    return {"at": at, "channel": channel, "why": "x", "attempts": 6, "title": f"t{n}", "body": f"b{n}", "signals": []}


def test_retry_sends_dead_letters_in_their_order_and_keeps_what_fails(town: Town) -> None:
    store = BarStore(town.folder / "store", origin="sim")
    letters = DeadLetters(store.root / "alerts")
    letters.add([letter("desk", 1), letter("own", 2), letter("desk", 3), letter("gone", 4), letter("own", 5)])
    letters.add([letter("desk", 6), letter("own", 7)])
    town.own.faults += [Fault(), Fault(500)]
    where = ("--store", str(store.root))
    assert [row["title"] for row in town.rows("retry", "--dry-run", *where)[1]] == [f"t{n}" for n in range(1, 8)]
    assert not town.dingtalk.asked
    assert town.rows("retry", *where) == (1, [{"sent": 3, "left": 4}])
    assert [text.splitlines()[-1] for text in town.dingtalk.texts] == ["b1", "b3"]
    assert town.dingtalk.texts[0].startswith("t1 (late: it is of 2026-03-02T01:31:00Z)")
    left = [(one["title"], one["why"], one["attempts"]) for one in letters]
    assert left == [("t4", "x", 6), ("t5", "HTTP 500: Internal Server Error", 7), ("t6", "x", 6), ("t7", "x", 6)]
    town.rows("retry", *where)
    assert [text.splitlines()[-1] for text in town.dingtalk.texts] == ["b1", "b3", "b6"]
    assert [text.splitlines()[-1] for text in town.own.texts] == ["b5", "b7"]
    assert [one["title"] for one in letters] == ["t4"]
    assert "1 left" in town.call("retry", *where).stdout


def test_secrets_of_settings_stand_in_no_error_and_no_repr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mystocks-scan.yaml"
    secret = "dingtalk://SECabc@t0ken"
    for text in (
        f"alerts: {{channels: {{desk: {{ur1: '{secret}'}}}}}}",
        f"alerts: {{channels: {{desk: '{secret}'}}}}",
        f"alerts: {{channels: {{'{secret}': {{}}}}}}",
        f"alerts: {{channels: ['{secret}']}}",
        f"alert: {{channels: {{desk: {{url: '{secret}'}}}}}}",
        f"alerts:\n  channels:\n    desk: {{url: '{secret}\n",
        f"alerts: {{channels: {{desk: {{url: {{a: '{secret}'}}}}}}}}",
    ):
        path.write_text(text)
        with pytest.raises(SettingsError) as raised:
            load_settings(path)
        chain: BaseException | None = raised.value
        while chain is not None:
            assert "t0ken" not in f"{chain} {chain!r}", text
            chain = chain.__cause__
    path.write_text("alerts: {channels: {desk: {per_minute: 3}}}")
    monkeypatch.setenv("MYSTOCKS_SCAN__ALERTS__CHANNELS__DESK__URL", secret)
    settings = load_settings(path)
    assert settings.alerts.channels["desk"].url.get_secret_value() == secret
    assert settings.alerts.channels["desk"].per_minute == 3
    assert "t0ken" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("MYSTOCKS_SCAN__ALERTS__CHANNELS", f'{{"desk": "{secret}"')
    with pytest.raises(SettingsError) as raised:
        load_settings(path)
    assert "t0ken" not in str(raised.value)

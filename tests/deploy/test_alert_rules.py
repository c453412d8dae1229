"""The alert rules: what they name exists, each fires where it should and not elsewhere, and the docs know them all."""

import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from data import metrics
from tests.deploy.asked import DEPLOY, check

PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "mystocks-scan.rules.yml"
MUST = {
    "MystocksFeedDead", "MystocksQuotesStale", "MystocksScanLate", "MystocksSignalsLate", "MystocksSignalsStopped",
    "MystocksDiskLow", "MystocksCalendarEnds", "MystocksGpuLeft", "MystocksSubscribersCutOff", "MystocksLoopLags",
    "MystocksGpuMemoryGrows", "MystocksAlertsUndeliverable",
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_what_there_is_and_says_what_to_do(rule: dict[str, Any], series: Mapping[str, set[str]]) -> None:
    left = check(rule["expr"], series)
    said = rule["annotations"]
    assert set(said) == {"summary", "remedy"}
    assert set(re.findall(r"\$labels\.(\w+)", " ".join(said.values()))) <= left, rule["expr"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert f"| `{rule['alert']}` |" in (DEPLOY.parent / "docs" / "monitoring.md").read_text()


def test_there_is_an_alert_for_whatever_must_wake_somebody() -> None:
    assert {rule["alert"] for rule in rules()} >= MUST


@pytest.mark.parametrize("rule", [r for r in rules() if "histogram_quantile" in r["expr"]], ids=lambda r: r["alert"])
def test_an_alert_on_a_quantile_lies_at_a_bucket_below_the_last(rule: dict[str, Any]) -> None:
    """Above the last a quantile is never seen, and the alert never fires."""
    (family,) = set(re.findall(r"(mystocks_\w+)_bucket", rule["expr"]))
    (bound,) = re.findall(r"> ([\d.]+)$", rule["expr"])
    (metric,) = (one for one in vars(metrics).values() if getattr(one, "_name", "") == family)
    buckets = metric._upper_bounds
    assert float(bound) in buckets
    assert max(bound for bound in buckets if bound < math.inf) > float(bound)


def test_every_alert_has_a_time_at_which_it_fires_and_one_at_which_it_does_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "mystocks-scan.rules.test.yml").read_text())["tests"]
    seen: dict[str, set[bool]] = {}
    for one in (case for test in tests for case in test["alert_rule_test"]):
        seen.setdefault(one["alertname"], set()).add(bool(one.get("exp_alerts")))
    assert seen == {rule["alert"]: {True, False} for rule in rules()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is missing")
def test_the_rules_fire_when_they_should() -> None:
    for command in (
        ["check", "rules", RULES.name],
        ["test", "rules", "mystocks-scan.rules.test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ):
        done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

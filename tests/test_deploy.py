"""What deploy/ ships, against the service that it watches."""

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from data.metrics import registry, signal_latency

PROMETHEUS = Path(__file__).parent.parent / "deploy" / "prometheus"
RULES = PROMETHEUS / "mystocks-scan.rules.yml"


def names() -> set[str]:
    """Every series that /metrics can show."""
    ends = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
    return {family.name + end for family in registry.collect() for end in ends[family.type]}


def test_alerts_name_series_that_there_are_and_say_what_to_do() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 3
    for rule in rules:
        asked = set(re.findall(r"mystocks_\w+", rule["expr"]))
        assert asked, rule
        assert asked <= names(), rule
        assert {"summary", "remedy"} <= set(rule["annotations"]), rule


def test_a_latency_alert_lies_below_the_last_bucket() -> None:
    """Above it a quantile would never be seen, and the alert never fire."""
    (bound,) = re.findall(r"histogram_quantile.* > ([\d.]+)", RULES.read_text())
    signal_latency.labels("1m")
    samples = [
        s for family in registry.collect() for s in family.samples if s.name.endswith("signal_latency_seconds_bucket")
    ]
    buckets = {float(sample.labels["le"]) for sample in samples}
    assert float(bound) in buckets
    assert max(buckets - {math.inf}) > float(bound)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is missing")
def test_the_rules_fire_when_they_should() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", "mystocks-scan.rules.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

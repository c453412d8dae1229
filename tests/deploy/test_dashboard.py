"""The dashboard: made as it is declared, of what Grafana knows, and asking only for what /metrics shows."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.asked import DEPLOY, NAME, check, families

GRAFANA = DEPLOY / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "mystocks-scan.json").read_text())
NOT_SHOWN = {
    "process_virtual_memory_bytes": "means little where files are mapped",
    "process_start_time_seconds": "Prometheus' own `up` and the log say it",
}
UNITS = {"s", "bytes", "Bps", "ops", "short", "percentunit", "bool_yes_no", "none", "d"}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        assert not panel.get("panels"), "a row that is closed would hide its panels from this test"
        if panel["type"] != "row":
            yield panel


def filled(expr: str) -> str:
    """PromQL as Grafana sends it."""
    return expr.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$frame", ".*")


def test_the_file_is_what_its_declaration_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_dashboard", GRAFANA / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.dashboard() == DASHBOARD, "run: python deploy/grafana/make_dashboard.py"


def test_grafana_knows_every_word_of_it() -> None:
    """Read into the types that Grafana publishes and written again, nothing is lost."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    assert_within(DASHBOARD, again)
    strange = json.loads(json.dumps(DASHBOARD))
    strange["panels"][1]["options"]["colourMode"] = "value"
    again = json.loads(json.dumps(Dashboard.from_json(strange), cls=JSONEncoder))
    with pytest.raises(AssertionError, match="colourMode"):
        assert_within(strange, again)


def assert_within(mine: Any, theirs: Any, place: str = "") -> None:
    """Everything that is said here is said there; what is empty may be left out."""
    if isinstance(mine, dict):
        for key, value in mine.items():
            if value not in (None, [], {}):
                assert key in theirs, f"{place}/{key}"
                assert_within(value, theirs[key], f"{place}/{key}")
    elif isinstance(mine, list):
        assert len(mine) == len(theirs), place
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            assert_within(one, other, f"{place}[{number}]")
    else:
        assert mine == theirs, place


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any], series: Mapping[str, set[str]]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    assert unit in UNITS
    assert panel["description"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        expr = filled(target["expr"])
        left = check(expr, series)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, expr
        if "_bucket" in expr:
            assert re.search(r"sum by \(le[,)].*(rate|increase)\(mystocks_\w+_bucket\{.*\[", expr), expr
        counted = {name for name in re.findall(NAME, expr) if name.endswith(("_total", "_count", "_sum", "_bucket"))}
        for name in counted:
            assert re.search(rf"(rate|increase)\({name}\{{[^}}]*\}}\[", expr), f"{name} only grows: {expr}"
        measured = {name for name in re.findall(NAME, expr) if re.search(r"_(seconds|bytes)(_bucket|_total)?$", name)}
        wanted = {"s" if "_seconds" in name and "cpu" not in name else "B" for name in measured} - {""}
        if wanted and "cpu" not in expr:
            assert unit in {"s": {"s"}, "B": {"bytes", "Bps"}}["".join(wanted)], expr


def test_every_metric_is_on_the_dashboard_or_said_not_to_be() -> None:
    shown = set(re.findall(NAME, " ".join(target["expr"] for panel in panels() for target in panel["targets"])))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    there = {name for name, *_ in families()}
    assert there - shown == set(NOT_SHOWN)


def test_panels_lie_side_by_side_and_none_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert {"Feed", "Bars", "Scan", "Latency", "Signals", "WebSocket", "GPU and Dask"} <= set(rows)


def test_grafana_finds_it_and_its_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/mystocks-scan.yml").read_text())["providers"]
    assert provider["type"] == "file"
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance", "frame"]
    assert DASHBOARD["uid"] == "mystocks-scan"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is missing")
def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    """As recording rules, which promtool parses; benchmarks/monitoring.py asks a real Prometheus."""
    exprs = [filled(target["expr"]) for panel in panels() for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(exprs)} rules found" in done.stdout


def test_the_document_tells_every_metric_as_the_registry_has_it() -> None:
    text = (DEPLOY.parent / "docs" / "monitoring.md").read_text()
    told = re.findall(r"^(\| `mystocks_\w+` \| .*)$", text, re.MULTILINE)
    ours = [family for family in families() if family[0].startswith("mystocks_")]
    expected = [f"| `{name}` | {kind} | {', '.join(labels)} | {said} |" for name, kind, said, labels in ours]
    assert told == expected


def test_the_names_that_take_the_place_of_earlier_ones_are_there() -> None:
    text = (DEPLOY.parent / "docs" / "from-the-earlier-system.md").read_text()
    rows = re.findall(r"^\| .* \| (.*mystocks_.*) \|$", text, re.MULTILINE)
    assert len(rows) == 7
    labels = {name: set(have) for name, _, _, have in families()}
    for name, said in re.findall(r"`(mystocks_\w+)(?:\{([^}]*)\})?`", " ".join(rows)):
        assert name in labels
        assert not said or {label.strip() for label in said.split(",")} == labels[name]

"""The dashboard of signals on prices: made as it is declared, and of what Grafana knows."""

import importlib.util
import json
from typing import Any

from tests.deploy.asked import DEPLOY
from tests.deploy.test_dashboard import assert_within

GRAFANA = DEPLOY / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "mystocks-scan-signals.json").read_text())
OF_THE_SOURCE = ("query", "textColumn", "tagsColumn", "titleColumn")
"""What an annotation has besides, where it asks InfluxDB."""


def test_the_file_is_what_its_declaration_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_signals_dashboard", GRAFANA / "make_signals_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.dashboard() == DASHBOARD, "run: python deploy/grafana/make_signals_dashboard.py"


def test_grafana_knows_every_word_of_it() -> None:
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    mine: dict[str, Any] = json.loads(json.dumps(DASHBOARD))
    (mark,) = mine["annotations"]["list"]
    assert [bool(mark.pop(name)) for name in OF_THE_SOURCE] == [True, True, True, False]
    assert_within(mine, again)


def test_its_variables_are_those_that_its_queries_have() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == {"influx", "symbol", "frame"}
    asked = [panel["targets"][0]["query"] for panel in DASHBOARD["panels"]]
    asked.append(DASHBOARD["annotations"]["list"][0]["query"])
    assert all("$timeFilter" in query for query in asked)
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${influx}"}

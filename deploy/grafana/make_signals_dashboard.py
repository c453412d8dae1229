"""Writes dashboards/mystocks-scan-signals.json: `python deploy/grafana/make_signals_dashboard.py`.

Signals on prices, from InfluxDB; the queries are those of docs/influx.md.
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "influxdb", "uid": "${influx}"}
DOCUMENT = (HERE / "../../docs/influx.md").read_text()
MARKS, CANDLES, STAGES = re.findall(r"^```sql\n(.*?)\n```$", DOCUMENT, re.MULTILINE | re.DOTALL)
UP, DOWN = "#d63031", "#00875a"
"""China's colours."""


def target(query: str, form: str) -> dict[str, Any]:
    """A query as a panel asks it."""
    return {"refId": "A", "datasource": SOURCE, "query": query, "rawQuery": True, "resultFormat": form}


def panel(number: int, kind: str, title: str, about: str, y: int, height: int, asked: dict[str, Any]) -> dict[str, Any]:
    """A panel as wide as the dashboard."""
    return {
        "id": number,
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": {"x": 0, "y": y, "w": 24, "h": height},
        "targets": [asked],
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    about = "Bars of `influx.symbols`; the marks are signals."
    candles = panel(1, "candlestick", "$symbol $frame", about, 0, 14, target(CANDLES, "table")) | {
        "options": {
            "mode": "candles+volume",
            "candleStyle": "candles",
            "colorStrategy": "open-close",
            "colors": {"up": UP, "down": DOWN},
        },
        "fieldConfig": {"defaults": {"unit": "short"}, "overrides": []},
    }
    stages = panel(
        2, "timeseries", "Latency by stage", "The slowest scan of each step.", 14, 8, target(STAGES, "time_series")
    ) | {"fieldConfig": {"defaults": {"unit": "s"}, "overrides": []}}
    marks = {
        "name": "Signals",
        "enable": True,
        "iconColor": UP,
        "datasource": SOURCE,
        "query": MARKS,
        "textColumn": "text",
        "tagsColumn": "strategy,action",
        "titleColumn": "",
    }
    return {
        "uid": "mystocks-scan-signals",
        "title": "mystocks-scan: signals on prices",
        "description": "From the InfluxDB that `influx` in the settings names: docs/influx.md.",
        "tags": ["mystocks-scan"],
        "timezone": "Asia/Shanghai",
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1d", "to": "now"},
        "schemaVersion": 39,
        "templating": {
            "list": [
                {"type": "datasource", "name": "influx", "label": "InfluxDB", "query": "influxdb", "multi": False},
                *(_variable(name, label) for name, label in (("symbol", "Symbol"), ("frame", "Bars"))),
            ]
        },
        "annotations": {"list": [marks]},
        "panels": [candles, stages],
    }


def _variable(name: str, label: str) -> dict[str, Any]:
    query = f'SHOW TAG VALUES FROM "bar" WITH KEY = "{name}"'
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False)
    (HERE / "dashboards" / "mystocks-scan-signals.json").write_text(text + "\n")

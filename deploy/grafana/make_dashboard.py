"""Writes dashboards/mystocks-scan.json: `python deploy/grafana/make_dashboard.py`. A test compares the two.

A panel is a line here: its title, what it is for, its unit, and its queries with their legends. To change one by hand,
change it here; what Grafana itself exports has hundreds of lines a panel.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

UID = "mystocks-scan"
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'instance=~"$instance"'
FRAME = f'{HERE}, frame=~"$frame"'
GREEN, YELLOW, RED = "green", "yellow", "red"


class Query(NamedTuple):
    """PromQL, and how its series are called."""

    expr: str
    legend: str = "__auto"


class Panel(NamedTuple):
    """One panel; `steps`: from which value on it has which colour."""

    title: str
    about: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 8
    steps: Sequence[tuple[float | None, str]] = ()
    stacked: bool = False


def rate(metric: str, by: str, labels: str = HERE) -> Query:
    """A counter's growth a second."""
    return Query(f"sum by ({by}) (rate(mystocks_{metric}{{{labels}}}[$__rate_interval]))", f"{{{{{by}}}}}")


def grown(metric: str, by: str, labels: str = HERE) -> Query:
    """By how much a counter has grown within a step of the graph."""
    return Query(f"sum by ({by}) (increase(mystocks_{metric}{{{labels}}}[$__rate_interval]))", f"{{{{{by}}}}}")


def level(metric: str, legend: str, labels: str = HERE) -> Query:
    """A gauge as it is."""
    return Query(f"mystocks_{metric}{{{labels}}}", legend)


def quantiles(metric: str, by: str = "", labels: str = HERE, *, of: Sequence[float] = (0.5, 0.99)) -> list[Query]:
    """Quantiles of a histogram, over all instances, by a label or by none."""
    split = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    bucket = f"sum by ({split}) (rate(mystocks_{metric}_bucket{{{labels}}}[$__rate_interval]))"
    return [Query(f"histogram_quantile({q}, {bucket})", f"{legend}p{q * 100:g}") for q in of]


PROMISED = ((None, GREEN), (0.05, YELLOW), (0.2, RED))
ROWS: dict[str, Sequence[Panel]] = {
    "At a glance": (
        Panel(
            "Ready",
            "The checks of /readyz; docs/monitoring.md says what each asks for.",
            "bool_yes_no",
            [level("ready", "{{check}}")],
            "stat", 6, ((None, RED), (1, GREEN)),
        ),
        Panel(
            "Quotes are due", "Whether the exchange trades, so that silence is a fault.", "bool_yes_no",
            [Query(f"max(mystocks_market_open{{{HERE}}})")], "stat", 3,
        ),
        Panel(
            "Quotes to signals, p99", "Promised: 200 ms.", "s",
            [Query(quantiles("signal_latency_seconds", labels=FRAME, of=(0.99,))[0].expr, "p99")], "stat", 4, PROMISED,
        ),
        Panel(
            "Signals an hour", "Published in the last hour.", "short",
            [Query(f"sum(increase(mystocks_signals_total{{{HERE}}}[1h]))")], "stat", 3,
        ),
        Panel("Subscribers", "Connected to /ws/signals.", "short",
              [Query(f"sum(mystocks_ws_clients{{{HERE}}})")], "stat", 3),
        Panel(
            "Strategies switched off", "They failed, and run no more until the next start.", "short",
            [Query(f'sum(mystocks_strategies{{{HERE}, state="failed"}})')], "stat", 3, ((None, GREEN), (1, RED)),
        ),
        Panel("Version", "What runs here.", "none",
              [Query(f"mystocks_build_info{{{HERE}}}", "{{role}} {{version}}")], "stat", 2),
    ),
    "Feed": (
        Panel("Quotes a second", "Received, before anything is left out.", "ops",
              [rate("feed_ticks_total", "provider")]),
        Panel("Frames a second", "A frame is one answer or message of a vendor.", "ops",
              [rate("feed_frames_total", "provider")]),
        Panel("Received", "From vendors.", "Bps", [rate("feed_bytes_total", "provider")]),
        Panel(
            "Age of the newest quote", "In seconds of trading: nights and lunch do not count.", "s",
            [level("feed_quote_age_seconds", "{{provider}}")], steps=((None, GREEN), (15, YELLOW), (30, RED)),
        ),
        Panel(
            "Symbols", "Asked for, and those of them whose quote is old or missing.", "short",
            [level("feed_symbols", "{{provider}} asked for"), level("feed_symbols_stale", "{{provider}} stale")],
        ),
        Panel(
            "Connections", "Kept to a vendor, and those of them that have given a frame.", "short",
            [level("feed_connections", "{{provider}} kept"), level("feed_connected", "{{provider}} connected")],
        ),
        Panel("Connections lost", "By reason.", "short", [
            Query(f"sum by (provider, reason) (increase(mystocks_feed_reconnects_total{{{HERE}}}[$__rate_interval]))",
                  "{{provider}} {{reason}}")]),
        Panel("Not understood", "Lines, frames and requests of which no quote was read, by reason.", "short", [
            Query(f"sum by (provider, reason) (increase(mystocks_parse_errors_total{{{HERE}}}[$__rate_interval]))",
                  "{{provider}} {{reason}}")]),
        Panel(
            "Quotes left out", "By reason; those that came late and were entered are `delayed`.", "short",
            [grown("tick_dropped_total", "reason"),
             Query(f"sum(increase(mystocks_tick_delayed_total{{{HERE}}}[$__rate_interval]))", "delayed")],
        ),
        Panel("Tape: making quotes durable", "One sync to the disk.", "s", quantiles("wal_fsync_seconds")),
        Panel("Tape: written", "Bytes a second.", "Bps",
              [Query(f"sum(rate(mystocks_wal_bytes_total{{{HERE}}}[$__rate_interval]))", "written")]),
        Panel(
            "Tape: waiting and lost", "Batches of quotes. What is lost would be gone after a crash.", "short",
            [level("wal_lag_batches", "waiting"),
             Query(f"sum(increase(mystocks_wal_lost_batches_total{{{HERE}}}[$__rate_interval]))", "lost")],
        ),
    ),
    "Bus": (
        Panel("Waiting", "Events in a subscriber's queue; a full one makes the feed wait, or loses events.", "short",
              [level("bus_queue_depth", "{{sub}}")]),
        Panel("Lost", "Events that a full queue lost, by the queue's policy.", "short", [
            Query(f"sum by (sub, policy) (increase(mystocks_bus_dropped_total{{{HERE}}}[$__rate_interval]))",
                  "{{sub}} ({{policy}})"),
            Query(f"sum by (sub) (increase(mystocks_bus_errors_total{{{HERE}}}[$__rate_interval]))",
                  "{{sub}} failed on")]),
        Panel(
            "Unheard, and between processes", "Batches that nobody wanted; how often Redis was away, and what was sent"
            " again then.", "short",
            [grown("bus_unheard_total", "topic"),
             Query(f"sum(increase(mystocks_bus_reconnects_total{{{HERE}}}[$__rate_interval]))", "Redis was away"),
             Query(f"sum(increase(mystocks_bus_resent_total{{{HERE}}}[$__rate_interval]))", "sent again")],
        ),
    ),
    "Bars": (
        Panel("Bars closed", "Within a step of the graph.", "short", [grown("bars_total", "frame", FRAME)]),
        Panel(
            "From a bar's end to the bus", "In the exchange's time: how long quotes were waited for, and the folding.",
            "s", quantiles("bar_emit_delay_seconds", "frame", FRAME),
        ),
        Panel(
            "Share of bars that lack trades", "Incomplete: quotes may be missing. No trade: there was none.",
            "percentunit",
            [Query(f"sum by (frame) (rate(mystocks_bars_incomplete_total{{{FRAME}}}[$__rate_interval])) / "
                   f"sum by (frame) (rate(mystocks_bars_total{{{FRAME}}}[$__rate_interval]))", "{{frame}} incomplete"),
             Query(f"sum by (frame) (rate(mystocks_bars_no_trade_total{{{FRAME}}}[$__rate_interval])) / "
                   f"sum by (frame) (rate(mystocks_bars_total{{{FRAME}}}[$__rate_interval]))", "{{frame}} no trade")],
        ),
        Panel("Revisions", "Closed bars that late quotes changed.", "short",
              [grown("bar_revisions_total", "frame", FRAME)]),
        Panel("Store: making rows durable", "Bars and signals.", "s", quantiles("commit_seconds", "table"), width=16),
    ),
    "Scan": (
        Panel("One scan", "Shards and merging.", "s", quantiles("scan_seconds", "frame", FRAME)),
        Panel("Scans, by engine", "Within a step of the graph.", "short", [
            Query(f"sum by (engine) (increase(mystocks_scan_seconds_count{{{FRAME}}}[$__rate_interval]))",
                  "{{engine}}")]),
        Panel("Since the last scan", "Of a frame.", "s",
              [Query(f"time() - mystocks_scan_last_timestamp_seconds{{{FRAME}}}", "{{frame}}")]),
        Panel(
            "Symbols", "That had a bar, and on which every strategy is ready.", "short",
            [level("scan_symbols", "{{frame}} with a bar", FRAME), level("symbols_ready", "{{frame}} ready", FRAME)],
        ),
        Panel("Strategies", "Running, and switched off because they failed.", "short",
              [level("strategies", "{{frame}} {{state}}", FRAME)]),
        Panel(
            "Helped out", "Shards by another engine than the one chosen; scans that the cluster failed; kernels tried"
            " again because a GPU was full.", "short",
            [Query(f"sum(increase(mystocks_scan_fallbacks_total{{{HERE}}}[$__rate_interval]))", "other engine"),
             Query(f"sum(increase(mystocks_scan_late_total{{{HERE}}}[$__rate_interval]))", "cluster failed"),
             Query(f"sum(increase(mystocks_gpu_retries_total{{{HERE}}}[$__rate_interval]))", "GPU full")],
        ),
    ),
    "Latency": (
        Panel(
            "Quotes to signals", "From the receipt of the quotes that closed a bar to its signals in the subscribers'"
            " sockets. Promised: p99 200 ms.", "s",
            quantiles("signal_latency_seconds", "frame", FRAME, of=(0.5, 0.9, 0.99)), steps=PROMISED, width=12,
        ),
        Panel(
            "Quotes to signals, spread", "How many batches of signals took how long.", "s",
            [Query(f"sum by (le) (increase(mystocks_signal_latency_seconds_bucket{{{FRAME}}}[$__rate_interval]))",
                   "{{le}}")], "heatmap", 12,
        ),
        Panel("By stage, p99", "The watermark's wait and the age of quotes are the exchange's and the vendor's.", "s",
              quantiles("stage_seconds", "stage", FRAME, of=(0.99,)), width=12),
        Panel(
            "By stage, mean", "One upon the other.", "s",
            [Query(f"sum by (stage) (rate(mystocks_stage_seconds_sum{{{FRAME}, stage!~\"watermark_wait|quote_age\"}}"
                   "[$__rate_interval])) / "
                   f"sum by (stage) (rate(mystocks_stage_seconds_count{{{FRAME}}}[$__rate_interval]))", "{{stage}}")],
            width=12, stacked=True,
        ),
    ),
    "Signals": (
        Panel("By strategy", "Published within a step of the graph.", "short", [grown("signals_total", "strategy")]),
        Panel("By action", "Published within a step of the graph.", "short", [grown("signals_total", "action")]),
        Panel("Kept silent", "What fired and was not published: cooldown, an ex-rights gap, too few bars so far.",
              "short", [grown("signals_suppressed_total", "reason")]),
        Panel("Alerts", "What became of them, by channel.", "short", [
            Query(f"sum by (channel, result) (increase(mystocks_alerts_total{{{HERE}}}[$__rate_interval]))",
                  "{{channel}} {{result}}")]),
        Panel("Alerts: failed attempts", "By channel and reason.", "short", [
            Query(f"sum by (channel, reason) (increase(mystocks_alert_failures_total{{{HERE}}}[$__rate_interval]))",
                  "{{channel}} {{reason}}")]),
        Panel("Alerts: time to deliver", "From the history to the channel's word that it has it.", "s",
              quantiles("alert_seconds", "channel")),
        Panel("InfluxDB", "Points, by what became of them.", "short", [grown("influx_points_total", "result")]),
        Panel("InfluxDB: failed requests", "By reason.", "short", [grown("influx_failures_total", "reason")]),
    ),
    "WebSocket": (
        Panel("Subscribers", "Connections, subscribed or not.", "short",
              [Query(f"sum by (instance) (mystocks_ws_clients{{{HERE}}})", "{{instance}}")]),
        Panel("Messages a second", "To all subscribers together.", "ops", [rate("ws_messages_total", "instance")]),
        Panel("Most unread", "By one subscriber; at 1 MiB it is cut off.", "bytes",
              [level("ws_send_buffer_bytes", "{{instance}}")], steps=((None, GREEN), (1 << 20, RED))),
        Panel("Cut off", "By reason.", "short", [grown("ws_evicted_total", "reason")]),
        Panel("Refused", "Connections, requests and messages, by reason (docs/security.md).", "short",
              [grown("ws_refused_total", "reason")]),
        Panel("Came back", "Whether all that they had missed was there.", "short",
              [grown("ws_recover_total", "recovered")]),
    ),
    "GPU and Dask": (
        Panel("Workers", "Of the Dask cluster.", "short", [level("dask_workers", "{{instance}}")]),
        Panel("Tasks", "On the workers, by state.", "short",
              [Query(f"sum by (state) (mystocks_dask_tasks{{{HERE}}})", "{{state}}")], stacked=True),
        Panel("Memory of the workers", "Resident.", "bytes", [level("dask_memory_bytes", "{{instance}}")]),
        Panel("GPU memory after a scan", "Used by our arrays, held by our pool, free on the card.", "bytes",
              [level("gpu_memory_bytes", "{{device}} {{kind}}", f'{HERE}, when="after"')], width=12),
        Panel("GPU memory that is not given back", "Growth since the first scans.", "bytes",
              [level("gpu_memory_growth_bytes", "{{device}}")], width=12, steps=((None, GREEN), (1, RED))),
    ),
    "Process and machine": (
        Panel("Event loop lag", "How much later than it asked for a task had its turn.", "s",
              quantiles("loop_lag_seconds", "instance"), steps=((None, GREEN), (0.1, RED))),
        Panel("Memory", "Resident.", "bytes",
              [Query(f'process_resident_memory_bytes{{{HERE}, job="mystocks-scan"}}', "{{instance}}")]),
        Panel("Cores", "In use.", "short", [
            Query(f'rate(process_cpu_seconds_total{{{HERE}, job="mystocks-scan"}}[$__rate_interval])',
                  "{{instance}}")]),
        Panel("File handles", "Open, as a share of those it may open.", "percentunit", [
            Query(f'process_open_fds{{{HERE}, job="mystocks-scan"}} / process_max_fds{{{HERE}, job="mystocks-scan"}}',
                  "{{instance}}")]),
        Panel("Free disk", "Where the store is.", "bytes", [level("disk_free_bytes", "{{instance}}")],
              steps=((None, RED), (5 << 30, GREEN))),
        Panel("Calendar", "Days until the trading calendar ends.", "d",
              [Query(f"min(mystocks_calendar_days_left{{{HERE}}})", "days left")],
              steps=((None, RED), (30, GREEN))),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "uid": UID,
        "title": "mystocks-scan",
        "description": "The live service: from quotes to signals. What each metric means: docs/monitoring.md.",
        "tags": ["mystocks-scan"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "schemaVersion": 39,
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "multi": False}
    for name, label, query in (
        ("instance", "Process", "label_values(mystocks_build_info, instance)"),
        ("frame", "Bars", "label_values(mystocks_scan_seconds_count, frame)"),
    ):
        yield {
            "type": "query",
            "name": name,
            "label": label,
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[dict[str, Any]]:
    y = number = 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            "panels": [],
        }
        y, x, height = y + 1, 0, 4 if panels[0].kind == "stat" else 8
        for panel in panels:
            if x + panel.width > WIDTH:
                y, x = y + height, 0
            number += 1
            yield _panel(panel, number) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": height}}
            x += panel.width
        y += height


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    steps = [{"value": value, "color": colour} for value, colour in panel.steps or ((None, GREEN),)]
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
        if panel.stacked:
            custom["stacking"] = {"mode": "normal", "group": "A"}
        if panel.steps:
            custom["thresholdsStyle"] = {"mode": "line"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        info = panel.title == "Version"
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "name" if info else "auto",
            "orientation": "auto",
            "justifyMode": "auto",
        }
    elif panel.kind == "heatmap":
        options = {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
            "yAxis": {"unit": panel.unit},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": panel.kind != "stat",
                "instant": panel.kind == "stat",
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": custom,
            },
            "overrides": [],
        },
        "options": options,
    }


if __name__ == "__main__":
    path = Path(__file__).parent / "dashboards" / f"{UID}.json"
    path.write_text(json.dumps(dashboard(), indent=1) + "\n")

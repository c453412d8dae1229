"""The stage that writes to InfluxDB: what stands in its points, and what the bus and the service make of it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import metrics
from data.errors import SettingsError
from data.history import SignalHistory
from data.settings import InfluxSettings, load_settings
from data.signal import Signal, to_batch
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs import sinks
from jobs.stages.influx import Recording, stage_points, to_point
from streaming.bus import SIGNALS, EventBus, bar_topic
from tests.streaming.influx.databases import TOKEN, Fault, Influx, filled, influxd, query, serving

END = 1_748_223_000 * 10**9
S = 10**9
ONE = Signal(
    *("macd", "v1", "600519.SH", "1m", END, "BUY", 0.8, 10.5, "talib", END, {"a": 1.5, "b": None}, "贵州茅台"),
    quote_ns=END + S,
    received_ns=END + 3 * S,
    bar_closed_ns=END + 4 * S,
    scanned_ns=END + 6 * S,
    published_ns=END + 10 * S,
    epoch="e",
    seq=7,
)


def recording(bus: EventBus, influx: Influx, **given: Any) -> Recording:
    settings = {"url": influx.url, "bucket": "market", "org": "desk", "token": TOKEN, "flush_s": 0.01} | given
    return sinks.open_recording(InfluxSettings.model_validate(settings), bus)


def counted(result: str) -> float:
    return metrics.registry.get_sample_value("mystocks_influx_points_total", {"result": result}) or 0.0


def test_a_signal_stands_at_its_bar_s_end_and_is_a_point_of_its_own() -> None:
    point = to_point(ONE)
    assert (point.measurement, point.time_ns) == ("signal", END + 7)
    assert point.tags == {"strategy": "macd", "action": "BUY", "frame": "1m"}
    fields = point.fields
    assert (fields["symbol"], fields["price"], fields["confidence"]) == ("600519.SH", 10.5, 0.8)
    assert fields["text"] == "BUY 600519.SH 贵州茅台 10.50"
    assert json.loads(str(fields["values"])) == {"a": 1.5, "b": None}
    many = [to_point(replace(ONE, symbol=f"{n:06d}.SZ", seq=n)) for n in range(1, 5001)]
    assert len({(p.time_ns, tuple(p.tags.items())) for p in many}) == 5000
    assert all(0 <= p.time_ns - END < 10**6 for p in many)
    back = to_point(replace(ONE, revision=1, revokes="x", name=None))
    assert str(back.fields["text"]) == "revoked: BUY 600519.SH 10.50"


def test_stages_are_a_point_a_scan_in_seconds_at_the_time_of_publishing() -> None:
    (point,) = stage_points([ONE, replace(ONE, symbol="000001.SZ", seq=8)])
    assert (point.measurement, point.time_ns, point.tags) == (
        "signal_stages",
        END + 10 * S,
        {"frame": "1m", "engine": "talib"},
    )
    assert point.fields == {
        "watermark_wait_s": 1.0,
        "quote_age_s": 2.0,
        "fold_s": 1.0,
        "scan_s": 2.0,
        "publish_s": 4.0,
        "quote_to_signal_s": 7.0,
    }
    assert list(stage_points([replace(ONE, received_ns=0)])) == []


def test_signals_and_the_bars_of_some_symbols_go_from_the_bus_to_the_database() -> None:
    market = SimulatedMarket(5, 7)
    day = market.sessions[250]
    bars = market.bars("1d", day).combine_chunks().to_batches()[0].replace_schema_metadata({"frame": "1d"})
    wanted = market.symbols[2]

    async def scene(influx: Influx) -> None:
        bus = EventBus()
        stage = recording(bus, influx, symbols=(wanted,))
        work = asyncio.create_task(stage.run())
        await bus.publish(bar_topic("1d"), bars)
        await bus.publish(SIGNALS, to_batch([ONE, replace(ONE, symbol="000001.SZ", seq=8)]))
        await bus.publish(SIGNALS, to_batch([]))
        await stage.stop()
        await work

    before = counted("written")
    with serving(Influx()) as influx:
        asyncio.run(scene(influx))
    assert [fields["symbol"] for _, fields, _ in influx.of("signal")] == ["600519.SH", "000001.SZ"]
    assert len(influx.of("signal_stages")) == 1
    ((tags, fields, at),) = influx.of("bar")
    row = bars.slice(list(bars["symbol"].to_pylist()).index(wanted), 1)
    assert (tags, fields["close"]) == ({"symbol": wanted, "frame": "1d"}, row["close"][0].as_py())
    assert at == int(np.asarray(row["bar_end"].cast("int64"))[0])
    assert counted("written") - before == 4


def test_a_database_that_hangs_delays_neither_publishers_nor_the_end_and_what_is_left_is_counted() -> None:
    async def scene(influx: Influx) -> None:
        bus = EventBus()
        stage = recording(bus, influx, drain_s=0.1)
        work = asyncio.create_task(stage.run())
        async with asyncio.timeout(10):
            for n in range(100):
                await bus.publish(SIGNALS, to_batch([replace(ONE, seq=n)]))
            await stage.stop()
            await work

    before = counted("dropped")
    with serving(Influx()) as influx:
        influx.faults += [Fault(hang=True)] * 9
        asyncio.run(scene(influx))
    assert counted("dropped") > before


def test_the_token_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mystocks-scan.yaml"
    for text in (
        f"influx: {{bucket: market, tokem: '{TOKEN}'}}",
        f"influx: {{bucket: market, url: 'http://me:{TOKEN}@host'}}",
        f"influx: {{bucket: market, token: ['{TOKEN}']}}",
    ):
        path.write_text(text)
        with pytest.raises(SettingsError) as raised:
            load_settings(path)
        assert "s3cret" not in str(raised.value)
    monkeypatch.setenv("MYSTOCKS_SCAN__INFLUX__TOKEN", TOKEN)
    path.write_text("influx: {bucket: market}")
    settings = load_settings(path)
    assert settings.influx.token.get_secret_value() == TOKEN
    assert "s3cret" not in f"{settings!r} {settings.model_dump_json()}"


def test_run_fills_influxdb_and_grafana_s_queries_find_it(tmp_path: Path) -> None:
    """Debian's InfluxDB behind a server that takes version 2's requests."""
    market = SimulatedMarket(30, 7)
    symbol = market.symbols[3]
    path = tmp_path / "sim"
    command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--json", "--cluster", "inline"]
    command += ["--engine", "talib", "--store", str(path), "--symbols", "30", "--port", "0", "--speed", "0"]
    command += ["--intervals", "5"]
    with influxd(tmp_path) as database, serving(Influx(forward=database)) as influx:
        given = {"URL": influx.url, "BUCKET": "market", "ORG": "desk", "TOKEN": TOKEN, "SYMBOLS": f'["{symbol}"]'}
        environment = os.environ | {f"MYSTOCKS_SCAN__INFLUX__{name}": value for name, value in given.items()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        published = SignalHistory(path / "signals").query().to_pylist()
        rows = query(database, "SELECT * FROM signal")
        assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in published)
        names = {row["id"]: row["name"] for row in published}
        assert all(row["name"] == names[row["id"]] for row in rows)
        document = (Path(__file__).parents[2] / "docs" / "influx.md").read_text()
        queries = re.findall(r"^```sql\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
        one = published[0]["symbol"]
        marks, bars, stages = (
            query(database, filled(asked, symbol=one if "signal" in asked else symbol, frame="1m")) for asked in queries
        )
        assert [mark["text"].split()[1] for mark in marks] == [one] * sum(row["symbol"] == one for row in published)
        stored = BarStore(path).table("1m").to_pylist()
        closes = [row["close"] for row in stored if row["symbol"] == symbol][-5:]
        assert [bar["close"] for bar in bars] == closes
        assert stages
        assert all(row["max_2"] is not None for row in stages)

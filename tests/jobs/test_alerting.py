"""The stage that tells people: from the bus to a webhook, through kills, gaps and channels that hang."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import metrics
from data.errors import SettingsError
from data.history import SignalHistory
from data.settings import AlertSettings
from data.signal import Signal, to_table
from data.store import BarStore
from jobs import sinks
from jobs.alert_text import to_alert, to_batch
from jobs.stages.alerting import Alerting
from streaming.alerts.letters import DeadLetters
from streaming.bus import SIGNALS, EventBus
from tests.streaming.alerts.fakes.vendors import Fault, Vendors, serving

END = 1_748_223_000 * 10**9  # 2025-05-26 09:30 in Shanghai
MINUTE = 60 * 10**9
ONE = Signal("macd", "v1", "600519.SH", "1m", END, "BUY", 0.8, 10.5, "talib", END, {"a": 1.5}, "贵州茅台")


class Desk:
    """A store with a history, a bus, and a webhook that people read."""

    def __init__(self, folder: Path, own: Vendors, port: int) -> None:
        self.store, self.own = BarStore(folder / "store", origin="market"), own
        self.history = SignalHistory(self.store.root / "signals")
        self.channels: dict[str, Any] = {"own": {"url": f"json://127.0.0.1:{port}", "per_minute": 100}}
        self.settings: dict[str, Any] = {"rules": [{"cooldown_s": 0}], "backoff_s": 0.01}
        self.bus = EventBus()
        self.bar = 0

    def stage(self) -> Alerting:
        settings = AlertSettings.model_validate(self.settings | {"channels": self.channels})
        return sinks.open_alerting(settings, self.store, self.bus, self.history)

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[Alerting]:
        """The stage at work, and drained at the end."""
        stage = self.stage()
        work = asyncio.create_task(stage.run())
        yield stage
        await stage.stop()
        await work

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[Alerting]:
        """The stage at work, and gone at the end without a word."""
        stage = self.stage()
        (self.store.root / "alerts").mkdir(exist_ok=True)
        work = asyncio.create_task(stage._work())
        yield stage
        stage._keep = _nothing  # type: ignore[method-assign]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    def keep(self, n: int = 1, **given: Any) -> list[Signal]:
        """Signals of one more bar, in the history."""
        self.bar += 1
        ones = [replace(ONE, symbol=f"60{i:04d}.SH", bar_end=END + self.bar * MINUTE, **given) for i in range(n)]
        return self.history.append(ones)

    async def publish(self, n: int = 1, **given: Any) -> None:
        await self.bus.publish(SIGNALS, to_table(self.keep(n, **given)).combine_chunks().to_batches()[0])

    async def read(self, n: int) -> list[str]:
        """What the webhook has been told, once it is so many messages."""
        await asyncio.to_thread(self.own.wait, n)
        return self.own.texts


async def _nothing() -> None:
    """A kill keeps nothing."""


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.002)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    for metric in (metrics.alerts, metrics.alert_failures, metrics.alert_seconds):
        metric.clear()
    with serving() as (own, port):
        yield Desk(tmp_path, own, port)


def counted() -> dict[tuple[str, str], float]:
    return {
        (sample.labels["channel"], sample.labels["result"]): sample.value
        for family in metrics.alerts.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_a_scan_is_one_message_and_each_signal_is_told_once_also_over_a_restart(desk: Desk) -> None:
    async def scene() -> None:
        desk.keep(5)  # before the first start: of no interest
        async with desk.telling():
            await desk.publish(3)
            await desk.publish(2)
            texts = await desk.read(2)
        assert [text.splitlines()[0] for text in texts] == [
            "mystocks-scan: 3 signals, 1m 2025-05-26 09:32",
            "mystocks-scan: 2 signals, 1m 2025-05-26 09:33",
        ]
        async with desk.telling():
            await desk.publish(1)
            await desk.read(3)

    asyncio.run(scene())
    assert len(desk.own.texts) == 3
    assert counted() == {("own", "sent"): 6}
    assert metrics.registry.get_sample_value("mystocks_alert_seconds_count", {"channel": "own"}) == 6


def test_what_was_not_told_before_a_kill_is_told_after_it(desk: Desk) -> None:
    desk.channels["own"] |= {"attempts": 20}
    desk.settings |= {"backoff_s": 30}

    async def scene() -> None:
        async with desk.telling():
            await desk.publish(1)
            await desk.read(1)
        desk.own.faults.append(Fault(500))
        async with desk.killed():
            await desk.publish(2)
            await desk.read(2)
        assert len(desk.own.texts) == 1
        desk.keep(3)  # while nobody told
        async with desk.telling():
            texts = await desk.read(4)
        assert [text.split()[1] for text in texts] == ["1", "2", "3"]

    asyncio.run(scene())


def test_a_kill_in_the_first_moment_loses_nothing(desk: Desk) -> None:
    desk.settings |= {"backoff_s": 30}

    async def scene() -> None:
        desk.keep(5)  # before the first start
        desk.own.faults.append(Fault(500))
        async with desk.killed():
            await desk.publish(2)
            await desk.read(1)
        async with desk.telling():
            texts = await desk.read(2)
        assert [text.split()[1] for text in texts] == ["2"]

    asyncio.run(scene())


def test_what_is_old_after_a_restart_is_counted_and_not_told(desk: Desk) -> None:
    async def scene() -> None:
        async with desk.telling():
            await desk.publish(1)
            await desk.read(1)
        desk.keep(4)
        await asyncio.sleep(0.02)
        desk.settings |= {"max_age_s": 0.01}
        async with desk.telling():
            await until(lambda: ("own", "expired") in counted())
        async with desk.telling():
            pass

    asyncio.run(scene())
    assert counted() == {("own", "sent"): 1, ("own", "expired"): 4}
    assert len(desk.own.texts) == 1


def test_what_the_bus_dropped_comes_from_the_history(desk: Desk) -> None:
    async def scene() -> None:
        async with desk.telling():
            await desk.publish(1)
            await desk.read(1)
            desk.keep(2)  # lost on its way
            await desk.publish(1)
            await desk.read(3)

    asyncio.run(scene())
    assert [text.split()[1] for text in desk.own.texts] == ["1", "2", "1"]


def test_a_channel_that_hangs_delays_neither_the_others_nor_publishers_nor_the_end(desk: Desk) -> None:
    with serving() as (bad, port):
        bad.faults += [Fault(hang=True)] * 50
        desk.channels["bad"] = {"url": f"json://127.0.0.1:{port}"}
        desk.settings |= {"drain_s": 0.1}

        async def scene() -> None:
            async with asyncio.timeout(10):
                async with desk.telling():
                    for _ in range(30):
                        await desk.publish(1)
                    await desk.read(30)
                    await asyncio.to_thread(bad.wait, 1)

        asyncio.run(scene())
        assert (len(bad.asked), bad.texts) == (1, [])
    places = json.loads((desk.store.root / "alerts" / "places.json").read_text())
    assert (places["own"][1], places["bad"][1]) == (30, 0)


def test_dead_letters_tell_what_could_not_be_said_and_no_secret(desk: Desk) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk.channels = {"own": {"url": f"json://me:passw0rd@127.0.0.1:{port}/s3cret", "attempts": 2}}

    async def scene() -> None:
        async with desk.telling():
            await desk.publish(2)
            await until(lambda: ("own", "failed") in counted())

    asyncio.run(scene())
    (letter,) = DeadLetters(desk.store.root / "alerts")
    assert (letter["channel"], letter["why"], letter["attempts"]) == ("own", "connection refused", 2)
    assert len(letter["signals"]) == 2
    assert "600001.SH" in letter["body"]
    files = b"".join(path.read_bytes() for path in (desk.store.root / "alerts").iterdir())
    assert b"passw0rd" not in files
    assert b"s3cret" not in files
    failures = {s.labels["reason"]: s.value for f in metrics.alert_failures.collect() for s in f.samples if s.value < 9}
    assert failures["unreachable"] == 2


def test_of_two_services_of_a_store_one_tells_and_the_other_takes_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stages.alerting.LOCK_EVERY_S", 0.01)

    async def scene() -> None:
        async with desk.telling():
            await desk.publish(1)
            await desk.read(1)
            second = desk.stage()
            work = asyncio.create_task(second.run())
            await asyncio.sleep(0.05)
            await desk.publish(1)
            await desk.read(2)
        await desk.publish(1)
        await desk.read(3)
        await second.stop()
        await work

    asyncio.run(scene())
    assert len(desk.own.texts) == 3


def test_cooldown_and_rules_hold_for_the_stage(desk: Desk) -> None:
    desk.settings["rules"] = [{"symbols": ["600000.SH"], "cooldown_s": 600}]

    async def scene() -> None:
        async with desk.telling():
            await desk.publish(3)
            await desk.publish(3)
            await desk.publish(1, strategy="rsi")
            await desk.read(2)

    asyncio.run(scene())
    assert ["macd" in text for text in desk.own.texts] == [True, False]
    assert counted() == {("own", "sent"): 2, ("own", "cooldown"): 1}


def test_a_place_that_cannot_be_read_costs_no_start(desk: Desk) -> None:
    (desk.store.root / "alerts").mkdir()
    (desk.store.root / "alerts" / "places.json").write_text('{"own": 3')

    async def scene() -> None:
        async with desk.telling():
            await desk.publish(1)
            await desk.read(1)

    asyncio.run(scene())


def test_an_alert_says_all_that_there_is_to_say() -> None:
    full = replace(
        ONE,
        values={"MACD(12,26,9).hist": 0.123456789, "volume": 1.5e6, "x": None, **{f"v{i}": float(i) for i in range(9)}},
        at_limit_up=True,
        developing=True,
        name="<script>\n茅台",
    )
    assert str(to_alert(full)) == (
        "<script> 茅台 600519.SH BUY macd 10.50, confidence 0.80, 05-26 09:30 1m, 涨停 developing\n"
        "MACD(12,26,9).hist 0.123457, volume 1.5e+06, x n/a, v0 0, v1 1, v2 2, v3 3, v4 4, 4 more"
    )
    back = to_alert(replace(ONE, revision=1, revokes=ONE.id, name=None))
    assert back.head.startswith("REVOKED, no longer holds: 600519.SH BUY macd")
    batch = to_batch([replace(ONE, confidence=0.1), ONE], "simulated")
    assert batch.title == "mystocks-scan [simulated]: 2 signals, 1m 2025-05-26 09:30"
    assert [alert.weight for alert in batch.alerts] == [0.8, 0.1]


def test_an_address_that_is_wrong_keeps_the_service_from_starting(desk: Desk) -> None:
    desk.channels["own"] = {"url": "json//no-scheme-s3cret"}
    with pytest.raises(SettingsError, match=r"alerts\.channels\.own\.url") as raised:
        desk.stage()
    assert "s3cret" not in str(raised.value)


def test_run_tells_of_the_simulated_market_s_signals(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "sim"
    command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--json", "--cluster", "inline"]
    command += ["--engine", "talib", "--store", str(path), "--symbols", "30", "--port", "0", "--speed", "0"]
    command += ["--intervals", "5"]
    given = {"MYSTOCKS_SCAN__ALERTS__CHANNELS__OWN__URL": desk.channels["own"]["url"]}
    given |= {"MYSTOCKS_SCAN__ALERTS__RULES": json.dumps([{"cooldown_s": 0}])}
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    published = SignalHistory(path / "signals").query()
    told = "\n".join(desk.own.texts)
    assert told.count("confidence") == published.num_rows > 0
    assert all(text.startswith("mystocks-scan [simulated]: ") for text in desk.own.texts)
    assert all(f"{row['name']} {row['symbol']} {row['action']}" in told for row in published.to_pylist())
    assert desk.channels["own"]["url"] not in done.stderr + done.stdout

"""What a running service knows of itself."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.calendar import LUNCH, MINUTE, OPEN, SECOND, day_ns
from data.signal import Signal, to_table
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.breadth import BreadthCount
from jobs.overview import Overview
from jobs.simulated import make_history
from streaming.bars import MarketBars
from streaming.bus import SIGNALS, EventBus, bar_topic
from streaming.health import TradingClock
from streaming.status import ProviderStatus, Status

MIDNIGHT = int(day_ns(np.array(["2025-05-23"], dtype="datetime64[D]"))[0])
TEN = MIDNIGHT + OPEN + 30 * MINUTE
SIGNAL = Signal("macd", "v1", "600000.SH", "1m", TEN, "BUY", 0.8, 10.5, "talib", TEN, {"a": 1.5})
MARKET = SimulatedMarket(20, 7)


def provider(quote_age_s: float | None) -> ProviderStatus:
    about = {
        "connections": 1,
        "connected": 1,
        "covers": 9,
        "symbols": 9,
        "serves": 9,
        "frames": 5,
        "rows": 45,
    }
    counts: dict[str, Any] = {"symbols_stale": 0, "reconnects": {"timeout": 2}, "dropped": {}, "unread": {}, "said": ""}
    return ProviderStatus(name="sina", state="live", received_bytes=900, quote_age_s=quote_age_s, **about, **counts)


def statuses(*ages: float | None) -> Callable[[], Status]:
    return lambda: Status(providers=tuple(map(provider, ages)), symbols=9, subscribers=1, uncovered=1, served=8)


def seen(overview: Overview, status: Callable[[], Status] | None = None) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        async with overview.watching(EventBus(), status=status):
            return overview.to_json()

    return asyncio.run(look())


@pytest.mark.parametrize(
    ("ages", "now", "stale"),
    [
        ((4.0, None), TEN, False),
        ((61.0, 4.0), TEN, False),
        ((61.0, 90.0), TEN, True),
        ((9000.0,), MIDNIGHT + LUNCH + 20 * MINUTE, False),
        ((9000.0,), MIDNIGHT + 2 * OPEN, False),
    ],
    ids=["fresh", "one provider is", "nobody is", "at lunch", "at night"],
)
def test_quotes_are_stale_where_the_market_trades_and_nobody_s_are_new(
    ages: tuple[float | None, ...], now: int, stale: bool
) -> None:
    found = seen(Overview("sina", trading=TradingClock(lambda day: True), clock=lambda: now), statuses(*ages))
    assert (found["stale"] is not None) is stale
    assert found["market"]["state"] == ("open" if now == TEN else "closed")
    if stale:
        assert found["stale"] == {"text": "no new quotes", "since": "2025-05-23T01:58:59Z"}


def test_before_the_first_quote_patience_begins_with_the_service() -> None:
    now = TEN
    overview = Overview("sina", trading=TradingClock(lambda day: True), clock=lambda: now)

    async def look() -> None:
        nonlocal now
        async with overview.watching(EventBus(), status=statuses(None)):
            assert overview.to_json()["stale"] is None
            now += 61 * SECOND
            assert overview.to_json()["stale"] == {"text": "no new quotes", "since": "2025-05-23T02:00:00Z"}

    asyncio.run(look())


def test_providers_are_shown_as_the_live_table_shows_them() -> None:
    feed = seen(Overview("sina", trading=TradingClock(lambda day: True)), statuses(4.0))["feed"]
    assert feed["said"] == "8 of 9 symbols served, 1 that no provider has"
    (one,) = feed["providers"]
    assert (one["name"], one["connected"], one["frames"], one["quote_age_s"]) == ("sina", 1, 5, 4.0)
    assert one["reconnects"] == {"timeout": 2}


@pytest.mark.parametrize(("pause_s", "patient_s"), [(1.0, 30), (60.0, 300)])
def test_a_feed_with_a_time_of_its_own_is_stale_when_its_bars_stay_away(pause_s: float, patient_s: int) -> None:
    now = TEN
    overview = Overview("sim", pause_s=pause_s, clock=lambda: now)
    now += patient_s * SECOND
    assert overview.to_json()["stale"] is None
    now += SECOND
    assert overview.to_json()["stale"]["text"] == "no bars from the feed"


def test_where_feed_and_scan_are_elsewhere_nothing_is_known_of_them_and_nothing_is_stale() -> None:
    now = TEN
    overview = Overview("sim", pause_s=1.0, elsewhere=True, clock=lambda: now)
    now += 10**15
    found = overview.to_json()
    assert (found["elsewhere"], found["feed"], found["breadth"], found["scans"]) == (True, None, None, [])
    assert found["stale"] is None


def test_bars_and_signals_that_go_by_are_kept(tmp_path: Path) -> None:
    async def run() -> dict[str, Any]:
        store, bus = BarStore(tmp_path, origin="sim-20-7"), EventBus()
        make_history(store, MARKET, ["1m"], 60)
        overview = Overview("sim", pause_s=1.0)
        fold = MarketBars(MARKET.symbols, ["1m"])
        closed = [
            bar
            for minutes in MARKET.minutes_of_snapshots(MARKET.sessions[250])
            for ticks in minutes
            for bar in fold.add(ticks)
        ][:3]
        stamps = {"received_ns": TEN, "bar_closed_ns": TEN + 4_000_000, "scanned_ns": TEN + 9_000_000}
        signals = [replace(SIGNAL, symbol=symbol, **stamps) for symbol in MARKET.symbols[:9]]
        kept = [one.numbered("e", number, TEN + 11_000_000) for number, one in enumerate(signals, 1)]
        async with overview.watching(bus, breadth=BreadthCount(store, MARKET.symbols)):
            await bus.publish(SIGNALS, to_table(kept).combine_chunks().to_batches()[0])
            for batch in closed:
                await bus.publish(bar_topic("1m"), batch)
            look = closed[0].schema.metadata | {b"developing": b"1"}
            await bus.publish(bar_topic("1m"), closed[0].replace_schema_metadata(look))
            newest = int(closed[-1].schema.metadata[b"bar_end"])
            async with asyncio.timeout(20):
                while (overview.to_json()["breadth"] or {}).get("bar_end") != f"{np.datetime64(newest, 'ns')!s:.19}Z":
                    await asyncio.sleep(0.01)
        return overview.to_json()

    found = asyncio.run(run())
    breadth = found["breadth"]
    assert breadth["up"] + breadth["down"] + breadth["unchanged"] == breadth["symbols"] > 10
    assert breadth["of"] == 20
    assert found["market"] == {"state": "own time", "text": "simulated market", "bar_end": breadth["bar_end"]}
    latency = {stage["stage"]: stage["p50_ms"] for stage in found["latency"]["stages"]}
    assert found["latency"]["intervals"] == 1
    assert (latency["fold"], latency["scan"], latency["publish"]) == (4.0, 5.0, 2.0)

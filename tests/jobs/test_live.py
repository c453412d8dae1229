"""The stages of the live service over the simulator's quotes: several frames, restarts, open bars, the clock."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import MINUTE, SECOND, day_ns
from data.history import SignalHistory
from data.panel import Panel
from data.schema import TICK
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.live import LiveService
from jobs.scanning import MarketScan, Scanned
from jobs.simulated import make_history
from jobs.stages import feeding
from jobs.stages.feeding import Feeding
from jobs.stages.recovery import complete
from jobs.stages.scanning import Interval, Scanning
from scanner.cluster import InlineCluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies
from streaming.bars import MarketBars
from streaming.bus import EventBus, bar_topic
from streaming.ports import Bus
from streaming.tape import Tape

MARKET = SimulatedMarket(12, 7)
DAY = MARKET.sessions[250]
MIDNIGHT = int(day_ns(np.array([DAY]))[0])
FRAMES = ("1m", "5m", "1d")
RULES = """
strategies:
  - {name: every, when: close > 0, action: ALERT}
  - {name: day, frame: 1d, when: close > 0, action: BUY, cooldown: 3}
  - {name: five, frame: 5m, when: "highest(high, 2) > 1", action: SELL}
"""


def at(clock: str) -> int:
    """A time of the live session in Shanghai, UTC ns."""
    hour, minute, second = (int(part) for part in clock.split(":"))
    return MIDNIGHT + (hour * 60 + minute) * MINUTE + second * SECOND


class Scripted:
    """Batches as a feed; then it ends, or with `mute` is silent until it is closed."""

    name = "scripted"

    def __init__(self, batches: Iterable[pa.RecordBatch], *, mute: bool = False) -> None:
        self._batches, self._mute = batches, mute
        self._closed = asyncio.Event()

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        for seq, batch in enumerate(self._batches, 1):
            await asyncio.sleep(0)
            if self._closed.is_set():
                return
            about = {"provider": self.name, "seq": str(seq), "received_ns": str(newest(batch))}
            yield batch.replace_schema_metadata(about | _text(batch.schema.metadata))
        if self._mute:
            await self._closed.wait()

    async def close(self) -> None:
        self._closed.set()


def _text(about: Any) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (about or {}).items()}


def newest(batch: pa.RecordBatch) -> int:
    return max(batch["quote_time"].view(pa.int64()).to_pylist(), default=0)


def quotes(since: str, until: str = "15:10:00") -> list[pa.RecordBatch]:
    """The snapshots of a part of the session; the first is the one at its beginning."""
    return [b for b in MARKET.snapshots(DAY, at(since)) if at(since) <= newest(b) <= at(until)]


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """A store with history up to the live session."""
    store = BarStore(tmp_path / "sim", origin="sim")
    make_history(store, MARKET, FRAMES, 60)
    return store


def had_run_until(store: BarStore, **clocks: str) -> None:
    """Give a store the live session's bars of each frame up to a time."""
    for frame, clock in clocks.items():
        bars = MARKET.bars(frame[1:], DAY)
        store.append(bars.filter(pc.less_equal(bars["bar_end"].cast(pa.int64()), at(clock))), frame[1:])


def serve(store: BarStore, feed: Scripted, rules: Path, **given: Any) -> list[Interval]:
    """Run feeding and scanning until the feed ends; what was scanned."""
    rules.write_text(RULES)
    intervals: list[Interval] = []
    bus = EventBus()
    stages = [
        Feeding(store, feed, bus, symbols=MARKET.symbols, frames=FRAMES, **given),
        scanning(store, bus, rules, intervals),
    ]
    asyncio.run(LiveService(bus, stages).run())
    return intervals


def scanning(store: BarStore, bus: Bus, rules: Path, intervals: list[Interval]) -> Scanning:
    history = SignalHistory(store.root / "signals")
    scans = [
        MarketScan(
            store,
            frame,
            load_strategies([rules]),
            symbols=MARKET.symbols,
            engine=load("talib"),
            cluster=InlineCluster(),
            history=history,
        )
        for frame in FRAMES
    ]
    return Scanning(store, bus, scans, frames=FRAMES, history_bars=60, on_interval=intervals.append, catching_up=False)


def assert_the_days_own(store: BarStore, *frames: str) -> None:
    for frame in frames:
        stored = store.panel(frame, after=at("09:30:00"))
        own = Panel.from_table(MARKET.bars(frame, DAY), frame, stored.symbols)
        assert list(stored.times) == list(own.times)
        for name in ("open", "high", "low", "close", "volume"):
            np.testing.assert_array_equal(stored[name], own[name], err_msg=f"{frame} {name}")
        assert not store.table(frame, after=at("09:30:00"))["flags"].to_numpy().astype(bool).any() or frame != "1d"


def signals(store: BarStore, **given: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = SignalHistory(store.root / "signals").query(newest_first=False, **given).to_pylist()
    return rows


def test_every_frame_that_a_strategy_names_is_stored_and_scanned_shorter_ones_first(
    store: BarStore, tmp_path: Path
) -> None:
    had_run_until(store, f1m="14:53:00", f5m="14:50:00")
    intervals = serve(store, Scripted(quotes("14:53:00")), tmp_path / "rules.yaml")

    assert_the_days_own(store, *FRAMES)
    shown = [(interval.frame, interval.bar_end) for interval in intervals]
    assert shown[:3] == [("1m", at("14:54:00")), ("1m", at("14:55:00")), ("5m", at("14:55:00"))]
    assert shown[-3:] == [(frame, at("15:00:00")) for frame in FRAMES]
    assert [interval.number for interval in intervals if interval.frame == "1m"] == list(range(1, 8))
    fired = {(row["strategy"], row["frame"]) for row in signals(store)}
    assert fired == {("every", "1m"), ("every", "5m"), ("every", "1d"), ("five", "5m"), ("day", "1d")}
    assert {row["bar_end"].value for row in signals(store, frames=["1d"])} == {at("15:00:00")}


def test_what_a_killed_service_did_not_get_to_at_the_close_is_made_of_minutes(store: BarStore) -> None:
    had_run_until(store, f1m="15:00:00", f5m="14:55:00")
    revised = MARKET.bars("1m", DAY).slice(0, 1)
    place = revised.column_names.index("revision")
    store.append(revised.set_column(place, revised.schema.field("revision"), pa.array([1], pa.int32())), "1m")
    complete(store, FRAMES)

    assert_the_days_own(store, "5m", "1d")
    files = [store.files(frame) for frame in FRAMES]
    complete(store, FRAMES)
    assert [store.files(frame) for frame in FRAMES] == files


def test_the_open_daily_bar_is_scanned_in_time_and_counts_for_no_closed_one(store: BarStore, tmp_path: Path) -> None:
    had_run_until(store, f1m="14:48:00", f5m="14:45:00")
    rules = tmp_path / "rules.yaml"
    at_1450 = [clock - MIDNIGHT for clock in (at("14:40:00"), at("14:50:00"))]
    before = serve(store, Scripted(quotes("14:48:00", "14:55:30")), rules, developing=at_1450)

    (look,) = (interval for interval in before if interval.developing)
    assert (look.frame, look.bar_end) == ("1d", at("15:00:00"))
    known = [(i.frame, i.bar_end) for i in before[: before.index(look)]]
    assert known[-1] == ("1m", at("14:49:00"))
    assert store.last_bar_end("1d") < at("09:30:00")  # type: ignore[operator]
    early = signals(store, strategies=["day"])
    assert len(early) == len(MARKET.symbols)
    assert all(row["developing"] for row in early)
    (shown,) = (b for b in quotes("14:48:00", "14:51:00") if newest(b) == at("14:50:00"))
    last = dict(zip(shown["symbol"].to_pylist(), shown["last"].to_pylist(), strict=True))
    assert {row["symbol"]: row["price"] for row in early} == last

    after = serve(store, Scripted(quotes("14:55:00")), rules, developing=at_1450)
    assert not any(interval.developing for interval in after)
    rows = signals(store, strategies=["day"])
    assert [row["developing"] for row in rows] == [True] * len(early) + [False] * len(early)
    assert len({row["id"] for row in rows}) == 2 * len(early)
    closes = store.panel("1d", after=at("14:00:00"), symbols=[row["symbol"] for row in rows[len(early) :]])["close"][0]
    assert [row["price"] for row in rows[len(early) :]] == list(closes)
    assert_the_days_own(store, "1d")


def test_the_open_daily_bar_is_scanned_when_somebody_asks(store: BarStore, tmp_path: Path) -> None:
    had_run_until(store, f1m="10:00:00", f5m="10:00:00")
    (tmp_path / "rules.yaml").write_text(RULES)
    intervals: list[Interval] = []
    bus = EventBus()
    feed = Scripted(quotes("10:00:00", "10:00:30"))
    stage = Feeding(store, feed, bus, symbols=MARKET.symbols, frames=FRAMES)
    stage.look()
    asyncio.run(LiveService(bus, [stage, scanning(store, bus, tmp_path / "rules.yaml", intervals)]).run())

    assert [(interval.frame, interval.developing) for interval in intervals] == [("1d", True)]


def test_what_an_open_bar_fired_keeps_no_later_one_silent(store: BarStore, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    opens, next_day = MARKET.bars("1d", DAY), MARKET.bars("1d", MARKET.sessions[251])
    ends = [int(bars["bar_end"].cast(pa.int64())[0].as_py()) for bars in (opens, next_day)]
    origin = store.bar_ends("1d")[0]

    def fired(*, again: bool) -> list[str]:
        one = MarketScan(
            store,
            "1d",
            load_strategies([tmp_path / "rules.yaml"]),
            symbols=MARKET.symbols,
            engine=load("talib"),
            cluster=InlineCluster(),
            history=SignalHistory(store.root / "signals"),
        )
        if not again:
            one.scan(ends[0], origin=origin, batch=opens, developing=True)
        found = one.scan(ends[1], origin=origin, batch=next_day).signals
        return [signal.symbol for signal in found if signal.strategy == "day"]

    assert fired(again=False) == fired(again=True) == list(MARKET.symbols)


def late_day(store: BarStore) -> tuple[list[pa.RecordBatch], pa.RecordBatch]:
    """The bars of 14:51 to 14:53, where a quote that came late revised the high of 14:52; and that revision."""
    had_run_until(store, f1m="14:50:00", f5m="14:50:00")
    bars = MarketBars(
        MARKET.symbols, ("1m",), late_s=60, after={"1m": at("14:50:00")}, closed=store.table("1m", after=at("09:30:00"))
    )
    made: list[pa.RecordBatch] = []
    for batch in quotes("14:50:00", "14:52:30"):
        made += bars.add(batch)
    row = {name: values[0] for name, values in batch.to_pydict().items()}
    for clock in ("14:51:59", "14:53:30"):
        row |= {
            "quote_time": at(clock),
            "volume": row["volume"] + 100,
            "last": row["last"] + 5,
            "high": row["high"] + 50,
        }
        made += bars.add(pa.RecordBatch.from_pylist([row], TICK))
    return made, made[2]


def test_bars_that_come_again_are_left_out_and_revisions_are_stored_and_seen(
    store: BarStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revised: list[int] = []
    revise = MarketScan.revise

    def counted(scan: MarketScan, batch: pa.RecordBatch, bar_end: int, **about: int) -> Scanned:
        revised.append(bar_end)
        return revise(scan, batch, bar_end, **about)

    monkeypatch.setattr(MarketScan, "revise", counted)
    made, revision = late_day(store)
    assert [(b.schema.metadata[b"revision"], int(b.schema.metadata[b"bar_end"])) for b in made] == [
        (b"0", at("14:51:00")),
        (b"0", at("14:52:00")),
        (b"1", at("14:52:00")),
        (b"0", at("14:53:00")),
    ]
    rules = tmp_path / "rules.yaml"
    rules.write_text("strategies:\n  - {name: high, when: 'highest(high, 3) > 0', action: ALERT}\n")
    intervals: list[Interval] = []

    async def deliver(batches: Iterable[pa.RecordBatch]) -> None:
        bus = EventBus()
        stage = scanning(store, bus, rules, intervals)
        for batch in batches:
            about = {**batch.schema.metadata, b"closed_ns": b"1", b"fold_ms": b"0"}
            reading = asyncio.create_task(bus.publish(bar_topic("1m"), batch.replace_schema_metadata(about)))
            await reading
        await stage.stop()
        await stage.run()

    asyncio.run(deliver([made[0], *made[:3], *made[1:4], made[3]]))
    assert [(interval.bar_end, interval.revision) for interval in intervals] == [
        (at("14:51:00"), 0),
        (at("14:52:00"), 0),
        (at("14:52:00"), 1),
        (at("14:53:00"), 0),
    ]
    store.compact("1m")
    files = store.files("1m")
    asyncio.run(deliver(made))
    assert store.files("1m") == files
    assert len(intervals) == 4
    assert revised == [at("14:52:00")]
    symbol, high = revision["symbol"][0].as_py(), revision["high"][0].as_py()
    assert store.panel("1m", after=at("14:51:00"), symbols=[symbol])["high"][0, 0] == high
    shown = {row["symbol"]: row["values"] for row in signals(store) if row["bar_end"].value == at("14:53:00")}
    assert str(high) in shown[symbol]


def test_what_is_folded_again_from_a_tape_and_stored_is_not_published(store: BarStore, tmp_path: Path) -> None:
    tape = Tape(tmp_path / "tape", origin="sim", keep=3)
    batches = quotes("09:30:00", "09:33:06")
    tape.append([b.replace_schema_metadata({"received_ns": str(newest(b))}) for b in batches[:-1]])
    had_run_until(store, f1m="09:32:00")

    async def published() -> list[int]:
        bus = EventBus()
        bars = bus.subscribe(bar_topic("*"))
        await Feeding(store, Scripted(batches[-1:]), bus, symbols=MARKET.symbols, frames=FRAMES, tape=tape).run()
        await bus.close()
        return [int(event.batch.schema.metadata[b"bar_end"]) async for event in bars]

    assert asyncio.run(published()) == [at("09:33:00")]


def test_the_mornings_last_bar_is_closed_by_the_clock(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "SILENCE_S", 0.01)
    had_run_until(store, f1m="11:27:00", f5m="11:25:00")
    times = [at("11:30:01"), at("11:30:02")]

    async def closed() -> list[str]:
        bus = EventBus()
        bars = bus.subscribe(bar_topic("*"))
        stage = Feeding(
            store,
            Scripted(quotes("11:27:00", "11:29:57"), mute=True),
            bus,
            symbols=MARKET.symbols,
            frames=FRAMES,
            by_receipt=True,
            clock=lambda: times.pop(0) if times else at("11:30:14"),
        )
        running = asyncio.create_task(stage.run())
        found = []
        async for event in bars:
            found.append(event.batch.schema.metadata)
            if len(found) == 4:
                break
        await stage.stop()
        await running
        assert found[-1][b"received_ns"] == str(at("11:30:14")).encode()
        return [
            f"{about[b'frame'].decode()} {(int(about[b'bar_end']) - MIDNIGHT) // MINUTE - 11 * 60}" for about in found
        ]

    assert asyncio.run(asyncio.wait_for(closed(), 20)) == ["1m 28", "1m 29", "1m 30", "5m 30"]


def test_after_a_silence_the_tape_of_a_live_feed_closes_bars_by_their_receipt(store: BarStore) -> None:
    had_run_until(store, f1m="10:00:00", f5m="10:00:00")
    first, last = quotes("10:00:00", "10:00:57"), quotes("10:01:03", "10:01:03")
    late = last[0].replace_schema_metadata({"received_ns": str(at("10:01:31"))})

    async def bars(*then: pa.RecordBatch, **given: Any) -> list[tuple[int, int]]:
        bus = EventBus()
        heard = bus.subscribe(bar_topic("*"))
        await Feeding(store, Scripted([*first, *then]), bus, symbols=MARKET.symbols, frames=FRAMES, **given).run()
        await bus.close()
        return [
            (int(e.batch.schema.metadata[b"bar_end"]), int(e.batch.schema.metadata[b"received_ns"]))
            async for e in heard
        ]

    assert asyncio.run(bars(late, by_receipt=True)) == [(at("10:01:00"), at("10:01:31"))]
    assert asyncio.run(bars(late)) == []
    said_nothing = [
        late.slice(0, 0).replace_schema_metadata({"received_ns": str(at(c))}) for c in ("10:01:05", "10:01:08")
    ]
    assert asyncio.run(bars(*said_nothing, by_receipt=True)) == [(at("10:01:00"), at("10:01:08"))]


def test_trades_after_hours_are_kept_apart(store: BarStore) -> None:
    had_run_until(store, f1m="14:59:00", f5m="14:55:00")
    batches = quotes("14:59:00", "15:00:33")
    rows = batches[-1].to_pylist()
    for row in rows[:2]:
        row |= {"quote_time": at("15:20:00"), "volume": row["volume"] + 300, "amount": row["amount"] + 900}
    batches.append(pa.RecordBatch.from_pylist(rows[:2], TICK))
    asyncio.run(Feeding(store, Scripted(batches), EventBus(), symbols=MARKET.symbols, frames=FRAMES).run())

    kept = store.after_hours().to_pylist()
    assert {row["symbol"] for row in kept} == {row["symbol"] for row in rows[:2]}
    assert [(str(row["day"]), row["volume"], row["amount"]) for row in kept] == [(str(DAY), 300, 900)] * 2

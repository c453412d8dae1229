"""What every feed promises. A feed joins by a line in `FEEDS`: a name and what opens it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress

import pyarrow as pa
import pytest

from data.calendar import bar_ends
from data.errors import UsageError
from data.schema import TICK
from data.settings import FeedSettings, Settings
from data.simulator import SimulatedMarket
from streaming import feeds
from streaming.feeds.replay import ReplayFeed
from streaming.feeds.simulated import SimulatedFeed
from streaming.feeds.vendors import VENDORS
from streaming.manager import StreamManager
from streaming.ports import Feed, Traffic

MARKET = SimulatedMarket(20, seed=1)


def simulated(interval_s: float) -> Feed:
    return SimulatedFeed(MARKET, sessions=MARKET.sessions[:2], interval_s=interval_s, clock=lambda: 12345)


class Recorded:
    """A recording in memory."""

    def symbols(self) -> list[str]:
        return list(MARKET.symbols)

    def batches(self) -> Iterator[pa.RecordBatch]:
        return MARKET.snapshots(MARKET.sessions[0])


def replayed(interval_s: float) -> Feed:
    return ReplayFeed(Recorded(), interval_s=interval_s, clock=lambda: 12345)


class Snapshots:
    """A connection that gives a day's snapshots, paced; fulfils `streaming.ports.Connection`."""

    def __init__(self, symbols: Sequence[str], pause_s: float) -> None:
        self.symbols = self.heard = tuple(symbols)
        self.refused: frozenset[str] = frozenset()
        self.traffic = Traffic()
        self._pause_s = pause_s
        self._closed = asyncio.Event()

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        for batch in MARKET.snapshots(MARKET.sessions[0]):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), self._pause_s)
            if self._closed.is_set():
                return
            yield batch.replace_schema_metadata({"received_ns": str(2**62)})

    async def close(self) -> None:
        self._closed.set()


class Streamed(StreamManager):
    """Two vendors with a subscriber."""

    def __init__(self, interval_s: float) -> None:
        super().__init__(
            [VENDORS["sina"], VENDORS["tencent"]],
            open_connection=lambda vendor, symbols, **_: Snapshots(symbols, interval_s / 20),
            clock=lambda: 12345,
        )

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        await self.subscribe(MARKET.symbols)
        async with aclosing(super().frames()) as frames:
            async for batch in frames:
                yield batch


FEEDS: dict[str, Callable[[float], Feed]] = {"sim": simulated, "replay": replayed, "vendors": Streamed}
"""Name -> opens a feed that paces its frames by an interval; 0 for no pause."""

each = pytest.mark.parametrize("opened", FEEDS.values(), ids=FEEDS)


@each
def test_frames_are_ticks_with_provider_and_a_sequence(opened: Callable[[float], Feed]) -> None:
    async def run() -> None:
        feed, seq = opened(0), 0
        async with aclosing(feed.frames()) as frames:
            async for batch in frames:
                seq += 1
                assert batch.schema.equals(TICK)
                assert batch.validate(full=True) is None
                about = batch.schema.metadata
                assert about[b"provider"] == feed.name.encode()
                assert int(about[b"seq"]) == seq
                assert int(about[b"received_ns"]) > 0
                if seq == 50:
                    break

    asyncio.run(run())


@each
def test_close_ends_the_frames_also_in_a_pause(opened: Callable[[float], Feed]) -> None:
    async def run() -> None:
        feed = opened(3600)

        async def read() -> int:
            return len([batch async for batch in feed.frames()])

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        assert not reader.done()
        await feed.close()
        await feed.close()
        assert await asyncio.wait_for(reader, 5) <= 1

    asyncio.run(run())


@each
def test_a_reader_can_be_cancelled_and_the_loop_stays_clean(opened: Callable[[float], Feed]) -> None:
    async def run() -> None:
        feed = opened(3600)

        async def read() -> None:
            async with aclosing(feed.frames()) as frames:
                async for _ in frames:
                    pass

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


@each
def test_a_feed_left_early_leaves_nothing_running(opened: Callable[[float], Feed]) -> None:
    async def run() -> None:
        async with aclosing(opened(0).frames()) as frames:
            await anext(frames)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def stamps(batches: list[pa.RecordBatch]) -> list[int]:
    return [batch["quote_time"].cast(pa.int64())[0].as_py() for batch in batches]


def read_all(feed: Feed) -> list[pa.RecordBatch]:
    async def run() -> list[pa.RecordBatch]:
        return [batch async for batch in feed.frames()]

    return asyncio.run(run())


def test_the_simulated_feed_gives_every_snapshot_of_its_sessions_and_ends() -> None:
    got = read_all(simulated(0))
    wanted = [batch for session in MARKET.sessions[:2] for batch in MARKET.snapshots(session)]
    assert len(got) == len(wanted)
    assert all(a.equals(b) for a, b in zip(got, wanted, strict=True))


def test_the_simulated_feed_goes_on_behind_a_bar() -> None:
    first, second = MARKET.sessions[:2]
    last_two = stamps(read_all(simulated(0)))[4803:]
    whole_day = SimulatedFeed(MARKET, sessions=[first, second], after=int(bar_ends(first, "1d")[0]), interval_s=0)
    assert stamps(read_all(whole_day)) == last_two
    after = int(bar_ends(second, "1m")[150])
    part = stamps(read_all(SimulatedFeed(MARKET, sessions=[first, second], after=after, interval_s=0)))
    assert part == [stamp for stamp in last_two if stamp >= after]
    assert part[0] == after


def test_the_pace_waits_for_a_slow_reader_and_does_not_catch_up() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(simulated(0.4).frames()) as frames:
            seen = [await anext(frames) for _ in range(3)]
            await asyncio.sleep(0.2)
            resumed = loop.time()
            seen += [await anext(frames) for _ in range(5)]
            # The first is due at once, the other four 20 ms apart, though ten would have been due in the pause.
            assert loop.time() >= resumed + 0.079
            assert [int(batch.schema.metadata[b"seq"]) for batch in seen] == list(range(1, 9))

    asyncio.run(run())


def test_feeds_are_found_by_name() -> None:
    opened = feeds.find_feed("sim")(Settings(feed=FeedSettings(symbols=3, seed=9)), after=None)
    assert opened.name == "sim"
    with pytest.raises(UsageError, match=r"there is no feed 'nasdaq'; there are: .*sim"):
        feeds.find_feed("nasdaq")


def test_other_packages_bring_feeds_as_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    points = EntryPoints([EntryPoint("mine", "streaming.feeds.simulated:open_feed", feeds.GROUP)])
    monkeypatch.setattr(feeds, "entry_points", lambda **wanted: points.select(**wanted))
    assert feeds.feed_names() == sorted(["mine", *feeds.FEEDS, *VENDORS])
    assert feeds.find_feed("mine") is feeds.find_feed("sim")

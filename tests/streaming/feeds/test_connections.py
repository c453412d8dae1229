"""Connections to vendors, against servers that speak the vendors' bytes and go wrong in every way of the catalogue.

The laws: a clean run gives the simulator's own bars to the bit. What comes twice or late changes no bar. Whatever was
lost, once a connection is well again the day's totals, extremes and last prices are right.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import BannedError, FeedError, RefusedError
from data.schema import TICK
from data.simulator import SimulatedMarket
from streaming.feeds.connections import open_connection
from streaming.feeds.polled import PolledConnection
from streaming.feeds.reading import VendorConnection
from streaming.feeds.socket import SocketConnection
from streaming.feeds.vendors import VENDORS, Vendor
from streaming.feeds.wire import Parsed
from tests.streaming.feeds.fakes import spelling
from tests.streaming.feeds.fakes.day import FakeDay, bars_of, ordered, totals_of
from tests.streaming.feeds.fakes.servers import FakeEastmoney, FakeSina, FakeSinaSocket, FakeTencent, Faults

MARKET = SimulatedMarket(20, seed=3)
MINUTES = 2
FAKES: dict[str, Any] = {
    "sina": FakeSina,
    "sina_ws": FakeSinaSocket,
    "tencent": FakeTencent,
    "eastmoney": FakeEastmoney,
}
POLLED, PUSHED = ("sina", "tencent"), ("sina_ws", "eastmoney")
every = pytest.mark.parametrize("name", FAKES)
polled, pushed = pytest.mark.parametrize("name", POLLED), pytest.mark.parametrize("name", PUSHED)


def a_day(minutes: int = MINUTES) -> FakeDay:
    return FakeDay(MARKET, minutes=minutes)


def quick(name: str, **changes: Any) -> Vendor:
    return replace(VENDORS[name], cadence_s=0.0, **changes)


def opened(name: str, fake: Any, symbols: Sequence[str] = (), **about: Any) -> VendorConnection:
    return open_connection(quick(name), symbols or fake.day.symbols, url=fake.url, **about)


async def read(
    connection: VendorConnection,
    until: Callable[[list[pa.RecordBatch]], bool],
    pump: Callable[[], None] | None = None,
    into: list[pa.RecordBatch] | None = None,
) -> list[pa.RecordBatch]:
    """Batches until there are enough; `pump` is called after each, to make the day go on. `into` gets them at once."""
    got: list[pa.RecordBatch] = [] if into is None else into
    async with asyncio.timeout(20), aclosing(connection.batches()) as batches:
        async for batch in batches:
            got.append(batch)
            if until(got):
                break
            if pump is not None:
                pump()
    return got


def seen_all(day: FakeDay) -> Callable[[list[pa.RecordBatch]], bool]:
    """Whether every symbol's quote of the last snapshot is among the batches."""
    found = set[str]()
    read = 0

    def enough(got: list[pa.RecordBatch]) -> bool:
        nonlocal read
        for batch in got[read:]:
            times = batch["quote_time"].cast(pa.int64()).to_numpy()
            symbols = batch["symbol"].cast(pa.string()).to_numpy(zero_copy_only=False)
            found.update(symbols[times == day.last_time])
        read = len(got)
        return len(found) == len(day.symbols)

    return enough


def never(_: list[pa.RecordBatch]) -> bool:
    return False


def broken_after(n: int, fake: Any, **fault: bool) -> Callable[[], None]:
    """A pump that makes the day go on, and a fault begin after the nth batch."""
    read = 0

    def pump() -> None:
        nonlocal read
        read += 1
        if read == n:
            fake.faults = Faults(**fault)
        fake.day.step()

    return pump


def n_batches(n: int) -> Callable[[list[pa.RecordBatch]], bool]:
    return lambda got: len(got) >= n


@asynccontextmanager
async def fake_of(name: str, day: FakeDay, *, follow: bool = False) -> AsyncIterator[Any]:
    async with FAKES[name](day, follow=follow) if name in POLLED else FAKES[name](day) as fake:
        yield fake


async def to_the_end(name: str, fake: Any) -> list[pa.RecordBatch]:
    """A connection until the day is over: polled as fast as it goes, or pushed all at once."""
    connection = opened(name, fake)
    if name in PUSHED:
        # The first frame is on its way only once somebody is connected.
        return await read(connection, seen_all(fake.day), lambda: fake.day.step(len(fake.day.batches)))
    return await read(connection, seen_all(fake.day), fake.day.step)


def dropped(batches: Sequence[pa.RecordBatch]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in batches:
        for reason, n in json.loads(batch.schema.metadata[b"dropped"]).items():
            counts[reason] = counts.get(reason, 0) + n
    return counts


def check_bars(name: str, got: pa.Table, wanted: pa.Table) -> None:
    """Equal to the bit; Tencent's amounts are in whole CNY, so a bar's may be one off."""
    if name == "tencent":
        difference = got["amount"].to_numpy() - wanted["amount"].to_numpy()
        assert np.abs(difference).max() <= 1.0
        got, wanted = got.drop_columns(["amount"]), wanted.drop_columns(["amount"])
    assert got.equals(wanted)


def check_totals(name: str, day: FakeDay, batches: Sequence[pa.RecordBatch]) -> None:
    got, wanted = totals_of(day.symbols, batches), day.totals()
    if name == "tencent":
        got, wanted = ({s: (*t[:4], round(t[4])) for s, t in totals.items()} for totals in (got, wanted))
    assert got == wanted


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await work()
        async with asyncio.timeout(5):
            while asyncio.all_tasks() != {asyncio.current_task()}:  # generators that httpx leaves behind end soon
                await asyncio.sleep(0.001)

    asyncio.run(whole())


@every
def test_a_clean_run_over_the_wire_gives_the_simulators_own_bars(name: str) -> None:
    day = a_day(4)

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await to_the_end(name, fake)
        assert dropped(batches) == {}
        assert all(batch.schema.equals(TICK) for batch in batches)
        abouts = [batch.schema.metadata for batch in batches]
        assert [int(about[b"seq"]) for about in abouts] == list(range(1, len(batches) + 1))
        assert {about[b"provider"] for about in abouts} == {name.encode()}
        received = [int(about[b"received_ns"]) for about in abouts]
        assert received == sorted(received)
        check_bars(name, bars_of(day.symbols, batches), day.bars())

    run(work)


@cache
def a_whole_day() -> FakeDay:
    market = SimulatedMarket(6, seed=5)
    return FakeDay(market, market.sessions[1])


def whole_day(name: str, day: FakeDay) -> list[bytes]:
    """Each minute of a day as one frame of a vendor, twenty lines a symbol."""
    spell: dict[str, Callable[[Any], bytes]] = {
        "sina": spelling.sina_polled,
        "tencent": spelling.tencent,
        "eastmoney": lambda quote: json.dumps({"data": {"diff": [spelling.eastmoney(quote)]}}).encode() + b"\n",
    }
    lines = [b"".join(map(spell[name], day.quotes(at).values())) for at in range(len(day.batches))]
    return [b"".join(lines[k : k + 20]) for k in range(0, len(lines), 20)]


@pytest.mark.parametrize("name", ["sina", "tencent", "eastmoney"])
def test_a_whole_day_of_bytes_gives_the_simulators_own_bars(name: str) -> None:
    day = a_whole_day()
    vendor = VENDORS[name]
    universe = vendor.universe(day.symbols)
    parsed: list[Parsed] = [vendor.parse(frame, universe) for frame in whole_day(name, day)]
    assert sum((p.dropped for p in parsed), parsed[0].dropped) == {}
    check_bars(name, bars_of(day.symbols, [p.ticks for p in parsed]), day.bars())


LOST = {
    "reset": Faults(reset=True),
    "blackhole": Faults(blackhole=True),
    "slow bytes": Faults(slow_s=0.05),
    "truncated": Faults(truncated=True),
    "an error of the server": Faults(status=502),
}


@polled
@pytest.mark.parametrize("fault", LOST)
def test_a_poll_that_comes_to_nothing_ends_the_connection_with_its_reason(name: str, fault: str) -> None:
    """The user sees the reason; what is polled after it is well again makes the day's totals right."""
    day = a_day()
    reasons = {"reset": "truncated|connection", "truncated": "truncated", "an error of the server": "http_502"}

    async def work() -> None:
        async with fake_of(name, day, follow=True) as fake:
            batches = await read(opened(name, fake), n_batches(20))
            fake.faults = LOST[fault]
            broken = opened(name, fake, timeout_s=0.3)
            with pytest.raises(FeedError, match=f"{name} is lost .({reasons.get(fault, 'timeout')})"):
                await read(broken, n_batches(1))
            assert sum(broken.traffic.dropped.values()) == 1
            fake.faults = Faults()
            fake.day.step(20)
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


@polled
@pytest.mark.parametrize("ban", [Faults(ban="403"), Faults(ban="page"), Faults(status=456)], ids=["403", "page", "456"])
def test_a_ban_ends_a_poll_at_once(name: str, ban: Faults) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = ban
            with pytest.raises(BannedError, match=f"{name} has banned this address"):
                await read(open_connection(quick(name, batch=5), fake.day.symbols, url=fake.url), n_batches(1))
            assert len(fake.asked) <= 4  # what was on its way; nothing after the answer

    run(work)


def test_sina_without_its_referer_is_a_ban() -> None:
    async def work() -> None:
        async with fake_of("sina", a_day()) as fake:
            with pytest.raises(BannedError, match="HTTP 403, 'Kinsoku jikou desu!'"):
                await read(open_connection(quick("sina", headers={}), fake.day.symbols, url=fake.url), n_batches(1))

    run(work)


@polled
def test_requests_that_fail_now_and_then_cost_one_round_of_their_symbols(name: str) -> None:
    """Nothing but a count is seen of them: the same symbols come with the next round."""

    async def work() -> None:
        async with fake_of(name, a_day(), follow=True) as fake:
            connection = open_connection(
                quick(name, batch=5), fake.day.symbols, url=fake.url, timeout_s=5, admit=bad(fake, {2, 7, 11, 15})
            )
            batches = await read(connection, n_batches(20))
            assert connection.traffic.dropped == {"http_502": 4}
            assert {s for batch in batches for s in batch["symbol"].to_pylist()} == set(fake.day.symbols)

    run(work)


def bad(fake: Any, which: set[int]) -> Callable[[], Awaitable[None]]:
    """These requests are answered with an error, counted from 1."""
    asked = 0

    async def admit() -> None:
        nonlocal asked
        asked = mine = asked + 1
        while len(fake.asked) + 1 < mine:  # one after the other, so that each fault meets its own
            await asyncio.sleep(0.001)
        fake.faults = Faults(status=502) if mine in which else Faults()

    return admit


@every
def test_a_vendor_that_is_mute_gives_no_ticks_and_frames_say_so(name: str) -> None:
    """Its connection stays: the watchdog of whoever opened it sees frames without rows, or none."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(mute=True)
            connection = opened(name, fake)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await read(connection, lambda got: got[-1].num_rows > 0)
            assert connection.traffic.rows == 0
            fake.faults = Faults()
            check_totals(name, day, await to_the_end(name, fake))

    run(work)


@every
def test_a_vendor_that_is_stale_is_alive_but_its_quotes_grow_old(name: str) -> None:
    """Frames come, rows with newer times do not; afterwards totals are right."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await read(opened(name, fake), n_batches(3), day.step)
            fake.faults = Faults(stale=True)
            at = day.at
            frozen = opened(name, fake)
            if name == "eastmoney":  # deltas of nothing are not sent
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await read(frozen, n_batches(2), day.step)
            else:
                got = await read(frozen, n_batches(4), day.step)
                assert [batch.num_rows for batch in got[1:]] == [0, 0, 0]
                batches += got
            assert day.at > at
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


@pytest.mark.parametrize("name", ["sina", "sina_ws", "tencent"])
def test_garbage_is_dropped_by_line_and_counted_and_the_rest_of_its_frame_lives(name: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(garbage=True)
            connection = opened(name, fake)
            batches = await read(connection, n_batches(12), day.step)
            assert sum(connection.traffic.dropped.values()) > 20
            assert connection.traffic.dropped == dropped(batches)
            whole = set(day.symbols[::2])
            assert whole <= set(batches[0]["symbol"].to_pylist())
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


def test_an_event_that_cannot_be_read_ends_the_stream_for_what_follows_builds_on_it() -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of("eastmoney", day) as fake:
            batches: list[pa.RecordBatch] = []
            with pytest.raises(FeedError, match="garbled"):
                await read(opened("eastmoney", fake), never, broken_after(1, fake, garbage=True), batches)
            assert dropped(batches) == {"line": 1}
            fake.faults = Faults()
            batches += await to_the_end("eastmoney", fake)
        check_totals("eastmoney", day, batches)

    run(work)


@every
@pytest.mark.parametrize("fault", ["duplicate", "out_of_order"])
def test_what_comes_twice_or_late_changes_no_bar(name: str, fault: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(**{fault: True})
            connection = opened(name, fake)
            batches = await read(connection, lambda _: day.over, pump)
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        assert sum(batch.num_rows for batch in batches) > len(day.symbols) * 20
        check_bars(name, bars_of(day.symbols, batches), day.bars())

    turns = 0

    def pump() -> None:
        # Every second answer to a poll is a late one, so it is polled twice at each snapshot.
        nonlocal turns
        turns += 1
        day.step(turns % 2 if fault == "out_of_order" and name in POLLED else 1)

    run(work)


@every
def test_totals_that_start_anew_are_ignored(name: str) -> None:
    """The volume of a source whose day has fallen back is less than what was seen: no bar takes it."""
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches = await read(opened(name, fake), n_batches(20), day.step)
            fake.faults = Faults(volume_reset=True)
            batches += await read(opened(name, fake), n_batches(5), day.step)
            fake.faults = Faults()
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


def test_one_bad_code_of_a_polled_batch_is_found_and_the_others_are_quoted() -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of("tencent", day) as fake:
            bad = day.symbols[3]
            fake.faults = Faults(bad_codes=frozenset({bad[7:].lower() + bad[:6]}))
            connection = opened("tencent", fake)
            good = len(day.symbols) - 1
            batches = await read(connection, lambda got: len(connection.refused) > 0 and got[-1].num_rows == 0)
            assert connection.refused == {bad}
            assert connection.traffic.dropped["refused"] == 1
            assert sum(batch.num_rows for batch in batches) == good
            # Two a halving; then the next round, which asks for all the others at once.
            assert len(fake.asked) <= 1 + 2 * 5 + 2
            assert len(fake.asked[-1]) == good

    run(work)


def test_a_vendor_that_refuses_every_code_ends_the_connection() -> None:
    async def work() -> None:
        async with fake_of("tencent", a_day()) as fake:
            fake.faults = Faults(bad_codes=frozenset(VENDORS["tencent"].universe(fake.day.symbols).codes))
            with pytest.raises(RefusedError, match=f"tencent has none of the {len(fake.day.symbols)} symbols"):
                await read(opened("tencent", fake), n_batches(1))

    run(work)


@pytest.mark.parametrize("named", [True, False])
def test_one_bad_code_of_a_socket_refuses_its_batch_and_is_named_where_sina_names_it(named: bool) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of("sina_ws", day) as fake:
            bad = day.symbols[3]
            fake.faults = Faults(bad_codes=frozenset({bad[7:].lower() + bad[:6]}), named=named)
            with pytest.raises(RefusedError, match=bad if named else "it does not say which") as refused:
                await read(opened("sina_ws", fake), n_batches(1))
            assert refused.value.symbols == ({bad} if named else set())
            others = [symbol for symbol in day.symbols if symbol != bad]
            (first,) = await read(opened("sina_ws", fake, others), n_batches(1))
            assert first["symbol"].to_pylist() == others

    run(work)


@pushed
@pytest.mark.parametrize("fault", ["reset", "truncated"])
def test_a_stream_that_breaks_off_says_so(name: str, fault: str) -> None:
    day = a_day()
    if (name, fault) == ("sina_ws", "truncated"):
        fault = "reset"

    async def work() -> None:
        async with fake_of(name, day) as fake:
            batches: list[pa.RecordBatch] = []
            with pytest.raises(FeedError, match=f"{name} is lost"):
                await read(opened(name, fake), never, broken_after(5, fake, **{fault: True}), batches)
            fake.faults = Faults()
            day.step(20)
            batches += await to_the_end(name, fake)
        check_totals(name, day, batches)

    run(work)


def test_a_socket_that_answers_no_ping_is_given_up() -> None:
    async def work() -> None:
        async with fake_of("sina_ws", a_day()) as fake:
            connection = SocketConnection(quick("sina_ws"), fake.day.symbols, url=fake.url, ping_s=0.1)
            with pytest.raises(FeedError, match="keepalive ping timeout"):
                await read(connection, never, broken_after(1, fake, blackhole=True))

    run(work)


@pushed
def test_a_stream_that_is_refused_says_why(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(ban="403")
            with pytest.raises(BannedError, match="HTTP 403"):
                await read(opened(name, fake), n_batches(1))
            fake.faults = Faults(status=502)
            with pytest.raises(FeedError, match="http_502"):
                await read(opened(name, fake), n_batches(1))

    run(work)


@every
def test_a_vendor_that_is_not_there(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            url = fake.url
        with pytest.raises(FeedError, match=f"{name} is lost"):
            await read(open_connection(quick(name), fake.day.symbols, url=url, timeout_s=1), n_batches(1))

    run(work)


@pushed
def test_slow_bytes_are_put_together(name: str) -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of(name, day) as fake:
            fake.faults = Faults(slow_s=0.0001)
            check_totals(name, day, await to_the_end(name, fake))

    run(work)


@pytest.mark.parametrize(("first", "second"), [("sina", "tencent"), ("sina_ws", "sina"), ("tencent", "eastmoney")])
def test_to_another_vendor_and_back_no_minute_is_lost(first: str, second: str) -> None:
    """Both show the same day: with every snapshot seen by one of them the bars are the clean run's."""
    day = a_day()

    async def work() -> None:
        async with fake_of(first, day) as fake, fake_of(second, day) as other:
            batches = await read(opened(first, fake), n_batches(12), day.step)
            fake.faults = Faults(reset=True)
            batches += await read(opened(second, other), n_batches(12), day.step)
            fake.faults = Faults()
            batches += await read(opened(first, fake), seen_all(day), day.step)
        wanted = day.bars()
        got = bars_of(day.symbols, batches)
        whole = ["amount"] if "tencent" in (first, second) else []
        assert got.drop_columns(whole).equals(wanted.drop_columns(whole))
        assert np.abs(got["amount"].to_numpy() - wanted["amount"].to_numpy()).max() <= (1.0 if whole else 0.0)

    run(work)


@every
def test_close_ends_it_also_while_it_waits(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(mute=True)
            connection = open_connection(replace(VENDORS[name], cadence_s=3600), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(99)))
            await asyncio.sleep(0.1)
            assert not reader.done()
            await connection.close()
            await connection.close()
            assert len(await asyncio.wait_for(reader, 5)) <= 1

    run(work)


@polled
def test_close_ends_a_poll_that_waits_for_its_answer(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            fake.faults = Faults(blackhole=True)
            connection = open_connection(quick(name), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(1)))
            await asyncio.sleep(0.1)
            await connection.close()
            assert await asyncio.wait_for(reader, 5) == []

    run(work)


@every
def test_every_request_waits_until_the_budget_admits_it(name: str) -> None:
    async def work() -> None:
        async with fake_of(name, a_day()) as fake:
            gate = asyncio.Event()

            async def admit() -> None:
                await gate.wait()

            reader = asyncio.create_task(read(opened(name, fake, admit=admit), n_batches(1)))
            await asyncio.sleep(0.05)
            assert fake.asked == []
            gate.set()
            (batch,) = await reader
            assert batch.num_rows == len(fake.day.symbols)

    run(work)


def test_the_symbols_of_a_poll_are_spread_over_requests_within_the_cadence() -> None:
    async def work() -> None:
        async with fake_of("sina", a_day()) as fake:
            vendor, rest = replace(VENDORS["sina"], batch=6, cadence_s=0.2), len(fake.day.symbols) - 18
            batches = await read(PolledConnection(vendor, fake.day.symbols, url=fake.url), n_batches(8))
            assert [len(codes) for codes in fake.asked[:8]] == [6, 6, 6, rest] * 2
            assert [batch.num_rows for batch in batches] == [6, 6, 6, rest, 0, 0, 0, 0]

    run(work)


def test_codes_that_an_answer_leaves_out_are_counted() -> None:
    async def work() -> None:
        async with fake_of("sina", a_day()) as fake:
            fake.faults = Faults(garbage=True)
            connection = opened("sina", fake)
            await read(connection, n_batches(10), fake.day.step)
            assert connection.traffic.dropped["missing"] > 0

    run(work)


def test_sinas_socket_is_kept_alive_by_an_empty_text() -> None:
    async def work() -> None:
        async with fake_of("sina_ws", a_day()) as fake:
            connection = open_connection(quick("sina_ws", keepalive_s=0.02), fake.day.symbols, url=fake.url)
            reader = asyncio.create_task(read(connection, n_batches(9)))
            while len(fake.texts) < 2:
                await asyncio.sleep(0.01)
            assert set(fake.texts) == {""}
            await connection.close()
            assert len(await reader) == 1
        assert VENDORS["sina_ws"].keepalive_s == 60

    run(work)


def test_a_socket_can_be_subscribed_anew_and_shows_its_bytes() -> None:
    async def work() -> None:
        async with fake_of("sina_ws", a_day()) as fake:
            symbols = fake.day.symbols
            connection = SocketConnection(quick("sina_ws"), symbols[:2], url=fake.url)
            frames: list[bytes] = []
            connection.on_message(frames.append)
            await connection.connect()
            async with asyncio.timeout(5), aclosing(connection.batches()) as batches:
                assert (await anext(batches))["symbol"].to_pylist() == list(symbols[:2])
                await connection.subscribe(symbols[5:8])
                assert connection.symbols == symbols[5:8]
                assert (await anext(batches))["symbol"].to_pylist() == list(symbols[5:8])
                fake.faults = Faults(status=502)
                with pytest.raises(FeedError, match="http_502"):
                    await connection.subscribe(symbols[:1])
                fake.faults = Faults()
                fake.day.step()
                assert (await anext(batches))["symbol"].to_pylist() == list(symbols[5:8])
            assert frames[0].count(b"\n") >= 2
            assert [len(codes) for codes in fake.asked] == [2, 3]

    run(work)


def test_one_symbol_of_eastmoney_has_a_stream_of_its_own() -> None:
    day = a_day()

    async def work() -> None:
        async with fake_of("eastmoney", day) as fake:
            symbol = day.symbols[0]
            connection = opened("eastmoney", fake, [symbol])
            batches = await read(connection, lambda _: day.over, day.step)
        got, wanted = bars_of([symbol], batches), ordered(day.bars())
        assert got.slice(0, MINUTES - 1).equals(
            wanted.filter(wanted["symbol"].to_numpy(False) == symbol).slice(0, MINUTES - 1)
        )

    run(work)

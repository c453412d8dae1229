"""What connections ask vendors for: codes that are refused, requests within the budget, symbols anew."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from data.errors import FeedError, RefusedError
from streaming.feeds.polled import PolledConnection
from streaming.feeds.socket import SocketConnection
from streaming.feeds.vendors import VENDORS
from tests.streaming.feeds.fakes.connecting import (
    MINUTES,
    a_day,
    every,
    fake_of,
    n_batches,
    opened,
    quick,
    read,
    run,
)
from tests.streaming.feeds.fakes.day import bars_of, ordered
from tests.streaming.feeds.fakes.servers import Faults


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

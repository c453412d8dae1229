"""Delivery: a channel that fails, hangs or asks for patience, and those beside it; over real sockets."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from streaming.alerts.channels import AppriseChannel
from streaming.alerts.delivery import MOST_HUNG, Channel, ChannelError, Delivery, Reason, Sender
from streaming.alerts.outbox import Alert, Batch, Message, Outbox
from tests.streaming.alerts.fakes.vendors import Fault, serving


class Ledger:
    """What it was told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.letters: list[tuple[str, str]] = []
        self.troubles: Counter[str] = Counter()
        self.n_held = 0
        self.changed = asyncio.Event()

    def sent(self, channel: str, message: Message) -> None:
        self.told += [alert.place[1] for alert in message.alerts]
        self.changed.set()

    def held(self, channel: str, n: int) -> None:
        self.n_held += n
        self.changed.set()

    def dead(self, channel: str, message: Message, why: str) -> None:
        self.letters.append((message.body, why))
        self.changed.set()

    def trouble(self, channel: str, reason: Reason) -> None:
        self.troubles[reason] += 1
        self.changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                self.changed.clear()
                await self.changed.wait()


def batch(n: int) -> Batch:
    return Batch("scan", [Alert(("e", n), lambda: (f"head {n}", ""), "BUY")])


def webhook(port: int) -> AppriseChannel:
    return AppriseChannel("own", f"json://127.0.0.1:{port}")


def play(
    scene: Callable[[Delivery, Ledger], Awaitable[None]],
    channel: Channel,
    *,
    timeout_s: float = 5.0,
    **given: float,
) -> Ledger:
    """Run a delivery beside a scene."""

    async def run() -> Ledger:
        ledger = Ledger()
        box = Outbox(channel.fits, **({"backoff_s": 0.01} | given))  # type: ignore[arg-type]
        delivery = Delivery(channel, box, ledger, timeout_s=timeout_s)
        work = asyncio.create_task(delivery.run())
        await scene(delivery, ledger)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        return ledger

    return asyncio.run(run())


def test_what_fails_thrice_is_delivered_by_the_fourth_attempt_and_the_next_comes_after_it() -> None:
    with serving() as (server, port):
        server.faults += [Fault(500), Fault(502), Fault(503)]

        async def scene(delivery: Delivery, ledger: Ledger) -> None:
            delivery.put(batch(1))
            delivery.put(batch(2))
            await ledger.until(lambda: len(ledger.told) == 2)
            assert delivery.oldest is None

        ledger = play(scene, webhook(port))
    assert (ledger.told, ledger.troubles, ledger.letters) == ([1, 2], {"refused": 3}, [])
    assert [text.splitlines()[-1] for text in server.texts] == ["head 1", "head 2"]


def test_429_is_obeyed() -> None:
    with serving() as (server, port):
        server.faults.append(Fault(429, headers={"Retry-After": "0.3"}))

        async def scene(delivery: Delivery, ledger: Ledger) -> None:
            start = asyncio.get_running_loop().time()
            delivery.put(batch(1))
            await ledger.until(lambda: ledger.told == [1])
            assert asyncio.get_running_loop().time() - start >= 0.3

        ledger = play(scene, webhook(port))
    assert ledger.troubles == {"limited": 1}


def test_what_nobody_takes_is_a_dead_letter_and_what_is_refused_for_good_at_once() -> None:
    with serving() as (server, port):
        server.faults += [Fault(500), Fault(500), Fault(404)]

        async def scene(delivery: Delivery, ledger: Ledger) -> None:
            for n in (1, 2, 3):
                delivery.put(batch(n))
            await ledger.until(lambda: ledger.told == [3])

        ledger = play(scene, webhook(port), attempts=2)
    assert [body for body, _ in ledger.letters] == ["head 1", "head 2"]
    assert [why for _, why in ledger.letters] == ["HTTP 500: Internal Server Error", "HTTP 404: Not Found"]


def test_a_channel_that_hangs_for_ever_is_given_up_and_delays_nobody() -> None:
    with serving() as (bad, bad_port), serving() as (good, good_port):
        bad.faults += [Fault(hang=True)] * 10

        async def scene(delivery: Delivery, ledger: Ledger) -> None:
            other = Ledger()
            channel = webhook(good_port)
            beside = Delivery(channel, Outbox(channel.fits, per_minute=100), other)
            work = asyncio.create_task(beside.run())
            delivery.put(batch(1))
            await asyncio.to_thread(bad.wait, 1)
            for n in range(10):
                beside.put(batch(n))
                await other.until(lambda n=n: other.told[-1:] == [n])
            assert not ledger.letters
            await ledger.until(lambda: len(ledger.letters) == 1)
            delivery.put(batch(2))
            await ledger.until(lambda: len(ledger.letters) == 2)
            beside.end()
            await work

        ledger = play(scene, webhook(bad_port), timeout_s=0.2, attempts=MOST_HUNG)
        assert [why for _, why in ledger.letters] == [
            "no answer within 0.2 s",
            f"{MOST_HUNG} earlier messages still hang",
        ]
        assert len(bad.asked) == MOST_HUNG  # as many threads, however many messages
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "alert-own")
    assert len(good.texts) == 10


class Slow:
    """A channel that waits to be told."""

    name = "slow"

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def fits(self, title: str, body: str) -> bool:
        return True

    def send(self, title: str, body: str) -> None:
        self.begun.set()
        self.go.wait()
        if body == "bad":
            raise OSError("https://secret")


def test_a_thread_that_comes_back_counts_no_longer_and_a_channel_s_own_fault_is_one_message_s() -> None:
    async def run() -> None:
        channel = Slow()
        sender = Sender(channel, 0.05)
        for _ in range(MOST_HUNG + 1):
            with suppress(ChannelError):
                await sender.send("t", "b")
        assert sender.hung == MOST_HUNG
        channel.go.set()
        async with asyncio.timeout(10):
            while sender.hung:
                await asyncio.sleep(0.001)
        await sender.send("t", "b")
        with pytest.raises(ChannelError, match=r"^OSError in the channel$"):
            await sender.send("t", "bad")

    asyncio.run(run())


def test_who_is_cancelled_as_the_answer_comes_ends() -> None:
    """A wait that takes the answer for an end of its cancellation would keep the service from ending."""

    async def run() -> None:
        channel = Slow()
        delivery = Delivery(channel, Outbox(channel.fits), Ledger())
        delivery.put(Batch("bad", [Alert(("e", 1), lambda: ("bad", ""))]))
        work = asyncio.create_task(delivery.run())
        await asyncio.to_thread(channel.begun.wait)
        channel.go.set()
        time.sleep(0.05)  # the loop stands still: the answer waits for it
        work.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(work, return_exceptions=True)
        assert work.cancelled()

    asyncio.run(run())


def test_the_end_waits_for_what_is_queued_and_for_no_minute() -> None:
    with serving() as (server, port):

        async def scene(delivery: Delivery, ledger: Ledger) -> None:
            for n in range(1, 6):
                delivery.put(batch(n))
            await ledger.until(lambda: ledger.n_held == 3)
            delivery.end()
            async with asyncio.timeout(10):
                while delivery.waiting:
                    await asyncio.sleep(0.001)

        ledger = play(scene, webhook(port), per_minute=2)
    assert ledger.told == [1, 2]
    assert ": 3 alerts held back" in server.texts[-1]

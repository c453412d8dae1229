"""Alerting: `signal.alert` -> chats, mailboxes and webhooks.

Where each channel is stands in a file of the store, so that a killed service tells what it had not told; a signal that
was told just before the kill may be told twice. What is older than `alerts.max_age_s` by then is counted, not told.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from data import metrics
from data.files import write_text
from data.history import SignalHistory
from data.signal import Signal, from_table, iso, signals_of
from jobs.alert_text import to_batch
from jobs.roles import lock
from streaming.alerts.delivery import Delivery, Reason
from streaming.alerts.letters import DeadLetters
from streaming.alerts.outbox import Message, Place
from streaming.alerts.routing import Router, Rule
from streaming.bus import SIGNALS
from streaming.ports import Bus, Policy

log = logging.getLogger(__name__)

PAGE = 5000
"""Signals that are read from the history at once."""
KEEP_EVERY_S = 1.0
LOCK_EVERY_S = 5.0


class Alerting:
    """Hands what is published on `signal.alert` to the deliveries of channels; nobody waits for this stage.

    `folder`: of the store, where places and dead letters lie; of several processes that serve one store, one tells.
    `market`: as `jobs.alert_text.to_batch` has it.
    """

    def __init__(
        self,
        bus: Bus,
        history: SignalHistory,
        rules: Sequence[Rule],
        deliveries: "Callable[[Books], Sequence[Delivery]]",
        folder: Path,
        *,
        market: str = "",
        max_age_s: float = 600.0,
        drain_s: float = 5.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._signals = bus.subscribe(SIGNALS, policy=Policy.DROP_OLDEST, name="alerts")
        self._history, self._router, self._folder = history, Router(rules), folder
        self._newest = history.place()
        self._market, self._max_age_s, self._drain_s, self._clock_ns = market, max_age_s, drain_s, clock_ns
        self.books = Books(DeadLetters(folder), clock_ns)
        self._deliveries = {one.name: one for one in deliveries(self.books)}
        self._reached: Place = ("", 0)
        self._told: dict[str, Place] = {}
        self._kept: Mapping[str, Place] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop` is called or the bus is closed; never raises, for the other stages go on without alerts."""
        try:
            await self._run()
        except Exception:
            log.exception("alerts have ended; signals go on")
            await self._stopping.wait()

    async def stop(self) -> None:
        """End when what has been published by now is told, or `drain_s` have passed."""
        self._stopping.set()
        self._signals.close()

    async def _run(self) -> None:
        with lock(self._folder / "lock") as mine:
            while not mine():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOCK_EVERY_S):
                        await self._stopping.wait()
                    return
            await self._work()

    async def _work(self) -> None:
        workers = [asyncio.create_task(one.run(), name=f"alerts-{name}") for name, one in self._deliveries.items()]
        keeper = asyncio.create_task(self._keep_places())
        try:
            await self._begin()
            async for event in self._signals:
                signals = signals_of(event.batch)
                if signals and (signals[0].epoch, signals[0].seq) == (self._reached[0], self._reached[1] + 1):
                    self._tell(signals)
                else:
                    await self._catch_up()
            for one in self._deliveries.values():
                one.end()
            _, late = await asyncio.wait(workers, timeout=self._drain_s) if workers else ((), ())
            if late and (n := sum(one.waiting for one in self._deliveries.values())):
                log.warning("%d alerts were not told before the end; the next start tells those that are not old", n)
        finally:
            for task in (*workers, keeper):
                task.cancel()
            await asyncio.gather(*workers, keeper, return_exceptions=True)
            await self._keep()

    async def _begin(self) -> None:
        """Where the channels were when the service ended; a new one begins here."""
        known = await asyncio.to_thread(_read_places, self._folder / "places.json")
        self._told = {name: known.get(name, self._newest) for name in self._deliveries}
        self._reached = min(self._told.values(), default=self._newest)
        await self._keep()
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Tell what the history has behind our place: what the bus did not bring, and nothing twice."""
        while True:
            missed = await asyncio.to_thread(self._history.since, *self._reached, PAGE)
            if missed is None:
                log.error("the history %s has lost signals: nobody is told of them", self._history.root)
                self._reached = await asyncio.to_thread(self._history.place)
                return
            if missed.num_rows == 0:
                return
            rows = from_table(missed)
            for _, group in groupby(rows, key=lambda signal: (signal.epoch, signal.frame, signal.bar_end)):
                self._tell(list(group))

    def _tell(self, signals: Sequence[Signal]) -> None:
        """Put the signals of one scan into the outboxes of those who want them and have not had them."""
        oldest_ns = self._clock_ns() - int(self._max_age_s * 1e9)
        fresh = [signal for signal in signals if signal.published_ns >= oldest_ns]
        for signal in signals if len(fresh) < len(signals) else ():
            if signal.published_ns < oldest_ns:
                for name in self._router.channels(signal):
                    if (signal.epoch, signal.seq) > self._told[name]:
                        self.books.count(name, "expired", 1)
        routed = self._router.route(fresh, time.monotonic())
        for name, n in routed.cooling.items():
            self.books.count(name, "cooldown", n)
        for name, wanted in routed.signals.items():
            new = [signal for signal in wanted if (signal.epoch, signal.seq) > self._told[name]]
            if new:
                self._deliveries[name].put(to_batch(new, self._market))
        self._reached = (signals[-1].epoch, signals[-1].seq)

    async def _keep_places(self) -> None:
        """After each message, so that a kill has few told twice; and now and then, for what needed none."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(KEEP_EVERY_S):
                    await self.books.changed.wait()
            self.books.changed.clear()
            await self._keep()

    async def _keep(self) -> None:
        """Make durable where the channels are; and the letters that died since."""
        await asyncio.to_thread(self.books.write)
        places = {}
        for name, one in self._deliveries.items():
            oldest = one.oldest
            place = self._reached if oldest is None else (oldest[0], oldest[1] - 1)
            places[name] = max(place, self._told.get(name, place))
        if places != self._kept:
            try:
                await asyncio.to_thread(write_text, self._folder / "places.json", json.dumps(places))
                self._kept = places
            except OSError as error:
                log.error("where the alerts are cannot be kept: %s", error)


class Books:
    """Counts what becomes of alerts and keeps what is dead; fulfils `streaming.alerts.delivery.Ledger`."""

    def __init__(self, letters: DeadLetters, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._letters, self._clock_ns = letters, clock_ns
        self._dead: list[dict[str, object]] = []
        self.changed = asyncio.Event()
        """Set when a message has come to its end."""

    def sent(self, channel: str, message: Message) -> None:
        """See `Ledger`."""
        self.changed.set()
        self.count(channel, "sent", len(message.alerts))
        now = self._clock_ns()
        for alert in message.alerts:
            metrics.alert_seconds.labels(channel).observe(max(now - alert.published_ns, 0) / 1e9)

    def held(self, channel: str, n: int) -> None:
        """See `Ledger`."""
        self.count(channel, "held", n)

    def dead(self, channel: str, message: Message, why: str) -> None:
        """See `Ledger`."""
        self.changed.set()
        self.count(channel, "failed", len(message.alerts))
        self._dead.append(
            {
                "at": iso(self._clock_ns()),
                "channel": channel,
                "why": why,
                "attempts": message.attempts,
                "title": message.title,
                "body": message.body,
                "signals": [alert.signal for alert in message.alerts],
            }
        )

    def trouble(self, channel: str, reason: Reason) -> None:
        """See `Ledger`."""
        metrics.alert_failures.labels(channel, reason).inc()

    def count(self, channel: str, result: str, n: int) -> None:
        """So many alerts of a channel came to this end."""
        metrics.alerts.labels(channel, result).inc(n)

    def write(self) -> None:
        """Append the letters that died since to their file; may block."""
        dead, self._dead = self._dead, []
        try:
            self._letters.add(dead)
        except OSError as error:
            log.error("%d dead letters could not be kept: %s", len(dead), error)


def _read_places(path: Path) -> dict[str, Place]:
    """Channel -> its place; nothing where there is no file, or none that can be read."""
    try:
        known = json.loads(path.read_text("utf-8"))
        return {str(name): (str(epoch), int(seq)) for name, (epoch, seq) in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.error("where the alerts were cannot be read, so they begin here: %s", error)
        return {}

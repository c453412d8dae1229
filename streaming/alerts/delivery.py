"""Delivery: the worker of one channel. Whatever its channel does, nothing waits for it but its own outbox."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol

from streaming.alerts.outbox import Batch, Message, Outbox, Place

log = logging.getLogger(__name__)

Reason = Literal["hung", "unreachable", "limited", "refused", "error"]
MOST_HUNG = 3
"""Sends of one channel that may hang at once; while so many do, no other one begins."""


class ChannelError(Exception):
    """A message was not delivered; the text holds no secret.

    `reason` is what it is counted by. `for_good`: the same message would fail again. `pause_s`: as long as the channel
    asks to be left alone.
    """

    def __init__(self, text: str, *, reason: Reason, for_good: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.for_good, self.pause_s = for_good, pause_s


class Channel(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str:
        """As the settings have it."""
        ...

    def fits(self, title: str, body: str) -> bool:
        """Whether the channel takes them as one message."""
        ...

    def send(self, title: str, body: str) -> None:
        """Deliver; may block. Raises ChannelError."""
        ...


class Ledger(Protocol):
    """Who is told what becomes of a channel's messages."""

    def sent(self, channel: str, message: Message) -> None:
        """The channel has taken it."""
        ...

    def held(self, channel: str, n: int) -> None:
        """So many alerts more are held back, over the cap."""
        ...

    def dead(self, channel: str, message: Message, why: str) -> None:
        """Nobody tries it any more."""
        ...

    def trouble(self, channel: str, reason: Reason) -> None:
        """An attempt has failed."""
        ...


class Sender:
    """Sends in threads that nobody has to wait for, not even the end of the process; counts those that hang."""

    def __init__(self, channel: Channel, timeout_s: float) -> None:
        self._channel, self._timeout_s = channel, timeout_s
        self.hung = 0

    async def send(self, title: str, body: str) -> None:
        """Deliver. Raises ChannelError: after the timeout with the reason `hung`, while the thread goes on."""
        if self.hung >= MOST_HUNG:
            raise ChannelError(f"{self.hung} earlier messages still hang", reason="hung")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        late = False

        def settle(error: ChannelError | None) -> None:
            if late:
                self.hung -= 1
            elif answer.done():
                return  # nobody waits any more
            elif error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        def work() -> None:
            error = self._error(title, body)
            with suppress(RuntimeError):  # the loop has ended without it
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=work, name=f"alert-{self._channel.name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):  # wait_for may lose a cancellation before Python 3.12
                await answer
        except TimeoutError:
            late = True
            self.hung += 1
            raise ChannelError(f"no answer within {self._timeout_s:g} s", reason="hung") from None

    def _error(self, title: str, body: str) -> ChannelError | None:
        try:
            self._channel.send(title, body)
        except ChannelError as error:
            return error
        except Exception as error:  # the fault of a channel is that of this message alone
            # No text and no traceback: they may hold the address with its secrets.
            log.error("the channel %s raised %s", self._channel.name, type(error).__name__)
            return ChannelError(f"{type(error).__name__} in the channel", reason="error")
        return None


class Delivery:
    """Sends what is put into its outbox, one message after another, and tells the ledger."""

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        ledger: Ledger,
        *,
        timeout_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = channel.name
        self._sender = Sender(channel, timeout_s)
        self._outbox, self._ledger, self._clock = outbox, ledger, clock
        self._changed = asyncio.Event()
        self._ending = False

    def put(self, batch: Batch) -> None:
        """Take alerts; never waits. Those for which there is no more room are dead, the oldest first."""
        if gone := self._outbox.put(batch):
            message = Message(batch.title, "\n\n".join(map(str, gone)), gone, gone[0].place)
            self._ledger.dead(self.name, message, "its queue is full")
        self._changed.set()

    @property
    def oldest(self) -> Place | None:
        """The oldest signal that is neither sent nor given up."""
        return self._outbox.oldest

    @property
    def waiting(self) -> int:
        """Alerts that are neither sent nor given up."""
        return self._outbox.waiting

    def end(self) -> None:
        """Let `run` end when nothing is left; a digest waits no longer."""
        self._ending = True
        self._changed.set()

    async def run(self) -> None:
        """Send until `end` was called and nothing is left, or until cancelled."""
        while not (self._ending and not self._outbox.waiting):
            self._changed.clear()
            before = self._outbox.held
            message = self._outbox.take(self._clock(), hurry=self._ending)
            if (n := self._outbox.held - before) > 0:
                self._ledger.held(self.name, n)
            if message is not None:
                await self._send(message)
            else:
                await self._change(self._outbox.due(self._clock()))

    async def _change(self, due_s: float | None) -> None:
        """Until there may be something to send."""
        timer = None if due_s is None else asyncio.get_running_loop().call_later(due_s, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _send(self, message: Message) -> None:
        try:
            await self._sender.send(message.title, message.body)
        except ChannelError as error:
            self._ledger.trouble(self.name, error.reason)
            given_up = self._outbox.failed(self._clock(), for_good=error.for_good, pause_s=error.pause_s)
            if given_up is None:
                log.info("channel %s, attempt %d: %s", self.name, message.attempts, error)
            else:
                log.warning("channel %s did not take a message, given up: %s", self.name, error)
                self._ledger.dead(self.name, given_up, str(error))
        else:
            self._outbox.sent()
            self._ledger.sent(self.name, message)

"""Serving: `signal.alert` -> /ws/signals."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import groupby

from data.history import SignalHistory
from data.signal import Signal, from_table, signals_of
from streaming.broadcast import PAGE
from streaming.bus import SIGNALS
from streaming.ports import Bus, Policy
from streaming.server import SignalServer

log = logging.getLogger(__name__)


class Serving:
    """Hands what is published on `signal.alert` to the subscribers of a server, which has been started or not.

    `history`: of a scan in another process. What follows the server's place is served from there wherever the bus
    leaves a gap, and then nobody who publishes waits for this stage. `on_served` is told of what was handed over.
    """

    def __init__(
        self,
        bus: Bus,
        server: SignalServer,
        *,
        history: SignalHistory | None = None,
        on_served: Callable[[Sequence[Signal]], None] = lambda signals: None,
    ) -> None:
        self.server = server
        self._history, self._on_served = history, on_served
        policy = Policy.BLOCK if history is None else Policy.DROP_OLDEST
        self._signals = bus.subscribe(SIGNALS, policy=policy, name="serve")
        self._moved, self._over = asyncio.Event(), False

    async def run(self) -> None:
        """Until `stop` is called or the bus is closed."""
        try:
            if self._history is not None:
                await self._catch_up(self._history)
            async for event in self._signals:
                signals = signals_of(event.batch)
                if self._history is None or (signals and self._follows(signals[0])):
                    await self._serve(signals)
                else:
                    await self._catch_up(self._history)
                self._moved.set()
        finally:
            self._over = True
            self._moved.set()

    async def stop(self) -> None:
        """End when what has been published by now is served."""
        self._signals.close()

    async def reached(self, seq: int) -> None:
        """Return when the signals up to this one have been handed to the sockets, or nothing more will be."""
        while self.server.seq < seq and not self._over:
            self._moved.clear()
            await self._moved.wait()

    def _follows(self, signal: Signal) -> bool:
        return (signal.epoch, signal.seq) == (self.server.epoch, self.server.seq + 1)

    async def _serve(self, signals: Sequence[Signal]) -> None:
        await self.server.publish([signal.to_dict() for signal in signals])
        if signals:
            self._on_served(signals)

    async def _catch_up(self, history: SignalHistory) -> None:
        """Serve what the history has behind the server's place: what the bus did not bring, and nothing twice."""
        server = self.server
        while True:
            missed = await asyncio.to_thread(history.since, server.epoch, server.seq, PAGE)
            if missed is None:
                log.error("the history %s has lost signals: subscribers are cut off and told", history.root)
                server.begin(*await asyncio.to_thread(history.place))
                return
            if missed.num_rows == 0:
                return
            for epoch, signals in groupby(from_table(missed), key=lambda signal: signal.epoch):
                if epoch != server.epoch:
                    server.begin(epoch)
                await self._serve(list(signals))

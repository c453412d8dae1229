"""Serving: `signal.alert` -> /ws/signals."""

import asyncio

import pyarrow as pa

from data.signal import from_table
from streaming.broadcast import SignalServer
from streaming.bus import SIGNALS
from streaming.ports import Bus


class Serving:
    """Hands what is published on `signal.alert` to the subscribers of a server, which has been started or not."""

    def __init__(self, bus: Bus, server: SignalServer) -> None:
        self.server = server
        self._signals = bus.subscribe(SIGNALS, name="serve")
        self._moved, self._over = asyncio.Event(), False

    async def run(self) -> None:
        """Until `stop` is called or the bus is closed."""
        try:
            async for event in self._signals:
                signals = from_table(pa.Table.from_batches([event.batch]))
                await self.server.publish([signal.to_dict() for signal in signals])
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

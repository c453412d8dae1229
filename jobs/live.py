"""LiveService: the stages of one role at work, until it is told to stop.

    feeding    feed -> tape -> `market.tick`; folded -> `market.bar.{frame}`
    scanning   `market.bar.{frame}` -> store and scan -> history -> `signal.alert`
    serving    `signal.alert` -> /ws/signals
    alerting   `signal.alert` -> chats, mailboxes, webhooks
    recording  `signal.alert` -> InfluxDB

Each stage is a task of one event loop, and they meet on the bus alone; a full queue makes the stage before it wait, so
a feed that can wait does. The store, the history, the tape and the cluster work in threads: nothing blocks the loop
that serves subscribers.
"""

import asyncio
from collections.abc import Callable, Sequence

from jobs.stages.alerting import Alerting
from jobs.stages.feeding import Feeding
from jobs.stages.influx import Recording
from jobs.stages.scanning import Kept, Scanning
from jobs.stages.serving import Serving
from streaming.ports import Bus

Stage = Feeding | Scanning | Serving | Alerting | Recording


class LiveService:
    """Runs some or all of the stages, given in the order of the data; holds the `bus` that they were made with.
    `on_ready` is called when all but the first are at work."""

    def __init__(self, bus: Bus, stages: Sequence[Stage], *, on_ready: Callable[[], None] = lambda: None) -> None:
        self._bus, self._stages, self._on_ready = bus, list(stages), on_ready
        self._stopping = asyncio.Event()

    @property
    def kept(self) -> Kept:
        """What the scanning stage leaves behind; of another role, nothing."""
        return next((stage.kept for stage in self._stages if isinstance(stage, Scanning)), Kept())

    async def run(self) -> Kept:
        """Until the first stage ends by itself, or any after it, or `stop` is called; then drain, from the first stage
        to the last. Closes the bus, and raises what a stage raised."""
        tasks: dict[asyncio.Task[None], Stage] = {}
        stopper = asyncio.create_task(self._stop_first())
        try:
            for stage in reversed(self._stages):
                # Quotes wait for workers that are not warm yet, and the first signals for those who serve them.
                if isinstance(stage, Scanning):
                    await stage.catch_up()
                if stage is self._stages[0]:
                    self._on_ready()
                tasks[asyncio.create_task(stage.run(), name=type(stage).__name__)] = stage
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                    await self._ended(tasks[task])
        finally:
            stopper.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._bus.close()
        return self.kept

    def stop(self) -> None:
        """Take no more; what has come in by now goes all the way first."""
        self._stopping.set()

    async def _stop_first(self) -> None:
        await self._stopping.wait()
        await self._stages[0].stop()

    async def _ended(self, stage: Stage) -> None:
        """Let the next stage come to its end; those before have nobody left to work for."""
        place = self._stages.index(stage)
        for other in self._stages[:place] + self._stages[place + 1 : place + 2]:
            await other.stop()

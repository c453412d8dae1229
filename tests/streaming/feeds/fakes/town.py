"""Fakes on a thread and a loop of their own, for a service that has this one."""

import asyncio
import threading
from typing import Any, Self

from data.calendar import SECOND
from tests.streaming.feeds.fakes.day import FakeDay


class FakeTown:
    """Some fakes of one day, served from a thread while it is entered; `clock` is a second past the snapshot shown."""

    def __init__(self, day: FakeDay, **fakes: Any) -> None:
        """`fakes`: by the names of their vendors."""
        self.day, self.fakes = day, fakes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fakes")

    def __enter__(self) -> Self:
        self._thread.start()
        for fake in self.fakes.values():
            self._do(fake.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        for fake in self.fakes.values():
            self._do(fake.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    @property
    def urls(self) -> dict[str, str]:
        return {name: fake.url for name, fake in self.fakes.items()}

    def clock(self) -> int:
        return self.day.time + SECOND

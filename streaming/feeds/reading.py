"""What the connections have in common: frames of bytes become batches of ticks, and everything is counted."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import count
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from streaming.feeds.vendors import Vendor
from streaming.ports import Traffic

T = TypeVar("T")
Admit = Callable[[], Awaitable[None]]
"""Returns once the vendor may be asked."""


async def at_once() -> None:
    """An `Admit` that knows no budget."""


class Reading:
    """What one connection has read of a vendor: counts, and what must not be parsed again.

    `numbers`: where batches get their `seq` from; several connections to a vendor share one. `clock`: UTC ns.
    """

    def __init__(
        self,
        vendor: Vendor,
        symbols: Sequence[str],
        *,
        numbers: Iterator[int] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.vendor = vendor
        self.traffic = Traffic()
        self.clock = clock
        self._numbers = count(1) if numbers is None else numbers
        self.ask_for(symbols)

    def ask_for(self, symbols: Sequence[str]) -> None:
        """From now on these symbols; what was seen of others is forgotten."""
        self.universe = self.vendor.universe(symbols)
        self.refused: set[str] = set()
        self._memory: dict[bytes, Any] = {}
        self._place = {code: j for j, code in enumerate(self.universe.codes)}
        self._sure = np.ones(len(self.universe.symbols), dtype=bool)
        """Of whom the newest line could be read, or none has come yet."""
        self.heard: tuple[str, ...] = ()

    def codes(self) -> list[str]:
        """The vendor's codes of what is not refused."""
        pairs = zip(self.universe.symbols, self.universe.codes, strict=True)
        return [code for symbol, code in pairs if symbol not in self.refused]

    def symbol(self, code: str) -> str | None:
        """The symbol of a vendor's code; None where nobody asked for it."""
        place = self.universe.place.get(code.encode())
        return None if place is None else self.universe.symbols[place]

    def batch(self, body: bytes, received_ns: int, codes: Sequence[str] | None = None) -> pa.RecordBatch:
        """A frame as ticks. `codes`: what it answers; None where the vendor speaks unasked."""
        parsed = self.vendor.parse(self.vendor.fresh(body, self._memory), self.universe)
        absent = [] if codes is None else self._absent(body, codes)
        dropped = parsed.dropped + Counter(missing=len(absent))
        asked = self._places(codes) if codes is not None else np.arange(len(self._sure))
        if codes is None and parsed.dropped["line"]:
            self._sure[:] = False  # whose line that was nobody knows
        self._sure[self._places(absent)] = False
        self._sure[parsed.spoiled[parsed.spoiled >= 0]] = False
        self._sure[parsed.ticks["symbol"].indices.to_numpy()] = True
        self.heard = tuple(map(self.universe.symbols.__getitem__, asked[self._sure[asked]].tolist()))
        self.traffic.frames += 1
        self.traffic.received_bytes += len(body)
        self.traffic.rows += parsed.ticks.num_rows
        self.traffic.dropped += dropped
        about = {
            "provider": self.vendor.name,
            "seq": str(next(self._numbers)),
            "received_ns": str(received_ns),
            "dropped": json.dumps(dropped),
        }
        return parsed.ticks.replace_schema_metadata(about)

    def _places(self, codes: Sequence[str]) -> "np.typing.NDArray[np.int64]":
        return np.fromiter(map(self._place.__getitem__, codes), dtype=np.int64, count=len(codes))

    def _absent(self, body: bytes, codes: Sequence[str]) -> list[str]:
        """Of whom an answer has no line."""
        opening = self.vendor.opening
        if not opening or body.count(b"\n" + opening) + body.startswith(opening) >= len(codes):
            return []
        heads = {
            width: {line[:width] for line in body.split(b"\n")} for width in {len(opening + c.encode()) for c in codes}
        }
        return [code for code in codes if opening + code.encode() not in heads[len(opening) + len(code.encode())]]


class VendorConnection(ABC):
    """What every connection to a vendor has; see `streaming.ports.Connection`. Each transport adds its `batches`.

    `url`: in place of the vendor's own. `admit` is awaited before each request and keeps the vendor's budget.
    `numbers`: where batches get their `seq` from; a vendor's connections share one. `clock`: UTC ns. `timeout_s`: for
    an answer, or for a stream or socket to open.
    """

    def __init__(
        self,
        vendor: Vendor,
        symbols: Sequence[str],
        *,
        url: str | None = None,
        admit: Admit = at_once,
        numbers: Iterator[int] | None = None,
        clock: Callable[[], int] = time.time_ns,
        timeout_s: float = 10.0,
    ) -> None:
        self._vendor = vendor
        self._url = (url or vendor.url).rstrip("/")
        self._admit = admit
        self._timeout_s = timeout_s
        self._reading = Reading(vendor, symbols, numbers=numbers, clock=clock)
        self._closed = asyncio.Event()

    @property
    def symbols(self) -> tuple[str, ...]:
        """See `ports.Connection`."""
        return self._reading.universe.symbols

    @property
    def refused(self) -> frozenset[str]:
        """See `ports.Connection`."""
        return frozenset(self._reading.refused)

    @property
    def heard(self) -> tuple[str, ...]:
        """See `ports.Connection`."""
        return self._reading.heard

    @property
    def traffic(self) -> Traffic:
        """See `ports.Connection`."""
        return self._reading.traffic

    @abstractmethod
    def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """See `ports.Connection`."""

    async def close(self) -> None:
        """See `ports.Connection`."""
        self._closed.set()


async def unless(closing: "asyncio.Task[Any]", work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None where `closing` is done first, and then `work` is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
        return None if closing.done() else task.result()
    finally:
        await cancel(task)


async def cancel(*tasks: "asyncio.Task[Any]") -> None:
    """End tasks, whatever they are at, and wait until they are over. Who waits can be cancelled, too."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # that it was looked at

"""A vendor that is asked again and again: every symbol once in its cadence."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import httpx
import pyarrow as pa

from data.errors import FeedError, RefusedError
from streaming.feeds.http import check_ban, lost, open_client, reason_of, shown
from streaming.feeds.reading import VendorConnection, cancel

_IN_FLIGHT = 8
_PATIENCE = 3
"""So many requests in a row come to nothing before the connection is given up."""
_SPLITS = 64
"""So often are batches halved in one round to find the codes for whose sake they are refused."""


@dataclass(frozen=True)
class _Answer:
    body: bytes
    received_ns: int
    reason: str | None = None
    """Why there is none."""
    error: Exception | None = None


class PolledConnection(VendorConnection):
    """Asks a vendor for all its symbols once in a cadence, a request a batch, spread evenly; see `ports.Connection`.

    A request that comes to nothing is counted (`timeout`, `connection`, `truncated`, `http_502`, `no_frame`) and its
    symbols are asked for in the next round; three in a row, or all of a round, end the connection. A ban ends it at
    once. Codes that an answer leaves out are counted as `missing`. Where a batch is refused as a whole, halving it
    finds the codes that are at fault; they are not asked for any more.
    """

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """See `ports.Connection`."""
        loop = asyncio.get_running_loop()
        closing = asyncio.create_task(self._closed.wait())
        running: dict[asyncio.Task[_Answer], list[str]] = {}
        failures = 0
        try:
            async with open_client(dict(self._vendor.headers), read_s=self._timeout_s) as client:
                while not self._closed.is_set():
                    begins = loop.time()
                    todo = self._round(begins)
                    patience, splits = min(len(todo), _PATIENCE), 0
                    while (todo or running) and not self._closed.is_set():
                        while todo and len(running) < _IN_FLIGHT and todo[0][0] <= loop.time():
                            codes = todo.popleft()[1]
                            running[asyncio.create_task(self._ask(client, codes))] = codes
                        free = todo and len(running) < _IN_FLIGHT
                        pause = max(0.0, todo[0][0] - loop.time()) if free else None
                        done, _ = await asyncio.wait(
                            {closing, *running}, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                        )
                        for task in [task for task in running if task in done]:
                            codes, answer = running.pop(task), task.result()
                            if answer.reason is not None:
                                failures += 1
                                self.traffic.dropped[answer.reason] += 1
                                if failures >= patience:
                                    raise lost(self._vendor.name, answer.reason, answer.error)
                                continue
                            failures = 0
                            if not self._refuses(answer.body):
                                yield self._frame(codes, answer)
                            elif len(codes) == 1:
                                self._refuse(codes[0])
                            elif (splits := splits + 1) > _SPLITS:
                                raise RefusedError(
                                    f"{self._vendor.name} refuses batch after batch: {answer.body[:80]!r}"
                                )
                            else:
                                half = len(codes) // 2
                                todo.extendleft((loop.time(), part) for part in (codes[half:], codes[:half]))
                    await asyncio.wait({closing}, timeout=max(0.0, begins + self._vendor.cadence_s - loop.time()))
        finally:
            await cancel(closing, *running)

    def _round(self, begins: float) -> deque[tuple[float, list[str]]]:
        """When to ask for which codes."""
        codes, size = self._reading.codes(), self._vendor.batch
        if not codes:
            raise RefusedError(f"{self._vendor.name} has none of the {len(self.symbols)} symbols that it is asked for")
        requests = [codes[k : k + size] for k in range(0, len(codes), size)]
        step = self._vendor.cadence_s / len(requests)
        return deque((begins + k * step, part) for k, part in enumerate(requests))

    async def _ask(self, client: httpx.AsyncClient, codes: list[str]) -> _Answer:
        await self._admit()
        try:
            # Over the whole of it: a byte now and then would keep the client's own limit from ever being reached.
            async with asyncio.timeout(self._timeout_s):
                response = await client.get(self._url + self._vendor.path(codes))
        except (httpx.HTTPError, TimeoutError) as error:
            return _Answer(b"", 0, reason_of(error), error)
        received, body = self._reading.clock(), response.content
        check_ban(self._vendor.name, response.status_code, body)
        if response.status_code != httpx.codes.OK:
            return _Answer(b"", 0, f"http_{response.status_code}")
        if self._vendor.opening not in body:
            return _Answer(b"", 0, "no_frame", FeedError(f"its answer is {shown(body)}"))
        return _Answer(body, received)

    def _refuses(self, body: bytes) -> bool:
        """Whether an answer holds nothing but refusals."""
        refusal = self._vendor.refusal
        return refusal is not None and refusal in body and body.count(refusal) == self._lines(body)

    def _lines(self, body: bytes) -> int:
        """How many lines of quotes an answer has."""
        opening = self._vendor.opening
        return body.count(b"\n" + opening) + body.startswith(opening)

    def _refuse(self, code: str) -> None:
        symbol = self._reading.symbol(code)
        assert symbol is not None
        self._reading.refused.add(symbol)
        self.traffic.dropped["refused"] += 1

    def _frame(self, codes: Sequence[str], answer: _Answer) -> pa.RecordBatch:
        return self._reading.batch(answer.body, answer.received_ns, codes)

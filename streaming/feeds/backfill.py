"""Asks a K-line endpoint for the bars of many symbols, within its budget."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import pyarrow as pa

from data.errors import BannedError, FrameError, UsageError
from streaming.feeds.http import check_ban, lost, open_client, reason_of
from streaming.feeds.klines import KLines, KLineSource
from streaming.feeds.reading import Admit, at_once, cancel

_IN_FLIGHT = 4
_PATIENCE = 5
"""So many requests in a row come to nothing before the endpoint is given up."""
_EMPTIES = 20
"""So many empty answers in a row are a ban that does not say so."""


@dataclass(frozen=True)
class Backfilled:
    """Bars of some symbols (`data.schema.BAR`), and what came to nothing."""

    bars: pa.Table
    missing: tuple[str, ...]
    """Symbols that were asked for and have no bar here."""
    failed: frozenset[str] = frozenset()
    """Those of them whose request came to nothing: there may be bars of them."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows and requests by reason."""


class KLineClient:
    """Gets finished bars of one endpoint; holds how many requests in a row came to nothing.

    `url`, `admit` and `clock` are as of `streaming.feeds.reading.VendorConnection`; no bar is taken that has not ended
    by the clock.
    """

    def __init__(
        self,
        source: KLineSource,
        *,
        url: str | None = None,
        admit: Admit = at_once,
        clock: Callable[[], int] = time.time_ns,
        timeout_s: float = 10.0,
    ) -> None:
        self._source = source
        self._url = (url or source.url).rstrip("/")
        self._admit = admit
        self._clock = clock
        self._timeout_s = timeout_s
        self._failures = self._empties = 0

    async def bars(
        self, symbols: Sequence[str], frame: str, n: int | None = None, *, batch: int = 50
    ) -> AsyncGenerator[Backfilled]:
        """The newest `n` bars (by default as many as a request gives) of each symbol, a table for each `batch` of them.

        A symbol whose request fails is named and counted, and the next one is asked for. Raises FrameError and
        UsageError for what the endpoint does not have, BannedError, and FeedError where request after request fails.
        """
        if frame not in self._source.frames:
            raise FrameError(f"{self._source.name} has bars of {', '.join(self._source.frames)}; got {frame!r}")
        count = self._source.most if n is None else n
        if not 1 <= count <= self._source.most:
            raise UsageError(f"{self._source.name} gives 1 to {self._source.most} bars a request; got n={n}")
        places = asyncio.Semaphore(_IN_FLIGHT)
        async with open_client(dict(self._source.headers), read_s=self._timeout_s) as client:
            for k in range(0, len(symbols), batch):
                part = symbols[k : k + batch]
                tasks = [asyncio.create_task(self._ask(client, places, symbol, frame, count)) for symbol in part]
                try:
                    answers = await asyncio.gather(*tasks)
                finally:
                    await cancel(*tasks)
                tables = [answer.bars for answer in answers]
                missing = tuple(s for s, table in zip(part, tables, strict=True) if table.num_rows == 0)
                failed = frozenset(s for s, answer in zip(part, answers, strict=True) if answer.failed)
                dropped = sum((answer.dropped for answer in answers), Counter[str]())
                yield Backfilled(
                    pa.concat_tables(tables).unify_dictionaries().combine_chunks(), missing, failed, dropped
                )

    async def _ask(
        self, client: httpx.AsyncClient, places: asyncio.Semaphore, symbol: str, frame: str, n: int
    ) -> KLines:
        nothing = self._source.parse(b"", symbol, frame, 0).bars
        async with places:
            await self._admit()
            error: Exception | None = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await client.get(self._url + self._source.path(symbol, frame, n))
                check_ban(self._source.name, response.status_code, response.content)
                reason = "" if response.status_code == httpx.codes.OK else f"http_{response.status_code}"
            except (httpx.HTTPError, TimeoutError) as raised:
                reason, error = reason_of(raised), raised
            if reason:
                self._failures += 1
                if self._failures >= _PATIENCE:
                    raise lost(self._source.name, reason, error)
                return KLines(nothing, Counter({reason: 1}), failed=True)
            self._failures = 0
            found = self._source.parse(response.content, symbol, frame, self._clock())
            self._empties = self._empties + 1 if found.dropped["empty"] else 0
            if self._empties >= _EMPTIES:
                raise BannedError(
                    f"{self._source.name} answers {_EMPTIES} times in a row without a bar: it has had enough"
                )
            return found

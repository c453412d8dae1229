"""A vendor that pushes server-sent events over HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import pyarrow as pa

from data.errors import FeedError
from streaming.feeds.http import check_ban, lost, open_client, reason_of
from streaming.feeds.reading import VendorConnection, cancel, unless

_LARGEST = 2**24
"""Bytes of one event."""
_STREAM = "text/event-stream"


class EventConnection(VendorConnection):
    """A stream of server-sent events from a vendor; see `ports.Connection`.

    A stream that ends is a connection lost; so is one with an event that cannot be read: what comes next are changes
    to what it said.
    """

    async def batches(self) -> AsyncGenerator[pa.RecordBatch]:
        """See `ports.Connection`."""
        closing = asyncio.create_task(self._closed.wait())
        response: httpx.Response | None = None
        try:
            headers = {"Accept": _STREAM, "Accept-Encoding": "identity", **self._vendor.headers}
            async with open_client(headers, read_s=None) as client:
                response = await unless(closing, self._open(client))
                if response is None:
                    return
                pieces, rest = response.aiter_raw(), b""
                while (piece := await unless(closing, self._next(pieces))) is not None:
                    received = self._reading.clock()
                    body, rest = events(rest + piece)
                    if len(rest) > _LARGEST:
                        raise FeedError(f"an event of {self._vendor.name} has more than {_LARGEST:,} bytes")
                    if body:
                        batch = self._reading.batch(body, received)
                        yield batch
                        if json.loads(batch.schema.metadata[b"dropped"]).get("line"):
                            raise lost(self._vendor.name, "garbled")
        finally:
            await cancel(closing)
            if response is not None:
                await response.aclose()

    async def _open(self, client: httpx.AsyncClient) -> httpx.Response:
        await self._admit()
        request = client.build_request("GET", self._url + self._vendor.path(self._reading.codes()))
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await client.send(request, stream=True)
                if response.headers.get("content-type", "").startswith(_STREAM) and response.status_code == 200:
                    return response
                body = await response.aread()
        except (httpx.HTTPError, TimeoutError) as error:
            raise lost(self._vendor.name, reason_of(error), error) from error
        check_ban(self._vendor.name, response.status_code, body)
        raise lost(self._vendor.name, f"http_{response.status_code}", FeedError(f"no stream of events: {body[:80]!r}"))

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        try:
            return await anext(pieces)
        except StopAsyncIteration:
            raise lost(self._vendor.name, "ended") from None
        except httpx.HTTPError as error:
            raise lost(self._vendor.name, reason_of(error), error) from error


def events(received: bytes) -> tuple[bytes, bytes]:
    """Bytes of a stream -> the data of the events that are complete, one a line, and the rest."""
    *whole, rest = received.replace(b"\r\n", b"\n").split(b"\n\n")
    data = (b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")) for event in whole)
    return b"\n".join(line for line in data if line), rest

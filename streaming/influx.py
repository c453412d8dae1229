"""InfluxDB: points in batches, to whatever takes line protocol at `POST /api/v2/write`, as InfluxDB 2 and 3 do."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx

log = logging.getLogger(__name__)

Result = Literal["written", "refused", "dropped"]
Reason = Literal["unreachable", "timeout", "denied", "limited", "refused", "error"]

LONGEST_PAUSE_S = 60.0
LAST_PAUSE_S = 0.2
"""Between attempts at the end, when there is no time for more."""
MOST_LISTED = 100
MOST_REFUSALS = 40
"""Requests that are spent on finding the bad points of one batch; what is left of it then counts as refused."""


@dataclass(frozen=True)
class Database:
    """Where points go. `bucket`: InfluxDB 3 calls it database, and has no `org`."""

    url: str
    bucket: str
    org: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Database({self.url}, {self.bucket})"


class InfluxWriter:
    """Writes points beside everything else; holds those that wait, `most_bytes` at most: beyond that the oldest go.

    A batch goes when there are `batch` points, or after `flush_s`. What the server cannot take now it gets again, ever
    later; of what it refuses the bad points are found and left out. `on_result` is told what became of points,
    `on_trouble` of requests that failed.
    """

    def __init__(
        self,
        database: Database,
        *,
        batch: int = 5000,
        flush_s: float = 1.0,
        most_bytes: int = 32 << 20,
        timeout_s: float = 10.0,
        backoff_s: float = 1.0,
        on_result: Callable[[Result, int], None] = lambda result, n: None,
        on_trouble: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self._database, self._batch, self._flush_s, self._most_bytes = database, batch, flush_s, most_bytes
        self._timeout_s, self._backoff_s = timeout_s, backoff_s
        self._on_result, self._on_trouble = on_result, on_trouble
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._taken = 0
        self._full, self._ending = asyncio.Event(), asyncio.Event()
        self._down = False

    @property
    def waiting(self) -> int:
        """Points that are not written yet."""
        return len(self._lines) + self._taken

    def put(self, lines: Sequence[bytes]) -> None:
        """Take points, as `streaming.points.lines_of` has them; never waits."""
        self._lines.extend(lines)
        self._bytes += sum(map(len, lines))
        self._shrink()
        if len(self._lines) >= self._batch:
            self._full.set()

    def end(self) -> None:
        """Let `run` end when nothing is left."""
        self._ending.set()
        self._full.set()

    async def run(self) -> None:
        """Write until `end` was called and nothing is left, or until cancelled."""
        failures = 0
        async with httpx.AsyncClient(timeout=self._timeout_s) as client:
            while self._lines or not self._ending.is_set():
                if not failures:
                    await _within(self._full.wait(), self._flush_s)
                    self._full.clear()
                lines = [self._lines.popleft() for _ in range(min(self._batch, len(self._lines)))]
                self._bytes -= sum(map(len, lines))
                left, pause_s = await self._write(client, lines) if lines else ([], 0.0)
                failures = failures + 1 if left else 0
                if left:
                    self._lines.extendleft(reversed(left))
                    self._bytes += sum(map(len, left))
                    self._shrink()
                    pause_s = max(pause_s, min(self._backoff_s * 2 ** (failures - 1), LONGEST_PAUSE_S))
                    await _within(self._ending.wait(), pause_s)
                    if self._ending.is_set():
                        await asyncio.sleep(min(pause_s, LAST_PAUSE_S))

    def _shrink(self) -> None:
        n = 0
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._lines.popleft())
            n += 1
        if n:
            self._on_result("dropped", n)

    async def _write(self, client: httpx.AsyncClient, lines: list[bytes]) -> tuple[list[bytes], float]:
        """Write lines; returns those to be written again, and for how long the server asks to be left alone."""
        pieces, refusals = deque([lines]), 0
        try:
            while pieces:
                self._taken = sum(map(len, pieces))
                piece = pieces.popleft()
                answer = await self._post(client, piece)
                if answer is None or answer.status_code not in (204, 200, 400, 413, 422):
                    return [line for part in (piece, *pieces) for line in part], self._trouble(answer)
                self._up()
                n_bad = _refused(answer, len(piece))
                if n_bad is None and len(piece) > 1 and refusals < MOST_REFUSALS:
                    refusals += 1
                    half = len(piece) // 2
                    pieces.extendleft((piece[half:], piece[:half]))
                    continue
                n_bad = len(piece) if n_bad is None else n_bad
                if n_bad:
                    self._on_trouble("refused")
                    self._on_result("refused", n_bad)
                    log.warning("InfluxDB refused %d of %d points: %s", n_bad, len(piece), _said(answer))
                if n_bad < len(piece):
                    self._on_result("written", len(piece) - n_bad)
            return [], 0.0
        finally:
            self._taken = 0

    async def _post(self, client: httpx.AsyncClient, lines: Sequence[bytes]) -> httpx.Response | None:
        """The answer to a batch; None where none came."""
        to = self._database
        params = {"bucket": to.bucket, "precision": "ns"} | ({"org": to.org} if to.org else {})
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if to.token:
            headers["Authorization"] = f"Token {to.token}"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await client.post(
                    f"{to.url}/api/v2/write", params=params, headers=headers, content=b"\n".join(lines)
                )
        except (httpx.TimeoutException, TimeoutError):
            self._say("no answer in time", "timeout")
        except httpx.HTTPError as error:
            self._say(str(error) or type(error).__name__, "unreachable")
        except Exception as error:  # as of a token that no header can hold; its text would tell it
            self._say(type(error).__name__, "error")
        return None

    def _trouble(self, answer: httpx.Response | None) -> float:
        """Count an answer that is none; returns how long the server asks to be left alone."""
        if answer is None:
            return 0.0
        status = answer.status_code
        reason: Reason = "denied" if status in (401, 403, 404) else "limited" if status == 429 else "error"
        self._say(f"HTTP {status}: {_said(answer)}", reason)
        try:
            return min(max(float(answer.headers.get("Retry-After", "")), 0.0), LONGEST_PAUSE_S)
        except ValueError:
            return 0.0

    def _say(self, what: str, reason: Reason) -> None:
        """The first of several troubles is said; each is counted."""
        self._on_trouble(reason)
        log.log(logging.DEBUG if self._down else logging.WARNING, "InfluxDB at %s: %s", self._database.url, what)
        self._down = True

    def _up(self) -> None:
        if self._down:
            log.warning("InfluxDB at %s takes points again", self._database.url)
        self._down = False


async def _within(waiting: Coroutine[Any, Any, object], timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await waiting


def _said(answer: httpx.Response) -> str:
    """The beginning of an answer, on one line."""
    return " ".join(answer.text.split())[:200]


def _refused(answer: httpx.Response, n: int) -> int | None:
    """How many of `n` points an answer refuses, the others being written; None where it does not tell."""
    if answer.is_success:
        return 0
    try:
        said = answer.json()
    except ValueError:
        return None
    if not isinstance(said, dict) or "partial write" not in (text := str(said.get("error", said.get("message", "")))):
        return None
    # InfluxDB 3 lists the bad lines (not all where they are many), 1 and 2 say how many they dropped.
    if isinstance(bad := said.get("data"), list) and 0 < len(bad) < MOST_LISTED:
        return min(len(bad), n)
    dropped = re.search(r"dropped=(\d+)", text)
    return min(int(dropped[1]), n) if dropped else None

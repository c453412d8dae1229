"""What a store lacks of the bars that strategies need, fetched from vendors' K-line endpoints, within their budgets.

Frames that the most strategies wait for come first, while the market trades the shortest, and of a frame the symbols
that have the fewest bars. Up to which bar end a symbol was asked for is remembered in the store (`backfill.json`), so
that nobody is asked twice for the same, and what does not fit into one session comes in the next.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.calendar import AUCTION, CLOSE, DAY, MINUTE, SECOND, SHANGHAI, TradingCalendar, bar_ends, day_ns, local_day
from data.errors import FeedError
from data.files import write_text
from data.schema import FRAMES
from data.settings import Settings
from data.store import BarStore
from jobs.lacking import expected_ends, lacking_bars, newest_hole, whole_bars
from jobs.readiness import warm_ups
from jobs.scanning import MarketScan
from streaming.budget import TokenBucket
from streaming.feeds.backfill import KLineClient
from streaming.feeds.klines import KLineSource, sources_of
from streaming.feeds.reading import cancel
from streaming.health import TradingClock

_BATCH = 50
_SETTLED = 10 * MINUTE
"""So long after the close, neither quotes nor endpoints have more of the session."""
_CURRENT = 2 * MINUTE
"""Bars that close within this time of their end are not made up for."""
_LIVE_S = 180.0
"""So long the first live bar is waited for in a session, so that nobody is asked for what was before it, and again."""
_LOOK_S = 60.0
"""How often the clock is looked at."""
_TOLD_S = 60.0
"""While a frame is fetched, who scans it is told of it no oftener."""

log = logging.getLogger(__name__)


class Backfill:
    """Fetches what `store` lacks for `symbols`. `needs`: frame -> how many bars a symbol must have had, in the order in
    which they are wanted; `n_bars`: how many before a session's open are asked for, as far as an endpoint gives them.
    `clock`: UTC ns; `trading`: when the market trades. `late_s`: how late live bars may still be revised."""

    def __init__(
        self,
        store: BarStore,
        symbols: Sequence[str],
        needs: Mapping[str, int],
        *,
        n_bars: int,
        urls: Mapping[str, str],
        clock: Callable[[], int],
        say: Callable[[str], None],
        trading: TradingClock,
        late_s: float = 0.0,
    ) -> None:
        self._store, self._symbols, self._needs, self._n_bars = store, list(symbols), dict(needs), n_bars
        self._urls, self._clock, self._say = urls, clock, say
        self._trading, self._late = trading, round(late_s * SECOND)
        self._path = store.root / "backfill.json"
        self._asked = _read(self._path)
        self._given_up: set[str] = set()
        self._buckets: dict[str, TokenBucket] = {}
        self._going_on: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._first = self._newest = 0
        """Of the bars that closed live in their newest session."""
        self._joined = 0
        """The first of a session in whose midst the live bars began, once they had caught up."""
        self._fresh: set[str] = set()
        """Frames of which bars were stored, and nobody has been told."""
        self._told: dict[str, float] = {}
        self._fetching: str | None = None
        self.stored = 0
        """Bars."""
        self.dropped: Counter[str] = Counter()

    def lacking(self, frame: str, upto: int) -> list[str]:
        """Whom to ask for bars up to `upto` (UTC ns), those with the fewest first: who has too few, or some that lack
        trades; and all, where nobody has a bar at an end that the calendar has. Each once for the same bars."""
        expected = expected_ends(frame, upto, self._wanted(frame, upto), self._trading.has_session)
        if len(expected) == 0:
            return []
        had, wants = whole_bars(self._store, frame, self._symbols, int(expected[0]) - 1, upto)
        # What there was not at one session's close there may be at the next.
        closes = expected_ends("1d", upto, 1, self._trading.has_session)
        short = had < self._needs[frame]
        wants[short] = np.maximum(wants[short], closes.max(initial=0))
        wants = np.maximum(wants, newest_hole(self._store, frame, expected) or 0)
        known = self._asked.get(frame, {})
        asked = np.array([known.get(symbol, -1) for symbol in self._symbols], dtype=np.int64)
        lacking = (short | (wants > 0)) & (wants > asked)
        return [self._symbols[j] for j in np.argsort(had, kind="stable") if lacking[j]]

    def _wanted(self, frame: str, upto: int) -> int:
        """How many bars, up to `upto`, indicators see: those before the session, and its own."""
        return self._n_bars + int(np.count_nonzero(bar_ends(local_day(np.array([upto]))[0], frame) <= upto))

    async def at_start(self, seconds: float) -> None:
        """Fetch for so long, up to the newest bar that has ended; 0: nothing, now and later.

        While the market trades, quotes do not wait: then all of it comes beside the service.
        """
        if seconds == 0:
            self._needs.clear()
        if self._trading.trades(self._clock()):
            return
        end = time.monotonic() + seconds
        await self.run(upto=self._clock, until=lambda: time.monotonic() >= end)
        self._fresh.clear()  # nobody has read yet
        if self.stored:
            self._say(f"{self.stored:,} bars were fetched")

    def go_on(self) -> None:
        """Fetch what is left beside everything else, and look again after each session, and where live bars begin in
        the midst of one."""
        self._going_on = asyncio.create_task(self._beside(), name="backfill")
        self._going_on.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Fetch no more."""
        if self._going_on is not None:
            await cancel(self._going_on)

    def closed(self, frame: str, bar_end: int) -> None:
        """Take note of a bar of the shortest frame that has closed live (UTC ns)."""
        opens = int(bar_ends(local_day(np.array([bar_end]))[0], frame)[0])
        if self._first < opens:
            self._first = bar_end
        self._newest = bar_end
        if self._joined < self._first and self._clock() - bar_end < _CURRENT:
            self._joined = self._first
            if self._first > opens:
                self._due.set()

    def news(self, frame: str) -> bool:
        """Whether bars of a frame were stored of which nobody has been told; told once all of a vendor's are, or a
        minute has passed, since whoever is told reads the store again."""
        now = time.monotonic()
        if frame not in self._fresh or (frame == self._fetching and now - self._told[frame] < _TOLD_S):
            return False
        self._fresh.discard(frame)
        self._told[frame] = now
        return True

    def settled(self) -> int:
        """Up to when (UTC ns) no bar will come live, or be revised, any more."""
        now = self._clock()
        begins = midnight(now)
        if not self._in_session():
            return now
        if self._first < begins:
            return begins
        return max(self._first - 1, self._newest - self._late - 1)

    def _in_session(self) -> bool:
        """Whether live bars of today may come."""
        now = self._clock()
        return self._trading.has_session(now) and AUCTION <= now - midnight(now) < CLOSE + _SETTLED

    async def _beside(self) -> None:
        """Look, and look again."""
        if self._in_session():
            await _within(_LIVE_S, self._due)
        while True:
            self._due.clear()
            over = self._sessions_over()
            await self.run(upto=self.settled)
            while not self._due.is_set() and self._sessions_over() == over:
                await _within(_LOOK_S, self._due)
            if self._sessions_over() != over:
                self._given_up.clear()

    def _sessions_over(self) -> int:
        """Another number once a day's session is over."""
        return (self._clock() + SHANGHAI - CLOSE - _SETTLED) // DAY

    async def run(self, *, upto: Callable[[], int], until: Callable[[], bool] = lambda: False) -> bool:
        """Fetch and store bars that end by `upto` (UTC ns), until nothing is lacking or `until` says so.

        Returns whether nothing is left that could be asked for now. A vendor that fails is left alone for this session.
        """
        frames = sorted(self._needs, key=FRAMES.index) if self._in_session() else list(self._needs)
        for frame in frames:
            for source in sources_of(frame):
                bound = upto()
                todo = await asyncio.to_thread(self.lacking, frame, bound)
                if source.name in self._given_up or not todo:
                    continue
                self._say(f"asking {source.name} for {frame} bars of {len(todo):,} symbols ...")
                try:
                    if not await self._fetch(source, frame, todo, bound, until):
                        return False
                except FeedError as error:
                    self._given_up.add(source.name)
                    self._say(str(error))
                finally:
                    self._fetching = None
            await asyncio.to_thread(self._store.compact, frame)
        return True

    async def _fetch(
        self, source: KLineSource, frame: str, todo: Sequence[str], upto: int, until: Callable[[], bool]
    ) -> bool:
        """Whether it came to its end before `until`."""
        bucket = self._buckets.setdefault(source.name, TokenBucket(source.budget))
        client = KLineClient(source, url=self._urls.get(source.name), admit=bucket.admit, clock=self._clock)
        left = list(todo)
        n_bars = min(source.most, self._wanted(frame, self._clock()))
        self._fetching, self._told[frame] = frame, time.monotonic()
        async with aclosing(client.bars(todo, frame, n_bars, batch=_BATCH)) as parts:
            async for part in parts:
                done, left = left[:_BATCH], left[_BATCH:]
                asked = (symbol for symbol in done if symbol not in part.failed)
                self._asked.setdefault(frame, {}).update(dict.fromkeys(asked, upto))
                self.dropped += part.dropped
                if n_stored := await asyncio.to_thread(self._keep, frame, part.bars, upto):
                    self.stored += n_stored
                    self._fresh.add(frame)
                if until() and left:
                    return False
        return True

    def _keep(self, frame: str, bars: pa.Table, upto: int) -> int:
        """Store what is lacking, and who has been asked; returns how many bars."""
        fresh = lacking_bars(self._store, frame, bars, upto)
        self._store.append(fresh, frame)
        write_text(self._path, json.dumps(self._asked))
        return int(fresh.num_rows)


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("bars that the store lacks are not fetched any more", exc_info=error)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Until it is set, or so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _read(path: Path) -> dict[str, dict[str, int]]:
    """Frame -> symbol -> up to which bar end it was asked for. Earlier versions wrote the day on which it was."""
    known: dict[str, dict[str, int | str]] = json.loads(path.read_text()) if path.exists() else {}
    return {
        frame: {
            symbol: at if isinstance(at, int) else int(day_ns(np.array([at], dtype="datetime64[D]"))[0])
            for symbol, at in asked.items()
        }
        for frame, asked in known.items()
    }


def open_backfill(
    settings: Settings,
    store: BarStore,
    symbols: Sequence[str],
    scans: Sequence[MarketScan],
    history_bars: int,
    clock: Callable[[], int],
    say: Callable[[str], None],
) -> Backfill:
    """What fetches the bars that `scans` lack of `symbols`."""
    return Backfill(
        store,
        symbols,
        wanted_frames(scans, history_bars),
        n_bars=history_bars,
        urls=settings.feed.urls,
        clock=clock,
        say=say,
        trading=TradingClock(TradingCalendar(settings.calendar_overlay).is_session),
        late_s=settings.feed.late_s,
    )


def wanted_frames(scans: Sequence[MarketScan], history_bars: int | None) -> dict[str, int]:
    """Frame -> how many bars its neediest strategy needs, those that the most strategies wait for first."""
    needs = {scan.frame: warm_ups(scan.plan, history_bars) for scan in scans}
    ranked = sorted(needs.items(), key=lambda item: -len(item[1]))
    return {frame: max(own.values()) for frame, own in ranked if own}


def midnight(now_ns: int) -> int:
    """The beginning of a day in Shanghai, UTC ns: the sessions before it are over."""
    return int(day_ns(local_day(np.array([now_ns])))[0])

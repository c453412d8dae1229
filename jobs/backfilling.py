"""What a store lacks of the bars that strategies need, fetched from vendors' K-line endpoints, within their budgets.

Frames that the most strategies wait for come first, and of a frame the symbols that have the fewest bars. What was
asked for is remembered in the store (`backfill.json`), so that no symbol is asked for twice a day, and what does not
fit into one session comes in the next.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import TradingCalendar, day_ns, local_day
from data.errors import FeedError
from data.files import write_text
from data.schema import BAR, FLAG_INCOMPLETE
from data.settings import Settings
from data.store import BarStore
from jobs.readiness import bars_had, warm_ups
from jobs.scanning import MarketScan
from streaming.budget import TokenBucket
from streaming.feeds.backfill import KLineClient
from streaming.feeds.klines import KLineSource, sources_of
from streaming.feeds.reading import cancel
from streaming.health import TradingClock

_BATCH = 50

log = logging.getLogger(__name__)


class Backfill:
    """Fetches what `store` lacks for `symbols`. `needs`: frame -> how many bars a symbol must have had, in the order in
    which they are wanted; `n_bars`: how many are asked for, as far as an endpoint gives them. `clock`: UTC ns;
    `trades`: whether the market trades then."""

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
        trades: Callable[[int], bool] = lambda now: False,
    ) -> None:
        self._trades = trades
        self._store, self._symbols, self._needs, self._n_bars = store, list(symbols), dict(needs), n_bars
        self._urls, self._clock, self._say = urls, clock, say
        self._path = store.root / "backfill.json"
        self._asked: dict[str, dict[str, str]] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._given_up: set[str] = set()
        self._buckets: dict[str, TokenBucket] = {}
        self._going_on: asyncio.Task[bool] | None = None
        self.stored = 0
        """Bars."""
        self.dropped: Counter[str] = Counter()

    def lacking(self, frame: str) -> list[str]:
        """Whom to ask for today: those with too few bars, or with some that lack trades, the neediest first."""
        today = str(local_day(np.array([self._clock()]))[0])
        had = bars_had(self._store, frame, self._symbols)
        had[np.isin(self._symbols, _incomplete(self._store, frame, self._n_bars))] = 0
        order = np.argsort(had, kind="stable")
        asked = self._asked.get(frame, {})
        short = (self._symbols[j] for j in order if had[j] < self._needs[frame])
        return [symbol for symbol in short if asked.get(symbol) != today]

    async def at_start(self, seconds: float) -> None:
        """Fetch for so long, up to the newest bar that has ended; 0: nothing, now and later.

        While the market trades, quotes do not wait: then all of it comes beside the service.
        """
        if seconds == 0:
            self._needs.clear()
        if self._trades(self._clock()):
            return
        end = time.monotonic() + seconds
        await self.run(upto=self._clock, until=lambda: time.monotonic() >= end)
        if self.stored:
            self._say(f"{self.stored:,} bars were fetched")

    def go_on(self) -> None:
        """Fetch what is left beside everything else: of sessions that are over, for the next one."""
        self._going_on = asyncio.create_task(self.run(upto=lambda: midnight(self._clock())), name="backfill")
        self._going_on.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Fetch no more."""
        if self._going_on is not None:
            await cancel(self._going_on)

    async def run(self, *, upto: Callable[[], int], until: Callable[[], bool] = lambda: False) -> bool:
        """Fetch and store bars that end by `upto` (UTC ns), until nothing is lacking or `until` says so.

        Returns whether nothing is left that could be asked for today.
        """
        for frame in self._needs:
            for source in sources_of(frame):
                todo = await asyncio.to_thread(self.lacking, frame)
                if source.name in self._given_up or not todo:
                    continue
                self._say(f"asking {source.name} for {frame} bars of {len(todo):,} symbols ...")
                try:
                    if not await self._fetch(source, frame, todo, upto, until):
                        return False
                except FeedError as error:
                    self._given_up.add(source.name)
                    self._say(str(error))
            await asyncio.to_thread(self._store.compact, frame)
        return True

    async def _fetch(
        self, source: KLineSource, frame: str, todo: Sequence[str], upto: Callable[[], int], until: Callable[[], bool]
    ) -> bool:
        """Whether it came to its end before `until`."""
        bucket = self._buckets.setdefault(source.name, TokenBucket(source.budget))
        client = KLineClient(source, url=self._urls.get(source.name), admit=bucket.admit, clock=self._clock)
        today = str(local_day(np.array([self._clock()]))[0])
        left = list(todo)
        n_bars = min(source.most, self._n_bars)
        async with aclosing(client.bars(todo, frame, n_bars, batch=_BATCH)) as parts:
            async for part in parts:
                done, left = left[:_BATCH], left[_BATCH:]
                self._asked.setdefault(frame, {}).update(dict.fromkeys(done, today))
                self.dropped += part.dropped
                self.stored += await asyncio.to_thread(self._keep, frame, part.bars, upto())
                if until() and left:
                    return False
        return True

    def _keep(self, frame: str, bars: pa.Table, upto: int) -> int:
        """Store what is lacking, and who has been asked; returns how many bars."""
        fresh = lacking_bars(self._store, frame, bars, upto)
        self._store.append(fresh, frame)
        write_text(self._path, json.dumps(self._asked))
        return int(fresh.num_rows)


def _log_failure(task: "asyncio.Task[bool]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("bars that the store lacks are not fetched any more", exc_info=error)


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
        trades=TradingClock(TradingCalendar(settings.calendar_overlay).is_session).trades,
    )


def lacking_bars(store: BarStore, frame: str, bars: pa.Table, upto: int) -> pa.Table:
    """Of fetched bars up to `upto` (UTC ns) those that are not stored; as a revision, those stored as incomplete."""
    if bars.num_rows == 0:
        return bars
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    names = bars["symbol"].cast(pa.string()).to_pylist()
    known: dict[tuple[str, int], tuple[int, int, float, float | None]] = {}
    if store.files(frame):
        columns = ["symbol", "bar_end", "revision", "flags", "volume", "amount"]
        stored = store.table(
            frame, after=int(ends.min()) - 1, upto=int(ends.max()), symbols=sorted(set(names)), columns=columns
        )
        rows = zip(
            stored["symbol"].cast(pa.string()).to_pylist(),
            stored["bar_end"].cast(pa.int64()).to_pylist(),
            *(stored[name].to_pylist() for name in columns[2:]),
            strict=True,
        )
        for symbol, end, *about in sorted(rows, key=lambda row: row[2]):
            known[symbol, end] = tuple(about)
    revision = np.zeros(len(names), dtype=np.int32)
    amount: list[float | None] = bars["amount"].to_pylist()
    wanted = ends <= upto
    volume = bars["volume"].to_pylist()
    for row, key in enumerate(zip(names, ends.tolist(), strict=True)):
        if key in known:
            last, flags, had, worth = known[key]
            wanted[row] &= bool(flags & FLAG_INCOMPLETE)
            revision[row] = last + 1
            # Endpoints have no amounts; where no trade was missing after all, ours is right.
            amount[row] = worth if had == volume[row] else None
    table = bars.cast(BAR)
    for name, values in (("revision", pa.array(revision)), ("amount", pa.array(amount, pa.float64()))):
        table = table.set_column(table.schema.get_field_index(name), BAR.field(name), values)
    return table.filter(pa.array(wanted))


def _incomplete(store: BarStore, frame: str, n_bars: int) -> list[str]:
    """Symbols of whose newest `n_bars` bars some lack trades, in their newest revision."""
    ends = store.bar_ends(frame, newest=n_bars)
    if not ends:
        return []
    table = store.table(frame, after=ends[0] - 1, columns=["symbol", "bar_end", "revision", "flags"])
    lacking = pc.not_equal(pc.bit_wise_and(table["flags"], FLAG_INCOMPLETE), 0)
    concerned = table.filter(pc.is_in(table["bar_end"], value_set=table.filter(lacking)["bar_end"].unique()))
    newest: dict[tuple[str, int], tuple[int, int]] = {}
    rows = zip(*(concerned[name].to_pylist() for name in ("symbol", "bar_end", "revision", "flags")), strict=True)
    for symbol, end, revision, flags in rows:
        newest[symbol, end] = max(newest.get((symbol, end), (-1, 0)), (revision, flags & FLAG_INCOMPLETE))
    return sorted({symbol for (symbol, _), (_, flag) in newest.items() if flag})


def wanted_frames(scans: Sequence[MarketScan], history_bars: int | None) -> dict[str, int]:
    """Frame -> how many bars its neediest strategy needs, those that the most strategies wait for first."""
    needs = {scan.frame: warm_ups(scan.plan, history_bars) for scan in scans}
    ranked = sorted(needs.items(), key=lambda item: -len(item[1]))
    return {frame: max(own.values()) for frame, own in ranked if own}


def midnight(now_ns: int) -> int:
    """The beginning of a day in Shanghai, UTC ns: the sessions before it are over."""
    return int(day_ns(local_day(np.array([now_ns])))[0])

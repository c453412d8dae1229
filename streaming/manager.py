"""StreamManager: who wants which symbols, and which providers are asked for them.

    manager = StreamManager([VENDORS["sina"], VENDORS["tencent"]])
    await manager.subscribe(["600519.SH"], subscriber="me")
    async for batch in manager.frames(): ...

Providers stand in order of priority. Each symbol is asked of the first that covers it and is well; where quotes of its
connection grow old, or that stays down, the next is asked as well, until the first has been well again for a while.
What they say is merged, so a reader sees each quote once and none that is older than the last.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import TradingCalendar
from data.errors import UsageError
from data.panel import Times
from data.settings import Settings
from streaming.budget import Sleep
from streaming.bus import Callback, EventBus, tick_topic
from streaming.feeds.connections import find_vendor, open_connection
from streaming.feeds.reading import cancel, unless
from streaming.feeds.vendors import Vendor
from streaming.gaps import Heard, Loss, to_metadata
from streaming.health import TradingClock
from streaming.links import Link, Patience, Provider, World
from streaming.merge import Merge
from streaming.ports import Connection, Event, Policy, Subscription
from streaming.status import ProviderStatus, Status

log = logging.getLogger(__name__)

_QUEUE = 16
"""Frames read ahead; then the providers wait."""


class StreamManager:
    """Subscriptions, connections, failover; a `streaming.ports.Feed` of what all its subscribers want.

    `vendors`: in order of priority. `urls`: name -> address in place of the vendor's own. `n_active`: so many providers
    are asked for each symbol; with two, their prices are compared (`streaming.merge`). `bus`: where the frames are
    published (by who reads them), and callbacks are registered. `open_connection`, `clock` (UTC
    ns), `sleep`, `uniform` and `is_session` are the world outside.

    Raises UsageError where there is no vendor, or one twice.
    """

    def __init__(
        self,
        vendors: Sequence[Vendor],
        *,
        urls: Mapping[str, str] | None = None,
        n_active: int = 1,
        patience: Patience | None = None,
        merge: Merge | None = None,
        bus: EventBus | None = None,
        open_connection: Callable[..., Connection] = open_connection,
        clock: Callable[[], int] = time.time_ns,
        sleep: Sleep = asyncio.sleep,
        uniform: Callable[[float, float], float] | None = None,
        is_session: Callable[[date], bool] | None = None,
    ) -> None:
        names = [vendor.name for vendor in vendors]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a stream needs one or more providers, each once; got {', '.join(names) or 'none'}")
        if not 1 <= n_active <= len(names):
            raise UsageError(
                f"feed.active must be in [1, {len(names)}], the number of providers {', '.join(names)}; got {n_active}"
            )
        self.name = ",".join(names)
        self.clock = clock
        self._world = World(
            open=open_connection,
            trading=TradingClock(is_session),
            clock=clock,
            sleep=sleep,
            uniform=uniform,
            patience=patience or Patience(),
        )
        self._n_active = n_active
        self._merge = merge or Merge()
        self._bus = bus
        self._calls: dict[str, Subscription] = {}
        """Subscribers' places at the bus."""
        self._heard = Heard(self._world.trading)
        self._losses: list[Loss] = []
        """That no frame has told of yet."""
        urls = urls or {}
        self._providers = [
            Provider(v, self._world, self._take, self._merge.places, url=urls.get(v.name)) for v in vendors
        ]
        self._wants: dict[str, set[str]] = {}
        self._count: Counter[str] = Counter()
        self._wanted = np.zeros(0, dtype=bool)
        self._serves: Counter[str] = Counter()
        self._queue: asyncio.Queue[tuple[str, pa.RecordBatch, dict[str, str]]] = asyncio.Queue(_QUEUE)
        self._seq = 0
        self._resolving = asyncio.Lock()
        self._resolved: object = None
        """What the present answer follows from."""
        self._watching: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def subscribe(
        self,
        symbols: Iterable[str],
        *,
        subscriber: str = "",
        callback: Callback | None = None,
        policy: Policy = Policy.BLOCK,
    ) -> None:
        """`subscriber` wants these symbols too; connections open where none is active for them.

        `callback` is registered on the bus and called with the quotes of all that this subscriber wants, from now on;
        a later one takes its place. Raises UsageError where there is no bus.
        """
        if callback is not None:
            self._register(subscriber, callback, policy)
        wants = self._wants.setdefault(subscriber, set())
        fresh = [symbol for symbol in dict.fromkeys(symbols) if symbol not in wants]
        wants.update(fresh)
        self._count.update(fresh)
        await self._changed()

    async def unsubscribe(self, symbols: Iterable[str] | None = None, *, subscriber: str = "") -> None:
        """`subscriber` wants these no more, by default none; what nobody wants is not asked for any more."""
        wants = self._wants.get(subscriber, set())
        gone = set(wants) if symbols is None else wants & set(symbols)
        wants -= gone
        self._count = +(self._count - Counter(gone))
        if not wants:
            self._wants.pop(subscriber, None)
            if (place := self._calls.pop(subscriber, None)) is not None:
                place.close()
        await self._changed()

    def _register(self, subscriber: str, callback: Callback, policy: Policy) -> None:
        if self._bus is None:
            raise UsageError("a callback is registered on a bus: give StreamManager the bus that its frames go to")
        if (before := self._calls.pop(subscriber, None)) is not None:
            before.close()

        def call(event: Event) -> Awaitable[None] | None:
            wanted = pa.array(self._wants.get(subscriber, ()), pa.string())
            rows = event.batch.filter(pc.is_in(event.batch["symbol"].cast(pa.string()), wanted))
            return callback(Event(event.topic, rows)) if rows.num_rows else None

        self._calls[subscriber] = self._bus.listen(tick_topic(), call, policy=policy, name=subscriber or "stream")

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        """What the providers say, merged; see `streaming.ports.Feed`.

        The metadata has the `source` of each frame, and what may be `lost` before it (`streaming.gaps`).
        """
        closing = asyncio.create_task(self._closed.wait())
        try:
            while (got := await unless(closing, self._queue.get())) is not None:
                source, batch, lost = got
                self._seq += 1
                about = {
                    "provider": self.name,
                    "source": source,
                    "seq": str(self._seq),
                    "received_ns": batch.schema.metadata[b"received_ns"].decode(),
                    **lost,
                }
                yield batch.replace_schema_metadata(about)
        finally:
            await cancel(closing)
            await self.close()

    async def close(self) -> None:
        """End all connections and `frames`."""
        self._closed.set()
        for place in self._calls.values():
            place.close()
        self._calls.clear()
        tasks = [link.task for provider in self._providers for link in provider.links]
        for provider in self._providers:
            for link in list(provider.links):
                provider.drop(link)
        await cancel(*tasks, *([] if self._watching is None else [self._watching]))
        self._watching = None

    def status(self) -> Status:
        """What is true now."""
        covered = {symbol for symbol in self._count if any(p.covers(symbol) for p in self._providers)}
        return Status(
            providers=tuple(self._status_of(provider) for provider in self._providers),
            symbols=len(self._count),
            subscribers=len(self._wants),
            uncovered=len(self._count) - len(covered),
            served=len(self._served()),
        )

    def _status_of(self, provider: Provider) -> ProviderStatus:
        trading, now = self._world.trading, self._world.clock()
        links, symbols, traffic = provider.links, provider.symbols, provider.traffic
        times = provider.quotes.time[self._merge.places(symbols)]
        newest = int(provider.quotes.time.max(initial=0))
        stale = trading.ages_s(times, now) > self._world.patience.stale_s
        connected = sum(link.connected for link in links)
        if provider.is_banned:
            state = "banned"
        elif not links:
            state = "idle"
        elif not all(link.trusted for link in links):
            state = "failed"
        else:
            state = "live" if connected else "connecting"
        return ProviderStatus(
            name=provider.vendor.name,
            state=state,
            connections=len(links),
            connected=connected,
            covers=sum(map(provider.covers, self._count)),
            symbols=len(symbols),
            serves=self._serves[provider.vendor.name],
            frames=traffic.frames,
            rows=traffic.rows,
            received_bytes=traffic.received_bytes,
            quote_age_s=trading.age_s(newest, now) if newest else None,
            symbols_stale=int(np.count_nonzero(stale)),
            reconnects=dict(provider.reconnects),
            dropped=dict(traffic.dropped + provider.dropped),
            unread=dict(traffic.dropped),
            said=provider.said,
        )

    def _served(self) -> set[str]:
        return {s for provider in self._providers for link in provider.links if link.trusted for s in link.symbols}

    async def _changed(self) -> None:
        self._merge.add(self._count)
        self._wanted = np.zeros(len(self._merge), dtype=bool)
        self._wanted[self._merge.places(self._count)] = True
        self._heard.grow(len(self._merge))
        self._heard.forget(np.flatnonzero(~self._wanted))
        for provider in self._providers:
            provider.quotes.grow(len(self._merge))
        self._resolved = None
        await self._resolve()
        if self._watching is None and not self._closed.is_set():
            self._watching = asyncio.create_task(self._watch(), name="stream watchdog")

    async def _resolve(self) -> None:
        """Ask providers, in order, for the symbols that those before do not serve."""
        async with self._resolving:
            if self._closed.is_set():
                return
            found = [
                (len(provider.refused), [(link, link.symbols, link.trusted) for link in provider.links])
                for provider in self._providers
            ]
            if found == self._resolved:
                return
            lacking = dict.fromkeys(self._count, self._n_active)
            for provider in self._providers:
                wanted = [symbol for symbol in lacking if provider.covers(symbol)]
                if bool(wanted) != bool(provider.links):
                    log.info("%s: %s", provider.vendor.name, f"asked for {len(wanted)} symbols" if wanted else "let go")
                await provider.ask_for(wanted)
                served = [symbol for link in provider.links if link.trusted for symbol in link.symbols]
                self._serves[provider.vendor.name] = len(served)
                for symbol in served:
                    lacking[symbol] -= 1
                    if not lacking[symbol]:
                        del lacking[symbol]
            self._resolved = found

    async def _watch(self) -> None:
        while True:
            await self._world.sleep(self._world.patience.check_s)
            for provider in self._providers:
                for link in list(provider.links):
                    await link.check()
            await self._resolve()

    async def _take(self, link: Link, batch: pa.RecordBatch, heard: Sequence[str]) -> int:
        """Merge a frame, and hand on what is new of it."""
        provider = link.provider
        others = [other.quotes for other in self._providers if other is not provider and other.links]
        taken = self._merge.take(batch, self._wanted, provider.quotes, others)
        provider.dropped += taken.dropped
        if taken.newest_ns:
            self._hear(provider, np.setdiff1d(self._merge.places(heard), taken.held), taken.newest_ns)
        if taken.batch.num_rows:
            losses, self._losses = to_metadata(self._losses), []
            link.blocked = True
            try:
                await self._queue.put((provider.vendor.name, taken.batch, losses))
            finally:
                link.blocked = False
        return taken.newest_ns

    def _hear(self, provider: Provider, place: Times, newest_ns: int) -> None:
        """Keep in mind what a frame tells of, and what may be missing before it."""
        longest = max(self._world.patience.gap_s, 2 * provider.vendor.cadence_s)
        for since, lacking in self._heard.hear(place[self._wanted[place]], newest_ns, longest):
            self._losses.append(Loss(since, newest_ns, tuple(self._merge.symbols(lacking))))


def open_stream(settings: Settings, *, after: int | None = None, **outside: Any) -> StreamManager:
    """The providers that `feed.name` lists, in order of priority; see `streaming.ports.OpenFeed`.

    `outside`: in place of the world's own, as of `StreamManager`.
    """
    vendors = [vendor for name in settings.feed.name.split(",") if (vendor := find_vendor(name.strip())) is not None]
    is_session = TradingCalendar(settings.calendar_overlay).is_session
    return StreamManager(
        vendors, urls=settings.feed.urls, n_active=settings.feed.active, **{"is_session": is_session} | outside
    )

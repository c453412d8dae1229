"""One provider's connections: sharded by its limit, opened again after each loss, judged by the age of their quotes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pyarrow as pa

from data.calendar import SECOND
from data.errors import BannedError, FeedError, RefusedError
from data.panel import Times
from streaming.budget import Backoff, Sleep, TokenBucket
from streaming.feeds.vendors import Vendor
from streaming.health import StallWatch, TradingClock
from streaming.merge import Quotes
from streaming.ports import Connection, Traffic

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What is waited for, in seconds; of quotes, in seconds of trading (`streaming.health`)."""

    failover_s: float = 15.0
    """Quotes this old, or a connection down this long: the next provider is asked as well."""
    back_s: float = 30.0
    """So long must a provider that failed be well before the next one is let go."""
    stall_s: float = 30.0
    """A connection without a newer quote this long is opened again."""
    gap_s: float = 5.0
    """So far apart, or twice the vendor's cadence, may two frames' newest quotes be if none between is missing."""
    stale_s: float = 60.0
    """A symbol's quote this old is stale."""
    stale_share: float = 0.2
    """Of a connection's symbols: where more are stale, the next provider is asked as well."""
    ban_s: float = 300.0
    """Who has banned us is left alone this long, twice as long each time, up to `longest_ban_s`."""
    longest_ban_s: float = 3600.0
    check_s: float = 1.0
    """How often all this is looked at."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What comes from outside: time, chance, and the way to vendors."""

    open: Callable[..., Connection]
    """`open(vendor, symbols, url=, admit=, numbers=, clock=)`, as `streaming.feeds.connections.open_connection`."""
    trading: TradingClock
    clock: Callable[[], int] = time.time_ns
    """UTC ns."""
    sleep: Sleep = asyncio.sleep
    uniform: Callable[[float, float], float] | None = None
    patience: Patience = field(default_factory=Patience)


Take = Callable[["Link", pa.RecordBatch, Sequence[str]], Awaitable[int]]
"""Takes a frame of a link, and of whom it says how they stand; returns its newest quote time (UTC ns), 0 for none."""


class Provider:
    """One vendor and the connections to it; what is counted of it outlives them."""

    def __init__(
        self,
        vendor: Vendor,
        world: World,
        take: Take,
        places: Callable[[Iterable[str]], Times],
        *,
        url: str | None = None,
    ) -> None:
        """`places`: where symbols stand in `quotes`."""
        self.vendor, self.world, self.take, self.places, self.url = vendor, world, take, places, url
        self._covered: dict[str, bool] = {}
        self.bucket = TokenBucket(vendor.budget, sleep=world.sleep)
        self.numbers = count(1)
        self.quotes = Quotes()
        self.links: list[Link] = []
        self.past = Traffic()
        self.dropped: Counter[str] = Counter()
        """What the merge left out."""
        self.reconnects: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.banned_until = 0
        self.bans = 0
        self.said = ""

    def covers(self, symbol: str) -> bool:
        """Whether it has quotes of a symbol, as far as is known."""
        if (known := self._covered.get(symbol)) is None:
            known = self._covered[symbol] = self.vendor.code(symbol) is not None
        return known and symbol not in self.refused

    async def ask_for(self, symbols: Sequence[str]) -> None:
        """From now on these symbols: links keep those that they have, free room is filled, others open or end."""
        wanted, size = dict.fromkeys(symbols), self.vendor.shard or len(symbols)
        plans = {link: [symbol for symbol in link.symbols if symbol in wanted] for link in self.links}
        held = {symbol for plan in plans.values() for symbol in plan}
        fresh = [symbol for symbol in wanted if symbol not in held]
        for link, plan in plans.items():
            room = 0 if link.halved else max(0, size - len(plan))
            plan += fresh[:room]
            fresh = fresh[room:]
        for link, plan in plans.items():
            if plan:
                await link.ask_for(plan)
            else:
                self.drop(link)
        for k in range(0, len(fresh), max(size, 1)):
            self.open(fresh[k : k + size])

    def open(self, symbols: Sequence[str]) -> "Link":
        """One more link."""
        link = Link(self, symbols)
        self.links.append(link)
        return link

    def drop(self, link: "Link") -> None:
        """Let a link go."""
        self.links.remove(link)
        link.task.cancel()

    async def ban(self) -> None:
        """Leave the vendor alone: all links, for one address is banned as a whole."""
        patience, now = self.world.patience, self.world.clock()
        if now < self.banned_until:
            return
        pause = min(patience.longest_ban_s, patience.ban_s * 2.0 ** min(self.bans, 32))
        self.bans += 1
        self.banned_until = now + int(pause * SECOND)
        for link in self.links:
            await link.close("ban")

    @property
    def is_banned(self) -> bool:
        """Whether it is left alone."""
        return self.world.clock() < self.banned_until

    @property
    def symbols(self) -> list[str]:
        """What it is asked for now."""
        return [symbol for link in self.links for symbol in link.symbols]

    @property
    def traffic(self) -> Traffic:
        """Counts of all its connections, those that are over included."""
        total = Traffic()
        for traffic in [self.past, *(link.connection.traffic for link in self.links if link.connection)]:
            _add(total, traffic)
        return total


class Link:
    """One connection's place: opens it, reads it, and after a loss waits and opens it again, until it is cancelled."""

    def __init__(self, provider: Provider, symbols: Sequence[str]) -> None:
        self.provider, self.symbols = provider, tuple(symbols)
        world = provider.world
        self.connection: Connection | None = None
        self.connected = False
        """Whether the present connection has given a frame."""
        self.blocked = False
        """Whether the reader of all this is what it waits for."""
        self.halved = False
        """Whether it is one of the parts of a batch that was refused; it takes no other symbols in."""
        self.newest_ns = 0
        self.trusted = True
        self._well = True
        self._well_since: int | None = None
        self._down_since: int | None = None
        self._opened_ns = self._created_ns = world.clock()
        self._watch = StallWatch(world.trading, stall_s=world.patience.stall_s, opened_ns=self._opened_ns)
        self._backoff = Backoff() if world.uniform is None else Backoff(uniform=world.uniform)
        self._delay_s = 0.0
        self._ending: str | None = None
        self.task = asyncio.create_task(self._run(), name=f"{provider.vendor.name} link")

    async def ask_for(self, symbols: Sequence[str]) -> None:
        """From now on these symbols; without waiting, where a connection is open."""
        if set(symbols) != set(self.symbols):
            self.symbols = tuple(symbols)
            await self.close("")

    async def close(self, reason: str) -> None:
        """End the present connection; `reason` is counted, an empty one is none."""
        if self.connection is not None and self._ending is None:
            self._ending = reason
            await self.connection.close()

    async def check(self) -> None:
        """Look at its health; a connection that is stalled is closed, to be opened again."""
        world, patience = self.provider.world, self.provider.world.patience
        if self.blocked:
            return
        now = world.clock()
        age = world.trading.age_s(max(self.newest_ns, self._created_ns), now)
        old = world.trading.trades(now) and age > patience.failover_s
        down = self._down_since is not None and now - self._down_since > patience.failover_s * SECOND
        well = not (old or down or self.provider.is_banned or (world.trading.trades(now) and self._many_stale(now)))
        if well and not self._well:
            self._well_since = now
        self._well = well
        self.trusted = well and (self._well_since is None or now - self._well_since >= patience.back_s * SECOND)
        if self.connection is not None and (stall := self._watch.stalled(now)) is not None:
            await self.close(stall)

    def _many_stale(self, now: int) -> bool:
        """Whether too many of its symbols are stale, though the newest may be fresh."""
        patience = self.provider.world.patience
        times = np.maximum(self.provider.quotes.time[self.provider.places(self.symbols)], self._created_ns)
        stale = self.provider.world.trading.ages_s(times, now) > patience.stale_s
        return bool(np.count_nonzero(stale) > patience.stale_share * len(self.symbols))

    async def _run(self) -> None:
        provider, world = self.provider, self.provider.world
        while True:
            left = (provider.banned_until - world.clock()) / SECOND
            if (delay := max(self._delay_s, left)) > 0:
                await world.sleep(delay)
            self._delay_s = 0.0
            reason = await self._read()
            self.connected = False
            if not reason:
                continue
            provider.reconnects[reason] += 1
            self._down_since = self._down_since or world.clock()
            self._delay_s = self._backoff.next_s()
            log.warning("%s (%d symbols): %s", provider.vendor.name, len(self.symbols), provider.said or reason)

    async def _read(self) -> str:
        """Read one connection to its end; returns why it ended, nothing where that is no failure."""
        provider, world = self.provider, self.provider.world
        self._ending = None
        self._opened_ns = world.clock()
        self._watch = StallWatch(world.trading, stall_s=world.patience.stall_s, opened_ns=self._opened_ns)
        connection = self.connection = world.open(
            provider.vendor,
            self.symbols,
            url=provider.url,
            admit=provider.bucket.admit,
            numbers=provider.numbers,
            clock=world.clock,
        )
        try:
            async with aclosing(connection.batches()) as batches:
                async for batch in batches:
                    await self._heard(batch, connection.heard)
            provider.said = f"closed: {self._ending}" if self._ending else "the connection has ended"
            return "ended" if self._ending is None else self._ending
        except BannedError as error:
            provider.said = str(error)
            await provider.ban()
            return error.reason
        except RefusedError as error:
            provider.said = str(error)
            self._refused(error.symbols)
            return error.reason
        except FeedError as error:
            provider.said = str(error)
            return error.reason
        except Exception as error:
            log.exception("the connection to %s failed", provider.vendor.name)
            provider.said = f"{type(error).__name__}: {error}"
            return "error"
        finally:
            provider.refused |= connection.refused
            _add(provider.past, connection.traffic)
            self.connection = None

    async def _heard(self, batch: pa.RecordBatch, heard: Sequence[str]) -> None:
        newest = await self.provider.take(self, batch, heard)
        fresh = newest > self.newest_ns
        self.newest_ns = max(newest, self.newest_ns)
        self._watch.frame(self.provider.world.clock(), fresh=fresh)
        self.connected = True
        self._down_since = None
        if fresh:
            self._backoff.reset()
            self.provider.bans = 0
        if self.connection is not None and self.connection.refused:
            self.provider.refused |= self.connection.refused

    def _refused(self, named: frozenset[str]) -> None:
        """Leave out the symbols for whose sake all were refused; where they are not named, halving finds them."""
        if named:
            self.provider.refused |= named
        elif len(self.symbols) == 1:
            self.provider.refused |= set(self.symbols)
        elif not (self.connection is not None and self.connection.refused):
            half = len(self.symbols) // 2
            other = self.provider.open(self.symbols[half:])
            self.halved = other.halved = True
            self.symbols = self.symbols[:half]
        self.symbols = tuple(symbol for symbol in self.symbols if symbol not in self.provider.refused) or self.symbols


def _add(total: Traffic, traffic: Traffic) -> None:
    total.frames += traffic.frames
    total.received_bytes += traffic.received_bytes
    total.rows += traffic.rows
    total.dropped += traffic.dropped

"""The simulator's day as vendors show it: one snapshot until it is told to go on. Several fakes may show one day."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import bar_ends
from data.schema import BAR
from data.simulator import SimulatedMarket
from streaming.bars import MarketBars


@dataclass(slots=True)
class Quote:
    """One symbol's row of a snapshot; prices in CNY, volume in shares; all 0 before the first trade."""

    symbol: str
    name: str
    date: str
    clock: str
    """In Shanghai, 2024-01-02 and 09:25:00."""
    unix_s: int
    last: float
    open: float
    high: float
    low: float
    prev_close: float
    volume: float
    amount: float


class FakeDay:
    """A session of a small simulated market, or its first `minutes`; `at` is the snapshot that is shown."""

    def __init__(self, market: SimulatedMarket, session: np.datetime64 | None = None, *, minutes: int = 240) -> None:
        self.session = market.sessions[0] if session is None else session
        self.market, self.minutes = market, minutes
        made = islice(market.minutes_of_snapshots(self.session), minutes + 1 if minutes < 240 else None)
        self.batches: list[pa.RecordBatch] = [batch for batches in made for batch in batches]
        self.symbols: tuple[str, ...] = tuple(self.batches[0]["symbol"].to_pylist())
        self.at = 0
        self._names = market.names(self.session)
        self._quotes: dict[int, dict[str, Quote]] = {}
        self._watchers: set[asyncio.Queue[int]] = set()

    @property
    def over(self) -> bool:
        return self.at == len(self.batches) - 1

    @property
    def time(self) -> int:
        """UTC ns of the snapshot that is shown."""
        return _stamp(self.batches[self.at])

    @property
    def last_time(self) -> int:
        """UTC ns of the last snapshot."""
        return _stamp(self.batches[-1])

    def step(self, n: int = 1) -> None:
        """Go on by `n` snapshots, at most to the last."""
        for _ in range(min(n, len(self.batches) - 1 - self.at)):
            self.at += 1
            for queue in self._watchers:
                queue.put_nowait(self.at)

    def watch(self) -> "asyncio.Queue[int]":
        """A queue that gets each snapshot's number as it comes to be shown, the present one first."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        queue.put_nowait(self.at)
        self._watchers.add(queue)
        return queue

    def leave(self, queue: "asyncio.Queue[int]") -> None:
        self._watchers.discard(queue)

    def quotes(self, at: int) -> dict[str, Quote]:
        """Snapshot number `at` by symbol."""
        found = self._quotes.get(at)
        if found is None:
            columns: dict[str, list[Any]] = self.batches[at].drop_columns(["quote_time"]).to_pydict()
            unix_s = _stamp(self.batches[at]) // 10**9
            date, clock = str(np.datetime64(unix_s + 8 * 3600, "s")).split("T")
            found = {
                symbol: Quote(symbol, self._names[symbol], date, clock, unix_s, *numbers)
                for symbol, *numbers in zip(*columns.values(), strict=True)
            }
            self._quotes[at] = found
        return found

    def reset_quotes(self, at: int, to: int = 1) -> dict[str, Quote]:
        """Snapshot `at` by a source whose day has fallen back: what snapshot `to` showed, with the present time."""
        now = self.quotes(at)
        return {
            symbol: replace(quote, clock=now[symbol].clock, unix_s=now[symbol].unix_s)
            for symbol, quote in self.quotes(to).items()
        }

    def bars(self) -> pa.Table:
        """The simulator's own one-minute bars of what has been shown, by symbol and bar end."""
        table = self.market.bars("1m", self.session)
        until = pa.scalar(min(int(bar_ends(self.session, "1m")[self.minutes - 1]), self.time), pa.int64())
        return ordered(table.filter(pc.less_equal(table["bar_end"].cast(pa.int64()), until)))

    def totals(self) -> dict[str, tuple[float, ...]]:
        """Symbol -> what is shown: last, high, low, volume, amount; without those that have not traded."""
        return {
            quote.symbol: (quote.last, quote.high, quote.low, quote.volume, quote.amount)
            for quote in self.quotes(self.at).values()
            if quote.volume
        }


def _stamp(batch: pa.RecordBatch) -> int:
    return int(batch["quote_time"].cast(pa.int64())[0].as_py())


def bars_of(symbols: Sequence[str], batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Ticks folded into one-minute bars, by symbol and bar end."""
    builder = MarketBars(symbols, ["1m"])
    closed = [bar for batch in batches for bar in builder.add(batch)] + builder.end_session()
    return ordered(pa.Table.from_batches([bar.replace_schema_metadata(None) for bar in closed], BAR))


def ordered(table: pa.Table) -> pa.Table:
    """By symbol and bar end, symbols as text, for comparison."""
    at = table.schema.get_field_index("symbol")
    plain = table.set_column(at, "symbol", table["symbol"].cast(pa.string())).replace_schema_metadata(None)
    return plain.sort_by([("symbol", "ascending"), ("bar_end", "ascending")]).combine_chunks()


def totals_of(symbols: Sequence[str], batches: Sequence[pa.RecordBatch]) -> dict[str, tuple[float, ...]]:
    """`FakeDay.totals` of what bars say: last close, highest high, lowest low, sums of volume and amount."""
    found: dict[str, tuple[float, ...]] = {}
    for row in bars_of(symbols, batches).to_pylist():
        if row["volume"] == 0:
            continue
        _, high, low, volume, amount = found.get(row["symbol"], (0.0, 0.0, np.inf, 0.0, 0.0))
        found[row["symbol"]] = (
            row["close"],
            max(high, row["high"]),
            min(low, row["low"]),
            volume + row["volume"],
            round(amount + row["amount"], 2),
        )
    return found

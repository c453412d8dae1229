"""A recorded session once more: its tape through the live path, into a store of its own, and what differs.

The scratch store gets the bars that the session's indicators saw before its open, from the origin that its signals
name, and the signals before it, which cooldowns ask for. Nothing is published, and the first store is only read.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import bar_ends
from data.errors import StaleDataError
from data.history import SignalHistory
from data.schema import BAR, NAME
from data.signal import Signal, from_table, iso
from data.store import BarStore
from jobs.live import LiveService
from jobs.scanning import MarketScan, origin_of
from jobs.stages.feeding import Feeding
from jobs.stages.scanning import Interval, Scanning
from scanner.cluster import Cluster
from scanner.engines.base import Engine
from scanner.loading import StrategyRegistry
from streaming.bars import MarketBars
from streaming.bus import EventBus
from streaming.segment import Segment, segments

Day = np.datetime64
MARKET = "market"
"""The origin of stores whose tape was received live."""
COMPARED = ("price", "confidence", "values", "engine", "origin", "at_limit_up", "at_limit_down", "name")
"""What two signals of one id must agree on; when they came about differs."""


@dataclass(frozen=True)
class Session:
    """What a store has of one session. `frames`: those that are folded, shortest first; `scanned`: of them."""

    store: BarStore
    day: Day
    frames: Sequence[str]
    scanned: Sequence[str]

    @property
    def segment(self) -> Segment:
        """Its tape, unread. Raises StaleDataError where there is none."""
        recorded = segments(self.store.root / "tape")
        if self.day not in recorded:
            had = f"{len(recorded)} sessions, {min(recorded)} to {max(recorded)}" if recorded else "nothing"
            raise StaleDataError(f"the tape of {self.store.root} has nothing of {self.day}; it has {had}")
        return Segment(recorded[self.day])

    @property
    def opens(self) -> int:
        """Its first bar end of the shortest frame, UTC ns."""
        return int(bar_ends(self.day, self.frames[0])[0])

    @property
    def ends(self) -> int:
        """Its last bar end, UTC ns."""
        return int(bar_ends(self.day, "1d")[0])

    def bars(self, frame: str) -> pa.Table:
        """Its bars, `data.schema.BAR`."""
        return self.store.table(frame, after=self.opens - 1, upto=self.ends)

    def signals(self) -> list[Signal]:
        """Its signals of closed bars, by bar end."""
        table = SignalHistory(self.store.root / "signals").query(
            after=self.opens - 1, upto=self.ends, newest_first=False
        )
        return [signal for signal in from_table(table) if signal.frame in self.scanned and not signal.developing]


@dataclass(frozen=True)
class Difference:
    """One value, or a whole bar or signal (`name` is empty; None where it is not there), that is not the same."""

    what: str
    symbol: str
    frame: str
    bar_end: int
    name: str
    stored: Any
    replayed: Any
    strategy: str = ""


class _AsRecorded:
    """A segment's batches as a feed, with the metadata of their first receipt, as fast as they are read."""

    name = "tape"

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._closed = False
        self.n_batches = 0

    async def frames(self) -> AsyncGenerator[pa.RecordBatch]:
        batches = self._segment.batches()
        while not self._closed and (batch := await asyncio.to_thread(next, batches, None)) is not None:
            self.n_batches += 1
            yield batch

    async def close(self) -> None:
        self._closed = True


def replay(
    session: Session,
    into: Path,
    strategies: StrategyRegistry,
    *,
    symbols: Sequence[str],
    engine: Engine | Mapping[int, Engine],
    cluster: Cluster,
    history_bars: int | None,
    on_interval: Callable[[Interval], None],
    fold: Callable[..., MarketBars] = MarketBars,
    deadline_s: float = 60.0,
) -> tuple[Session, int]:
    """Run a session's tape through the live path into a store at `into`; that session, and how many batches it had.

    `engine`: one for all bars, or by the bar ends (UTC ns) that are known to be scanned by each. `history_bars`: how
    many bars before the open indicators see where no signal of the session names its origin. `fold`: as of `Feeding`.
    Raises StaleDataError where nothing is recorded.
    """
    store, segment = session.store, session.segment
    scratch = BarStore(into, origin=store.origin)
    origins = {signal.frame: signal.origin for signal in session.signals()}
    for frame in session.scanned:
        before = store.last_bar_end(frame, upto=session.opens - 1)
        if before is not None:
            origin = origins.get(frame) or origin_of(store, frame, before, history_bars)
            scratch.append(store.table(frame, after=origin - 1, upto=before), frame)
    names = store.names(upto=session.ends)
    days = [np.datetime64(day, "D").astype(object) for _, day in names.values()]
    scratch.append_names(
        pa.table({"symbol": list(names), "day": days, "name": [name for name, _ in names.values()]}, schema=_PLAIN)
    )
    SignalHistory(into / "signals").append(_before(session, strategies))
    history = SignalHistory(into / "signals")
    engines = engine if isinstance(engine, Mapping) else {session.opens: engine}
    scans = [
        MarketScan(
            scratch,
            frame,
            strategies,
            symbols=symbols,
            engine=_engine_at(engines, session.opens),
            cluster=cluster,
            history=history,
            deadline_s=deadline_s,
            gated=store.origin == MARKET,
            history_bars=history_bars,
        )
        for frame in session.scanned
    ]

    def done(interval: Interval) -> None:
        on_interval(interval)
        for scan in scans:
            scan.engine = _engine_at(engines, interval.bar_end + 1)

    feed = _AsRecorded(segment)
    bus = EventBus()
    feeding = Feeding(
        scratch,
        feed,
        bus,
        symbols=symbols,
        frames=session.frames,
        fold=fold,
        by_receipt=store.origin == MARKET,
    )
    scanning = Scanning(
        scratch,
        bus,
        scans,
        frames=session.frames,
        history_bars=max(1, *(len(scratch.bar_ends(frame)) for frame in session.scanned)),
        on_interval=done,
        catching_up=False,
    )
    asyncio.run(LiveService(bus, [feeding, scanning]).run())  # nobody serves: nobody hears of it
    if feed.n_batches == 0:
        raise StaleDataError(f"{segment.path} holds no quotes")
    return Session(scratch, session.day, session.frames, session.scanned), feed.n_batches


def compare(session: Session, again: Session, strategies: Iterable[Any]) -> tuple[list[Difference], dict[str, int]]:
    """What a replay makes that the first run did not, or otherwise, to the bit; and what was counted.

    Signals of strategies that are not among `strategies` in that version cannot be compared: they are counted apart.
    """
    found: list[Difference] = []
    counts: dict[str, int] = {}
    for frame in session.frames:
        stored, replayed = session.bars(frame), again.bars(frame)
        counts[f"{frame} bars stored"], counts[f"{frame} bars replayed"] = stored.num_rows, replayed.num_rows
        found += _bars(frame, stored, replayed)
    known = {(strategy.name, strategy.version) for strategy in strategies}
    first = {s.id: s for s in session.signals() if (s.strategy, s.version) in known}
    second = {s.id: s for s in again.signals()}
    counts["signals stored"], counts["signals replayed"] = len(first), len(second)
    counts["signals of other strategies"] = len(session.signals()) - len(first)
    for id_ in sorted(first.keys() | second.keys(), key=lambda i: (first.get(i) or second[i]).bar_end):
        found += _signal(first.get(id_), second.get(id_))
    return found, counts


_PLAIN = pa.schema([NAME.field("symbol").with_type(pa.string()), NAME.field("day"), NAME.field("name")])


def _before(session: Session, strategies: StrategyRegistry) -> list[Signal]:
    """The newest signals before the session of strategies that have a cooldown, one a key."""
    names = [strategy.name for strategy in strategies.values() if strategy.cooldown]
    if not names:
        return []
    history = SignalHistory(session.store.root / "signals")
    rows = from_table(history.query(upto=session.opens - 1, strategies=names, newest_first=False))
    closed = (s for s in rows if s.frame in session.scanned and not s.developing)
    return list({(s.strategy, s.symbol, s.action, s.frame): s for s in closed}.values())


def _engine_at(engines: Mapping[int, Engine], bar_end: int) -> Engine:
    """The engine of the first bar end from this one on that is known, else of the last."""
    later = [end for end in engines if end >= bar_end]
    return engines[min(later) if later else max(engines)]


def _bars(frame: str, stored: pa.Table, replayed: pa.Table) -> list[Difference]:
    keys = ["symbol", "bar_end", "revision"]
    sides = []
    for table in (stored, replayed):
        plain = table.select(BAR.names).set_column(0, "symbol", table["symbol"].cast(pa.string()))
        sides.append(plain.append_column("there", pa.array(np.ones(len(plain), dtype=bool))))
    both = sides[0].join(sides[1], keys, join_type="full outer", right_suffix=" again")
    both = both.sort_by([("bar_end", "ascending"), ("symbol", "ascending"), ("revision", "ascending")])
    here, there = (both[name].fill_null(False).to_numpy() for name in ("there", "there again"))
    alone, both = both.filter(pa.array(here != there)), both.filter(pa.array(here & there))
    found = [
        Difference("bar", symbol, frame, end, "", stored, again)
        for symbol, end, stored, again in _rows(alone, "symbol", "bar_end", "there", "there again")
    ]
    for name in (name for name in BAR.names if name not in keys):
        one, other = (both[column].to_numpy() for column in (name, f"{name} again"))
        if one.dtype.kind == "f":
            one, other = one.view(np.int64), other.view(np.int64)  # to the bit
        differ = both.filter(pa.array(one != other))
        found += [
            Difference("bar", symbol, frame, end, name, stored, again)
            for symbol, end, stored, again in _rows(differ, "symbol", "bar_end", name, f"{name} again")
        ]
    return found


def _rows(table: pa.Table, *names: str) -> Iterable[tuple[Any, ...]]:
    """Some columns' rows, times as UTC ns."""
    columns = [table[name] for name in names]
    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns]
    return zip(*(column.to_pylist() for column in plain), strict=True)


def _signal(first: Signal | None, second: Signal | None) -> list[Difference]:
    one = first or second
    assert one is not None
    about = ("signal", one.symbol, one.frame, one.bar_end)
    if first is None or second is None:
        return [Difference(*about, "", first and first.action, second and second.action, one.strategy)]
    one_row, other_row = first.to_dict(), second.to_dict()
    return [
        Difference(*about, name, one_row[name], other_row[name], one.strategy)
        for name in COMPARED
        if one_row[name] != other_row[name]
    ]


def to_json(difference: Difference) -> dict[str, Any]:
    """A difference as JSON takes it."""
    return {name: value for name, value in vars(difference).items() if name != "strategy" or value} | {
        "bar_end": iso(difference.bar_end)
    }

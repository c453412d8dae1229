"""MarketScan: a store, strategies and a cluster, joined into scans whose signals are durable."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from data import metrics
from data.errors import StaleDataError
from data.factors import FactorStore
from data.history import SignalHistory
from data.panel import NO_BAR
from data.signal import Signal
from data.store import BarStore
from data.symbols import kind
from jobs.readiness import Coverage, Readiness
from jobs.revising import NOT_LIVE, Key, Revised, Stamps, key_of, standing
from scanner.cluster import Cluster
from scanner.decide import Hit
from scanner.engines.base import Engine
from scanner.loading import StrategyRegistry
from scanner.market import ScanResult, merge, to_signals
from scanner.scan import ShardAnswer, make_plan
from scanner.tasks import ShardTask, split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scanned:
    """One scan: `signals` is all that fired, `published` what of it is new, durable and numbered."""

    result: ScanResult
    signals: tuple[Signal, ...]
    published: tuple[Signal, ...]
    silent: int
    """How many a cooldown kept silent."""
    origin: int
    coverage: Coverage | None = None
    """On how many symbols strategies are ready; None where all may look at all."""
    stamps: Stamps = NOT_LIVE


class MarketScan:
    """Scans of one frame of one store.

    Holds the shards' symbols, which bar each strategy last fired at, and the names of symbols. `history`: None records
    nothing. `gated`: strategies look only at symbols whose warm-up is complete (`jobs.readiness`), `history_bars` being
    how many bars before a session's open indicators see.
    """

    def __init__(
        self,
        store: BarStore,
        frame: str,
        strategies: StrategyRegistry,
        *,
        symbols: Sequence[str],
        engine: Engine,
        cluster: Cluster,
        history: SignalHistory | None,
        extra: Sequence[str] = (),
        adjusted: str | None = None,
        n_shards: int | None = None,
        deadline_s: float = 60.0,
        gated: bool = False,
        history_bars: int | None = None,
    ) -> None:
        self.store, self.frame, self.adjusted = store, frame, adjusted
        self.strategies = strategies.for_frame(frame)
        self.plan = make_plan(frame, self.strategies, extra)
        self.ready = Readiness(self.plan, symbols, history_bars) if gated else None
        self.engine, self.cluster, self.history = engine, cluster, history
        self.shards = split(symbols, n_shards or cluster.workers)
        self.deadline_s = deadline_s
        self.names: dict[str, str] = {}
        self.refresh_names()
        self._last_fired: dict[tuple[str, str, str, str], int] | None = None
        self._fired_from = 0
        """Since when it is known."""
        self._trace = time.time_ns()
        self._revision = 0

    def scan(
        self,
        bar_end: int,
        *,
        origin: int,
        batch: pa.Table | pa.RecordBatch | None = None,
        previous: int | None = None,
        developing: bool = False,
        quote_ns: int = 0,
        received_ns: int = 0,
        bar_closed_ns: int = 0,
    ) -> Scanned:
        """Scan at `bar_end` (UTC ns) what is stored from `origin` on; the others as in `ShardTask` and `Signal`.

        What fires on developing bars keeps no closed one silent.
        """
        start = time.perf_counter()
        answers = self._ask(self.shards, bar_end, origin, previous=previous, batch=batch, once=developing)
        if self.ready is not None:
            self.ready.take(self.store, self.frame, origin, bar_end, None if developing else batch)
        result, coverage = self._merge(answers, bar_end)
        result = replace(result, elapsed_s=time.perf_counter() - start)
        for reason in result.fallbacks:
            log.warning("bar %d was scanned by %s: %s", bar_end, result.engine, reason)
        for name in result.failed:
            self._switch_off(name)
        stamps = Stamps(quote_ns, received_ns, bar_closed_ns, time.time_ns())
        signals, silent = to_signals(
            result,
            self.strategies,
            self._fired(bar_end, result.hits),
            origin=origin,
            names=self.names,
            developing=developing,
            **stamps._asdict(),
        )
        fresh = signals if batch is not None else self._not_revised(signals, bar_end)
        published = self._keep(fresh)
        if not developing:
            self._remember(signals)
        return Scanned(result, tuple(signals), published, silent, origin, coverage, stamps)

    def revise(
        self,
        batch: pa.RecordBatch,
        bar_end: int,
        *,
        origin: int,
        quote_ns: int = 0,
        received_ns: int = 0,
        bar_closed_ns: int = 0,
    ) -> Scanned:
        """Look again at closed bars of `bar_end`, of which the store now has the revisions in `batch`.

        What fires there and did not is published with the revision's number; what fired and does no more is revoked, by
        a signal that names the first one's id. Shards change the bars that they keep; those that cannot read them again
        before the next scan.
        """
        start = time.perf_counter()
        revised = Revised.of(batch)
        everybody = tuple(symbol for shard in self.shards for symbol in shard)
        # Who ranks, or a strategy that sees the whole market, may be moved by anybody's bar.
        seen = everybody if self.plan.candidates else tuple(sorted(revised.numbers.keys() & set(everybody)))
        answers: list[ShardAnswer] = []
        if seen and origin <= bar_end:
            before, self._revision = self._revision, time.time_ns()
            answers = self._ask(self.shards, bar_end, origin, batch=batch, revises=before)
        if self.ready is not None:
            self.ready.take(self.store, self.frame, origin, None, None)
        result, _ = self._merge(answers, bar_end)
        if not self.plan.candidates:
            result = replace(result, hits=tuple(hit for hit in result.hits if hit.symbol in revised.numbers))
        result = replace(result, elapsed_s=time.perf_counter() - start)
        stamps = Stamps(quote_ns, received_ns, bar_closed_ns, time.time_ns())
        fired = self._fired(bar_end, result.hits)
        signals, silent = to_signals(
            result, self.strategies, fired, origin=origin, names=self.names, **stamps._asdict()
        )
        versions = {strategy.name: strategy.version for strategy in self.strategies}
        told = revised.compare(result, signals, self._standing(bar_end, seen), versions, stamps)
        published = self._keep(told)
        self._remember(told)
        return Scanned(result, tuple(signals), published, silent, origin, stamps=stamps)

    def _keep(self, signals: Sequence[Signal]) -> tuple[Signal, ...]:
        """What of these is new, durable and numbered."""
        if self.history is None:
            return tuple(signals)
        with metrics.commit_seconds.labels("signals").time():
            return tuple(self.history.append(signals))

    def _ask(
        self,
        shards: Sequence[tuple[str, ...]],
        bar_end: int,
        origin: int,
        *,
        previous: int | None = None,
        batch: pa.Table | pa.RecordBatch | None = None,
        once: bool = False,
        revises: int | None = None,
    ) -> list[ShardAnswer]:
        self._trace += 1
        factors = FactorStore(self.store.root).imported
        tasks = [
            ShardTask(
                str(self.store.root),
                self.frame,
                self.adjusted,
                shard,
                origin,
                bar_end,
                self.engine.name,
                self.plan,
                previous,
                batch,
                self._trace,
                self._revision,
                once,
                factors,
                revises,
            )
            for shard in shards
        ]
        return list(self.cluster.run(tasks, deadline_s=self.deadline_s)) if tasks else []

    def _merge(self, answers: Sequence[ShardAnswer], bar_end: int) -> tuple[ScanResult, Coverage | None]:
        """What strategies find on the symbols that they may look at."""
        ready = self.ready
        of = None if ready is None else ready.of
        result = merge(self.plan, self.strategies, answers, bar_end, self.engine, names=self.names, ready=of)
        if ready is None:
            return result, None
        hits, coverage = ready.only_ready(result.hits)
        return replace(result, hits=hits), coverage

    def _standing(self, bar_end: int, symbols: Sequence[str] | None = None) -> dict[Key, Signal]:
        """What was published for closed bars of `bar_end` and has not been revoked."""
        if self.history is None:
            return {}
        return standing(
            self.history.query(
                after=bar_end - 1, upto=bar_end, frames=[self.frame], symbols=symbols, newest_first=False
            )
        )

    def _not_revised(self, signals: list[Signal], bar_end: int) -> list[Signal]:
        """Of what stored bars fire, all but what one of their revisions has fired already."""
        known = {key for key, signal in self._standing(bar_end).items() if signal.revision} if signals else set()
        return [signal for signal in signals if key_of(signal) not in known]

    def read_again(self) -> None:
        """Have shards read their bars before the next scan, and count who is ready: the store has got older ones."""
        self._revision = time.time_ns()
        if self.ready is not None:
            self.ready.forget()

    def refresh_names(self) -> None:
        """Read the names of symbols again, as at a session's open, and count who is ready."""
        if self.ready is not None:
            self.ready.forget()
        self.names = {symbol: name for symbol, (name, _) in self.store.names().items()}

    def _switch_off(self, name: str) -> None:
        """A strategy that raised runs no more; the others go on."""
        self.strategies = [strategy for strategy in self.strategies if strategy.name != name]
        self.plan = make_plan(self.frame, self.strategies, [str(term) for term in self.plan.extra])

    def _remember(self, signals: Iterable[Signal]) -> None:
        """Keep at which bar strategies last fired."""
        if (known := self._last_fired) is None:
            return
        for signal in signals:
            if signal.revokes is not None:
                self._last_fired = None  # read again: it keeps nothing silent, but what fired before it may
                return
            key = signal.strategy, signal.symbol, signal.action, signal.frame
            known[key] = max(known.get(key, 0), signal.bar_end)

    def _fired(self, bar_end: int, hits: Iterable[Hit]) -> Mapping[tuple[str, str, str, str], int]:
        """When each strategy last fired before `bar_end`, as far back as a cooldown can keep one of the hits silent.

        Read from the history once, and then kept; further back where a symbol's own bars lie further back.
        """
        cooling = {strategy.name for strategy in self.strategies if strategy.cooldown}
        since = min((hit.silent_since for hit in hits if hit.strategy in cooling), default=None)
        if self.history is None or since is None:
            return {}
        if self._last_fired is None:
            self._last_fired, self._fired_from = {}, bar_end
        if since < self._fired_from:
            after = None if since == NO_BAR else since - 1
            self._last_fired = self.history.last_bar_ends(self._fired_from, after=after) | self._last_fired
            self._fired_from = since
        return self._last_fired


def scannable(store: BarStore, frame: str, kinds: Sequence[str], *, adjusted: str | None = None) -> list[str]:
    """The stored symbols of a frame whose kind is among `kinds`, sorted. Raises StaleDataError where there are none."""
    found = [symbol for symbol in store.symbols(frame, adjusted=adjusted) if kind(symbol) in kinds]
    if not found:
        raise StaleDataError(
            f"the store {store.root} holds no {frame} bars of {', '.join(kinds)}; it has the frames"
            f" {', '.join(store.frames()) or 'none'}. Import some with 'mystocks-scan import PATH...'"
        )
    return found


def replayable(store: BarStore, frame: str, kinds: Sequence[str], recorded: Sequence[str]) -> list[str]:
    """The stored and the recorded symbols whose kind is among `kinds`, sorted. Raises StaleDataError for none."""
    stored = store.symbols(frame) if store.files(frame) else []
    found = sorted(symbol for symbol in {*stored, *recorded} if kind(symbol) in kinds)
    if not found:
        raise StaleDataError(f"the recording has no quotes of {', '.join(kinds)}; --universe names others")
    return found


def origin_of(store: BarStore, frame: str, bar_end: int, bars: int | None, *, adjusted: str | None = None) -> int:
    """The first bar end (UTC ns) that indicators see: the store's first, or that of `bars` bar ends up to `bar_end`."""
    if bars is None:
        return min(file.first for file in store.files(frame, adjusted=adjusted))
    return store.bar_ends(frame, upto=bar_end, newest=bars, adjusted=adjusted)[0]

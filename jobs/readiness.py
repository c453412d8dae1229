"""Which symbols a strategy may look at: those whose warm-up is complete, by the bars that they have had."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.store import BarStore
from scanner.decide import Hit
from scanner.scan import Plan

_SHARE = 0.8
"""Of the bars that indicators see at all; a symbol that was halted for a while has not had every one of them."""


@dataclass(frozen=True)
class Coverage:
    """On how many of `symbols` every strategy is ready, and each by its name; `silent`: hits of one scan on others."""

    ready: int
    symbols: int
    by_strategy: Mapping[str, int] = field(default_factory=dict)
    silent: int = 0


def warm_ups(plan: Plan, history_bars: int | None) -> dict[str, int]:
    """Strategy -> how many bars a symbol must have had: those that its values depend on, as far as indicators see."""
    most = None if history_bars is None else max(1, int(history_bars * _SHARE))
    found = {}
    for candidate in (*(candidate for _, candidate in plan.rules), *plan.candidates):
        window = candidate.window if candidate.window is not None else most or 1
        found[candidate.name] = max(1, window if most is None else min(window, most))
    return found


@dataclass(frozen=True)
class Grid:
    """Where rows of bars stand in a grid of (symbols, bar ends): `cell` of each row, -1 for strangers' rows."""

    cell: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    """The distinct bar ends (UTC ns), in no order."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, table: pa.Table, symbols: Sequence[str]) -> Self:
        """Of a table with the columns symbol, a dictionary, and bar_end. Nothing is sorted: rows are millions."""
        known = pa.array(symbols, pa.string())
        place = np.empty(table.num_rows, dtype=np.int64)
        at = 0
        for chunk in table["symbol"].chunks:
            of_code = pc.index_in(chunk.dictionary.cast(pa.string()), value_set=known).fill_null(-1).to_numpy()
            place[at : at + len(chunk)] = of_code[chunk.indices.to_numpy()] if len(of_code) else -1
            at += len(chunk)
        column = table["bar_end"].cast(pa.int64()).combine_chunks().dictionary_encode()
        ends = column.dictionary.to_numpy()
        cell = np.where(place < 0, -1, place * len(ends) + column.indices.to_numpy())
        return cls(cell, ends, (len(symbols), len(ends)))

    def newest(self, revision: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
        """(symbols, bar ends) which row has the highest revision there; -1 for none."""
        rows = np.flatnonzero(self.cell >= 0)
        if revision.any():
            rows = rows[np.argsort(revision[rows], kind="stable")]
        found = np.full(self.shape[0] * self.shape[1], -1, dtype=np.intp)
        found[self.cell[rows]] = rows
        return found.reshape(self.shape)


def bars_had(
    store: BarStore, frame: str, symbols: Sequence[str], *, after: int | None = None, upto: int | None = None
) -> npt.NDArray[np.int64]:
    """(symbols,) how many bars of a frame each has with `after` < bar_end <= `upto` (UTC ns), revisions once."""
    if not store.files(frame):
        return np.zeros(len(symbols), dtype=np.int64)
    grid = Grid.of(store.table(frame, after=after, upto=upto, columns=["symbol", "bar_end"]), symbols)
    had = np.zeros(grid.shape, dtype=bool)
    had.ravel()[grid.cell[grid.cell >= 0]] = True
    counts: npt.NDArray[np.int64] = np.count_nonzero(had, axis=1)
    return counts


class Readiness:
    """How many bars of one frame each symbol has had since the origin; grows with each bar."""

    def __init__(self, plan: Plan, symbols: Sequence[str], history_bars: int | None) -> None:
        self.needs = warm_ups(plan, history_bars)
        self._symbols = list(symbols)
        self._place = {symbol: j for j, symbol in enumerate(self._symbols)}
        self._had = np.zeros(len(self._symbols), dtype=np.int64)
        self._origin: int | None = None
        self._looked: tuple[Sequence[str], npt.NDArray[np.intp]] = ((), np.empty(0, dtype=np.intp))
        """The symbols asked for last, and their places."""

    def forget(self) -> None:
        """Count anew with the next bar: the store may have got older ones."""
        self._origin = None

    def take(
        self, store: BarStore, frame: str, origin: int, bar_end: int | None, batch: pa.Table | pa.RecordBatch | None
    ) -> None:
        """The bars of `bar_end` (UTC ns): a batch, or what is stored; None: all that is stored."""
        if origin != self._origin:
            self._origin = origin
            upto = bar_end if batch is None or bar_end is None else bar_end - 1
            self._had = bars_had(store, frame, self._symbols, after=origin - 1, upto=upto)
        if batch is not None:
            names = batch["symbol"].cast(pa.string()).to_pylist()
            self._had[[self._place[name] for name in names if name in self._place]] += 1

    def of(self, strategy: str, symbols: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(symbols,) who is ready for a strategy, as `scanner.market.Ready` has it."""
        if self._looked[0] != symbols:
            self._looked = symbols, np.array([self._place[symbol] for symbol in symbols], dtype=np.intp)
        ready: npt.NDArray[np.bool_] = self._had[self._looked[1]] >= self.needs.get(strategy, 1)
        return ready

    def only_ready(self, hits: Iterable[Hit]) -> tuple[tuple[Hit, ...], Coverage]:
        """The hits on symbols that are ready for their strategy, and how it stands."""
        found = list(hits)
        kept = tuple(h for h in found if self._had[self._place[h.symbol]] >= self.needs.get(h.strategy, 1))
        by_strategy = {name: int(np.count_nonzero(self._had >= need)) for name, need in self.needs.items()}
        ready = min(by_strategy.values(), default=len(self._symbols))
        return kept, Coverage(ready, len(self._symbols), by_strategy, len(found) - len(kept))

"""The bars that a benchmark computes on: a rectangle of any size, or a market with its listings and halts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data.panel import Floats, Packed, Panel
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner.engines.base import transposed
from scanner.fields import Source

FIELDS = ("open", "high", "low", "close", "volume")
DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Bars:
    """Daily bars of some symbols in the layout each side likes best; made before anything is timed."""

    name: str
    panel: Panel
    number: int = field(default_factory=count().__next__)
    """Tells it from all others of this process."""

    @cached_property
    def packed(self) -> Packed:
        """(bars, symbols), each symbol's own bars, all newest in the last row."""
        packed = self.panel.pack(FIELDS)
        fields = {name: np.ascontiguousarray(matrix) for name, matrix in packed.fields.items()}
        return Packed(packed.frame, packed.symbols, packed.bar_ends, packed.lengths, fields)

    @cached_property
    def by_symbol(self) -> dict[str, Floats]:
        """(symbols, bars): a symbol's bars in one piece, as TA-Lib takes them."""
        return {name: transposed(matrix) for name, matrix in self.packed.fields.items()}

    @property
    def source(self) -> Source:
        """For `scanner.evaluate`."""
        return Source(self.packed, adjust=False)

    @property
    def length(self) -> int:
        return self.packed.length

    @property
    def n_symbols(self) -> int:
        return len(self.panel.symbols)

    @property
    def halted(self) -> bool:
        """Whether some symbol lacks a bar that others have."""
        return bool((self.packed.lengths < len(self.panel.times)).any())

    def last(self, n_bars: int) -> "Bars":
        """The last rows, of the symbols that have a bar there."""
        cut = Panel("1d", self.panel.times[-n_bars:], self.panel.symbols, _cut(self.panel.fields, slice(-n_bars, None)))
        traded = np.flatnonzero(cut.present.any(axis=0)).tolist()
        return Bars(self.name, cut.select(cut.symbols[j] for j in traded))

    def first(self, n_bars: int) -> "Bars":
        """The first rows, of all symbols."""
        cut = Panel("1d", self.panel.times[:n_bars], self.panel.symbols, _cut(self.panel.fields, slice(n_bars)))
        return Bars(self.name, cut)


def _cut(fields: Mapping[str, Floats], rows: slice) -> dict[str, Floats]:
    return {name: fields[name][rows] for name in FIELDS}


def rectangle(n_symbols: int, n_bars: int, seed: int = 11) -> Bars:
    """A full panel of random walks, prices rounded to 0.01 CNY, volumes to 100 shares."""
    rng = np.random.default_rng(seed)
    shape = (n_bars, n_symbols)
    walk = rng.normal(0.0, 0.02, shape)
    np.cumsum(walk, axis=0, out=walk)
    close = np.maximum(np.round(rng.uniform(5.0, 80.0, n_symbols) * np.exp(walk), 2), 1.0)
    opened = np.maximum(np.round(close * (1.0 + rng.normal(0.0, 0.01, shape)), 2), 1.0)
    high = np.maximum(opened, close) + np.round(rng.exponential(0.1, shape), 2)
    low = np.maximum(np.minimum(opened, close) - np.round(rng.exponential(0.1, shape), 2), 0.5)
    volume = np.floor(rng.lognormal(9.0, 1.0, shape)) * 100.0
    symbols = tuple(f"{j:06d}.SZ" if j < 4000 else f"{j - 4000 + 600_000}.SH" for j in range(n_symbols))
    matrices = dict(zip(FIELDS, (opened, high, low, close, volume), strict=True))
    return Bars("a full rectangle", Panel("1d", np.arange(1, n_bars + 1) * DAY_NS, symbols, matrices))


def simulated(n_symbols: int, n_bars: int) -> Bars:
    """The simulator's market: listings, whole days without trade."""
    market = SimulatedMarket(n_symbols)
    table = market.bars("1d", *market.sessions[:n_bars])
    return Bars("the simulated market", Panel.from_table(table, "1d")).last(n_bars)


def market(path: Path) -> Bars:
    """The daily bars of a store's folder, or of a Parquet file with symbol, date or bar_end, open .. volume."""
    panel = BarStore(path).panel("1d") if path.is_dir() else Panel.from_table(pq.read_table(path), "1d")
    return Bars("a real market", panel)

"""A simulated market to scan, bars made by hand, and strategies written on the spot."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import bar_ends
from data.panel import FIELDS, NO_BAR, Packed
from data.simulator import SimulatedMarket
from scanner.cluster import DaskCluster, make_cluster
from scanner.engines.base import Engine, choose
from scanner.loading import StrategyRegistry, load

Load = Callable[..., StrategyRegistry]
Pack = Callable[..., Packed]


@pytest.fixture(scope="session")
def engine() -> Engine:
    return choose("talib")[0]


@pytest.fixture(scope="session")
def simulated() -> SimulatedMarket:
    """300 symbols with listings, halts of days and minutes, dividends, splits, ST names and limit days."""
    return SimulatedMarket(300, seed=5)


@pytest.fixture(scope="session")
def daily(simulated: SimulatedMarket) -> pa.Table:
    """130 of its sessions as daily bars."""
    return simulated.bars("1d", *simulated.sessions[:130])


@pytest.fixture(scope="session")
def dask() -> Iterator[DaskCluster]:
    """Two worker processes, which tests may kill: who needs both waits for them."""
    made = make_cluster("local", workers=2, dashboard_port=0)
    assert isinstance(made, DaskCluster)
    yield made
    made.close()


@pytest.fixture
def strategies(tmp_path: Path) -> Load:
    """YAML or Python text -> the registry of what it defines."""

    def make(text: str, name: str = "rules.yaml") -> StrategyRegistry:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return load([file])

    return make


@pytest.fixture(scope="session")
def pack() -> Pack:
    """Bars by hand: symbol -> closes, or a mapping of fields; every symbol's last bar is the last day's."""

    def make(
        bars: Mapping[str, Sequence[float] | Mapping[str, Sequence[float]]],
        frame: str = "1d",
        first: str = "2024-03-01",
    ) -> Packed:
        given: dict[str, Any] = {s: v if isinstance(v, Mapping) else {"close": v} for s, v in bars.items()}
        lengths = np.array([len(v["close"]) for v in given.values()], dtype=np.int64)
        length = int(lengths.max())
        days = np.arange(np.datetime64(first), np.datetime64(first) + length, dtype="datetime64[D]")
        ends = np.sort(np.concatenate([np.atleast_1d(bar_ends(day, frame)) for day in days]))[:length]
        matrix = np.full((length, len(given)), NO_BAR)
        fields = {name: np.full(matrix.shape, np.nan) for name in FIELDS}
        for j, values in enumerate(given.values()):
            n = lengths[j]
            matrix[length - n :, j] = ends[length - n :]
            close = values["close"]
            whole = {"open": close, "high": close, "low": close, "volume": [1000.0] * n} | dict(values)
            for name, series in whole.items():
                fields[name][length - n :, j] = series
        return Packed(frame, tuple(given), matrix, lengths, fields)

    return make

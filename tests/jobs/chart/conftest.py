"""A simulated market to draw, and a store of bars made by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import TradingCalendar, bar_ends, bar_start
from data.schema import BAR, NAME, TIME
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.simulated import make_history
from scanner.engines.base import Engine, load

MakeStore = Callable[..., BarStore]


@pytest.fixture(scope="session")
def engine() -> Engine:
    return load("talib")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    """30 symbols: 250 daily bars and 300 of a minute."""
    store = BarStore(tmp_path_factory.mktemp("charts") / "sim", origin="sim-30-7")
    make_history(store, SimulatedMarket(30, seed=7), ["1m", "1d"], 300)
    return store


@pytest.fixture(scope="session")
def daily() -> Callable[..., pa.Table]:
    """`_daily`."""
    return _daily


def _daily(
    symbol: str,
    days: Sequence[np.datetime64],
    ohlc: Sequence[tuple[float, float, float, float]],
    *,
    prev_close: Sequence[float | None] | None = None,
    flags: Sequence[int] | None = None,
) -> pa.Table:
    """Daily bars as rows, 1000 shares each where there was a trade."""
    n = len(days)
    ends = bar_ends(np.array(days), "1d")
    o, h, low, c = (np.array(column, dtype=float) for column in zip(*ohlc, strict=True))
    flag = np.zeros(n, dtype=np.uint8) if flags is None else np.array(flags, dtype=np.uint8)
    volume = np.where(flag & 1, 0.0, 1000.0)
    return pa.table(
        {
            "symbol": [symbol] * n,
            "bar_start": pa.array(bar_start(ends, "1d"), pa.int64()).cast(TIME),
            "bar_end": pa.array(ends, pa.int64()).cast(TIME),
            "open": o,
            "high": h,
            "low": low,
            "close": c,
            "volume": volume,
            "amount": volume * c,
            "prev_close": pa.array(prev_close or [None] * n, pa.float64()),
            "flags": flag,
            "revision": np.zeros(n, dtype=np.int32),
        }
    ).cast(BAR)


@pytest.fixture(scope="session")
def sessions() -> list[np.datetime64]:
    """The sessions of spring 2025."""
    calendar = TradingCalendar()
    return list(
        calendar.sessions(np.datetime64("2025-03-03").astype(object), np.datetime64("2025-06-30").astype(object))
    )


@pytest.fixture
def store_of(tmp_path: Path) -> MakeStore:
    """Bars and names -> a store."""

    def make(*tables: pa.Table, names: dict[str, str] | None = None) -> BarStore:
        store = BarStore(tmp_path / "market", origin="market")
        for table in tables:
            store.append(table, "1d")
        if names:
            last = max(table["bar_end"].cast(pa.int64()).to_numpy().max() for table in tables)
            day = np.datetime64(int(last), "ns").astype("datetime64[D]").astype(object)
            rows = {"symbol": list(names), "day": [day] * len(names), "name": list(names.values())}
            store.append_names(pa.table(rows).cast(NAME))
        return store

    return make

"""A small seeded market for the laws: listings at different times, halts, prices in cents."""

from collections.abc import Callable

import numpy as np
import pytest

from data.panel import Panel
from scanner.engines.base import ON_CPU, Engine, choose

DAY_NS = 86_400 * 10**9

MakePanel = Callable[..., Panel]


@pytest.fixture(scope="session", params=ON_CPU)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine there is; what a law says holds for each."""
    return choose(request.param)[0]


@pytest.fixture(scope="session")
def make_panel() -> MakePanel:
    def make(n_symbols: int = 6, bars: int = 160, seed: int = 7, listings: bool = True, halts: bool = True) -> Panel:
        """A random walk a symbol; `listings`: later symbols start later; `halts`: one day in twenty has no bar; eight
        bars are a session."""
        rng = np.random.default_rng(seed)
        shape = (bars, n_symbols)
        close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
        start = close * np.exp(rng.normal(0, 0.01, shape))
        high = np.maximum(start, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))
        low = np.minimum(start, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))
        prices = {"open": start, "high": high, "low": low, "close": close}
        prices = {name: np.round(matrix, 2) for name, matrix in prices.items()}
        volume = np.round(rng.lognormal(13, 0.5, shape))
        session = np.repeat(20_000.0 + np.arange(bars) // 8, n_symbols).reshape(shape)
        fields = {**prices, "volume": volume, "amount": volume * prices["close"], "session": session}
        absent = np.zeros(shape, dtype=bool)
        if listings:
            absent |= np.arange(bars)[:, None] < 11 * np.arange(n_symbols)
        if halts:
            absent |= rng.random(shape) < 0.05
        for matrix in fields.values():
            matrix[absent] = np.nan
        symbols = tuple(f"{600000 + i}.SH" for i in range(n_symbols))
        return Panel("1d", np.arange(bars, dtype=np.int64) * DAY_NS, symbols, fields)

    return make

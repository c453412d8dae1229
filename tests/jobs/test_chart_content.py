"""What a chart holds."""

import numpy as np
import pytest

from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.chart.making import make
from jobs.chart.placing import wanted
from jobs.simulated import make_history
from scanner.engines.base import Engine, load


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load("talib")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    store = BarStore(tmp_path_factory.mktemp("sim") / "store", origin="sim-30-7")
    make_history(store, SimulatedMarket(30, seed=7), ["1m", "1d"], 300)
    return store


def test_the_newest_bars_with_what_was_asked_for_in_its_place(store: BarStore, engine: Engine) -> None:
    symbol = store.symbols("1d")[0]
    drawn = wanted(["SMA(5), BOLL, SMA(volume, 5)", "MACD(12, 26, 9), KDJ, close > open"])
    content = make(store, symbol, "1d", drawn, engine, bars=100)
    assert len(content) == 100
    assert content.times[-1] == store.last_bar_end("1d")
    assert [line.label for line in content.overlays] == [
        "SMA(5)",
        *(f"TDX_BOLL(20,2) {o}" for o in ("mid", "upper", "lower")),
    ]
    assert [line.label for line in content.volume_lines] == ["SMA(volume,5)"]
    assert [pane.title for pane in content.panes] == ["MACD(12,26,9)", "KDJ(9,3,3)", "close > open"]
    close = content.prices["close"]
    np.testing.assert_allclose(content.overlays[0].values[4:], np.convolve(close, np.ones(5) / 5, "valid"))

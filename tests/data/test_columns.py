"""Arrow columns over numpy memory."""

import subprocess
import sys

import numpy as np
import pyarrow as pa

from data.columns import column, symbol_column, text_column
from data.schema import SYMBOL, TIME


def test_columns_equal_those_of_arrow_and_share_their_memory() -> None:
    values = np.arange(10.0)[::2]
    assert column(values, pa.float64()).equals(pa.array([0.0, 2.0, 4.0, 6.0, 8.0]))
    whole = np.arange(5.0)
    assert column(whole, pa.float64()).buffers()[1].address == whole.ctypes.data
    missing = np.array([False, True] * 6)
    assert column(np.arange(12), TIME, missing=missing).null_count == 6
    assert column(np.arange(3.0), pa.float64(), missing=missing[:3]).to_pylist() == [0.0, None, 2.0]
    assert column(np.empty(0), pa.float64()).to_pylist() == []


def test_texts_and_symbols() -> None:
    texts = ["600519.SH", "", "贵州茅台"]
    assert text_column(texts).equals(pa.array(texts))
    assert text_column([]).equals(pa.array([], pa.string()))
    symbols = symbol_column(np.array([2, 0], dtype=np.int32), text_column(texts))
    assert symbols.type == SYMBOL
    assert symbols.to_pylist() == ["贵州茅台", "600519.SH"]


def test_simulated_bars_do_not_wait_for_pandas() -> None:
    program = """
import sys
from data.simulator import SimulatedMarket
from streaming.bars import BarBuilder

market = SimulatedMarket(20)
builder = BarBuilder(market.symbols)
snapshots = market.snapshots(market.sessions[0])
assert any(builder.add(next(snapshots)) for _ in range(60))
market.bars("1d", market.sessions[0])
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

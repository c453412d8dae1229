"""Arrow columns over numpy memory."""

import numpy as np
import pyarrow as pa

from data.columns import column, symbol_column
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


def test_symbols_are_places_in_a_dictionary() -> None:
    texts = ["600519.SH", "", "贵州茅台"]
    symbols = symbol_column(np.array([2, 0], dtype=np.int32), pa.array(texts))
    assert symbols.type == SYMBOL
    assert symbols.to_pylist() == ["贵州茅台", "600519.SH"]

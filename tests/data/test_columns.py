"""Arrow columns over numpy memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.columns import Lookup, column, numbers, symbol_column
from data.schema import SYMBOL, TIME
from data.simulator import SimulatedMarket
from data.store import BarStore


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


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1.5, None, 2.5, None, 4.0] * 5),
        pa.array([1.5, 2.5]),
        pa.array([None, None], pa.float64()),
        pa.array([], pa.float64()),
        pa.array([3, 1, 2], pa.int32()),
        pa.array([3, None, 2], pa.int64()),
    ],
    ids=str,
)
def test_numbers_are_those_of_to_numpy(values: pa.Array) -> None:
    chunked = pa.chunked_array([values, values[:0], values[1:]], values.type)
    for given in (values, values[1:], values[3:17], chunked, chunked[2:], pa.chunked_array([], values.type)):
        expected = given.to_numpy(**({} if isinstance(given, pa.ChunkedArray) else {"zero_copy_only": False}))
        found = numbers(given)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_reading_and_packing_bars_needs_no_pandas(tmp_path: Path) -> None:
    market = SimulatedMarket(20)
    BarStore(tmp_path, origin="sim").append(market.bars("1d", *market.sessions[:3]), "1d")
    code = (
        "import sys; from data.panel import Packed, Panel; from data.store import BarStore;"
        "store = BarStore(sys.argv[1]); symbols = store.symbols('1d'); table = store.table('1d');"
        "assert Packed.from_table(table, '1d', symbols).length == 3; Panel.from_table(table);"
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_lookup_is_right_for_each_dictionary_and_keeps_so_many() -> None:
    place = {name: j for j, name in enumerate("abcdefgh")}
    lookup = Lookup(place, most=2)
    # Two share length and ends, others recur after they were forgotten; one is empty, one has a stranger.
    texts = ["abc", "adc", "abc", "", "hxa", "abc", "adc", "abc", "h"]
    for text in texts:
        found = lookup(pa.array(list(text), pa.string()))
        assert found.tolist() == [place.get(name, -1) for name in text]
        assert len(lookup._met) <= 2
    again = pa.array(list("abc"), pa.string())
    assert lookup(again) is lookup(again)

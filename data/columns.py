"""Columns: numpy arrays handed to Arrow as they lie, without a copy or a look at the values."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def column(values: npt.NDArray[Any], type_: pa.DataType, *, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A one-dimensional array as an Arrow array of `type_`, over the same memory; null where `missing`.

    The array's items must have the bytes of `type_` already (int64 for a timestamp); do not write to it afterwards.
    """
    valid = None
    if missing is not None and missing.any():
        valid = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(type_, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def symbol_column(codes: npt.NDArray[np.int32], symbols: pa.StringArray) -> pa.DictionaryArray:
    """Places in `symbols` as a dictionary-encoded column of symbols."""
    return pa.DictionaryArray.from_arrays(column(codes, pa.int32()), symbols)

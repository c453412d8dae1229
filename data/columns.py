"""Columns: numpy arrays handed to Arrow as they lie, without a copy or a look at the values, and back."""

from collections import OrderedDict
from collections.abc import Mapping
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


class Lookup:
    """Where the entries of a dictionary of symbols stand by `place`, -1 for those that do not; not to be written to.

    Of the `most` dictionaries met last it is remembered: each connection of a feed gives its own with every frame.
    """

    def __init__(self, place: Mapping[str, int], most: int = 128) -> None:
        self._place, self._most = place, most
        self._met: OrderedDict[tuple[object, ...], tuple[pa.Array, npt.NDArray[np.int64]]] = OrderedDict()

    def __call__(self, dictionary: pa.Array) -> npt.NDArray[np.int64]:
        key = (len(dictionary), *((dictionary[0].as_py(), dictionary[-1].as_py()) if len(dictionary) else ()))
        known = self._met.get(key)
        if known is None or not known[0].equals(dictionary):
            places = [self._place.get(name, -1) for name in dictionary.to_pylist()]
            known = self._met[key] = dictionary, np.array(places, dtype=np.int64)
            if len(self._met) > self._most:
                self._met.popitem(last=False)
        self._met.move_to_end(key)
        return known[1]


def numbers(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Numbers as numpy has them, NaN for null, not to be written to.

    As `to_numpy`, which imports pandas wherever that is installed: a fifth of a second of a process's start.
    """
    chunks = [chunk for chunk in (values.chunks if isinstance(values, pa.ChunkedArray) else [values]) if len(chunk)]
    if not chunks:
        return np.empty(0, dtype=values.type.to_pandas_dtype())
    parts = [_numbers(chunk) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _numbers(chunk: pa.Array) -> npt.NDArray[Any]:
    if chunk.null_count == 0:
        return np.from_dlpack(chunk)
    valid, data = chunk.buffers()
    known = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[chunk.offset : chunk.offset + len(chunk)]
    stored = np.from_dlpack(pa.Array.from_buffers(chunk.type, len(chunk), [None, data], 0, chunk.offset))
    return np.where(known == 1, stored, np.nan)

"""One column of a vendor's file, of whatever type it was read as, into numbers, words or labels of bars."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.panel import Floats, Times
from data.recognise import FIRST_MOMENT, LAST_MOMENT, NO_MOMENT, Shape, clock, moment

NOTHING = ("", "-", "--", "nan", "NaN", "NAN", "null", "NULL", "None", "NA", "N/A", "#N/A", "\\N", "停牌")
"""What vendors write where there is no number."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf(inity)?)$"
_SHANGHAI_NS = 8 * 3600 * 10**9
_DAY_NS = 86400 * 10**9
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def numbers_of(column: pa.ChunkedArray) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """A column as float64, NaN where it has nothing, and which cells hold something that is no number."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    wrong = np.zeros(len(column), dtype=bool)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.replace_substring(pc.utf8_trim_whitespace(column), ",", "")
        nothing = pc.is_in(text, pa.array(NOTHING, text.type))
        number = pc.match_substring_regex(text, _NUMBER)
        wrong = pc.fill_null(pc.and_not(pc.invert(number), nothing), False).to_numpy().astype(bool)
        column = pc.if_else(number, text, pa.scalar(None, text.type))
    elif pa.types.is_null(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return np.full(len(column), np.nan), np.ones(len(column), dtype=bool)
    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64, copy=False), wrong


def words_of(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], list[str | None]]:
    """A column of words -> (code of each row, -1 for none, and the word of each code)."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    if column.num_chunks == 0:
        return np.empty(0, dtype=np.int32), []
    column = column.unify_dictionaries()
    codes = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    words = column.chunk(0).dictionary.cast(pa.string()).to_pylist()
    return np.concatenate(codes).astype(np.int32), words


def labels_of(shape: Shape, columns: Mapping[str, pa.ChunkedArray], n: int) -> Times:
    """Each row's label on Shanghai's clock."""
    if shape.day is not None:
        local = np.full(n, moment(shape.day))
    else:
        local = _moments(columns["date"])
    if "time" in columns:
        codes, texts = words_of(columns["time"])
        clocks = np.array([*(clock(text) if text else NO_MOMENT for text in texts), NO_MOMENT], dtype=np.int64)[codes]
        known = (local != NO_MOMENT) & (clocks != NO_MOMENT)
        local = np.where(known, np.where(known, local, 0) // _DAY_NS * _DAY_NS + clocks, NO_MOMENT)
    return local


def _moments(column: pa.ChunkedArray) -> Times:
    """A column of dates of any type, as moments on Shanghai's clock."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _scaled(column.cast(pa.int64()), _UNIT_NS[kind.unit], 0 if kind.tz is None else _SHANGHAI_NS)
    if pa.types.is_date(kind):
        return _scaled(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), _DAY_NS, 0)
    codes, texts = words_of(column)
    return np.array([*(_moment(text or "") for text in texts), NO_MOMENT], dtype=np.int64)[codes]


def _scaled(column: pa.ChunkedArray, unit_ns: int, ahead_ns: int) -> Times:
    """Whole numbers of a unit since 1970 -> ns, moved ahead; NO_MOMENT for none and for what is no date of a market."""
    found = pc.fill_null(column, NO_MOMENT).to_numpy().astype(np.int64)
    known = (found >= FIRST_MOMENT // unit_ns) & (found < LAST_MOMENT // unit_ns)
    return np.where(known, np.where(known, found, 0) * unit_ns + ahead_ns, NO_MOMENT)


_moment = lru_cache(maxsize=65_536)(moment)

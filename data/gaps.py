"""The ex-rights gaps of stored bars, listed."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data.adjust import ex_gaps, session_starts
from data.panel import FIELDS, Packed
from data.schema import TIME
from data.store import BarStore


def list_gaps(store: BarStore, frame: str, symbols: Sequence[str]) -> pa.Table:
    """The bars of `symbols` marked `ex_gap` (`data.adjust.ex_gaps`): symbol, bar_end, open and the close before it."""
    table = store.table(frame, symbols=symbols, columns=("symbol", "bar_end", "revision", *FIELDS))
    packed = Packed.from_table(table, frame, symbols)
    symbol, place = np.nonzero(ex_gaps(packed, session_starts(frame, packed.bar_ends)).T)
    return pa.table(
        {
            "symbol": pa.array([packed.symbols[j] for j in symbol], pa.string()),
            "frame": pa.array([frame] * len(symbol), pa.string()),
            "bar_end": pa.array(packed.bar_ends[place, symbol], pa.int64()).cast(TIME),
            "open": packed.fields["open"][place, symbol],
            "close_before": packed.fields["close"][place - 1, symbol],
        }
    )

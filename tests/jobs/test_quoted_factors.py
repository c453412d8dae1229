"""Factors told by a session's first quotes."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.calendar import bar_ends, bar_start
from data.factors import FactorStore
from data.schema import BAR
from data.store import BarStore
from jobs.stages.factors import QuotedFactors

A, B, C = "600519.SH", "000001.SZ", "430047.BJ"
FIRST, SECOND, THIRD = (np.datetime64(day) for day in ("2024-06-17", "2024-06-18", "2024-06-19"))


def bars(day: np.datetime64, frame: str, place: int, **closes: tuple[float, float | None]) -> pa.RecordBatch:
    """One bar of each symbol: (close, previous close)."""
    end = int(bar_ends(day, frame)[place])
    names = dict(zip("abc", (A, B, C), strict=True))
    rows = [
        {
            "symbol": names[name],
            "bar_start": int(bar_start(np.array([end]), frame)[0]),
            "bar_end": end,
            **dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), close),
            "prev_close": before,
            "flags": 0,
            "revision": 0,
        }
        for name, (close, before) in closes.items()
    ]
    columns = {field.name: pa.array([row[field.name] for row in rows]).cast(field.type) for field in BAR}
    return pa.table(columns, schema=BAR).combine_chunks().to_batches()[0]


def known(store: BarStore) -> list[tuple[str, str, float, str]]:
    rows = FactorStore(store.root).table().to_pylist()
    return [(row["symbol"], str(row["day"]), row["factor"], row["origin"]) for row in rows]


def test_the_first_bar_of_a_session_tells_the_factor(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "s", origin="market")
    store.append(bars(FIRST, "1d", 0, a=(10.0, None), b=(20.0, None)), "1d")
    quoted = QuotedFactors(store, "1m")
    assert quoted.take(bars(SECOND, "1m", 0, a=(4.9, 5.0), b=(20.1, 20.0))) == 1
    assert known(store) == [(A, "2024-06-18", 0.5, "quote")]
    assert quoted.take(bars(SECOND, "1m", 1, a=(4.9, 4.0), b=(20.1, 19.0))) == 0, "the first quote of a session counts"


def test_a_symbol_that_trades_later_is_compared_when_it_does(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "s", origin="market")
    store.append(bars(FIRST, "1d", 0, a=(10.0, None), b=(20.0, None)), "1d")
    store.append(bars(SECOND, "1d", 0, b=(21.0, 20.0)), "1d")
    quoted = QuotedFactors(store, "1m")
    assert quoted.take(bars(THIRD, "1m", 0, b=(21.0, 21.0))) == 0
    assert quoted.take(bars(THIRD, "1m", 5, a=(8.0, 8.0), c=(3.0, 4.0))) == 1, "halted for a session; and a new listing"
    assert known(store) == [(A, "2024-06-19", 0.8, "quote")]


def test_without_days_the_frames_own_bars_are_compared_with(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "s", origin="market")
    for place, close in ((0, 9.0), (1, 10.0)):
        store.append(bars(FIRST, "1m", place, a=(close, None)), "1m")
    revised = bars(FIRST, "1m", 1, a=(12.5, None))
    column = BAR.get_field_index("revision")
    store.append(revised.set_column(column, BAR.field("revision"), pa.array([1], pa.int32())), "1m")
    assert QuotedFactors(store, "1m").take(bars(SECOND, "1m", 0, a=(10.0, 10.0))) == 1
    assert known(store) == [(A, "2024-06-18", 0.8, "quote")]


def test_a_restart_in_the_session_and_unknown_closes_tell_nothing_new(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "s", origin="market")
    assert QuotedFactors(store, "1m").take(bars(FIRST, "1m", 0, a=(10.0, 9.0))) == 0, "there was nothing before"
    store.append(bars(FIRST, "1d", 0, a=(10.0, None), b=(20.0, None)), "1d")
    for _ in range(2):
        QuotedFactors(store, "1m").take(bars(SECOND, "1m", 0, a=(5.0, 5.0), b=(20.0, math.nan)))
    assert known(store) == [(A, "2024-06-18", 0.5, "quote")]
    store.append(bars(SECOND, "1m", 0, a=(5.0, 5.0)), "1m")
    assert QuotedFactors(store, "1m").take(bars(SECOND, "1m", 1, a=(5.0, 5.0))) == 0

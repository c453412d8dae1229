"""Market breadth, against counts by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import bar_ends, bar_start
from data.schema import BAR, NAME
from data.store import BarStore
from jobs.breadth import LISTED_BARS, BreadthCount

DAYS = np.arange("2025-05-01", "2025-05-30", dtype="datetime64[D]")
BEFORE, DAY = DAYS[:LISTED_BARS], DAYS[LISTED_BARS]
# Close before, close now; who is at a limit is worked out from the exchange's ratios, half a cent rounded up.
CLOSES = {
    "600000.SH": (10.05, 11.06),  # main board, 10 %: 11.055 -> 11.06, limit up
    "600004.SH": (10.05, 11.05),  # a cent below it
    "000001.SZ": (10.00, 9.00),  # limit down
    "000002.SZ": (8.00, 8.40),  # *ST, 5 %: limit up
    "300001.SZ": (10.00, 11.00),  # ChiNext, 20 %: not yet
    "688001.SH": (10.00, 12.00),  # STAR: limit up
    "600519.SH": (100.00, 100.00),
    "603001.SH": (10.00, 11.00),  # listed three days ago: no limit
    "605001.SH": (10.00, 11.00),  # no name is known: whether it is under ST, and so its limit, is not
}
NAMES = dict.fromkeys(CLOSES, "某某股份") | {"000002.SZ": "*ST某某"}
del NAMES["605001.SH"]


def bars(frame: str, day: Any, closes: dict[str, tuple[float, float]]) -> pa.Table:
    end = bar_ends(day, frame)[:1].repeat(len(closes))
    before, close = np.array(list(closes.values())).T
    values: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), close)
    values |= {"prev_close": before, "symbol": list(closes), "bar_end": end, "bar_start": bar_start(end, frame)}
    values |= {name: np.zeros(len(closes), dtype=np.int32) for name in ("flags", "revision")}
    return pa.table({field.name: pa.array(values[field.name]).cast(field.type) for field in BAR}, schema=BAR)


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    store = BarStore(tmp_path, origin="market")
    for number, day in enumerate(BEFORE):
        listed = {symbol: (b, b) for symbol, (b, _) in CLOSES.items() if symbol != "603001.SH" or number >= 9}
        store.append(bars("1d", day, listed), "1d")
    rows = {"symbol": list(NAMES), "day": [DAY.astype(object)] * len(NAMES), "name": list(NAMES.values())}
    store.append_names(pa.table(rows).cast(NAME))
    return store


def test_breadth_is_as_counted_by_hand(store: BarStore) -> None:
    batch = bars("1m", DAY, CLOSES).combine_chunks().to_batches()[0]
    symbols = [*CLOSES, "601398.SH"]  # which has not traded
    found = BreadthCount(store, symbols).count(batch, "1m", int(bar_ends(DAY, "1m")[0]))
    assert (found.up, found.down, found.unchanged) == (7, 1, 1)
    assert (found.limit_up, found.limit_down) == (3, 1)
    assert (found.limits, found.symbols, found.of) == (7, 9, 10)


def test_symbols_that_are_not_watched_do_not_count(store: BarStore) -> None:
    batch = bars("1m", DAY, CLOSES).combine_chunks().to_batches()[0]
    found = BreadthCount(store, ["600519.SH", "000001.SZ"]).count(batch, "1m", int(bar_ends(DAY, "1m")[0]))
    assert (found.up, found.down, found.unchanged, found.symbols, found.of) == (0, 1, 1, 2, 2)


def test_at_the_start_the_newest_stored_bars_count_in_their_last_revision(store: BarStore) -> None:
    count = BreadthCount(store, list(CLOSES))
    assert count.stored("1m") is None
    store.append(bars("1m", DAY, CLOSES), "1m")
    revised = bars("1m", DAY, {"600519.SH": (100.0, 101.0)}).to_pydict() | {"revision": [1]}
    store.append(pa.table(revised, schema=BAR), "1m")
    found = count.stored("1m")
    assert found is not None
    assert (found.up, found.unchanged, found.symbols) == (8, 0, 9)
    assert found.bar_end == int(bar_ends(DAY, "1m")[0])


def test_without_days_before_nobody_s_limit_is_known(tmp_path: Path) -> None:
    store = BarStore(tmp_path, origin="market")
    batch = bars("1m", DAY, CLOSES).combine_chunks().to_batches()[0]
    found = BreadthCount(store, list(CLOSES)).count(batch, "1m", int(bar_ends(DAY, "1m")[0]))
    assert (found.up, found.limits, found.limit_up) == (7, 0, 0)

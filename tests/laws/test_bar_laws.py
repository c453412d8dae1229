"""Laws of bars: what a feed does to its quotes on the way, and what the bars have to show for it all the same."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.aggregate import longer_bars
from data.calendar import SECOND
from data.schema import BAR, FLAG_INCOMPLETE, TICK
from streaming.bars import MarketBars

SYMBOLS = ("600519.SH", "000001.SZ", "430047.BJ")
FRAMES = ("1m", "5m", "15m", "1d")
CADENCE_S, LATE_S = 15, 60
MIDNIGHT = int(np.datetime64("2024-03-05", "ns").astype(np.int64)) - 8 * 3600 * SECOND
OPENS = MIDNIGHT + 9 * 3600 * SECOND + 30 * 60 * SECOND
Row = dict[str, Any]
Key = tuple[str, str, int]


def day_of(seed: int, minutes: int = 11) -> list[Row]:
    """A morning's snapshots in their order, every 15 s; trades are sparse, and extremes hide between snapshots."""
    rng = np.random.default_rng(seed)
    rows = []
    begins = OPENS + int(rng.integers(0, CADENCE_S)) * SECOND
    for symbol in SYMBOLS:
        row: Row = {"symbol": symbol, "prev_close": 9.5}
        row |= dict.fromkeys(("last", "open", "high", "low", "volume", "amount"), 0.0)
        rows.append(row | {"quote_time": OPENS - 300 * SECOND})
        busy = rng.uniform(0.1, 0.9)
        for k in range(minutes * 60 // CADENCE_S + 1):
            if rng.random() < busy:
                last, hidden = (int(cents) / 100 for cents in rng.integers(900, 1100, 2))
                lots = int(rng.integers(1, 9))
                row["open"] = row["open"] or hidden
                row["high"] = max(row["high"], last, hidden)
                row["low"] = min(row["low"] or last, last, hidden)
                row["volume"] += lots * 100
                row["amount"] = round(row["amount"] + lots * 100 * last, 2)
                row["last"] = last
            rows.append(row | {"quote_time": begins + k * CADENCE_S * SECOND})
    return sorted(rows, key=lambda row: int(row["quote_time"]))


def ticks(rows: Sequence[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=TICK)


def run(bars: MarketBars, batches: Iterable[Sequence[Row]]) -> list[pa.RecordBatch]:
    made = [batch for rows in batches for batch in bars.add(ticks(rows))]
    return [*made, *bars.end_session()]


def final(made: Iterable[pa.RecordBatch]) -> dict[Key, Row]:
    """(frame, symbol, bar end) -> the highest revision; the revisions of a key count from 0 without a gap."""
    found: dict[Key, Row] = {}
    for batch in made:
        frame = batch.schema.metadata[b"frame"].decode()
        for row in batch.to_pylist():
            key = (frame, row["symbol"], row["bar_end"].value)
            revision = row.pop("revision")
            assert revision == (found[key]["n"] + 1 if key in found else 0), key
            found[key] = row | {"n": revision}
    for row in found.values():
        del row["n"]
    return found


def calm(rows: Sequence[Row]) -> list[list[Row]]:
    """One batch a moment, nothing lost."""
    moments = sorted({row["quote_time"] for row in rows})
    return [[row for row in rows if row["quote_time"] == moment] for moment in moments]


def fold(batches: Iterable[Sequence[Row]], **given: Any) -> tuple[MarketBars, dict[Key, Row]]:
    bars = MarketBars(SYMBOLS, FRAMES, **({"late_s": LATE_S, "cadence_s": CADENCE_S} | given))
    return bars, final(run(bars, batches))


def table_of(found: dict[Key, Row], frame: str) -> pa.Table:
    return pa.Table.from_pylist([row | {"revision": 0} for key, row in found.items() if key[0] == frame], schema=BAR)


def assert_frames_agree(found: dict[Key, Row]) -> None:
    """Longer bars made of the minutes are the longer bars made of ticks."""
    for frame in FRAMES[1:]:
        made = longer_bars(table_of(found, "1m"), frame).to_pylist()
        by_key = {(frame, row["symbol"], row["bar_end"].value): row for row in made}
        assert {key: {n: v for n, v in row.items() if n != "revision"} for key, row in by_key.items()} == {
            key: row for key, row in found.items() if key[0] == frame
        }


def assert_totals(found: dict[Key, Row], rows: Sequence[Row]) -> None:
    """Volume, amount, high, low and last price of the day are those of its last snapshots."""
    newest = {row["symbol"]: row for row in rows if row["volume"]}
    for frame in FRAMES:
        for symbol, row in newest.items():
            own = [bar for key, bar in sorted(found.items(), key=lambda i: i[0][2]) if key[:2] == (frame, symbol)]
            assert sum(bar["volume"] for bar in own) == row["volume"]
            assert sum(bar["amount"] for bar in own) == pytest.approx(row["amount"], abs=1e-6)
            assert max(bar["high"] for bar in own) == row["high"]
            assert min(bar["low"] for bar in own) == row["low"]
            assert own[-1]["close"] == row["last"]


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_shuffled_doubled_and_delayed_quotes_give_the_final_bars_of_a_calm_day(seed: int, knows_cadence: bool) -> None:
    rows = day_of(seed)
    cadence = {"cadence_s": CADENCE_S if knows_cadence else None}
    _, wanted = fold(calm(rows), **cadence)
    rng = np.random.default_rng(seed + 1)
    patience = int(rng.integers(1, LATE_S + 1))
    arriving = [(row["quote_time"] + int(rng.integers(0, patience + 1)) * SECOND, row) for row in rows]
    arriving += [
        (row["quote_time"] + int(rng.integers(0, LATE_S + 1)) * SECOND, row) for row in rows[:: rng.integers(2, 9)]
    ]
    arriving.sort(key=lambda item: item[0])
    order = [row for _, row in arriving]
    cuts = sorted(rng.integers(0, len(order), len(order) // 4))
    batches = [order[i:j] for i, j in zip([0, *cuts], [*cuts, len(order)], strict=True) if i < j]
    # Rows of one batch are in any order.
    bars, found = fold([[part[k] for k in rng.permutation(len(part))] for part in batches], **cadence)
    assert found == wanted
    assert bars.counts["late"] == bars.counts["older"] == 0
    assert_frames_agree(found)
    assert_totals(found, rows)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["dropped", "mute"]))
def test_lost_quotes_leave_the_days_totals_right_and_flag_what_they_touch(seed: int, how: str) -> None:
    rows = day_of(seed)
    _, wanted = fold(calm(rows))
    rng = np.random.default_rng(seed + 1)
    newest = {row["symbol"]: row for row in rows}
    if how == "dropped":
        gone = rng.random(len(rows)) < rng.uniform(0, 0.6)
    else:
        start = OPENS + int(rng.integers(-400, 600)) * SECOND
        end = start + int(rng.integers(0, 600)) * SECOND
        gone = np.array([start <= row["quote_time"] <= end for row in rows])
    kept = [row for row, out in zip(rows, gone, strict=True) if not out or row is newest[row["symbol"]]]
    # The service is there from the session's beginning.
    kept = [{**rows[0], "symbol": SYMBOLS[0]}, *[row for row in kept if row is not rows[0]]]
    _, found = fold(calm(kept))
    assert_totals(found, rows)
    assert_frames_agree(found)
    whole = {key: row for key, row in found.items() if not row["flags"] & FLAG_INCOMPLETE}
    assert whole == {key: wanted[key] for key in whole}
    if not gone.any():
        assert whole == wanted


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_a_loss_that_is_told_is_flagged_without_a_cadence(seed: int) -> None:
    rows = day_of(seed)
    _, wanted = fold(calm(rows), cadence_s=None)
    rng = np.random.default_rng(seed + 1)
    start = OPENS + int(rng.integers(60, 400)) * SECOND
    end = start + int(rng.integers(0, 200)) * SECOND
    bars = MarketBars(SYMBOLS, FRAMES, late_s=LATE_S)
    before = calm([row for row in rows if row["quote_time"] <= start])
    made = [batch for part in before for batch in bars.add(ticks(part))]
    bars.lost(start, end)
    made += run(bars, calm([row for row in rows if row["quote_time"] > end]))
    found = final(made)
    assert_totals(found, rows)
    assert_frames_agree(found)
    whole = {key: row for key, row in found.items() if not row["flags"] & FLAG_INCOMPLETE}
    assert whole == {key: wanted[key] for key in whole}


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_a_replay_adds_nothing(seed: int) -> None:
    batches = calm(day_of(seed))
    bars = MarketBars(SYMBOLS, FRAMES, late_s=LATE_S, cadence_s=CADENCE_S)
    once = [batch for rows in batches for batch in bars.add(ticks(rows))]
    assert [batch for rows in batches for batch in bars.add(ticks(rows))] == []
    once += bars.end_session()
    _, wanted = fold(batches)
    assert final(once) == wanted


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.sampled_from(FRAMES))
def test_a_frame_is_the_same_alone_and_among_others(seed: int, frame: str) -> None:
    batches = calm(day_of(seed))
    _, wanted = fold(batches)
    alone = final(run(MarketBars(SYMBOLS, (frame,)), batches))
    assert alone == {key: row for key, row in wanted.items() if key[0] == frame}

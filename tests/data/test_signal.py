"""Signals: the id that nothing but the same signal shares, and the way to JSON and Arrow and back."""

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data import signal as signal_module
from data.schema import SIGNAL, SIGNAL_ADDED
from data.signal import Signal, encode, from_table, iso, signals_of, to_batch, to_table

FIRED = Signal(
    strategy="macd_golden_cross",
    version="5f2c",
    symbol="600519.SH",
    frame="1d",
    bar_end=1_748_242_800 * 10**9,
    action="BUY",
    confidence=0.8,
    price=1523.5,
    engine="talib",
    origin=1_700_000_000 * 10**9,
    values={"MACD(12,26,9).macd": 1.25, "RSI(14)": None},
    name="贵州茅台",
    at_limit_up=False,
)


def test_a_retry_or_a_restart_gives_the_same_id() -> None:
    again = replace(FIRED, epoch="20250523T070001123456abcd", seq=7, published_ns=1, engine="vector", confidence=0.5)
    assert again.id == FIRED.id
    # printf '["macd_golden_cross", "5f2c", "BUY", "600519.SH", "1d", 1748242800000000000, false]' | sha256sum
    # Ids live in files: they must not change between versions.
    assert FIRED.id == "bf392acfce72c6bad42f71045f7f30dc19793a845952d87d7556dfd99139942b"


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "other"},
        {"version": "5f2d"},
        {"symbol": "600520.SH"},
        {"frame": "60m"},
        {"bar_end": FIRED.bar_end + 1},
        {"action": "SELL"},
        {"developing": True},
    ],
)
def test_what_makes_it_another_signal_makes_another_id(change: dict[str, Any]) -> None:
    assert replace(FIRED, **change).id != FIRED.id


@pytest.mark.parametrize("change", [{}, {"revision": 2}, {"revision": 3, "revokes": "ab"}])
@pytest.mark.parametrize("strategy", ["a", 'say "ah"', "反弹\n", "\u2028\\"])
def test_an_id_is_that_of_the_json_of_its_parts(strategy: str, change: dict[str, Any]) -> None:
    signal = replace(FIRED, strategy=strategy, developing=not change, **change)
    parts = [strategy, "5f2c", "BUY", "600519.SH", "1d", FIRED.bar_end, signal.developing, *change.values()]
    parts += [None] if change == {"revision": 2} else []
    assert signal.id == hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def test_parts_do_not_run_into_each_other() -> None:
    assert replace(FIRED, strategy="ab", version="c").id != replace(FIRED, strategy="a", version="bc").id


def test_json_has_times_as_iso_and_every_field_of_the_schema() -> None:
    row = json.loads(json.dumps(FIRED.to_dict(), allow_nan=False))
    assert list(row) == SIGNAL.names
    assert row["bar_end"] == "2025-05-26T07:00:00Z"
    assert row["values"] == {"MACD(12,26,9).macd": 1.25, "RSI(14)": None}
    assert row["at_limit_up"] is False
    assert row["at_limit_down"] is None


def test_json_gives_the_same_signal_back() -> None:
    signal = replace(FIRED, origin=FIRED.origin + 7, seq=3, epoch="e")
    assert Signal.from_dict(json.loads(json.dumps(signal.to_dict() | {"of a later version": 1}))) == signal


def test_a_value_that_is_no_number_is_null_in_json_and_in_files() -> None:
    odd = replace(FIRED, values={"a": math.nan, "b": -math.inf, "c": 2.0})
    assert odd.to_dict()["values"] == {"a": None, "b": None, "c": 2.0}
    assert from_table(to_table([odd]))[0].values == {"a": None, "b": None, "c": 2.0}


def test_a_table_gives_the_same_signals_back() -> None:
    signals = [FIRED, replace(FIRED, symbol="000001.SZ", name=None, values={}, developing=True, seq=3)]
    table = to_table(signals)
    assert table.schema.equals(SIGNAL)
    assert from_table(table) == signals
    assert table["id"].to_pylist() == [signal.id for signal in signals]
    assert from_table(to_table([])) == []


def test_what_is_sent_is_the_json_of_the_same_row() -> None:
    row = replace(FIRED, confidence=np.float64(0.1 + 0.2), values={"a": 1e22, "b": 5e-324, "c": None}).to_dict()
    assert json.loads(encode(row)) == json.loads(json.dumps(row)) == row


def test_within_a_process_a_batch_is_the_very_signals_that_it_was_made_of() -> None:
    signals = [FIRED, replace(FIRED, symbol="000001.SZ")]
    batch = to_batch(signals)
    assert signals_of(batch) is signals
    (came,) = pa.Table.from_batches([batch]).to_batches()  # as from another process: equal, and not the same
    assert came is not batch
    assert signals_of(came) == signals
    assert signals_of(came) is signals_of(came)
    n_known = len(signal_module._made)
    del batch, came
    assert len(signal_module._made) == n_known - 2
    assert signals_of(to_batch([])) == []


def test_iso_keeps_nanoseconds_only_where_there_are_some() -> None:
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(1_748_242_800 * 10**9 + 5) == "2025-05-26T07:00:00.000000005Z"


def test_what_a_revision_made_has_an_id_of_its_own() -> None:
    newly = replace(FIRED, revision=1)
    revoked = replace(FIRED, revision=2, revokes=FIRED.id)
    again = replace(FIRED, revision=3)
    assert len({FIRED.id, newly.id, revoked.id, again.id}) == 4
    assert Signal.from_dict(revoked.to_dict()) == revoked
    earlier = {name: value for name, value in FIRED.to_dict().items() if name not in SIGNAL_ADDED}
    assert Signal.from_dict(earlier) == FIRED

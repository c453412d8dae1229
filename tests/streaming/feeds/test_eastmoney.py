"""Eastmoney's events: the recorded frame, lists and their deltas, and what broken ones do."""

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.feeds.eastmoney import code, merge, parse, path
from streaming.feeds.events import events
from streaming.feeds.wire import Universe

SYMBOLS = ("600396.SH", "920118.BJ", "688981.SH", "000001.SH")
UNIVERSE = Universe({symbol: code(symbol) for symbol in SYMBOLS})

RECORDED = (
    'data: {"rc":0,"rt":4,"svr":182482656,"lt":1,"full":1,"dlmkts":"",'
    '"data":{"f43":309298,"f58":"上证指数","f169":-3897,"f170":-124}}\n\n'
).encode()
"""As it stands in public code: an index, prices as integers."""
NOW = 1_784_771_347
"""2026-07-23 09:49:07 in Shanghai."""
MAIN = {"f2": 15.47, "f5": 1775070, "f6": 2729507908.0, "f12": "600396", "f13": 1, "f15": 15.88, "f16": 14.85}
MAIN |= {"f17": 15.3, "f18": 14.92, "f124": NOW}
IDLE = {"f2": "-", "f5": "-", "f6": "-", "f12": "920118", "f13": 0, "f15": "-", "f16": "-", "f17": "-", "f18": 16.53}
IDLE |= {"f124": NOW}


def frame(diff: Any, *, full: int = 0) -> bytes:
    return json.dumps({"rc": 0, "full": full, "data": {"total": 2, "diff": diff}}).encode()


def test_the_recorded_frame_is_an_event_and_lacks_what_a_tick_needs() -> None:
    body, rest = events(RECORDED)
    assert rest == b""
    assert json.loads(body)["data"] == {"f43": 309298, "f58": "上证指数", "f169": -3897, "f170": -124}
    assert parse(body, UNIVERSE).dropped == {"short": 1}
    memory: dict[bytes, Any] = {}
    assert parse(merge(body, memory), UNIVERSE).dropped == {"short": 1}
    ((_, kept),) = memory.items()
    assert kept["f43"] == 309298


def test_events_are_cut_anywhere_and_put_together() -> None:
    stream = RECORDED + b": a comment\n\n" + RECORDED.replace(b"\n", b"\r\n") + b"event: x\ndata: {}\n\n"
    wanted, _ = events(stream)
    assert wanted.count(b"\n") == 2
    for cut in range(len(stream)):
        first, rest = events(stream[:cut])
        second, rest = events(rest + stream[cut:])
        assert (b"\n".join(part for part in (first, second) if part), rest) == (wanted, b"")


def test_a_list_gives_ticks() -> None:
    parsed = parse(frame({"0": MAIN, "1": IDLE}, full=1), UNIVERSE)
    assert parsed.dropped == {}
    main, idle = parsed.ticks.to_pylist()
    assert main == {
        "symbol": "600396.SH",
        "quote_time": datetime(2026, 7, 23, 9, 49, 7, tzinfo=ZoneInfo("Asia/Shanghai")),
        "last": 15.47,
        "open": 15.3,
        "high": 15.88,
        "low": 14.85,
        "prev_close": 14.92,
        "volume": 177507000.0,
        "amount": 2729507908.0,
    }
    assert (idle["symbol"], idle["last"], idle["volume"], idle["prev_close"]) == ("920118.BJ", 0.0, 0.0, 16.53)


def test_changes_are_merged_with_what_was_said_before() -> None:
    memory: dict[bytes, Any] = {}
    assert parse(merge(frame({"0": MAIN, "1": IDLE}, full=1), memory), UNIVERSE).ticks.num_rows == 2
    parsed = parse(merge(frame({"0": {"f2": 15.5, "f5": 1775080, "f124": NOW + 3}}), memory), UNIVERSE)
    (row,) = parsed.ticks.to_pylist()
    assert (row["symbol"], row["last"], row["volume"], row["high"]) == ("600396.SH", 15.5, 177508000.0, 15.88)
    assert parse(merge(frame({"7": {"f2": 1.0}}), memory), UNIVERSE).dropped == {"short": 1}
    # A whole frame begins anew: what was said of other places is forgotten.
    merge(frame({"0": IDLE}, full=1), memory)
    assert parse(merge(frame({"1": {"f2": 9.9}}), memory), UNIVERSE).dropped == {"short": 1}


@pytest.mark.parametrize("volume", [2729507908 / 15.47, 2729507908 / 15.47 / 100])
def test_the_unit_of_a_star_volume_is_the_one_that_fits_its_amount(volume: float) -> None:
    parsed = parse(frame({"0": MAIN | {"f12": "688981", "f5": round(volume)}}), UNIVERSE)
    assert parsed.ticks["volume"][0].as_py() == pytest.approx(2729507908 / 15.47, rel=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("f2", 1547, "range"),
        ("f5", 17750, "units"),
        ("f5", "1775070", "number"),
        ("f6", None, "number"),
        ("f15", True, "number"),
        ("f18", 10**400, "number"),
        ("f124", "now", "time"),
        ("f124", 12345, "time"),
        ("f12", "600999", "code"),
        ("f13", 0, "code"),
        ("f13", {}, "code"),
    ],
)
def test_a_bad_symbol_is_counted_and_its_neighbours_live(field: str, value: object, reason: str) -> None:
    parsed = parse(frame([MAIN | {field: value}, IDLE]), UNIVERSE)
    assert parsed.dropped == {reason: 1}
    assert parsed.ticks["symbol"].to_pylist() == ["920118.BJ"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html></html>", "line"),
        (b"[1, 2]", "line"),
        (b"[" * 100_000, "line"),
        (b'{"rc":0,"data":null}', "empty"),
        (b"9" * 5000, "line"),
    ],
)
def test_what_is_no_event(body: bytes, reason: str) -> None:
    parsed = parse(merge(body, {}), UNIVERSE)
    assert (parsed.ticks.num_rows, parsed.dropped) == (0, {reason: 1})


def test_the_address_of_one_symbol_and_of_many() -> None:
    assert path(["1.600519"]).startswith("/api/qt/stock/sse?secid=1.600519&")
    many = path(["1.600519", "0.920118"])
    assert many.startswith("/api/qt/ulist/sse?secids=1.600519,0.920118&")
    assert "&fltt=2&" in many
    assert "&pz=2&" in many


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MAIN, "diff", "0"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_no_event_makes_it_raise_or_touch_another_symbol(data: st.DataObject) -> None:
    memory: dict[bytes, Any] = {}
    merge(frame({"0": MAIN, "1": IDLE}, full=1), memory)
    broken = data.draw(
        st.builds(
            lambda diff, full: json.dumps({"full": full, "data": {"diff": diff}}).encode(),
            st.dictionaries(st.sampled_from(["0", "2", "x"]), json_values, max_size=3),
            st.just(0),
        )
        | st.binary(max_size=40)
        | st.builds(lambda value: json.dumps(value).encode(), json_values)
    )
    parse(broken, UNIVERSE)
    parse(merge(broken, memory), UNIVERSE)
    merge(frame({"0": MAIN, "1": IDLE}, full=1), memory)
    assert parse(merge(frame({"1": {"f124": NOW + 1}}), memory), UNIVERSE).ticks["symbol"].to_pylist() == ["920118.BJ"]

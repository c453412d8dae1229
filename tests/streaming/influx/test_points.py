"""Points as lines: read again by another's parser, whatever stands in them; and by InfluxDB itself."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from streaming.points import Point
from tests.streaming.influx.databases import _post as post
from tests.streaming.influx.databases import influxd, query

TRICKY = [
    "plain",
    "with space",
    "a,b=c",
    'q"u"o',
    "back\\slash",
    "back\\,comma\\ space\\=",
    "平安银行",
    "<script>alert(1)</script>",
    "'single'",
    "#",
    "🐂 牛",
    "=",
    ",",
    " ",
    '"',
]


def read(point: Point) -> dict[str, Any]:
    line = point.line()
    assert line is not None
    assert "\n" not in line
    return dict(parse_line(line))


@pytest.mark.parametrize("text", TRICKY)
def test_what_is_written_is_read(text: str) -> None:
    got = read(Point("signal", 1_748_223_000_000_000_001, {"a": text, "b": "x"}, {"name": text, "f": 1.5}))
    assert got["time"] == 1_748_223_000_000_000_001
    assert got["tags"] == {"a": text, "b": "x"}
    assert got["fields"] == {"name": text, "f": 1.5}


def test_values_have_their_types_and_what_is_none_or_no_number_is_left_out() -> None:
    values = {"i": 7, "f": 7.0, "b": True, "n": False, "s": "7", "e": "", "x": None, "nan": math.nan}
    line = Point("m", 5, {"empty": ""}, values).line()
    assert line == 'm i=7i,f=7.0,b=true,n=false,s="7",e="" 5'
    assert Point("m", 5, {}, {"nan": math.nan, "none": None}).line() is None


def test_a_line_stays_one_line_and_a_backslash_at_the_end_swallows_nothing() -> None:
    got = read(Point("m", 5, {"a": "x\ny\\", "b": "z"}, {"s": "x\r\ny\\", "t": "\\"}))
    assert got["tags"] == {"a": "x y", "b": "z"}
    assert got["fields"] == {"s": "x  y\\", "t": "\\"}


NUMBERS = st.floats(allow_subnormal=False) | st.integers(-(2**63), 2**63 - 1)


@given(st.text(), st.text(), NUMBERS, st.integers(0, 2**62))
def test_any_text_is_a_line_that_can_be_read(tag: str, text: str, number: float, at: int) -> None:
    got = read(Point("m", at, {"a": tag, "b": "z"}, {"s": text, "f": number}))
    assert (got["time"], got["tags"]["b"]) == (at, "z")
    if text.isprintable():
        assert got["fields"]["s"] == text
    if tag.isprintable() and tag and not tag.endswith("\\"):
        assert got["tags"]["a"] == tag
    if math.isfinite(number):
        assert got["fields"]["f"] == number


def test_influxdb_itself_reads_it(tmp_path: Path) -> None:
    points = [
        Point(
            "signal",
            1_748_223_000_000_000_000 + n,
            {"strategy": text},
            {"name": text, "n": n, "price": 1.5, "ok": True},
        )
        for n, text in enumerate(TRICKY)
    ]
    with influxd(tmp_path) as url:
        post(f"{url}/write?db=market&precision=ns", "\n".join(p.line() or "" for p in points).encode())
        rows = query(url, "SELECT * FROM signal")
    assert [(row["strategy"], row["name"], row["n"], row["time"]) for row in rows] == [
        (text, text, n, 1_748_223_000_000_000_000 + n) for n, text in enumerate(TRICKY)
    ]
    assert all(row["ok"] is True for row in rows)

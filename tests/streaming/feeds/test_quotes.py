"""Parsers of quotes: the vendors' own payloads, and what a bad line does to its neighbours."""

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.schema import TICK
from data.symbols import sina_code
from streaming.feeds import sina, tencent
from streaming.feeds.wire import Parsed, Universe, unseen

SYMBOLS = ("600396.SH", "000001.SZ", "920118.BJ", "160923.SZ", "160922.SZ", "600519.SH", "688981.SH", "000001.SH")
UNIVERSE = Universe({symbol: sina_code(symbol) for symbol in SYMBOLS})

PAYLOADS = Path(__file__).with_name("payloads")
"""As they stand in easyquotation's tests and in public code."""
SINA = (PAYLOADS / "sina.gb18030").read_text(encoding="gb18030")
TENCENT = (PAYLOADS / "tencent.gb18030").read_text(encoding="gb18030")

Parse = Callable[[bytes], Parsed]


def by_sina(body: bytes) -> Parsed:
    return sina.parse(body, UNIVERSE)


def by_tencent(body: bytes) -> Parsed:
    return tencent.parse(body, UNIVERSE)


def frame(text: str) -> bytes:
    return text.encode("gb18030")


VENDORS = {"sina": (by_sina, frame(SINA)), "tencent": (by_tencent, frame(TENCENT))}
each = pytest.mark.parametrize(("parse", "body"), VENDORS.values(), ids=VENDORS)


def shanghai(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Shanghai"))


def test_sinas_own_payloads() -> None:
    parsed = by_sina(frame(SINA))
    assert parsed.ticks.schema.equals(TICK)
    assert parsed.dropped == {"empty": 1}
    limit_up, afterwards, beijing, idle = parsed.ticks.to_pylist()
    assert limit_up == {
        "symbol": "600396.SH",
        "quote_time": shanghai("2026-07-23T15:34:59"),
        "last": 16.41,
        "open": 15.3,
        "high": 16.41,
        "low": 14.85,
        "prev_close": 14.92,
        "volume": 341780059.0,
        "amount": 5352355411.0,
    }
    assert (afterwards["symbol"], afterwards["open"], afterwards["prev_close"]) == ("000001.SZ", 10.92, 10.98)
    assert (beijing["symbol"], beijing["volume"], beijing["amount"]) == ("920118.BJ", 588716.0, 9976849.67)
    assert (idle["symbol"], idle["last"], idle["prev_close"], idle["volume"]) == ("160922.SZ", 0.0, 1.074, 0.0)


def test_sinas_socket_speaks_the_same_without_quotes() -> None:
    plain = SINA.replace("var hq_str_", "").replace('="', "=").replace('";', "")
    pushed = sina.parse(frame("sys_auth=FAILED\nsys_nxkey=sz160923\n" + plain), UNIVERSE, prefix=sina.PUSHED)
    assert pushed.ticks.equals(by_sina(frame(SINA)).ticks)
    assert pushed.dropped == {"control": 2, "empty": 1}


def test_sinas_names() -> None:
    assert sina.names(frame(SINA), UNIVERSE) == {
        "600396.SH": "华电辽能",
        "000001.SZ": "平安银行",
        "920118.BJ": "太湖远大",
        "160922.SZ": "恒生中小",
    }
    assert (
        sina.names(frame(SINA).replace("平安".encode("gb18030"), b"\xff\xff"), UNIVERSE)
        .keys()
        .isdisjoint({"000001.SZ"})
    )


def test_tencents_own_payloads() -> None:
    parsed = by_tencent(frame(TENCENT))
    assert parsed.dropped == {}
    main, beijing = parsed.ticks.to_pylist()
    assert main == {
        "symbol": "600396.SH",
        "quote_time": shanghai("2026-07-23T09:49:07"),
        "last": 15.47,
        "open": 15.3,
        "high": 15.88,
        "low": 14.85,
        "prev_close": 14.92,
        "volume": 177507000.0,
        "amount": 2729507908.0,
    }
    assert (beijing["volume"], beijing["amount"], beijing["high"]) == (324000.0, 5425465.0, 16.99)


def test_tencent_counts_star_in_shares() -> None:
    star = TENCENT.splitlines()[0].replace("600396", "688981").replace("2729507908", "27295079")
    assert by_tencent(frame(star)).ticks["volume"].to_pylist() == [1775070.0]


def test_a_name_with_a_byte_that_is_a_tilde() -> None:
    """In GBK the second byte of a character may be 0x7e."""
    name = bytes([0x81, 0x7E, 0x82, 0x7E])
    assert name.decode("gbk")
    body = frame(TENCENT).replace("华电辽能".encode("gbk"), name)
    assert by_tencent(body).ticks.equals(by_tencent(frame(TENCENT)).ticks)


def test_what_tencent_does_not_know_is_empty() -> None:
    assert by_tencent(b'v_pv_none_match="1";\n').dropped == {"empty": 1}


def test_a_beijing_code_is_not_of_shanghai() -> None:
    assert sina_code("920118.BJ") == "bj920118"
    assert by_sina(frame(SINA.replace("bj920118", "sh920118"))).dropped == {"code": 1, "empty": 1}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("341780059,5352355411.000", "3417800,5352355411.000", "units"),
        ("341780059,5352355411.000", "341780059,53523554.000", "units"),
        ("16.410,16.410,14.850", "16.420,16.410,14.850", "range"),
        ("16.410,16.410,14.850", "14.840,16.410,14.850", "range"),
        ("15.300,14.920", "14.840,14.920", "range"),
        ("15.300", "1.5e1", "number"),
        ("15.300", "-15.3", "number"),
        ("15.300", "nan", "number"),
        ("15.300", "", "number"),
        ("15.300", "15.3.0", "number"),
        ("2026-07-23,15:34:59", "2026-02-30,15:34:59", "time"),
        ("2026-07-23,15:34:59", "2026-07-23,25:34:59", "time"),
        ("2026-07-23,15:34:59", ",", "time"),
        ("15.300,14.920,", "", "short"),
        ("sh600396", "sh600999", "code"),
        ("var hq_str_sh600396", "<html>", "line"),
    ],
)
def test_a_bad_line_is_counted_and_its_neighbours_live(old: str, new: str, reason: str) -> None:
    first, rest = SINA.split("\n", 1)
    broken = first.replace(old, new, 1) if reason != "short" else first[: len(first) // 2]
    assert broken != first
    parsed = by_sina(frame(f"{broken}\n{rest}"))
    assert parsed.dropped == {"empty": 1} | {reason: 1}
    assert parsed.ticks["symbol"].to_pylist() == ["000001.SZ", "920118.BJ", "160922.SZ"]


@each
@pytest.mark.parametrize("page", [b"", b"\n\n", b"Kinsoku jikou desu!", "<html>您的访问过于频繁</html>".encode("gbk")])
def test_a_page_that_is_no_frame(parse: Parse, body: bytes, page: bytes) -> None:
    parsed = parse(page)
    assert parsed.ticks.num_rows == 0
    assert sum(parsed.dropped.values()) == (1 if page.strip() else 0)


@each
@settings(max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_no_bytes_make_it_raise_or_touch_another_line(parse: Parse, body: bytes, data: st.DataObject) -> None:
    lines = body.splitlines()
    hit = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[hit])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(line)))
        match data.draw(st.sampled_from(("flip", "cut", "insert"))):
            case "flip" if at < len(line):
                line[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del line[at : at + data.draw(st.integers(1, 60))]
            case "insert":
                line[at:at] = data.draw(st.binary(max_size=12))
    got = parse(b"\n".join([*lines[:hit], bytes(line), *lines[hit + 1 :]]))
    others = parse(b"\n".join([*lines[:hit], *lines[hit + 1 :]]))
    own = parse(bytes(line))
    assert got.ticks.num_rows == others.ticks.num_rows + own.ticks.num_rows
    assert got.dropped == others.dropped + own.dropped
    assert {row["symbol"]: row for row in got.ticks.to_pylist()} == {
        row["symbol"]: row for row in [*others.ticks.to_pylist(), *own.ticks.to_pylist()]
    }


@given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 6)), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None, database=None)
def test_numbers_are_those_that_float_reads(values: list[tuple[int, int]]) -> None:
    from streaming.feeds.wire import Lines

    texts = [f"{n}"[:-d] + "." + f"{n}"[-d:] if 0 < d < len(f"{n}") else f"{n}" for n, d in values]
    lines = Lines("\n".join(f"x,{text},y" for text in texts).encode(), b",")
    (found,) = lines.numbers(lines.column(1))
    assert found.tolist() == [float(text) for text in texts]


@pytest.mark.parametrize(
    "odd", ["", "-", ".", "1.2.3", "1-2", "--1", "1e5", "+1", "nan", "inf", " 1", "9" * 16, "1" * 30]
)
def test_what_is_no_number_among_numbers_is_none_and_harms_no_other(odd: str) -> None:
    from streaming.feeds.wire import Lines

    texts = [("10.01", "5."), (odd, "-0.5"), ("7", odd), (".25", "123456789012345")]
    lines = Lines("\n".join(",".join(("名", *pair)) for pair in texts).encode(), b",")
    found = lines.numbers(lines.column(1), lines.column(2))
    alone = [lines.numbers(lines.column(k))[0] for k in (1, 2)]
    wanted = [[10.01, math.nan, 7.0, 0.25], [5.0, -0.5, math.nan, 123456789012345.0]]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(alone, wanted)


def test_lines_that_did_not_change_are_not_parsed_again() -> None:
    seen: dict[bytes, bytes] = {}
    assert by_sina(unseen(frame(SINA), seen, 19)).ticks.num_rows == 4
    assert unseen(frame(SINA), seen, 19).strip() == b""
    moved = SINA.replace("341780059", "341780159")
    assert by_sina(unseen(frame(moved), seen, 19)).ticks["symbol"].to_pylist() == ["600396.SH"]

"""Finished bars: the recorded payloads, units and labels, what broken rows do, and the client against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.calendar import SHANGHAI, bar_ends
from data.errors import BannedError, FeedError, FrameError, UsageError
from data.schema import BAR, FLAG_NO_TRADE
from data.simulator import SimulatedMarket
from data.symbols import board, sina_code
from streaming.feeds.backfill import Backfilled, KLineClient
from streaming.feeds.klines import KLINES, KLines, parse_sina, parse_tencent, sources_of
from tests.streaming.feeds.fakes.day import ordered

TENCENT = (
    b'{"code":0,"msg":"","data":{"sh600396":{"m5":[["202607231125","15.78","15.97","15.97","15.75","18315.00",{},"12.44"],'
    b'["202607231130","15.96","15.89","16.00","15.87","11441.00",{},"7.77"]]}}}'
)
SINA = (
    b'[{"day":"2018-02-02 14:55:00","open":"39.090","high":"39.100","low":"39.000","close":"39.040","volume":"20300"}]'
)
"""Both as they stand in public code."""
LATER = 2**62
DAY = "2026-07-23"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def rows_of(parsed: KLines) -> list[tuple[Any, ...]]:
    """Label in Shanghai, open, high, low, close, volume, flags."""
    assert parsed.bars.schema.equals(BAR)
    names = ("open", "high", "low", "close", "volume", "flags")
    ends = parsed.bars["bar_end"].cast(pa.int64()).to_numpy() + SHANGHAI
    labels = [str(end.astype("datetime64[ns]"))[11:16] for end in ends]
    return list(zip(labels, *(parsed.bars[name].to_pylist() for name in names), strict=True))


def tencent(*rows: tuple[Any, ...], code: str = "sh600396", key: str = "m1", day: str = DAY) -> bytes:
    """Rows of (HHMM, open, high, low, close, volume) as Tencent spells them."""
    spelled = [
        [day.replace("-", "") + time, str(o), str(c), str(h), str(lo), f"{volume:.2f}", {}, "0.1"]
        for time, o, h, lo, c, volume in rows
    ]
    return json.dumps({"code": 0, "msg": "", "data": {code: {key: spelled, "qt": {}, "prec": "1"}}}).encode()


def test_tencents_own_payload() -> None:
    parsed = parse_tencent(TENCENT, "600396.SH", "5m", LATER)
    assert parsed.dropped == {}
    assert rows_of(parsed) == [
        ("11:25", 15.78, 15.97, 15.75, 15.97, 1831500.0, 0),
        ("11:30", 15.96, 16.0, 15.87, 15.89, 1144100.0, 0),
    ]
    first = parsed.bars.to_pylist()[0]
    assert (first["symbol"], first["amount"], first["prev_close"], first["revision"]) == ("600396.SH", None, None, 0)
    assert (first["bar_start"], first["bar_end"]) == (utc(f"{DAY}T11:20+08:00"), utc(f"{DAY}T11:25+08:00"))
    assert parsed.bars.schema.metadata == {b"frame": b"5m"}


def test_sinas_own_payload_also_as_jsonp() -> None:
    parsed = parse_sina(SINA, "600519.SH", "5m", LATER)
    assert parsed.dropped == {}
    assert rows_of(parsed) == [("14:55", 39.09, 39.1, 39.0, 39.04, 20300.0, 0)]
    jsonp = b"/*<script>location.href='//sina.com';</script>*/\nvar _x=(" + SINA + b");"
    assert parse_sina(jsonp, "600519.SH", "5m", LATER).bars.equals(parsed.bars)


def test_sinas_days_have_a_date_alone() -> None:
    body = SINA.replace(b" 14:55:00", b"")
    (row,) = parse_sina(body, "600519.SH", "1d", LATER).bars.to_pylist()
    assert row["bar_end"] == utc("2018-02-02T15:00+08:00")
    assert parse_sina(body, "600519.SH", "5m", LATER).dropped == {"time": 1}


def test_star_is_counted_in_shares_and_all_else_in_lots() -> None:
    row = ("1030", 10.0, 10.0, 10.0, 10.0, 300)
    for symbol, code, shares in (("688981.SH", "sh688981", 300.0), ("920118.BJ", "bj920118", 30000.0)):
        parsed = parse_tencent(tencent(row, code=code), symbol, "1m", LATER)
        assert parsed.bars["volume"].to_pylist() == [shares]


def test_a_bar_that_has_not_ended_is_left_out() -> None:
    body = tencent(("1030", 10, 10, 10, 10, 5), ("1031", 10, 10, 10, 10, 5))
    upto = int(bar_ends(np.datetime64(DAY), "1m")[60]) - 1
    parsed = parse_tencent(body, "600396.SH", "1m", upto)
    assert [row[0] for row in rows_of(parsed)] == ["10:30"]
    assert parsed.dropped == {"open": 1}


def test_the_opening_auction_goes_to_the_first_bar() -> None:
    body = tencent(("0930", 10, 10, 10, 10, 5), ("0931", 10.1, 10.3, 10.1, 10.2, 7))
    assert rows_of(parse_tencent(body, "600396.SH", "1m", LATER)) == [("09:31", 10, 10.3, 10, 10.2, 1200.0, 0)]


def test_minutes_that_were_left_out_are_filled_and_those_before_the_first_trade_do_not_exist() -> None:
    body = tencent(
        ("0931", 10, 10, 10, 10, 0),
        ("0932", 10, 10.1, 10, 10.1, 5),
        ("0935", 10.1, 10.1, 10.1, 10.1, 0),
        ("0936", 10.2, 10.2, 10.2, 10.2, 0),  # less than a lot
        ("0937", 10.2, 10.3, 10.2, 10.3, 1),
    )
    idle = (10.1, 10.1, 10.1, 10.1, 0, FLAG_NO_TRADE)
    assert rows_of(parse_tencent(body, "600396.SH", "1m", LATER)) == [
        ("09:32", 10, 10.1, 10, 10.1, 500, 0),
        ("09:33", *idle),
        ("09:34", *idle),
        ("09:35", *idle),
        ("09:36", 10.2, 10.2, 10.2, 10.2, 0, 0),
        ("09:37", 10.2, 10.3, 10.2, 10.3, 100, 0),
    ]


def test_a_day_that_is_over_is_filled_to_its_close_and_the_last_one_is_not() -> None:
    def at(day: str) -> list[Any]:
        rows = json.loads(tencent(("1455", 10, 10, 10, 10, 5), key="m5", day=day))
        return list(rows["data"]["sh600396"]["m5"])

    body = json.dumps({"data": {"sh600396": {"m5": at("2026-07-22") + at("2026-07-23")}}}).encode()
    got = [(row[0], row[-1]) for row in rows_of(parse_tencent(body, "600396.SH", "5m", LATER))]
    assert got == [("14:55", 0), ("15:00", FLAG_NO_TRADE), ("14:55", 0)]


def test_a_halted_day_has_no_bars() -> None:
    body = tencent(*((time, 10, 10, 10, 10, 0) for time in ("0931", "0932", "1500")))
    assert parse_tencent(body, "600396.SH", "1m", LATER).bars.num_rows == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["202607231131", "1", "1", "1", "1", "1", {}], "time"),
        (["202602301030", "1", "1", "1", "1", "1", {}], "time"),
        (["999999999999", "1", "1", "1", "1", "1", {}], "time"),
        ([None, "1", "1", "1", "1", "1", {}], "time"),
        (["202607231031", "1", "x", "1", "1", "1", {}], "number"),
        (["202607231031", "0", "0", "0", "0", "0", {}], "number"),
        (["202607231031", "1", "1", "1", "1", "-1", {}], "number"),
        (["202607231031", "1", "1", "1", "1", "nan", {}], "number"),
        (["202607231031", "1", "1", "0.9", "1", "1", {}], "range"),
        (["202607231030", "10", "10", "10", "10", "5.00", {}], "duplicate"),
        (["202607231031", "1"], "time"),
        ("202607231031", "time"),
        ({}, "time"),
    ],
)
def test_a_bad_row_is_counted_and_its_neighbours_live(row: Any, reason: str) -> None:
    body = json.loads(tencent(("1030", 10, 10, 10, 10, 5)))
    body["data"]["sh600396"]["m1"].append(row)
    parsed = parse_tencent(json.dumps(body).encode(), "600396.SH", "1m", LATER)
    assert parsed.dropped == {reason: 1}
    assert rows_of(parsed) == [("10:30", 10, 10, 10, 10, 500, 0)]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"<html>", b'{"code":-1,"msg":"","data":[]}', b"[" * 99_999, b'{"data":{"sh600396":{"m1":[]}}}'],
)
def test_what_has_no_rows_is_empty(body: bytes) -> None:
    for parse in (parse_tencent, parse_sina):
        parsed = parse(body, "600396.SH", "5m", LATER)
        assert (parsed.bars.num_rows, set(parsed.dropped) <= {"empty", "time"}) == (0, True)


@settings(max_examples=100, deadline=None, database=None)
@given(data=st.data())
def test_no_bytes_make_a_parser_raise_or_give_a_bar_that_cannot_be(data: st.DataObject) -> None:
    for body, parse in ((TENCENT, parse_tencent), (SINA, parse_sina)):
        broken = bytearray(body)
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(broken) - 1))
            match data.draw(st.sampled_from(("flip", "digit", "cut", "insert"))):
                case "flip":
                    broken[at] ^= data.draw(st.integers(1, 255))
                case "digit":
                    broken[at] = ord(data.draw(st.sampled_from("0123456789.-")))
                case "cut":
                    del broken[at : at + data.draw(st.integers(1, 30))]
                    broken = broken or bytearray(b"[")
                case "insert":
                    broken[at:at] = data.draw(st.binary(max_size=6))
        bars = parse(bytes(broken), "600396.SH", "5m", LATER).bars
        assert bars.validate(full=True) is None
        for row in bars.to_pylist():
            assert 0 < row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
            assert row["volume"] >= 0


def test_one_minute_bars_come_from_tencent_alone_and_longer_ones_from_both() -> None:
    assert [source.name for source in sources_of("1m")] == ["tencent_kline"]
    assert [source.name for source in sources_of("5m")] == ["sina_kline", "tencent_kline"]
    assert KLINES["tencent_kline"].most == 320
    assert KLINES["sina_kline"].path("600519.SH", "1d", 9).endswith("?symbol=sh600519&scale=240&ma=no&datalen=9")
    with pytest.raises(FrameError, match="no endpoint has bars of the frame '2m'"):
        sources_of("2m")


MARKET = SimulatedMarket(12, seed=3)
SESSIONS = MARKET.sessions[:2]
Answer = Callable[[str, str, int], tuple[int, bytes]]


def simulated_tencent(code: str, key: str, n: int) -> tuple[int, bytes]:
    """The newest n of the simulator's bars, without those that had no trade: the client fills them."""
    table = ordered(MARKET.bars({"m1": "1m", "m5": "5m"}[key], *SESSIONS))
    lot = 1 if board(code[2:] + "." + code[:2].upper()) == "star" else 100
    rows = []
    for row in table.filter(pa.compute.equal(table["symbol"], code[2:] + "." + code[:2].upper())).to_pylist():
        label = str(np.datetime64(int(row["bar_end"].timestamp()) + 8 * 3600, "s")).replace("T", "")
        if row["flags"] == 0:
            spelled = [f"{row[name]:.2f}" for name in ("open", "close", "high", "low")]
            rows.append([label.replace("-", "").replace(":", "")[:12], *spelled, f"{row['volume'] / lot:.2f}", {}, "0"])
    return 200, json.dumps({"code": 0, "msg": "", "data": {code: {key: rows[-n:]}}}).encode()


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[tuple[str, list[str]]]:
    """A server of Tencent's K-lines, and the symbols that it was asked for."""
    asked: list[str] = []

    open_: set[tuple[asyncio.Task[Any] | None, asyncio.StreamWriter]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add((asyncio.current_task(), writer))
        with suppress(ConnectionError):
            while head := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                code, key, _, n = head.split(b" ")[1].decode().partition("param=")[2].split(",")
                asked.append(code)
                status, body = answer(code, key, int(n))
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for task, writer in open_:
            writer.transport.abort()
            if task is not None:
                await task


def fetched(
    answer: Answer, frame: str = "5m", n: int | None = None, **about: Any
) -> tuple[list[Backfilled], list[str]]:
    async def work() -> tuple[list[Backfilled], list[str]]:
        async with endpoint(answer) as (url, asked):
            client = KLineClient(KLINES["tencent_kline"], url=url, clock=lambda: LATER, timeout_s=5)
            return [part async for part in client.bars(MARKET.symbols, frame, n, **about)], asked

    return asyncio.run(work())


def test_backfilled_bars_are_the_simulators_own() -> None:
    parts, asked = fetched(simulated_tencent, batch=5)
    assert sorted(asked) == sorted(map(sina_code, MARKET.symbols))
    assert [part.dropped for part in parts if part.dropped] in ([], [{"empty": 1}])
    got = ordered(pa.concat_tables([part.bars for part in parts]))
    wanted = ordered(MARKET.bars("5m", *SESSIONS))
    # Neither amount nor reference price is in the payload; what ended flat after the last trade of all cannot be known.
    common = ["symbol", "bar_start", "bar_end", "open", "high", "low", "close", "volume", "flags", "revision"]
    keys = set(zip(got["symbol"].to_pylist(), got["bar_end"].to_pylist(), strict=True))
    mask = [key in keys for key in zip(wanted["symbol"].to_pylist(), wanted["bar_end"].to_pylist(), strict=True)]
    assert sum(mask) >= 0.99 * wanted.num_rows
    assert got.select(common).equals(wanted.filter(pa.array(mask)).select(common))
    without = {symbol for part in parts for symbol in part.missing}
    assert without == set(MARKET.symbols) - set(wanted["symbol"].to_pylist())


def test_a_request_that_fails_costs_its_symbol_alone() -> None:
    bad = sina_code(MARKET.symbols[4])
    parts, _ = fetched(lambda code, *rest: (500, b"") if code == bad else simulated_tencent(code, *rest), n=10)
    (part,) = parts
    assert MARKET.symbols[4] in part.missing
    assert part.dropped["http_500"] == 1
    assert MARKET.symbols[5] in part.bars["symbol"].to_pylist()


def test_request_after_request_that_fails_ends_it() -> None:
    with pytest.raises(FeedError, match=r"tencent_kline is lost \(http_500\)"):
        fetched(lambda *_: (500, b""))


def test_a_ban_ends_it() -> None:
    with pytest.raises(BannedError, match="tencent_kline has banned"):
        fetched(lambda *_: (403, b""))


def test_nothing_but_empty_answers_are_a_ban() -> None:
    async def work() -> None:
        async with endpoint(lambda *_: (200, b'{"code":0,"data":[]}')) as (url, _):
            client = KLineClient(KLINES["tencent_kline"], url=url)
            async for _ in client.bars(MARKET.symbols * 2, "1m"):
                pass

    with pytest.raises(BannedError, match="20 times in a row without a bar"):
        asyncio.run(work())


def test_what_an_endpoint_does_not_have() -> None:
    async def first(frame: str, n: int) -> None:
        await anext(KLineClient(KLINES["tencent_kline"]).bars(["600519.SH"], frame, n))

    with pytest.raises(FrameError, match="tencent_kline has bars of 1m, 5m, 15m, 30m, 60m; got '1d'"):
        asyncio.run(first("1d", 1))
    with pytest.raises(UsageError, match="gives 1 to 320 bars a request; got n=321"):
        asyncio.run(first("1m", 321))

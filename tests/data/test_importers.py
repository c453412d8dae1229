"""Vendors' files into a store: every shape, every reason of refusal, and files that are broken."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.errors import StoreError, UsageError

CLOSE = {day: int(np.datetime64(f"{day}T07:00", "ns").astype(np.int64)) for day in ("2025-05-22", "2025-05-23")}
# symbol, day, open, high, low, close, shares, CNY
BARS = (
    ("600000.SH", "2025-05-22", 12.22, 12.53, 12.19, 12.43, 63895089, 792331667),
    ("600000.SH", "2025-05-23", 12.39, 12.48, 12.22, 12.23, 57961597, 712934903),
)


def lines(header: str, rows: Sequence[Sequence[Any]], form: str, end: str = "\n") -> str:
    return header + end + "".join(form.format(*row) + end for row in rows)


PLAIN = "{1},{2},{3},{4},{5},{6},{7}"
COMPACT = [(symbol, day.replace("-", ""), *rest) for symbol, day, *rest in BARS]
EXPECTED = [(symbol, CLOSE[day], *map(float, rest)) for symbol, day, *rest in BARS]
CHINESE = "日期,开盘价,最高价,最低价,收盘价,成交量,成交额"
ENGLISH = "date,open,high,low,close,volume,amount"


def _tushare(row: Sequence[Any]) -> str:
    symbol, day, open_, high, low, close, shares, cny = row
    return f"{symbol},{day},{open_},{high},{low},{close},12.0,0.1,0.2,{shares / 100},{cny / 1000}\n"


SHAPES: Mapping[str, tuple[str, str, str]] = {
    "as published": ("600000.csv", lines(CHINESE, COMPACT, PLAIN), "utf-8"),
    "gbk, slashes": ("sh600000.csv", lines(CHINESE, BARS, PLAIN, "\r\n").replace("-", "/"), "gbk"),
    "byte order mark": ("600000.SH.csv", lines(ENGLISH, BARS, PLAIN), "utf-8-sig"),
    "utf-16, tabs": ("600000.XSHG.tsv", lines(ENGLISH, BARS, PLAIN).replace(",", "\t"), "utf-16"),
    "one big file": ("all.csv", lines("symbol," + ENGLISH, BARS, "{0}," + PLAIN), "utf-8"),
    "quoted, with thousands": (
        "600000.csv",
        lines(ENGLISH, BARS, '"{1}","{2}","{3}","{4}","{5}","{6:,}","{7:,}"'),
        "utf-8",
    ),
    "baostock": (
        "daily.csv",
        lines(
            "date,code,open,high,low,close,preclose,volume,amount",
            BARS,
            "{1},sh.600000,{2},{3},{4},{5},,{6},{7}",
        ),
        "utf-8",
    ),
    "tushare: lots and thousands": (
        "daily.csv",
        "ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount\n"
        + "".join(map(_tushare, COMPACT)),
        "utf-8",
    ),
    "pandas' nameless index": ("600000.csv", lines(",open,high,low,close,volume,money", BARS, PLAIN), "utf-8"),
    "time of the close": ("600000.csv", lines(ENGLISH, BARS, "{1} 15:00:00,{2},{3},{4},{5},{6},{7}"), "utf-8"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_bars(importing: Any, shape: str) -> None:
    importing.file(*SHAPES[shape])
    report = importing()
    assert (report.files, report.read, report.stored, report.symbols) == (1, 2, 2, 1)
    assert report.rejects is None
    assert importing.bars() == EXPECTED


def test_one_file_a_day_gives_names_and_the_day(importing: Any) -> None:
    header = "证券代码,证券简称,开盘价,最高价,最低价,收盘价,成交量,成交额"
    for day, name in (("20250522", "浦发银行"), ("20250523", "ST浦发")):
        rows = [bar for bar in COMPACT if bar[1] == day]
        importing.file(f"{day}.csv", lines(header, rows, f"600000,{name},{{2}},{{3}},{{4}},{{5}},{{6}},{{7}}") + "\n")
    report = importing()
    assert (report.read, report.stored) == (2, 2)
    assert importing.bars() == EXPECTED
    assert importing.store.names() == {"600000.SH": ("ST浦发", "2025-05-23")}
    assert importing.store.names(upto=CLOSE["2025-05-22"]) == {"600000.SH": ("浦发银行", "2025-05-22")}


def test_names_that_change_are_known_day_by_day(importing: Any) -> None:
    names = ["A", "A", "B", "B", "A"]
    days = ["2025-05-19", "2025-05-20", "2025-05-21", "2025-05-22", "2025-05-23"]
    rows = "".join(f"600000,{name},{day},10,10,10,10,100,1000\n" for day, name in zip(days, names, strict=True))
    importing.file("all.csv", "code,name,date,open,high,low,close,volume,amount\n" + rows)
    importing()
    seen = []
    for day in days:
        upto = int(np.datetime64(f"{day}T07:00", "ns").astype(np.int64))
        seen.append(importing.store.names(upto=upto)["600000.SH"][0])
    assert seen == names


@pytest.mark.parametrize("dates", ["date32", "timestamp", "in UTC", "in Shanghai", "text", "number"])
def test_parquet_with_a_symbol_column(importing: Any, dates: str) -> None:
    days = np.array([bar[1] for bar in BARS], dtype="datetime64[D]")
    column = {
        "date32": pa.array(days),
        "timestamp": pa.array(days.astype("datetime64[us]")),
        "in UTC": pa.array(days.astype("datetime64[ms]")).cast(pa.timestamp("ms", "UTC")),
        "in Shanghai": pc.assume_timezone(pa.array(days.astype("datetime64[us]")), "Asia/Shanghai"),
        "text": pa.array([str(day) for day in days]),
        "number": pa.array([int(bar[1]) for bar in COMPACT]),
    }[dates]
    values = {name: [bar[place] for bar in BARS] for place, name in enumerate(ENGLISH.split(",")[1:], start=2)}
    table = pa.table({"symbol": pa.array(["600000"] * 2).dictionary_encode(), "date": column, **values})
    path = importing.file("all.parquet", "")
    pq.write_table(table, path)
    assert importing().stored == 2
    assert importing.bars() == EXPECTED


def test_tongdaxins_export_with_its_title_and_its_last_line(importing: Any) -> None:
    table = lines(
        "      日期\t    开盘\t    最高\t    最低\t    收盘\t    成交量\t    成交额", BARS, PLAIN.replace(",", "\t")
    )
    text = "600000 浦发银行 日线 不复权\n" + table.replace("-", "/") + "数据来源:通达信\n"
    importing.file("SH#600000.txt", text, "gbk")
    report = importing()
    assert (report.read, report.stored, report.refused) == (3, 2, {"unreadable": 1})
    assert importing.bars() == EXPECTED
    (row,) = importing.rejects(report)
    assert (row["line"], row["text"]) == ("5", "数据来源:通达信")


REFUSED = {
    "unreadable": "600000,2025-05-2x,10,11,9,10,1000,10000",
    "unknown symbol": "123456,2025-05-23,10,11,9,10,1000,10000",
    "not a session": "600000,2025-05-24,10,11,9,10,1000,10000",
    "future": "600000,2025-07-01,10,11,9,10,1000,10000",
    "no trade": "600000,2025-05-23,0,0,0,10,0,0",
    "non-finite or non-positive price": "600000,2025-05-23,10,11,0,10,1000,10000",
    "inconsistent open/high/low/close": "600000,2025-05-23,10,9.5,9,10,1000,10000",
    "negative volume or amount": "600000,2025-05-23,10,11,9,10,-1000,10000",
    "units": "600000,2025-05-23,10,11,9,10,1000,20000",
    "conflicting duplicate": "600000,2025-05-22,10,11,9,10.5,1000,10000",
}
SYMBOL_FIRST = "code," + ENGLISH
GOOD = "600000,2025-05-22,10,11,9,10,1000,10000"


@pytest.mark.parametrize("reason", REFUSED)
def test_each_reason_of_refusal_is_counted_and_listed_and_costs_nothing_else(importing: Any, reason: str) -> None:
    path = importing.file("all.csv", "\n".join([SYMBOL_FIRST, GOOD, REFUSED[reason], ""]))
    report = importing()
    assert (report.read, report.stored, report.refused) == (2, 1, {reason: 1})
    (row,) = importing.rejects(report)
    assert (row["file"], row["line"], row["reason"]) == (str(path), "3", reason)
    assert row["symbol"] == REFUSED[reason].split(",")[0]
    if reason == "unreadable":
        assert row["text"] == REFUSED[reason]
    else:
        assert row["date"] == REFUSED[reason].split(",")[1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("xyz,2025-13-13,0,0,0,0,-1,-1", "unreadable"),
        ("600000,2025-05-23,10,11,9,ten,1000,10000", "unreadable"),
        ("600000,2025-05-23,10,11,9,10,inf,10000", "unreadable"),
        ("600000,2025-05-23,10,11,9", "unreadable"),
        ("600000,2025-05-23,10,11,9,10,1000,10000,7", "unreadable"),
        (",,,,,,,", "unreadable"),
        ("xyz,2025-05-24,0,0,0,0,-1,-1", "unknown symbol"),
        ("600000,2025-05-24,0,0,0,0,0,-1", "not a session"),
        ("600000,1980-01-02,0,0,0,0,0,-1", "not a session"),
        ("600000,2025-07-05,0,0,0,0,0,-1", "not a session"),
        ("600000,2030-05-24,0,0,0,0,0,-1", "future"),
        ("600000,2025-05-23,0,0,0,0,0,-1", "no trade"),
        ("600000,2025-05-23,10,10,10,10,,", "no trade"),
        ("600000,2025-05-23,-,-,-,10,--,停牌", "no trade"),
        ("600000,2025-05-23,,11,9,10,1000,10000", "non-finite or non-positive price"),
        ("600000,2025-05-23,10,inf,9,10,1000,10000", "non-finite or non-positive price"),
        ("600000,2025-05-23,-1,11,12,10,-1,10000", "non-finite or non-positive price"),
        ("600000,2025-05-23,10,9,8,10,-1,10000", "inconsistent open/high/low/close"),
        ("600000,2025-05-23,10,11,9,12,1000,10000", "inconsistent open/high/low/close"),
        ("600000,2025-05-23,8,11,9,10,1000,10000", "inconsistent open/high/low/close"),
        ("600000,2025-05-23,10,11,9,8,1000,10000", "inconsistent open/high/low/close"),
        ("600000,2025-05-23,10,11,9,10,1000,-1", "negative volume or amount"),
        ("600000,2025-05-23,10,11,9,10,1000,0", "units"),
    ],
)
def test_the_first_of_several_reasons_counts(importing: Any, row: str, reason: str) -> None:
    importing.file("all.csv", "\n".join([SYMBOL_FIRST, row, GOOD]))
    assert importing().refused == {reason: 1}
    assert len(importing.bars()) == 1


def test_a_bar_of_today_is_future_until_the_close(importing: Any) -> None:
    importing.file("600000.csv", lines(ENGLISH, BARS, PLAIN))
    assert importing(now=CLOSE["2025-05-23"] - 1).refused == {"future": 1}
    assert importing(now=CLOSE["2025-05-23"]).stored == 1


def test_blank_lines_are_no_rows_and_lines_keep_their_numbers(importing: Any) -> None:
    importing.file(
        "20250523.csv", "\n".join(["code,open,high,low,close,volume", "", "600000,1,1,1,1,1", " ", "x,1", ""])
    )
    report = importing()
    assert (report.read, report.stored, report.refused) == (2, 1, {"unreadable": 1})
    assert importing.rejects(report)[0]["line"] == "5"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("notes.csv", b"", "empty"),
        ("notes.csv", b"nothing here\nat all\n", "no table"),
        ("600000.csv", b"date,open\n2025-05-23,1\n", "no column for high, low, close, volume"),
        ("x.parquet", b"PAR1" + b"\0" * 100, "[Pp]arquet|[Tt]hrift|magic|metadata"),
        ("600000.csv", bytes(range(256)) * 4, "no "),
        ("600000_qfq.csv", lines(ENGLISH, BARS, PLAIN).encode(), "--adjusted qfq"),
    ],
)
def test_a_file_that_holds_no_bars_is_one_row_refused_that_says_why(
    importing: Any, name: str, data: bytes, why: str
) -> None:
    importing.file("600004.csv", lines(ENGLISH, BARS, PLAIN))
    importing.file(name, "").write_bytes(data)
    report = importing()
    assert (report.files, report.read, report.stored, report.refused) == (2, 3, 2, {"unreadable": 1})
    (row,) = importing.rejects(report)
    assert (Path(row["file"]).name, row["line"]) == (name, "0")
    assert re.search(why, row["text"]), row["text"]


def test_a_path_that_is_not_there_is_an_error_before_anything_is_stored(importing: Any) -> None:
    path = importing.file("600000.csv", lines(ENGLISH, BARS, PLAIN))
    with pytest.raises(UsageError, match="there is nothing at"):
        importing(path, path.with_name("none.csv"))
    (importing.folder / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file that ends in"):
        importing(importing.folder / "empty")
    assert importing.bars() == []


DAYS = ("2025-05-19", "2025-05-20", "2025-05-21", "2025-05-22")


def test_minute_bars_keep_quiet_minutes_between_trades_alone(importing: Any) -> None:
    rows = [("09:31", 0), ("09:32", 100), ("09:33", 0), ("15:00", 100), ("11:45", 100)]
    text = "".join(f"2025-05-23 {at}:00,10,10,10,10,{volume},{volume * 10}\n" for at, volume in rows)
    text += "2025-05-22 10:00:00,10,10,10,10,0,0\n"
    importing.file("600000.csv", "datetime,open,high,low,close,volume,amount\n" + text)
    report = importing()
    assert (report.stored, report.refused) == (3, {"not a session": 1, "no trade": 2})
    table = importing.store.table("1m")
    assert table["flags"].to_pylist() == [0, 1, 0]
    starts = table["bar_end"].cast(pa.int64()).to_numpy() - table["bar_start"].cast(pa.int64()).to_numpy()
    assert (starts == 60 * 10**9).all()


def test_many_small_files_become_one_file_a_month(importing: Any) -> None:
    for code in range(600000, 600030):
        rows = "".join(f"{day},10,10,10,10,1000,10000\n" for day in ("2025-04-30", *DAYS))
        importing.file(f"{code}.csv", ENGLISH + "\n" + rows)
    assert importing().stored == 150
    assert len(importing.store.files("1d")) == 2


def test_a_disk_that_refuses_is_an_error_with_the_remedy_and_the_same_import_completes_it(
    importing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing.file(
        "600000.csv", "\n".join([ENGLISH, *(f"{day},10,10,10,10,1000,10000" for day in ("2025-04-30", *DAYS))])
    )
    append = importing.store.append
    written = []

    def full(*arguments: Any, **options: Any) -> Any:
        if written:
            raise OSError(28, "No space left on device")
        written.append(append(*arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(importing.store, "append", full)
        with pytest.raises(StoreError, match=r"No space left on device.*run the same import again"):
            importing()
    assert len(importing.bars()) == 1
    report = importing()
    assert (report.stored, report.duplicates) == (4, 1)


@pytest.mark.parametrize(
    ("row", "cost"),
    [
        ('"2025-05-23,10,11,9,10,1000,10000', 1),  # its quote has no other half
        ('"2025-05-\n23",10,11,9,10,1000,10000', 2),
        ("date,open,high,low,close,volume,amount", 1),
        ("2025-05-23,10\0,11,9,10,1000,10000", 1),
        ("x" * 100_000, 1),
    ],
)
@pytest.mark.parametrize("block_bytes", [1 << 26, 200_000])
def test_a_bad_line_costs_itself_alone_and_is_listed_with_its_number(
    importing: Any, row: str, cost: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.csv_table._BLOCK_BYTES", block_bytes)
    good = [f"{day},10,11,9,10,1000,10000" for day in DAYS]
    importing.file("600000.csv", "\n".join([ENGLISH, *good * 3000, row, *good]))
    report = importing()
    assert (report.stored, report.duplicates, report.refused) == (4, 12_000, {"unreadable": cost})
    listed = [(r["line"], r["text"]) for r in importing.rejects(report)]
    assert listed == [(str(12_002 + n), part[:500]) for n, part in enumerate(row.split("\n"))]


def test_parquet_as_pandas_writes_it_with_a_nameless_index(importing: Any) -> None:
    days = pa.array(np.array([bar[1] for bar in BARS], dtype="datetime64[ns]"))
    values = {name: [bar[place] for bar in BARS] for place, name in enumerate(ENGLISH.split(",")[1:], start=2)}
    pq.write_table(pa.table(values | {"__index_level_0__": days}), importing.file("600000.parquet", ""))
    assert importing().stored == 2
    assert importing.bars() == EXPECTED


def test_a_damaged_parquet_file_costs_nothing_else(importing: Any) -> None:
    importing.file("600004.csv", lines(ENGLISH, BARS, PLAIN))
    path = importing.file("all.parquet", "")
    columns = {"symbol": ["600000"] * 2} | {"date": [bar[1] for bar in BARS]}
    columns |= {name: [bar[place] for bar in BARS] for place, name in enumerate(ENGLISH.split(",")[1:], start=2)}
    pq.write_table(pa.table(columns), path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(3)
    data[chunk.dictionary_page_offset + chunk.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    report = importing()
    assert (report.read, report.stored, report.refused) == (3, 2, {"unreadable": 1})
    assert importing.rejects(report)[0]["file"] == str(path)


def test_a_header_without_rows_is_a_file_of_no_rows(importing: Any) -> None:
    importing.file("600000.csv", ENGLISH)
    importing.file("600004.csv", ENGLISH + "\r\n\r\n")
    report = importing()
    assert (report.files, report.read, report.rejects) == (2, 0, None)


def test_the_real_markets_files_add_up_and_agree_with_its_parquet(market: Path, importing: Any) -> None:
    report = importing(market / "csv", market / "daily_csv")
    assert (report.files, report.read) == (62, 43_509)
    assert set(report.refused) == {"no trade", "units"}
    assert report.symbols > 5_000
    names = ["symbol", "date", "open", "high", "low", "close"]
    wanted = pq.read_table(market / "ashare_daily_2020_2025.parquet", columns=names)
    bars = importing.store.table("1d")
    days = bars["bar_end"].cast(pa.timestamp("ns")).cast(pa.date32(), safe=False)
    bars = bars.select(names[2:]).append_column("date", days).append_column("symbol", bars["symbol"].cast(pa.string()))
    both = bars.join(wanted, ["symbol", "date"], join_type="inner", left_suffix="_stored")
    assert both.num_rows == report.stored
    for name in names[2:]:
        assert both[name].equals(both[f"{name}_stored"])
    assert importing.store.names()["600000.SH"] == ("浦发银行", "2025-05-23")

"""Shapes of vendors' files: column names, file names, dates, encodings, labels."""

from pathlib import PurePath

import numpy as np
import pytest

from data.recognise import (
    NO_MOMENT,
    UnrecognisedError,
    basis_in,
    clock,
    day_in_name,
    decode,
    frame_of,
    moment,
    shape_of,
    symbol_in_name,
    symbol_texts,
)

HEADERS = {
    "published": "日期,开盘价,最高价,最低价,收盘价,成交量,成交额",
    "one a day": "证券代码,证券简称,开盘价,最高价,最低价,收盘价,成交量,成交额",
    "akshare": "日期,股票代码,开盘,收盘,最高,最低,成交量,成交额,振幅,涨跌幅,涨跌额,换手率",
    "akshare spot": "序号,代码,名称,最新价,涨跌幅,涨跌额,成交量,成交额,振幅,最高,最低,今开,昨收",
    "tushare": "ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount",
    "baostock": "date,code,open,high,low,close,preclose,volume,amount,adjustflag,turn,tradestatus,pctChg,isST",
    "joinquant": ",open,close,high,low,volume,money",
    "ricequant": "order_book_id,date,open,close,high,low,total_turnover,volume,prev_close",
    "tongdaxin": "      日期,    开盘,    最高,    最低,    收盘,    成交量,    成交额",
    "units in brackets": "交易日期,证券代码,开盘价(元),最高价(元),最低价(元),收盘价(元),成交量(股),成交额(元)",
    "capitals": "Date,Symbol,Open,High,Low,Close,Volume",
}


@pytest.mark.parametrize("vendor", HEADERS)
def test_the_columns_of_every_vendor_are_found_by_name(vendor: str) -> None:
    names = HEADERS[vendor].split(",")
    shape = shape_of(names, PurePath("sh600000_20250523.csv"))
    assert {"open", "high", "low", "close", "volume"} <= set(shape.columns)
    assert "开" in names[shape.columns["open"]] or "open" in names[shape.columns["open"]].lower()
    assert shape.columns["close"] != shape.columns["open"]
    assert ("symbol" in shape.columns) != (shape.symbol == "sh600000")
    if vendor not in ("joinquant",):
        assert ("date" in shape.columns) != (shape.day == "20250523")


def test_previous_close_and_name_are_found() -> None:
    spot = HEADERS["akshare spot"].split(",")
    shape = shape_of(spot, PurePath("2025-05-23.csv"))
    assert (spot[shape.columns["prev_close"]], spot[shape.columns["name"]]) == ("昨收", "名称")
    assert spot[shape.columns["close"]] == "最新价"


def test_an_index_without_a_name_is_the_date_where_nothing_else_says_it() -> None:
    shape = shape_of(HEADERS["joinquant"].split(","), PurePath("600000.csv"))
    assert shape.columns["date"] == 0
    shape = shape_of(["", "date", "open", "high", "low", "close", "volume"], PurePath("600000.csv"))
    assert shape.columns["date"] == 1


@pytest.mark.parametrize(
    ("names", "file", "lack"),
    [
        ("date,open,high,low,volume", "600000.csv", "no column for close"),
        ("date,open,high,low,close,volume", "prices.csv", "neither a column nor the file's name says the symbol"),
        ("code,open,high,low,close,volume", "prices.csv", "neither a column nor the file's name says the date"),
        ("a,b,c", "600000.csv", "no column for open, high, low, close, volume among: a, b, c"),
    ],
)
def test_what_a_file_lacks_is_said(names: str, file: str, lack: str) -> None:
    with pytest.raises(UnrecognisedError, match=lack):
        shape_of(names.split(","), PurePath(file))


@pytest.mark.parametrize(
    ("file", "symbol"),
    [
        ("000001.csv", "000001"),
        ("sh600000.csv", "sh600000"),
        ("SH#600000.txt", "SH600000"),
        ("sz_000001.csv", "sz000001"),
        ("600000.SH.csv", "600000.SH"),
        ("600000.XSHG.parquet", "600000.XSHG"),
        ("600000_daily.csv", "600000"),
        ("平安银行_000001.csv", "000001"),
        ("20250523.csv", None),
        ("202505.csv", "202505"),
        ("daily.csv", None),
        ("x1234567.csv", None),
    ],
)
def test_the_symbol_in_a_files_name(file: str, symbol: str | None) -> None:
    assert symbol_in_name(PurePath(file)) == symbol


@pytest.mark.parametrize(
    ("file", "day"),
    [
        ("20250523.csv", "20250523"),
        ("2025-05-23.csv", "2025-05-23"),
        ("daily_2025_05_23.csv", "2025-05-23"),
        ("000001.csv", None),
        ("120250523.csv", None),
    ],
)
def test_the_date_in_a_files_name(file: str, day: str | None) -> None:
    assert day_in_name(PurePath(file)) == day


DAY = int(np.datetime64("2025-05-03", "ns").astype(np.int64))
HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, DAY) for text in ("20250503", "2025-05-03", "2025/05/03", "2025/5/3", "2025.05.03", "2025年5月3日")),
        *((text, DAY) for text in ("2025-05-03 00:00:00", "2025-05-03T00:00:00", " 20250503 ", "20250503.0")),
        *((text, DAY + 10 * HOUR) for text in ("2025-05-03 10:00", "2025-05-03 10:00:00.000", "20250503100000")),
        *((text, DAY + 10 * HOUR) for text in ("202505031000", "20250503100000000", "2025-05-03T10:00:00+08:00")),
        *((text, NO_MOMENT) for text in ("", "x", "2025", "2025-02-30", "20251301", "2025-5", "1746230400000")),
        *((text, NO_MOMENT) for text in ("9999-12-31", "2025-05-03 25:00", "20250503 extra", "03/05/2025")),
    ],
)
def test_dates_in_every_spelling(text: str, expected: int) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize("text", ["09:35", "0935", "935", "9:35:00", "93500", "093500", "20250503093500000"])
def test_times_of_day_in_every_spelling(text: str) -> None:
    assert clock(text) == 9 * HOUR + 35 * HOUR // 60


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_text_in_every_encoding(encoding: str) -> None:
    text = "日期,开盘价\n20250523,1.0\n"
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_a_text_cut_in_mid_character_loses_that_character_alone(encoding: str) -> None:
    data = "证券代码,证券简称,开盘价,最高价\n600000,浦发银行".encode(encoding)[:-1]
    assert decode(data).startswith("证券代码,证券简称,开盘价,最高价\n600000,浦发银")


def test_codes_lose_spreadsheets_quotes_and_get_lost_zeros_back() -> None:
    assert symbol_texts(['="000001"', "'600000", " sh600000 "]) == ["000001", "600000", "sh600000"]
    assert symbol_texts(["1", "600000", "2594", None]) == ["000001", "600000", "002594", ""]
    # Codes of five digits alone are another market's, and codes that are all short tell of nothing.
    assert symbol_texts(["00700", "09988"]) == ["00700", "09988"]
    assert symbol_texts(["1", "sh600000"]) == ["1", "sh600000"]


def test_the_basis_a_name_or_title_speaks_of() -> None:
    assert basis_in("000001_qfq.csv") == basis_in("000001 平安银行 日线 前复权") == "qfq"
    assert basis_in("000001 日线 后复权") == "hfq"
    assert basis_in("000001 日线 不复权") is basis_in("000001.csv") is None


def _labels(*clocks: str) -> np.ndarray:
    return np.array([DAY + clock(text) for text in clocks])


@pytest.mark.parametrize(
    ("clocks", "frame"),
    [
        (("00:00",), "1d"),
        (("15:00",), "1d"),
        (("00:00", "15:00"), "1d"),
        (("08:00",), "1d"),
        (("09:31", "09:32", "15:00"), "1m"),
        (("09:30", "09:31", "15:00"), "1m"),
        (("09:35", "09:40", "11:30", "13:05", "15:00"), "5m"),
        (("09:45", "15:00"), "15m"),
        (("10:00", "11:30", "13:30", "15:00"), "30m"),
        (("10:30", "11:30", "14:00", "15:00"), "60m"),
        ((), "1d"),
    ],
)
def test_the_frame_is_told_by_the_labels(clocks: tuple[str, ...], frame: str) -> None:
    assert frame_of(_labels(*clocks)) == frame


@pytest.mark.parametrize("clocks", [("09:30", "09:31", "14:59"), ("09:30", "13:00", "15:00"), ("09:31", "09:32")])
def test_minutes_labelled_by_their_start_or_not_telling_are_refused(clocks: tuple[str, ...]) -> None:
    with pytest.raises(UnrecognisedError, match="labelled by their end"):
        frame_of(_labels(*clocks))

"""What shape a vendor's file has, from its column names, its file name and its values; nothing is configured.

    000001.csv, sh600000.csv, SH#600000.txt     one file a symbol: the symbol is in the file's name
    20250523.csv, daily_2025-05-23.csv          one file a day: the date is in the file's name
    anything else                               has a column for each

A column in the file stands above the file's name. Dates are 20250523, 2025-05-23, 2025/5/23, 2025.05.23 or
2025年5月23日; where bars are shorter than a day, with a time or a column of it. A time without a zone is Shanghai's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from data.errors import MarketDataError

VALUES = ("open", "high", "low", "close", "volume", "amount", "prev_close")
REQUIRED = VALUES[:5]
NO_MOMENT = np.iinfo(np.int64).min
"""Stands where a moment could not be read."""

_MINUTE = 60 * 10**9
_DAY = 86400 * 10**9
FIRST_MOMENT, LAST_MOMENT = (int(np.datetime64(year, "D").astype(np.int64)) * _DAY for year in ("1900", "2200"))
"""What lies before or not before these is a slip of the pen, and no number of ns holds the year 9999."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "symbol": (
        *("symbol", "ts_code", "code", "stock_code", "order_book_id", "thscode", "wind_code", "ticker", "instrument"),
        *("证券代码", "股票代码", "代码"),
    ),
    "date": (
        *("date", "trade_date", "trading_date", "tradedate", "datetime", "bar_end", "trade_time", "timestamp", "day"),
        *("日期", "交易日期", "交易日", "日期时间"),
    ),
    "time": ("time", "时间", "交易时间"),
    "name": (
        "name",
        "stock_name",
        "code_name",
        "display_name",
        "证券简称",
        "股票简称",
        "证券名称",
        "股票名称",
        "名称",
        "简称",
    ),
    "open": ("open", "open_price", "开盘价", "开盘", "今开", "今开盘"),
    "high": ("high", "high_price", "最高价", "最高"),
    "low": ("low", "low_price", "最低价", "最低"),
    "close": ("close", "close_price", "收盘价", "收盘", "最新价"),
    "volume": ("volume", "vol", "成交量", "成交股数"),
    "amount": ("amount", "money", "total_turnover", "成交额", "成交金额"),
    "prev_close": ("prev_close", "pre_close", "preclose", "昨收价", "昨收", "前收盘价", "前收盘", "前收", "昨日收盘"),
}
"""What a column is -> how vendors head it, the likelier first: akshare, tushare, baostock, JoinQuant, RiceQuant,
TongDaXin, and plain English or Chinese."""
_UNNAMED = ("", "index", "unnamed: 0", "__index_level_0__", "level_0")


class UnrecognisedError(MarketDataError):
    """A file that holds no bars in any shape known here; the message says what it lacks."""


@dataclass(frozen=True)
class Shape:
    """Where a file keeps what: role -> place of its column, and what its name says instead."""

    columns: Mapping[str, int]
    symbol: str | None
    """The symbol in the file's name, where no column has it."""
    day: str | None
    """The date in the file's name, where no column has it."""


def shape_of(names: Sequence[str], path: PurePath) -> Shape:
    """The shape of a file with these column names. Raises UnrecognisedError saying what is missing."""
    plain = [_plain(name) for name in names]
    columns: dict[str, int] = {}
    for role, spellings in NAMES.items():
        place = next((plain.index(spelling) for spelling in spellings if spelling in plain), None)
        if place is not None:
            columns[role] = place
    if "date" not in columns and "time" in columns:
        columns["date"] = columns.pop("time")
    missing = [role for role in REQUIRED if role not in columns]
    if missing:
        raise UnrecognisedError(f"no column for {', '.join(missing)} among: {', '.join(names)[:200]}")
    symbol = None if "symbol" in columns else symbol_in_name(path)
    day = None if "date" in columns else day_in_name(path)
    if "date" not in columns and day is None:
        # An index that pandas wrote without a name: first in a CSV file, last in a Parquet file.
        columns |= dict([("date", place) for place, name in enumerate(plain) if name in _UNNAMED][-1:])
    if "symbol" not in columns and symbol is None:
        raise UnrecognisedError(f"neither a column nor the file's name says the symbol: {', '.join(names)[:200]}")
    if "date" not in columns and day is None:
        raise UnrecognisedError(f"neither a column nor the file's name says the date: {', '.join(names)[:200]}")
    return Shape(columns, symbol, day)


def symbol_in_name(path: PurePath) -> str | None:
    """The symbol as the file's name spells it: 000001, sh600000, 600000.SH, SH#600000; None where there is none."""
    found = re.search(
        r"(?<![A-Za-z0-9])(?:(sh|sz|bj)[#._-]?)?(\d{6})(\.(?:sh|sz|bj|ss|xshg|xshe|xbse))?(?![A-Za-z0-9])",
        _stem(path),
        re.IGNORECASE,
    )
    return None if found is None else f"{found[1] or ''}{found[2]}{found[3] or ''}"


def day_in_name(path: PurePath) -> str | None:
    """The date in the file's name, as it stands there; None where there is none."""
    found = re.search(r"(?<!\d)(?:19|20)\d{2}([-_.]?)\d{2}\1\d{2}(?!\d)", _stem(path))
    return None if found is None else found[0].replace("_", "-")


def basis_in(text: str) -> str | None:
    """The adjustment that a file's name or title speaks of: qfq, hfq, or None."""
    found = re.search(r"qfq|hfq|前复权|后复权", text.lower())
    return None if found is None else {"前复权": "qfq", "后复权": "hfq"}.get(found[0], found[0])


def decode(data: bytes) -> str:
    """A vendor's text: UTF-8 with or without a byte order mark, UTF-16 with one, else GB18030 (which GBK is part of).

    Bytes that are no text in any of them become U+FFFD, so that a file cut in mid-character loses one row and no more.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        readings = [data.decode(encoding, errors="replace") for encoding in ("gb18030", "utf-8-sig")]
        return min(readings, key=lambda text: text.count("\ufffd"))


def moment(text: str) -> int:
    """A date, with or without a time of day -> ns since 1970 on Shanghai's clock; NO_MOMENT where it is none."""
    found = _MOMENT.match(text)
    if found is None:
        return NO_MOMENT
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        date = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D")
    except ValueError:
        return NO_MOMENT
    if hour > 23 or minute > 59 or second > 59 or not 1900 <= year < 2200:
        return NO_MOMENT
    return int(date.astype(np.int64)) * _DAY + ((hour * 60 + minute) * 60 + second) * 10**9


def clock(text: str) -> int:
    """A time of day (09:35, 0935, 93500, 09:35:00) or a whole moment -> ns since midnight, or NO_MOMENT."""
    found = _CLOCK.match(text)
    if found is None:
        whole = moment(text)
        return whole if whole == NO_MOMENT else whole % _DAY
    hour, minute, second = (int(part or 0) for part in found.groups())
    if hour > 23 or minute > 59 or second > 59:
        return NO_MOMENT
    return ((hour * 60 + minute) * 60 + second) * 10**9


_MOMENT = re.compile(
    r"\s*(\d{4})(?:[-/.年]|(?=\d{4}(?:\D|$|\d{4})))(\d{1,2})(?:[-/.月]|(?=\d{2}))(\d{1,2})日?(?:\.0)?"
    r"(?:[T\s]*(\d{2}):?(\d{2})(?::?(\d{2})(?:\.?0*)?)?(?:\+08:?00)?)?\s*$"
)
_CLOCK = re.compile(r"\s*(\d{1,2}):?(\d{2})(?::?(\d{2}))?\s*$")


def symbol_texts(texts: Iterable[str | None]) -> list[str]:
    """Codes as they stand in a column -> codes: spreadsheets' quotes go, and lost leading zeros come back.

    Zeros were lost where every code is a number and some have six digits and others fewer: 600000 beside 1.
    """
    plain = [re.sub(r"^[=\s\"']+|[\s\"']+$", "", text or "") for text in texts]
    lengths = {len(text) for text in plain if text}
    if len(lengths) > 1 and max(lengths) == 6 and all(text.isdigit() for text in plain if text):
        plain = [text.zfill(6) if text else text for text in plain]
    return plain


def frame_of(local: npt.NDArray[np.int64]) -> str:
    """The frame of bars labelled with these moments (Shanghai's clock, ns; NO_MOMENT is passed over).

    Labels at midnight, at 15:00, or all at one time outside the sessions are days; others are minutes, labelled by
    their end.
    Raises UnrecognisedError where minutes are labelled by their start, or where the labels do not tell.
    """
    clocks = np.unique(local[local != NO_MOMENT] % _DAY)
    minutes = clocks // _MINUTE
    if np.isin(minutes, (0, 15 * 60)).all() or (len(clocks) == 1 and not 9 * 60 + 30 <= minutes[0] < 15 * 60):
        return "1d"
    if 15 * 60 not in minutes or 13 * 60 in minutes:
        raise UnrecognisedError(
            "minute bars must be labelled by their end, so that a day has one at 15:00 and none at 13:00; these bear"
            " the starts of their bars, or do not tell. Move the labels to the ends"
        )
    for frame, step in (("60m", 60), ("30m", 30), ("15m", 15), ("5m", 5)):
        # One vendor adds a row at 09:30 that holds the opening auction: it ends no bar, and is refused as a row.
        if all(_is_end(int(minute), step) for minute in minutes if minute != 9 * 60 + 30):
            return frame
    return "1m"


def _is_end(minute: int, step: int) -> bool:
    """Whether a minute of the day ends a bar of `step` minutes."""
    morning, afternoon = minute - (9 * 60 + 30), minute - 13 * 60
    return any(0 < passed <= 120 and passed % step == 0 for passed in (morning, afternoon))


def _plain(name: str) -> str:
    """A column's name without what vendors hang on it: case, spaces, a unit in brackets."""
    return (
        re.sub(r"\s*[((].*$", "", name.strip().strip("\ufeff\"'"))
        .strip()
        .lower()
        .replace(" ", "_")
        .replace("unnamed:_0", "unnamed: 0")
    )


def _stem(path: PurePath) -> str:
    return re.sub(r"\.(csv|txt|tsv|parquet|pq)$", "", path.name, flags=re.IGNORECASE)

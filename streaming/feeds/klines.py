"""Finished bars of vendors, for what the store lacks: their K-line endpoints.

One-minute bars come from Tencent alone, the newest 320 of them; longer ones from Sina or Tencent. Both label a bar by
its END, prices are raw, and no payload has an amount. Tencent's rows are [time, OPEN, CLOSE, HIGH, LOW, volume, ...],
the volume in lots of 100 shares but in shares for the STAR market; Sina's volume is in shares.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import DAY, MINUTE, OPEN, SHANGHAI, bar_ends, bar_start
from data.columns import column, symbol_column
from data.errors import FrameError
from data.panel import Floats, Times
from data.schema import BAR, FLAG_NO_TRADE, TIME
from data.symbols import board, sina_code
from streaming.feeds.vendors import AGENT, Budget

_LOT = 100.0
_COLUMNS = 5
"""open, high, low, close, volume"""
_TIME = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:[ T]?(\d{2}):?(\d{2})(?::?00)?)?")
_SINA_SCALES = {"5m": 5, "15m": 15, "30m": 30, "60m": 60, "1d": 240}
_TENCENT_KEYS = {"1m": "m1", "5m": "m5", "15m": "m15", "30m": "m30", "60m": "m60"}


@dataclass(frozen=True)
class KLines:
    """Bars (`data.schema.BAR`; amount and prev_close null, revision 0), and how many rows were left out, by reason."""

    bars: pa.Table
    dropped: Counter[str] = field(default_factory=Counter)
    failed: bool = False
    """Whether there was no answer to read."""


@dataclass(frozen=True, kw_only=True)
class KLineSource:
    """One vendor's endpoint of finished bars; it is asked for one symbol at a time."""

    name: str
    url: str
    """Scheme and host; the setting `feed.urls` replaces it."""
    path: Callable[[str, str, int], str]
    """Symbol, frame and number of bars -> path and query."""
    parse: Callable[[bytes, str, str, int], KLines]
    """Body, symbol, frame, and the time (UTC ns) after which no bar has ended yet -> bars. Pure, and never raises for
    what the bytes hold."""
    frames: tuple[str, ...]
    most: int
    """Bars a request."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"User-Agent": AGENT})
    budget: Budget
    source: str
    unverified: str


def parse_tencent(body: bytes, symbol: str, frame: str, upto: int) -> KLines:
    """Tencent's K-lines of one symbol -> bars. See `KLineSource.parse`; reasons are those of `to_bars`, and `empty`."""
    found = _json(body)
    for key in ("data", sina_code(symbol), _TENCENT_KEYS[frame]):
        found = found.get(key) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else []
    unit = 1.0 if board(symbol) == "star" else _LOT

    def rows() -> Iterator[tuple[object, ...]]:
        for row in listed:
            if isinstance(row, list) and len(row) > _COLUMNS:
                time, open_, close, high, low, volume = row[: _COLUMNS + 1]
                yield time, open_, high, low, close, volume
            else:
                yield (None,) * (_COLUMNS + 1)

    return to_bars(rows(), symbol, frame, upto, unit=unit)


def parse_sina(body: bytes, symbol: str, frame: str, upto: int) -> KLines:
    """Sina's K-lines of one symbol -> bars, JSON or JSONP. See `KLineSource.parse`."""
    found = _json(body[body.find(b"[") : body.rfind(b"]") + 1])
    listed = found if isinstance(found, list) else []

    def rows() -> Iterator[tuple[object, ...]]:
        for row in listed:
            named = row if isinstance(row, dict) else {}
            yield tuple(named.get(name) for name in ("day", "open", "high", "low", "close", "volume"))

    return to_bars(rows(), symbol, frame, upto, unit=1.0)


def to_bars(rows: Iterable[tuple[object, ...]], symbol: str, frame: str, upto: int, *, unit: float) -> KLines:
    """Rows of (time, open, high, low, close, volume) as vendors spell them -> the bars that have ended by `upto`.

    `unit`: shares a unit of volume. The opening auction, where it has a row of its own at 09:30, goes to the first bar.
    Minutes without a trade that the vendor left out between two bars, or before the close of a day that is over, are
    filled and flagged `no_trade`; those before a day's first trade, and days without one, do not exist.

    Rows are left out for `time` (no time of a bar's end), `number`, `range`, `open` (the bar has not ended) and
    `duplicate`; `empty`: there was no row at all.
    """
    dropped: Counter[str] = Counter()
    bars: dict[int, tuple[float, ...]] = {}
    auctions: dict[int, tuple[float, ...]] = {}
    dropped["empty"] = 1
    for time, *texts in rows:
        dropped["empty"] = 0
        end = _end(time, frame)
        values = tuple(map(_number, texts))
        if end is None:
            dropped["time"] += 1
        elif not all(map(math.isfinite, values)) or min(values[:4]) <= 0 or values[4] < 0:
            dropped["number"] += 1
        elif not values[2] <= min(values[0], values[3]) <= max(values[0], values[3]) <= values[1]:
            dropped["range"] += 1
        elif end > upto:
            dropped["open"] += 1
        else:
            into = auctions if (end + SHANGHAI) % DAY == OPEN else bars
            dropped["duplicate"] += end in into
            into[end] = values
    first_bar = int(bar_ends(np.datetime64(0, "D"), frame)[0]) + SHANGHAI - OPEN
    for end, auction in auctions.items():
        bars[end + first_bar] = _joined(auction, bars.get(end + first_bar))
    ends, matrix, flags = _settled(bars, frame)
    matrix[:, 4] *= unit
    return KLines(_table(symbol, frame, ends, matrix, flags), +dropped)


def _joined(first: tuple[float, ...], then: tuple[float, ...] | None) -> tuple[float, ...]:
    if then is None:
        return first
    return first[0], max(first[1], then[1]), min(first[2], then[2]), then[3], first[4] + then[4]


def _settled(bars: Mapping[int, tuple[float, ...]], frame: str) -> tuple[Times, Floats, Any]:
    """Bar ends, (bars, 5) values and flags, gaps filled."""
    rows: list[tuple[int, tuple[float, ...], int]] = []
    days = sorted({(end + SHANGHAI) // DAY for end in bars})
    close = math.nan
    for day in days:
        labels = bar_ends(np.datetime64(day, "D"), frame).tolist()
        there = [end for end in labels if end in bars]
        last = labels[-1] if day != days[-1] else there[-1]
        trading = day == days[0] and there[0] != labels[0]  # the rows begin in the midst of this day
        for end in labels[labels.index(there[0]) : labels.index(last) + 1]:
            values = bars.get(end, (close, close, close, close, 0.0))
            # A trade of less than a lot leaves no volume, but may leave another price.
            same = not trading or values[3] == close or math.isnan(close)
            idle = values[4] == 0 and len(set(values[:4])) == 1 and same
            trading |= not idle
            if trading:
                rows.append((end, values, FLAG_NO_TRADE if idle else 0))
            close = values[3]
    matrix = np.array([values for _, values, _ in rows], dtype=np.float64).reshape(len(rows), _COLUMNS)
    ends = np.array([end for end, _, _ in rows], dtype=np.int64)
    return ends, matrix, np.array([flag for *_, flag in rows], dtype=np.uint8)


def _table(symbol: str, frame: str, ends: Times, matrix: Floats, flags: Any) -> pa.Table:
    n = len(ends)
    nothing = pa.nulls(n, pa.float64())
    arrays = [
        symbol_column(np.zeros(n, dtype=np.int32), pa.array([symbol], pa.string())),
        column(bar_start(ends, frame), TIME),
        column(ends, TIME),
        *(column(matrix[:, k], pa.float64()) for k in range(_COLUMNS)),
        nothing,
        nothing,
        column(flags, pa.uint8()),
        column(np.zeros(n, dtype=np.int32), pa.int32()),
    ]
    return pa.Table.from_arrays(arrays, schema=BAR.with_metadata({"frame": frame}))


def _end(time: object, frame: str) -> int | None:
    """The bar end that a vendor's text stands for, or 09:30 of the day; None where it is neither."""
    match = _TIME.fullmatch(time) if isinstance(time, str) else None
    if match is None:
        return None
    year, month, day, hour, minute = match.groups()
    if hour is None and frame != "1d":
        return None
    try:
        midnight = int(np.datetime64(f"{year}-{month}-{day}", "D").astype(np.int64)) * DAY - SHANGHAI
    except ValueError:
        return None
    if not 0 <= midnight < 2**62:
        return None
    labels = bar_ends(np.datetime64(f"{year}-{month}-{day}", "D"), frame)
    if hour is None:
        return int(labels[0])
    end = midnight + (int(hour) * 60 + int(minute)) * MINUTE
    return end if end == midnight + OPEN or end in labels else None


def _number(value: object) -> float:
    """Vendors write numbers as texts, and some as numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


_DECLARED = (
    KLineSource(
        name="tencent_kline",
        url="https://ifzq.gtimg.cn",
        path=lambda symbol, frame, n: (
            f"/appstock/app/kline/mkline?param={sina_code(symbol)},{_TENCENT_KEYS[frame]},,{n}"
        ),
        parse=parse_tencent,
        frames=tuple(_TENCENT_KEYS),
        most=320,
        budget=Budget(per_s=5, burst=5),
        source="a payload of m5 recorded in public code; the other frames by the same key",
        unverified="m1, m15, m30, m60; whether minutes without a trade have rows; empty answers after some 5,000 calls",
    ),
    KLineSource(
        name="sina_kline",
        url="https://quotes.sina.cn",
        path=lambda symbol, frame, n: (
            "/cn/api/json_v2.php/CN_MarketDataService.getKLineData"
            f"?symbol={sina_code(symbol)}&scale={_SINA_SCALES[frame]}&ma=no&datalen={n}"
        ),
        parse=parse_sina,
        frames=tuple(_SINA_SCALES),
        most=1023,
        budget=Budget(per_s=5, burst=5),
        source="a row of 5m recorded in public code",
        unverified="rows of 1d, JSONP, the row of the bar that is still open",
    ),
)

KLINES: Mapping[str, KLineSource] = MappingProxyType({source.name: source for source in _DECLARED})
"""Endpoints by name."""


def sources_of(frame: str) -> tuple[KLineSource, ...]:
    """The endpoints that have bars of `frame`, the one with more bars a request first. Raises FrameError for none."""
    found = sorted((source for source in _DECLARED if frame in source.frames), key=lambda source: -source.most)
    if not found:
        raise FrameError(f"no endpoint has bars of the frame {frame!r}")
    return tuple(found)

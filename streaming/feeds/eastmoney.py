"""Eastmoney's quotes: server-sent events of JSON, the first one whole, then only the fields that have changed.

    data: {"rc":0,...,"full":1,"data":{"total":2,"diff":{"0":{"f2":15.47,"f12":"600396",...},"1":{...}}}}     a list
    data: {"rc":0,...,"full":0,"data":{"total":2,"diff":{"1":{"f2":15.48,"f5":1775080}}}}                     a delta
    data: {"rc":0,...,"full":1,"data":{"f43":15.47,"f57":"600396",...}}                                       one symbol

Prices are those of `fltt=2`, real ones; without it they are integers. Volume is in lots of 100 shares; whether also for
the STAR market no payload says, so there the unit is the one whose amount / volume lies within the day's range. Only a
frame of one symbol was seen recorded; lists are as public clients read them.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from streaming.feeds.wire import Parsed, Universe, to_ticks

_LIST = {
    "last": "f2",
    "open": "f17",
    "high": "f15",
    "low": "f16",
    "prev_close": "f18",
    "volume": "f5",
    "amount": "f6",
}
_ONE = {
    "last": "f43",
    "open": "f46",
    "high": "f44",
    "low": "f45",
    "prev_close": "f60",
    "volume": "f47",
    "amount": "f48",
}
_LIST_ABOUT, _ONE_ABOUT = ("f13", "f12", "f124"), ("f107", "f57", "f86")
"""Market, code and time (Unix seconds)."""
_LOT = 100.0
_WHOLE = b"whole"
"""The key of a connection's one symbol."""
_EARLIEST, _LATEST = 631_152_000, 7_258_118_400
"""1990 and 2200."""


def code(symbol: str) -> str:
    """`1.600519`; Shenzhen and Beijing are both 0."""
    return f"{int(symbol.endswith('.SH'))}.{symbol[:6]}"


def path(codes: Sequence[str]) -> str:
    """One symbol has a stream of its own; several share one."""
    if len(codes) == 1:
        fields = ",".join((*_ONE.values(), *_ONE_ABOUT))
        return f"/api/qt/stock/sse?secid={codes[0]}&fields={fields}&fltt=2&invt=2&mpi=1000"
    fields = ",".join((*_LIST.values(), *_LIST_ABOUT))
    secids = ",".join(codes)
    return f"/api/qt/ulist/sse?secids={secids}&fields={fields}&fltt=2&invt=2&pi=0&pz={len(codes)}&mpi=2000&po=1"


def merge(body: bytes, seen: dict[bytes, Any]) -> bytes:
    """Events (the JSON of one a line) -> the same with every symbol that changed made whole from what `seen` holds.

    What is no event stays as it is, for `parse` to count.
    """
    return b"\n".join(_merged(line, seen) for line in body.split(b"\n") if line.strip())


def _merged(line: bytes, seen: dict[bytes, Any]) -> bytes:
    event = _event(line)
    if event is None or not isinstance(data := event.get("data"), dict):
        return line
    items = _items(data)
    if event.get("full") == 1:
        seen.clear()
    whole = []
    for key, item in items:
        seen[key] = {**seen.get(key, {}), **item}
        whole.append(seen[key])
    fresh = whole[0] if "diff" not in data else {"diff": whole}
    return json.dumps({"data": fresh}, separators=(",", ":")).encode()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _items(data: Mapping[str, Any]) -> list[tuple[bytes, dict[str, Any]]]:
    """The symbols of an event by their keys: places in a list, or the one symbol."""
    if "diff" not in data:
        return [(_WHOLE, dict(data))]
    diff = data["diff"]
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(diff, dict):
        pairs = diff.items()
    elif isinstance(diff, list):
        pairs = enumerate(diff)
    return [(str(key).encode(errors="replace"), item) for key, item in pairs if isinstance(item, dict)]


def parse(body: bytes, universe: Universe) -> Parsed:
    """Events, whole ones, one a line -> ticks. A pure function of its bytes; never raises for what they hold.

    Reasons for symbols left out: `line` (no JSON object), `empty` (an event without data), `short` (fields are
    missing), and those of `streaming.feeds.wire.to_ticks`.
    """
    dropped: Counter[str] = Counter()
    place: list[int] = []
    when: list[int] = []
    rows: list[list[float]] = []
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        event = _event(line)
        if event is None:
            dropped["line"] += 1
            continue
        data = event.get("data")
        if not isinstance(data, dict):
            dropped["empty"] += 1
            continue
        numbers, about = (_LIST, _LIST_ABOUT) if "diff" in data else (_ONE, _ONE_ABOUT)
        for _, item in _items(data):
            if not all(name in item for name in (*numbers.values(), *about)):
                dropped["short"] += 1
                continue
            market, digits, time = (item[name] for name in about)
            place.append(universe.place.get(f"{market}.{digits}".encode(errors="replace"), -1))
            when.append(_moment(time))
            rows.append([_number(item[name]) for name in numbers.values()])
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(_LIST)).T
    columns = dict(zip(_LIST, values, strict=True))
    at = np.array(place, dtype=np.int64)
    volume, amount, low, high = (columns[name] for name in ("volume", "amount", "low", "high"))
    in_shares = universe.star[at] & (amount >= volume * low * 0.99) & (amount <= volume * high * 1.01)
    columns["volume"] = np.where(in_shares, volume, volume * _LOT)
    return to_ticks(universe, at, np.array(when, dtype=np.int64), columns, dropped.items())


def _number(value: object) -> float:
    """`-` stands for nothing yet."""
    if value == "-":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _moment(value: object) -> int:
    """Unix seconds -> UTC ns; -1 where they are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not _EARLIEST <= value < _LATEST:
        return -1
    return value * 10**9

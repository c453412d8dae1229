"""Tencent's quotes: one line a symbol, fields between tildes, text in GBK.

    v_sh600396="1~NAME~600396~LAST~PREV_CLOSE~OPEN~VOLUME~...~20260723094907~...~HIGH~LOW~15.47/1775070/2729507908~...";

Volume is in lots of 100 shares, but in shares for the STAR market (688, 689); the exact amount in CNY is the third part
of field 35. A byte of a name may be a tilde in GBK, so fields are counted from the code that follows the name.
A code that Tencent does not know gives `v_pv_none_match="1";`.
"""

from collections import Counter

import numpy as np

from streaming.feeds.wire import Lines, Mask, Parsed, Places, Universe, clock, moments, to_ticks

_LAST, _PREV_CLOSE, _OPEN, _VOLUME, _TIME, _HIGH, _LOW, _TRADED = 3, 4, 5, 6, 30, 33, 34, 35
_CODE = 2
_LEAST = 36
"""Tildes of the shortest whole line."""
_TILDES = 8
"""How many bytes of a name may be tildes: names have at most eight characters."""
_LOT = 100.0


def parse(body: bytes, universe: Universe) -> Parsed:
    """A frame of Tencent -> ticks. A pure function of its bytes; never raises for what they hold.

    Reasons for lines left out: `empty` (no such code), `line` (it is none of Tencent's), `short`, and those of
    `streaming.feeds.wire.to_ticks`.
    """
    lines = Lines(body, b"~")
    head = lines.text(lines.starts, 12)
    empty = np.char.startswith(head, b"v_pv_none_ma")
    shaped = np.char.startswith(head, b"v_") & (lines.text(lines.starts + 10, 2) == b'="') & ~empty
    offset = _tildes_of_names(lines)
    short = shaped & ((lines.n_separators - offset < _LEAST) | (offset < 0))
    dropped = Counter(empty=int(empty.sum()), line=int((~shaped & ~empty).sum()), short=int(short.sum()))
    good = shaped & ~short
    spoiled = [universe.place.get(code, -1) for code in lines.text(lines.starts[short] + 2, 8).tolist()]
    lines.keep(good)
    offset = offset[good]
    codes = lines.text(lines.starts + 2, 8).tolist()
    place = np.array([universe.place.get(code, -1) for code in codes], dtype=np.int64)
    spans = [lines.column(k + offset) for k in _FIELDS.values()]
    amount = _last_part(lines, *lines.column(_TRADED + offset))
    numbers = dict(zip((*_FIELDS, "amount"), lines.numbers(*spans, amount), strict=True))
    numbers["volume"] = numbers["volume"] * np.where(universe.star[place], 1.0, _LOT)
    return to_ticks(universe, place, _when(lines, offset), numbers, dropped.items(), spoiled)


_FIELDS = {"last": _LAST, "prev_close": _PREV_CLOSE, "open": _OPEN, "volume": _VOLUME, "high": _HIGH, "low": _LOW}
"""In the order of a line."""


def _tildes_of_names(lines: Lines) -> Places:
    """How many tildes stand in each name; -1 where the code follows none of the first."""
    code = lines.text(lines.starts + 4, 6)
    found = np.full(len(lines), -1)
    for extra in range(_TILDES, -1, -1):
        begin, end = lines.column(_CODE + extra)
        same: Mask = (end - begin == 6) & (lines.text(begin, 6) == code)
        found[same] = extra
    return found


def _last_part(lines: Lines, begin: Places, end: Places) -> tuple[Places, Places]:
    """Of `15.47/1775070/2729507908` the last."""
    slashes = np.append(np.flatnonzero(lines.buffer == ord("/")), 0)
    before = slashes[np.searchsorted(slashes[:-1], end) - 1]
    return np.where((before >= begin) & (before < end), before + 1, end), end


def _when(lines: Lines, offset: Places) -> Places:
    """20260723094907"""
    begin, end = lines.column(_TIME + offset)
    spans = ((0, 1, 2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13))
    year, month, day, hour, minute, second = (lines.digits(begin, 14, at) for at in spans)
    return np.where(end - begin == 14, moments(year, month, day, clock(hour, minute, second)), -1)

"""Sina's quotes: one line a symbol, fields between commas, text in GB18030.

    var hq_str_sh600396="NAME,OPEN,PREV_CLOSE,LAST,HIGH,LOW,...,VOLUME,AMOUNT,...,2026-07-23,15:34:59,00,...";  polled
    sh600396=NAME,OPEN,...                                                                                      pushed

Volume is in shares and amount in CNY, both of the day. A name is never decoded here: none of its bytes is a comma.
Lines that say nothing: `""` for a code that Sina does not know; `sys_...=` on the socket.
"""

import re
from collections import Counter

import numpy as np

from streaming.feeds.wire import Lines, Parsed, Places, Universe, clock, moments, to_ticks

_OPEN, _PREV_CLOSE, _LAST, _HIGH, _LOW, _VOLUME, _AMOUNT, _DATE, _TIME = 1, 2, 3, 4, 5, 8, 9, 30, 31
_LEAST = 31
"""Commas of the shortest whole line."""
_CODE = 8
POLLED, PUSHED = b"var hq_str_", b""
"""What stands before the code."""


def parse(body: bytes, universe: Universe, *, prefix: bytes = POLLED) -> Parsed:
    """A frame of Sina -> ticks. A pure function of its bytes; never raises for what they hold.

    Reasons for lines left out: `empty`, `control`, `line` (it is none of Sina's), `short`, and those of `to_ticks`.
    """
    lines = Lines(body, b",")
    start = lines.starts + len(prefix)
    head = lines.text(lines.starts, len(prefix) + _CODE + 2)
    opening = b'="' if prefix else b"="
    shaped = np.char.startswith(head, prefix) & (lines.text(start + _CODE, len(opening)) == opening)
    control = np.char.startswith(head, prefix + b"sys_")
    empty = shaped & (lines.n_separators == 0) & ~control
    short = shaped & ~empty & (lines.n_separators < _LEAST) & ~control
    good = shaped & ~empty & ~short & ~control
    dropped = Counter(
        empty=int(empty.sum()),
        control=int(control.sum()),
        line=int((~shaped & ~control).sum()),
        short=int(short.sum()),
    )
    spoiled = [universe.place.get(code, -1) for code in lines.text(start[shaped & ~good], _CODE).tolist()]
    lines.keep(good)
    codes = lines.text(start[good], _CODE).tolist()
    place = np.array([universe.place.get(code, -1) for code in codes], dtype=np.int64)
    numbers = dict(zip(_FIELDS, lines.numbers(*map(lines.column, _FIELDS.values())), strict=True))
    return to_ticks(universe, place, _when(lines), numbers, dropped.items(), spoiled)


_FIELDS = {
    "open": _OPEN,
    "prev_close": _PREV_CLOSE,
    "last": _LAST,
    "high": _HIGH,
    "low": _LOW,
    "volume": _VOLUME,
    "amount": _AMOUNT,
}
"""In the order of a line."""


def _when(lines: Lines) -> Places:
    """2026-07-23 and 15:34:59."""
    day, day_end = lines.column(_DATE)
    time, time_end = lines.column(_TIME)
    year, month, date = (lines.digits(day, 10, at) for at in ((0, 1, 2, 3), (5, 6), (8, 9)))
    hour, minute, second = (lines.digits(time, 8, at) for at in ((0, 1), (3, 4), (6, 7)))
    whole = (day_end - day == 10) & (time_end - time >= 8)
    return np.where(whole, moments(year, month, date, clock(hour, minute, second)), -1)


_NAME = re.compile(rb'(?:var hq_str_)?(\w{8})="?([^,"\n]+),')


def names(body: bytes, universe: Universe) -> dict[str, str]:
    """Symbol -> short name, of a frame; names that are no GB18030 are left out."""
    found = {}
    for code, name in _NAME.findall(body):
        j = universe.place.get(code)
        if j is not None:
            try:
                found[universe.symbols[j]] = name.decode("gb18030")
            except UnicodeDecodeError:
                continue
    return found

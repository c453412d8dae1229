"""A signal as one line of a terminal, in columns that fit it, and what stands below it where more is asked for."""

from collections.abc import Mapping

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from data.signal import Signal
from jobs.latency import spent
from jobs.show import action_style, local_time, tags

_FULL = {"time": 16, "symbol": 9, "name": 8, "action": 6, "strategy": 22, "frame": 5, "price": 10, "conf": 4, "lag": 7}
"""Column -> cells; a Chinese character is two. The tags stand behind them, on the next line where they must."""
_RIGHT = {"price", "lag"}
_GAP = "  "


class Columns:
    """The columns that a width (cells; None: of no edge) has room for; `lag`: with one for the latency. `of_today`: of
    signals whose day goes without saying. `longest`: the cells of the longest strategy's name, where that is known.
    """

    def __init__(
        self, width: int | None = None, *, lag: bool = False, of_today: bool = False, longest: int | None = None
    ) -> None:
        self._width = width
        self._sizes = {name: size for name, size in _FULL.items() if lag or name != "lag"}
        if longest is not None:
            self._sizes["strategy"] = max(len("strategy"), longest)
        if width is None:
            return
        if self._used() > width:
            self._sizes["time"] = len("15:00" if of_today else "05-26 15:00")
        if self._used() > width:
            self._sizes["strategy"] = max(12, self._sizes["strategy"] - (self._used() - width))
        for name in ("frame", "conf", "name"):
            if self._used() > width:
                del self._sizes[name]

    def head(self) -> Text:
        """Their titles."""
        return Text(self._line({name: name for name in self._sizes}, ""), style="bold")

    def row(self, signal: Signal, lag_ns: int | None = None) -> Text:
        """A signal, in the colour of its action."""
        cells = {
            "time": local_time(signal.bar_end)[-self._sizes["time"] :],
            "symbol": signal.symbol,
            "name": signal.name or "",
            "action": signal.action,
            "strategy": signal.strategy,
            "frame": signal.frame,
            "price": f"{signal.price:.2f}",
            "conf": f"{signal.confidence:.2f}",
            "lag": "" if lag_ns is None else duration(lag_ns),
        }
        return Text(self._line(cells, tags(signal)), style=action_style(signal.action))

    def _line(self, cells: Mapping[str, str], more: str) -> str:
        line = _GAP.join(_sized(cells[name], size, name in _RIGHT) for name, size in self._sizes.items())
        if self._width is not None and cell_len(line) > self._width:
            line = set_cell_size(line, self._width)
        return _GAP.join([line, more]).rstrip()

    def _used(self) -> int:
        return sum(self._sizes.values()) + len(_GAP) * (len(self._sizes) - 1)


def below(signal: Signal) -> list[str]:
    """The values that made a signal fire, the time that each stage took, and where it stands in the history."""
    values = ", ".join(f"{name} = {number(value)}" for name, value in signal.values.items())
    lines = [values, *_stages(signal), f"{signal.epoch}:{signal.seq}", signal.id]
    return [f"    {line}" for line in lines if line]


def number(value: float | None) -> str:
    """A value that made a signal fire."""
    return "-" if value is None else f"{value:.6g}"


def duration(ns: int) -> str:
    """How long it was, in at most seven cells."""
    for unit, size, most in (("ms", 10**6, 10**10), ("s", 10**9, 600 * 10**9), ("min", 60 * 10**9, 3600 * 10**10)):
        if abs(ns) < most:
            return f"{ns / size:.0f} {unit}"
    return f"{ns / 3600 / 10**9:.0f} h"


def _stages(signal: Signal) -> tuple[str, ...]:
    """The exchange's time and when it arrived, and how long each stage took."""
    if not signal.received_ns:
        return ("a scan of stored bars",)
    stamps = (signal.bar_end, signal.quote_ns, signal.received_ns, signal.bar_closed_ns, signal.scanned_ns)
    took = spent(*(np.array([stamp]) for stamp in (*stamps, signal.published_ns)))
    moments = [("quote", signal.quote_ns)] if signal.quote_ns else []
    moments.append(("received", signal.received_ns))
    return (
        ", ".join(f"{name} {_clock(ns)}" for name, ns in moments),
        ", ".join(f"{name} {ns[0] / 1e6:,.1f} ms" for name, ns in took.items() if len(ns)),
    )


def _clock(ns: int) -> str:
    return f"{local_time(ns)}:{ns // 10**9 % 60:02d}.{ns // 10**6 % 1000:03d}"


def _sized(cell: str, size: int, right: bool) -> str:
    return " " * (size - cell_len(cell)) + cell if right else set_cell_size(cell, size)

"""What a chart holds, computed once: a symbol's bars, the lines over and under them, and the marks of its signals.

Prices stand on the newest shown bar's basis (forward-adjusted), as indicators see them; a signal's own price is the one
that was traded, and its mark stands at that price on the adjusted scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.panel import Floats, Times
from jobs.show import local_time

LEAST_SHOWN = 30
"""A chart is as wide as so many bars at least, so that those of a new listing look like bars."""
LONGEST = 40
"""Characters of a line's name that are written on a chart."""
Style = Literal["line", "bars", "dots"]


@dataclass(frozen=True)
class Line:
    """Values to be drawn, (bars,), NaN where there is none."""

    label: str
    values: Floats
    style: Style = "line"
    owner: str = ""
    """The indicator that it is one of several outputs of."""


def legend(lines: Sequence[Line], title: str = "") -> list[str]:
    """What is written beside lines: the name of an indicator, or of a pane, before its first output alone."""
    found, before = list[str](), ""
    for line in lines:
        label = line.label.removeprefix(f"{line.owner} ") if line.owner and line.owner == before else line.label
        if not found and title not in ("", label):
            label = f"{title} {label}"
        found.append(label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…")
        before = line.owner
    return found


@dataclass(frozen=True)
class Pane:
    """Lines on a scale of their own, below the prices; `levels` are lines of reference."""

    title: str
    lines: tuple[Line, ...]
    levels: tuple[float, ...] = ()

    @property
    def large(self) -> bool:
        """Whether its numbers are too large to be written out."""
        return any((np.abs(line.values) >= 1e5).any() for line in self.lines)


@dataclass(frozen=True)
class Mark:
    """What strategies said at one bar, by one action."""

    place: int
    """Of the bar among those shown."""
    action: str
    strategies: tuple[str, ...]
    confidence: float
    """The highest of theirs."""
    price: float
    """CNY as it was traded."""
    level: float
    """The same on the chart's scale."""
    recorded: bool
    """Whether the history has it; else the rule was computed anew over the bars shown."""

    def __str__(self) -> str:
        how = "" if self.recorded else ", computed anew"
        return f"{self.action} {', '.join(self.strategies)} ({self.confidence:.2f}) at {self.price:.2f}{how}"


@dataclass(frozen=True)
class Halt:
    """Sessions between two neighbouring bars in which the symbol did not trade."""

    place: int
    """Of the first bar after it."""
    sessions: int


@dataclass(frozen=True)
class Content:
    """A chart of one symbol. Arrays are (bars,), oldest first; a suspended session has no bar."""

    symbol: str
    name: str | None
    frame: str
    times: Times
    """UTC ns: bar ends."""
    prices: Mapping[str, Floats]
    """open, high, low, close in CNY, forward-adjusted."""
    raw_close: Floats
    """CNY, as it was traded."""
    volume: Floats
    """Shares."""
    amount: Floats
    """CNY, NaN where unknown."""
    change: Floats
    """Percent of the exchange's previous close, NaN where unknown."""
    before: float
    """CNY: the close before the first bar shown, on the same scale; NaN where there is none."""
    idle: npt.NDArray[np.bool_]
    """Bars without a trade."""
    incomplete: npt.NDArray[np.bool_]
    """Bars that may lack some of their trades."""
    at_limit: npt.NDArray[np.int8]
    """1 where a bar closed at its limit up, -1 at its limit down, 0 elsewhere and where the limit is unknown."""
    overlays: tuple[Line, ...] = ()
    volume_lines: tuple[Line, ...] = ()
    panes: tuple[Pane, ...] = ()
    marks: tuple[Mark, ...] = ()
    halts: tuple[Halt, ...] = ()
    gaps: tuple[int, ...] = ()
    """Places of bars that open beyond any limit, where no factor explains it: prices before are on another basis."""
    notes: tuple[str, ...] = ()
    """What whoever looks at the chart should know of it."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def heading(self) -> str:
        """`贵州茅台 600519.SH`."""
        return f"{self.name} {self.symbol}" if self.name else self.symbol

    @property
    def labels(self) -> list[str]:
        """The exchange's time of each bar: a day, or a day and a time."""
        return [local_time(int(ns))[: 10 if self.frame == "1d" else 16] for ns in self.times]

    @property
    def subtitle(self) -> str:
        """What stands under the heading, in one line."""
        return "  ·  ".join([*self.facts, *self.caveats])

    @property
    def facts(self) -> list[str]:
        """The frame, and the newest bar."""
        change = self.change[-1]
        moved = f" ({change:+.2f}%)" if np.isfinite(change) else ""
        return [self.frame, self.labels[-1], f"{self.prices['close'][-1]:.2f}{moved}"]

    @property
    def caveats(self) -> list[str]:
        """What one should know of the chart."""
        adjusted = ["prices forward-adjusted"] if self.adjusted else []
        anew = [] if all(mark.recorded for mark in self.marks) else ["hollow: computed anew"]
        gaps = ["prices change their basis where dashed: no factor is known"] if self.gaps else []
        return [*adjusted, *gaps, *anew, *self.notes]

    @property
    def breaks(self) -> list[int]:
        """Places of bars before which something is missing: sessions, or a factor."""
        return sorted({*(halt.place for halt in self.halts), *self.gaps})

    @property
    def remarks(self) -> list[str]:
        """What is to be said of each bar, mostly nothing."""
        halted = {halt.place: f"after {halt.sessions} sessions without trade" for halt in self.halts}
        gaps = dict.fromkeys(self.gaps, "on another price basis than before")
        limits = {1: "at limit up", -1: "at limit down"}
        return [
            " · ".join(
                word
                for word in (limits.get(limit), "no trade" * idle, "incomplete" * less, halted.get(k), gaps.get(k))
                if word
            )
            for k, (limit, idle, less) in enumerate(
                zip(self.at_limit.tolist(), self.idle.tolist(), self.incomplete.tolist(), strict=True)
            )
        ]

    @property
    def gap(self) -> float:
        """How far from its bar a mark stands, CNY on the chart's scale: something more than half a usual bar."""
        high, low = self.prices["high"], self.prices["low"]
        return 0.6 * float(np.mean(high - low)) or 0.005 * float(np.mean(high))

    @property
    def factors(self) -> Floats:
        """By what traded prices are multiplied to stand on the chart's scale."""
        found: Floats = self.prices["close"] / self.raw_close
        return found

    @property
    def adjusted(self) -> bool:
        """Whether any price shown differs from the one that was traded."""
        return bool((np.abs(self.factors - 1) > 1e-9).any())

    @property
    def direction(self) -> npt.NDArray[np.int8]:
        """1 up, -1 down, 0 neither: close against open and, of a bar with one price, against the close before."""
        close = self.prices["close"]
        within = np.sign(close - self.prices["open"])
        before = np.concatenate([[self.before], close[:-1]])[: len(close)]
        across = np.nan_to_num(np.sign(close - before))
        return np.where(within != 0, within, across).astype(np.int8)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        from jobs.chart.look import look
        from jobs.chart.picture import to_png

        return to_png(self, look())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: null for what is unknown."""

        def line(one: Line) -> dict[str, Any]:
            return {"label": one.label, "style": one.style, "values": _numbers(one.values)}

        return {
            "symbol": self.symbol,
            "name": self.name,
            "frame": self.frame,
            "time": self.labels,
            "bar_end": [int(ns) for ns in self.times],
            **{name: _numbers(values) for name, values in self.prices.items()},
            "raw_close": _numbers(self.raw_close),
            "volume": _numbers(self.volume),
            "amount": _numbers(self.amount),
            "change_pct": _numbers(self.change),
            "no_trade": self.idle.tolist(),
            "incomplete": self.incomplete.tolist(),
            "at_limit": self.at_limit.tolist(),
            "adjusted": self.adjusted,
            "overlays": [line(one) for one in self.overlays],
            "volume_lines": [line(one) for one in self.volume_lines],
            "panes": [
                {"title": pane.title, "levels": list(pane.levels), "lines": [line(one) for one in pane.lines]}
                for pane in self.panes
            ],
            "signals": [
                {
                    "time": self.labels[mark.place],
                    "action": mark.action,
                    "strategies": list(mark.strategies),
                    "confidence": mark.confidence,
                    "price": mark.price,
                    "level": mark.level,
                    "recorded": mark.recorded,
                }
                for mark in self.marks
            ],
            "halts": [{"before": self.labels[halt.place], "sessions": halt.sessions} for halt in self.halts],
            "gaps": [self.labels[place] for place in self.gaps],
            "notes": self.caveats,
        }


def _numbers(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values.tolist()]

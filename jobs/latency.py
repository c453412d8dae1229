"""Where the time goes from a quote to its signal, told from the stamps that every signal carries."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Stamps = npt.NDArray[np.int64]
PERCENTILES = (50, 90, 99)
STAMPS = ("bar_end", "quote_ns", "received_ns", "bar_closed_ns", "scanned_ns", "published_ns")
_LIVE_NS, _AHEAD_NS = 12 * 3600 * 10**9, 60 * 10**9
"""A quote that arrives later than this after its time, or that much before it, is of no live market."""


@dataclass(frozen=True)
class Stage:
    """One stage's share. `n`: intervals that went through it; ms, NaN where `n` is 0."""

    name: str
    n: int
    percentiles_ms: Mapping[int, float]
    max_ms: float

    def as_dict(self) -> dict[str, float | int | str | None]:
        """As `--json` prints it."""
        numbers = {f"p{p}_ms": value for p, value in self.percentiles_ms.items()} | {"max_ms": self.max_ms}
        shown: dict[str, float | int | str | None] = {"stage": self.name, "n": self.n}
        return shown | {name: round(ms, 3) if self.n else None for name, ms in numbers.items()}


def spent(
    bar_end: Stamps, quote: Stamps, received: Stamps, closed: Stamps, scanned: Stamps, published: Stamps
) -> dict[str, Stamps]:
    """Stage -> ns of each interval of which it can be told; the last stage is what is promised."""
    age = received - quote
    live = (quote > 0) & (age > -_AHEAD_NS) & (age < _LIVE_NS)
    # By a quote of a later time, in the exchange's time; or by the clock, where quotes had stopped.
    wait = np.where(quote > bar_end, quote, received) - bar_end
    return {
        "watermark wait": wait[(quote > bar_end) | live],
        "quote age": age[live],
        "fold": closed - received,
        "scan": scanned - closed,
        "publish": published - scanned,
        "quote to signal": published - received,
    }


def stages(signals: pa.Table) -> list[Stage]:
    """Signals (`data.schema.SIGNAL`) -> each stage over the intervals that they come from.

    An interval's signals share their stamps and count once. Scans of stored bars, which no payload caused, are left
    out.
    """
    columns = [signals[name].cast(pa.int64()).to_numpy() for name in STAMPS]
    return stages_of(np.column_stack(columns) if len(signals) else np.empty((0, len(STAMPS)), dtype=np.int64))


def stages_of(stamps: Stamps) -> list[Stage]:
    """As `stages`, of the signals' stamps alone: (signals, len(STAMPS))."""
    rows = np.unique(stamps, axis=0)
    rows = rows[rows[:, STAMPS.index("received_ns")] > 0]
    found = []
    for name, ns in spent(*rows.T).items():
        if len(ns):
            shares = dict(zip(PERCENTILES, map(float, np.percentile(ns / 1e6, PERCENTILES)), strict=True))
            found.append(Stage(name, len(ns), shares, float(ns.max()) / 1e6))
        else:
            found.append(Stage(name, 0, dict.fromkeys(PERCENTILES, float("nan")), float("nan")))
    return found

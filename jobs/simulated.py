"""The simulated market's store: the history it starts with, and the names of each session."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import bar_ends, local_day
from data.schema import FRAMES, NAME, TIME
from data.settings import Settings
from data.simulated_days import Session
from data.simulator import SimulatedMarket
from data.store import BarStore

DAILY_BARS = 250
"""Daily bars before the first simulated live session."""


def open_simulated(settings: Settings, path: Path | None) -> BarStore:
    """The store of the simulated market that the settings describe; another market's store is refused."""
    feed = settings.feed
    return BarStore(path or settings.store.sim_path, origin=f"sim-{feed.symbols}-{feed.seed}")


def is_simulated(store: BarStore) -> bool:
    """Whether a store holds fiction."""
    return store.origin.startswith("sim")


def make_history(store: BarStore, market: SimulatedMarket, frames: Sequence[str], n_bars: int) -> int:
    """Give each of `frames` that has no bars `n_bars` of them, and daily bars before those; returns the rows made.

    The shortest frame's bars come last and in one file, so that a start that was killed is done again as a whole.
    """
    rows = 0
    sessions = market.sessions[:DAILY_BARS]
    shortest, *longer = sorted({*frames, "1d"}, key=FRAMES.index)
    begun = bool(store.files(shortest))
    for frame in (*reversed(longer), shortest):
        if begun and store.files(frame):
            continue
        if frame == "1d":
            rows += _daily_history(store, market, sessions)
            continue
        a_day = len(bar_ends(sessions[0], frame))
        bars = market.bars(frame, *sessions[-math.ceil(n_bars / a_day) :])
        first = np.unique(bars["bar_end"].cast(pa.int64()).to_numpy())[-n_bars:][0]
        bars = bars.filter(pc.greater_equal(bars["bar_end"], pa.scalar(int(first), pa.int64()).cast(TIME)))
        store.append(bars, frame)
        rows += int(bars.num_rows)
    return rows


def _daily_history(store: BarStore, market: SimulatedMarket, sessions: Sequence[Session]) -> int:
    """Daily bars, a file a month, and the names of the last session."""
    rows = 0
    daily = market.bars("1d", *sessions)
    months = local_day(daily["bar_end"].cast(pa.int64()).to_numpy()).astype("datetime64[M]")
    for month in np.unique(months):
        part = daily.filter(pa.array(months == month))
        store.append(part, "1d")
        rows += part.num_rows
    keep_names(store, market, sessions[-1])
    return rows


def keep_names(store: BarStore, market: SimulatedMarket, session: Session) -> None:
    """Store who is called what on a session."""
    names = market.names(session)
    store.append_names(
        pa.table(
            {"symbol": list(names), "day": [session.astype(object)] * len(names), "name": list(names.values())}
        ).cast(NAME)
    )

"""The simulated market's store: the history it starts with, and the names of each session."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import bar_ends, local_day
from data.schema import NAME, TIME
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


def make_history(store: BarStore, market: SimulatedMarket, frame: str, n_bars: int) -> int:
    """Fill an empty store with `n_bars` bars of `frame`, and daily bars before them; returns the rows made.

    The frame's bars come last and in one file, so that a start that was killed is done again as a whole.
    """
    if store.files(frame):
        return 0
    rows = 0
    sessions = market.sessions[:DAILY_BARS]
    if frame != "1d" and not store.files("1d"):
        daily = market.bars("1d", *sessions)
        for month in np.unique(np.array(sessions).astype("datetime64[M]")):
            inside = local_day(daily["bar_end"].cast(pa.int64()).to_numpy()).astype("datetime64[M]") == month
            part = daily.filter(pa.array(inside))
            store.append(part, "1d")
            rows += part.num_rows
    keep_names(store, market, sessions[-1])
    a_day = len(bar_ends(sessions[0], frame))
    bars = market.bars(frame, *sessions[-math.ceil(n_bars / a_day) :])
    first = np.unique(bars["bar_end"].cast(pa.int64()).to_numpy())[-n_bars:][0]
    bars = bars.filter(pc.greater_equal(bars["bar_end"], pa.scalar(int(first), pa.int64()).cast(TIME)))
    store.append(bars, frame)
    return rows + int(bars.num_rows)


def keep_names(store: BarStore, market: SimulatedMarket, session: Session) -> None:
    """Store who is called what on a session."""
    names = market.names(session)
    store.append_names(
        pa.table(
            {"symbol": list(names), "day": [session.astype(object)] * len(names), "name": list(names.values())}
        ).cast(NAME)
    )

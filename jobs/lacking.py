"""What a store lacks of the bars that strategies need: bar ends that nobody has, and bars that lack trades."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import DAY, bar_ends, local_day
from data.schema import BAR, FLAG_INCOMPLETE
from data.store import BarStore
from jobs.readiness import Grid

Ends = npt.NDArray[np.int64]
_KEY = ["symbol", "bar_end", "revision"]


def expected_ends(frame: str, upto: int, n_bars: int, has_session: Callable[[int], bool]) -> Ends:
    """The newest `n_bars` bar ends (UTC ns, ascending) at or before `upto`, of the days that have a session.

    `has_session`: of the day of a time, UTC ns. Twice as many days are looked at as sessions are wanted, and a month.
    """
    found = np.empty(0, dtype=np.int64)
    per_session = len(bar_ends(local_day(np.array([upto]))[0], frame))
    for back in range(2 * n_bars // per_session + 31):
        at = upto - back * DAY
        if has_session(at):
            ends = bar_ends(local_day(np.array([at]))[0], frame)
            found = np.concatenate([ends[ends <= upto], found])
            if len(found) >= n_bars:
                break
    return found[-n_bars:]


def newest_hole(store: BarStore, frame: str, expected: Ends) -> int | None:
    """The newest of the `expected` bar ends, since the store began, at which no symbol has a bar; None for none."""
    files = store.files(frame)
    if not files or len(expected) == 0:
        return None
    begun = min(file.first for file in files)
    had = store.bar_ends(frame, upto=int(expected[-1]), newest=len(expected))
    lacking = np.setdiff1d(expected[expected > begun], had)
    return int(lacking[-1]) if len(lacking) else None


def whole_bars(store: BarStore, frame: str, symbols: Sequence[str], after: int, upto: int) -> tuple[Ends, Ends]:
    """Of bars with `after` < bar_end <= `upto` (UTC ns), in their newest revision: (symbols,) how many each symbol has
    that lack no trade, and the end of its newest that does, 0 for none."""
    if not store.files(frame):
        return np.zeros(len(symbols), dtype=np.int64), np.zeros(len(symbols), dtype=np.int64)
    table = store.table(frame, after=after, upto=upto, columns=["symbol", "bar_end", "revision", "flags"])
    grid = Grid.of(table, symbols)
    row = grid.newest(table["revision"].to_numpy())
    lacks = (row >= 0) & (table["flags"].to_numpy() & FLAG_INCOMPLETE != 0)[row] if table.num_rows else row >= 0
    newest = np.where(lacks, grid.ends, 0).max(axis=1, initial=0)
    return np.count_nonzero((row >= 0) & ~lacks, axis=1), newest


def lacking_bars(store: BarStore, frame: str, bars: pa.Table, upto: int) -> pa.Table:
    """Of fetched bars up to `upto` (UTC ns) those that are not stored; as a revision, those stored as incomplete."""
    bars = bars.filter(pc.less_equal(bars["bar_end"].cast(pa.int64()), upto)).cast(BAR)
    if bars.num_rows == 0 or not store.files(frame):
        return bars
    span = pc.min_max(bars["bar_end"].cast(pa.int64())).as_py()
    symbols = bars["symbol"].cast(pa.string()).unique().to_pylist()
    stored = store.table(
        frame, after=span["min"] - 1, upto=span["max"], symbols=symbols, columns=[*_KEY, "flags", "volume", "amount"]
    )
    both = Grid.of(pa.concat_tables([stored.select(_KEY), bars.select(_KEY)]), symbols)
    n = stored.num_rows
    known = Grid(both.cell[:n], both.ends, both.shape)
    row = known.newest(stored["revision"].to_numpy()).ravel()[both.cell[n:]]
    if n == 0:
        return bars
    there = row >= 0
    flags, last, volume, amount = (_numbers(stored[name])[row] for name in ("flags", "revision", "volume", "amount"))
    revision = np.where(there, last + 1, 0).astype(np.int32)
    # Endpoints have no amounts; where no trade was missing after all, ours is right.
    own = _numbers(bars["amount"])
    amount = np.where(there, np.where(volume == _numbers(bars["volume"]), amount, np.nan), own)
    arrays = {"revision": pa.array(revision), "amount": pa.array(amount, pa.float64(), mask=np.isnan(amount))}
    for name, values in arrays.items():
        bars = bars.set_column(bars.schema.get_field_index(name), BAR.field(name), values)
    return bars.filter(pa.array(~there | (flags.astype(np.int64) & FLAG_INCOMPLETE != 0)))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Numbers, NaN for null."""
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return numbers

"""What a store lacks of the bars that strategies need: bar ends that nobody has, and bars that lack trades."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import DAY, bar_ends, local_day
from data.schema import BAR, FLAG_INCOMPLETE
from data.store import BarStore

Ends = npt.NDArray[np.int64]


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
    place = pc.index_in(table["symbol"].cast(pa.string()), value_set=pa.array(symbols, pa.string())).fill_null(-1)
    at, ends = place.to_numpy(), table["bar_end"].cast(pa.int64()).to_numpy()
    order = np.lexsort((table["revision"].to_numpy(), ends, at))
    at, ends, flags = at[order], ends[order], table["flags"].to_numpy()[order]
    last = np.ones(len(at), dtype=bool)
    last[:-1] = (at[1:] != at[:-1]) | (ends[1:] != ends[:-1])
    last &= at >= 0
    incomplete = (flags & FLAG_INCOMPLETE) != 0
    newest = np.zeros(len(symbols), dtype=np.int64)
    np.maximum.at(newest, at[last & incomplete], ends[last & incomplete])
    return np.bincount(at[last & ~incomplete], minlength=len(symbols)), newest


def lacking_bars(store: BarStore, frame: str, bars: pa.Table, upto: int) -> pa.Table:
    """Of fetched bars up to `upto` (UTC ns) those that are not stored; as a revision, those stored as incomplete."""
    if bars.num_rows == 0:
        return bars
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    names = bars["symbol"].cast(pa.string()).to_pylist()
    known: dict[tuple[str, int], tuple[int, int, float, float | None]] = {}
    if store.files(frame):
        columns = ["symbol", "bar_end", "revision", "flags", "volume", "amount"]
        stored = store.table(
            frame, after=int(ends.min()) - 1, upto=int(ends.max()), symbols=sorted(set(names)), columns=columns
        )
        rows = zip(
            stored["symbol"].cast(pa.string()).to_pylist(),
            stored["bar_end"].cast(pa.int64()).to_pylist(),
            *(stored[name].to_pylist() for name in columns[2:]),
            strict=True,
        )
        for symbol, end, *about in sorted(rows, key=lambda row: row[2]):
            known[symbol, end] = tuple(about)
    revision = np.zeros(len(names), dtype=np.int32)
    amount: list[float | None] = bars["amount"].to_pylist()
    wanted = ends <= upto
    volume = bars["volume"].to_pylist()
    for row, key in enumerate(zip(names, ends.tolist(), strict=True)):
        if key in known:
            last, flags, had, worth = known[key]
            wanted[row] &= bool(flags & FLAG_INCOMPLETE)
            revision[row] = last + 1
            # Endpoints have no amounts; where no trade was missing after all, ours is right.
            amount[row] = worth if had == volume[row] else None
    table = bars.cast(BAR)
    for name, values in (("revision", pa.array(revision)), ("amount", pa.array(amount, pa.float64()))):
        table = table.set_column(table.schema.get_field_index(name), BAR.field(name), values)
    return table.filter(pa.array(wanted))

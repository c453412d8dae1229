"""Several providers' frames as one stream: each quote once, none older than what was published, none that cannot be."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import DAY, MINUTE, SECOND, SHANGHAI
from data.columns import Lookup
from data.panel import Times

_AHEAD = 10 * MINUTE
"""A quote stamped this much after its receipt is refused: all that come after it would count as older."""

_AUCTION_RESULT = (9 * 60 + 25) * MINUTE


class Taken(NamedTuple):
    """What became of a frame."""

    batch: pa.RecordBatch
    """What to publish, in order of time."""
    dropped: Counter[str]
    """What was left out, by reason."""
    newest_ns: int
    """The frame's newest quote time, 0 for none."""
    held: Times
    """Places of those whose quotes cannot be believed."""


class Quotes:
    """The newest quote of each symbol, by its place: when (UTC ns, 0: none), cumulative volume, last price."""

    def __init__(self, n_symbols: int = 0) -> None:
        self.time = np.zeros(n_symbols, dtype=np.int64)
        self.volume = np.zeros(n_symbols)
        self.last = np.zeros(n_symbols)

    def grow(self, n_symbols: int) -> None:
        """Room for more symbols."""
        for name in ("time", "volume", "last"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(max(0, n_symbols - len(old)), dtype=old.dtype)]))

    def put(self, place: Times, time: Times, volume: npt.NDArray[np.float64], last: npt.NDArray[np.float64]) -> None:
        """Quotes in order of time."""
        newer = time >= self.time[place]
        at = place[newer]
        self.time[at], self.volume[at], self.last[at] = time[newer], volume[newer], last[newer]


class Merge:
    """Takes providers' frames (`data.schema.TICK`) and gives what of them is to be published.

    A quote is left out, counted by reason: `unsubscribed`; `ahead` of its receipt; `early`, with a volume before the
    opening auction's result, which is yesterday's; `duplicate` or `older` than what was published of its symbol, by
    (quote time, cumulative volume); `volume_fell`, newer but with less volume than before, or in a
    frame with one of which its own source had shown more; `quarantined`: its price is farther than `tolerance` from
    what another provider says of the same time (`within_s`) and from what was published last. A real jump is thus held
    back until a second provider says the same, or nothing.
    """

    def __init__(self, *, tolerance: float = 0.03, within_s: float = 10.0) -> None:
        self._tolerance, self._within = tolerance, int(within_s * SECOND)
        self._place: dict[str, int] = {}
        self._known = pa.array([], pa.string())
        self._lookup = Lookup(self._place)
        self.published = Quotes()

    def add(self, symbols: Iterable[str]) -> None:
        """Take quotes of these symbols too."""
        for symbol in symbols:
            self._place.setdefault(symbol, len(self._place))
        self._known = pa.array(list(self._place), pa.string())
        self._lookup = Lookup(self._place)
        self.published.grow(len(self._place))

    def __len__(self) -> int:
        return len(self._place)

    def places(self, symbols: Iterable[str]) -> Times:
        """Where symbols stand in `Quotes`."""
        return np.array([self._place[symbol] for symbol in symbols], dtype=np.int64)

    def symbols(self, place: Times) -> list[str]:
        """Who stands at these places."""
        return [str(symbol) for symbol in self._known.take(pa.array(place)).to_pylist()]

    def take(
        self, batch: pa.RecordBatch, wanted: npt.NDArray[np.bool_], own: Quotes, others: Sequence[Quotes]
    ) -> Taken:
        """What of a provider's frame is to be published.

        `wanted`: by place, who is subscribed. `own`: what its provider has said, which goes on from here; `others`:
        what the other providers have. The batch's metadata: `received_ns`.
        """
        column = batch["symbol"]
        place = self._lookup(column.dictionary)[column.indices.to_numpy()] if batch.num_rows else np.zeros(0, np.int64)
        time = batch["quote_time"].view(pa.int64()).to_numpy()
        volume, last = batch["volume"].to_numpy(), batch["last"].to_numpy()
        order = np.lexsort((volume, time))
        place, time, volume, last = place[order], time[order], volume[order], last[order]

        known = (place >= 0) & wanted[place] if len(wanted) else np.zeros(len(place), dtype=bool)
        ahead = known & (time > int(batch.schema.metadata[b"received_ns"]) + _AHEAD)
        early = known & ~ahead & (volume > 0) & ((time + SHANGHAI) % DAY < _AUCTION_RESULT)
        shown = self.published
        usable = known & ~ahead & ~early
        fell = np.zeros(len(place), dtype=bool)
        fell[usable] = _fell(own, place[usable], time[usable], volume[usable])
        # A source whose day has begun anew says nothing true, of those either who have not traded since.
        fell = usable.copy() if fell.any() else fell
        fell[usable] |= _fell(shown, place[usable], time[usable], volume[usable])
        usable &= ~fell
        same = usable & (time == shown.time[place]) & (volume == shown.volume[place]) if len(wanted) else ~known & False
        newer = usable & ~same
        newer[newer] &= self._newer(place[newer], time[newer], volume[newer])
        again = np.zeros(len(place), dtype=bool)
        again[newer] = _repeats(place[newer], time[newer], volume[newer])
        fresh = newer & ~again
        odd = np.zeros(len(place), dtype=bool)
        odd[fresh] = self._outliers(place[fresh], time[fresh], last[fresh], others)
        good = fresh & ~odd
        dropped = Counter(
            unsubscribed=int(np.count_nonzero(~known)),
            ahead=int(np.count_nonzero(ahead)),
            early=int(np.count_nonzero(early)),
            volume_fell=int(np.count_nonzero(fell)),
            duplicate=int(np.count_nonzero(same | again)),
            older=int(np.count_nonzero(usable & ~same & ~newer)),
            quarantined=int(np.count_nonzero(odd)),
        )
        own.put(place[usable], time[usable], volume[usable], last[usable])
        shown.put(place[good], time[good], volume[good], last[good])
        newest = int(time[usable].max(initial=0))
        whole = good.all() and bool((order[1:] > order[:-1]).all())
        held = place[ahead | fell | odd]
        return Taken(batch if whole else batch.take(pa.array(order[good])), +dropped, newest, held)

    def _newer(self, place: Times, time: Times, volume: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        shown = self.published
        return np.asarray((time > shown.time[place]) | ((time == shown.time[place]) & (volume > shown.volume[place])))

    def _outliers(
        self, place: Times, time: Times, last: npt.NDArray[np.float64], others: Sequence[Quotes]
    ) -> npt.NDArray[np.bool_]:
        contradicted, confirmed = np.zeros(len(place), dtype=bool), np.zeros(len(place), dtype=bool)
        for other in others:
            there = other.last[place]
            comparable = (last > 0) & (there > 0) & (np.abs(time - other.time[place]) <= self._within)
            far = self._far(last, there)
            contradicted |= comparable & far
            confirmed |= comparable & ~far
        return contradicted & ~confirmed & self._far(last, self.published.last[place])

    def _far(self, price: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        return np.asarray(np.abs(price - other) > self._tolerance * other)


def _fell(before: Quotes, place: Times, time: Times, volume: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which quotes are of the same day, newer, and of less volume."""
    same_day = (time + SHANGHAI) // DAY == (before.time[place] + SHANGHAI) // DAY
    return np.asarray(same_day & (time > before.time[place]) & (volume < before.volume[place]))


def _repeats(place: Times, time: Times, volume: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which quotes stood in the same frame before."""
    order = np.lexsort((volume, time, place))
    p, t, v = place[order], time[order], volume[order]
    repeats = np.zeros(len(place), dtype=bool)
    repeats[order[1:]] = (p[1:] == p[:-1]) & (t[1:] == t[:-1]) & (v[1:] == v[:-1])
    return repeats

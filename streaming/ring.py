"""Ring: the newest signals in memory, each encoded once for everybody, and found by what a filter asks for."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from data.signal import encode
from streaming.filter import Filter

_FILTERED = ("symbol", "strategy", "action", "confidence")


@dataclass(slots=True)
class Sent:
    """A published signal: what filters look at, and its JSON."""

    seq: int
    signal: Mapping[str, Any]
    text: bytes

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Sent":
        """From what `Signal.to_dict` gives."""
        return cls(row["seq"], {name: row[name] for name in _FILTERED}, encode(row))


class Stretch:
    """Signals that follow one on the other, oldest first. A thousand filters that are all different cost little: each
    is answered from indexes that are made once."""

    def __init__(self, sent: Sequence[Sent]) -> None:
        self.sent = sent

    @property
    def last(self) -> int:
        """The sequence number of the newest."""
        return self.sent[-1].seq

    def wanted(self, by: Filter) -> list[bytes]:
        """The JSON of those that pass a filter."""
        sent = self.sent
        if by == Filter():
            return [one.text for one in sent]
        if by.symbols is None:
            return [sent[place].text for place in self._among(by)]
        places = self._of(by.symbols)
        if by != Filter(by.symbols):
            places = [place for place in places if by.wants(sent[place].signal)]
        return [sent[place].text for place in places]

    def _of(self, symbols: frozenset[str]) -> list[int]:
        """Where signals of these symbols stand."""
        places = self._by_symbol
        return sorted(chain.from_iterable([places[symbol] for symbol in symbols & places.keys()]))

    def _among(self, by: Filter) -> list[int]:
        """Where those stand that pass all but the symbols."""
        mask = np.ones(len(self.sent), dtype=np.bool_)
        if by.min_confidence is not None:
            mask &= self._confidence >= by.min_confidence
        for name, asked in (("strategy", by.strategies), ("action", by.actions)):
            if asked is not None:
                found = [self._masks[name, value] for value in asked if (name, value) in self._masks]
                mask &= np.logical_or.reduce(found) if found else False
        places: list[int] = np.flatnonzero(mask).tolist()
        return places

    @cached_property
    def _by_symbol(self) -> Mapping[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, one in enumerate(self.sent):
            places.setdefault(one.signal["symbol"], []).append(place)
        return places

    @cached_property
    def _confidence(self) -> npt.NDArray[np.float64]:
        return np.array([one.signal["confidence"] for one in self.sent], dtype=np.float64)

    @cached_property
    def _masks(self) -> Mapping[tuple[str, str], npt.NDArray[np.bool_]]:
        masks: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        for name in ("strategy", "action"):
            column = np.array([one.signal[name] for one in self.sent], dtype=object)
            masks |= {(name, value): np.equal(column, value).astype(np.bool_) for value in set(column)}
        return masks


class Ring:
    """The newest `size` signals of an epoch, or some more: what was published together goes together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stretches: deque[Stretch] = deque()
        self._n = 0

    @property
    def first(self) -> int | None:
        """The sequence number of the oldest; None where there is none."""
        return self._stretches[0].sent[0].seq if self._stretches else None

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what is published together, at least one signal."""
        stretch = Stretch([Sent.of(row) for row in rows])
        self._stretches.append(stretch)
        self._n += len(stretch.sent)
        while self._n - len(self._stretches[0].sent) >= self._size:
            self._n -= len(self._stretches.popleft().sent)

    def clear(self) -> None:
        """Forget everything."""
        self._stretches.clear()
        self._n = 0

    def after(self, seq: int) -> Stretch | None:
        """What followed `seq`; None where that is nothing."""
        if not self._stretches or seq >= self._stretches[-1].last:
            return None
        newest = self._stretches[-1]
        if seq == newest.sent[0].seq - 1:
            return newest
        return Stretch(list(self._newer(seq)))

    def _newer(self, seq: int) -> Iterator[Sent]:
        newer = []
        for stretch in reversed(self._stretches):
            if stretch.last <= seq:
                break
            newer.append(stretch)
        return (one for one in chain.from_iterable(each.sent for each in reversed(newer)) if one.seq > seq)

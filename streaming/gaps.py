"""Which quotes may be missing: up to when each symbol has been heard of, over all providers together.

A connection that was down, mute or stale, a ban, the time until the next provider is asked, an answer that did not
come, a line that was broken: each is a time in which nobody said how a symbol stood. It goes with the first frame after
it, as `lost` in its metadata, so it is on the tape and on every bus too:

    [[since_ns, until_ns, [symbols]], ...]      quotes of (since, until] (UTC ns) may be missing
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.panel import Times
from streaming.health import TradingClock

LOST = "lost"
"""The key in a frame's metadata."""


@dataclass(frozen=True)
class Loss:
    """Quotes of (`since_ns`, `until_ns`] (UTC ns) may be missing, of some symbols."""

    since_ns: int
    until_ns: int
    symbols: tuple[str, ...]


class Heard:
    """Up to when each symbol, by its place, has been heard of without a gap; all are first heard of after one."""

    def __init__(self, trading: TradingClock) -> None:
        self._trading = trading
        self._upto = np.zeros(0, dtype=np.int64)

    def grow(self, n_symbols: int) -> None:
        """Room for more symbols."""
        more = np.zeros(max(0, n_symbols - len(self._upto)), dtype=np.int64)
        self._upto = np.concatenate([self._upto, more])

    def forget(self, place: Times) -> None:
        """Nobody asks for these: what comes next of them comes after a gap."""
        self._upto[place] = 0

    def hear(self, place: Times, upto_ns: int, longest_s: float) -> list[tuple[int, Times]]:
        """How these stood at `upto_ns` (UTC ns) is known; since when it was not, and of whom, where that was longer
        than `longest_s` of trading."""
        before = self._upto[place]
        newer = before < upto_ns
        place, before = place[newer], before[newer]
        self._upto[place] = upto_ns
        gap = self._trading.ages_s(before, upto_ns) > longest_s
        return [(int(since), place[gap & (before == since)]) for since in np.unique(before[gap])]


def to_metadata(losses: Iterable[Loss]) -> dict[str, str]:
    """Losses as metadata of a frame; nothing for none."""
    found = [[loss.since_ns, loss.until_ns, loss.symbols] for loss in losses]
    return {LOST: json.dumps(found, separators=(",", ":"))} if found else {}


def losses_of(batch: pa.RecordBatch) -> list[Loss]:
    """The losses that a frame tells of."""
    said = (batch.schema.metadata or {}).get(LOST.encode(), b"[]")
    return [Loss(since, until, tuple(symbols)) for since, until, symbols in json.loads(said)]

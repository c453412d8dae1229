"""What a revision of closed bars changes in what they had fired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import pyarrow as pa

from data.signal import Signal, from_table
from scanner.market import ScanResult

Key = tuple[str, str, str, str]
"""Strategy, its version, symbol, action: what can fire once a bar."""


def key_of(signal: Signal) -> Key:
    """What fired, of one bar."""
    return signal.strategy, signal.version, signal.symbol, signal.action


def standing(table: pa.Table) -> dict[Key, Signal]:
    """Published signals of one closed bar end, oldest first -> those that have not been revoked."""
    found: dict[Key, Signal] = {}
    for signal in from_table(table):
        if signal.developing:
            continue
        if signal.revokes is None:
            found[key_of(signal)] = signal
        else:
            found.pop(key_of(signal), None)
    return found


class Stamps(NamedTuple):
    """Of the stages that a signal went through, UTC ns."""

    quote_ns: int
    received_ns: int
    bar_closed_ns: int
    scanned_ns: int


NOT_LIVE = Stamps(0, 0, 0, 0)


@dataclass(frozen=True)
class Revised:
    """Revisions of the bars of one end."""

    numbers: Mapping[str, int]
    """Symbol -> the number of its revision."""

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Self:
        """The rows of `data.schema.BAR`."""
        return cls(dict(zip(batch["symbol"].cast(pa.string()).to_pylist(), batch["revision"].to_pylist(), strict=True)))

    def compare(
        self,
        result: ScanResult,
        signals: Sequence[Signal],
        known: Mapping[Key, Signal],
        versions: Mapping[str, str],
        stamps: Stamps,
    ) -> list[Signal]:
        """What is to be published: `signals` that do not stand yet, and for those of `known` that fire no more a signal
        that revokes them.

        `result`: what fires now, whatever a cooldown kept silent. `versions`: of the strategies that were asked; of
        others nothing is said. A symbol whose own bar did not change, as one may in a rank, gets the highest number.
        """
        highest = max(self.numbers.values(), default=0)
        fires = {(hit.strategy, versions[hit.strategy], hit.symbol, hit.action) for hit in result.hits}
        told = [signal for signal in signals if key_of(signal) not in known]
        for key, signal in known.items():
            asked = versions.get(signal.strategy) == signal.version and signal.strategy not in result.failed
            if asked and key not in fires:
                told.append(replace(signal, revokes=signal.id, engine=result.engine, **stamps._asdict()))
        return [replace(signal, revision=self.numbers.get(signal.symbol, highest)) for signal in told]

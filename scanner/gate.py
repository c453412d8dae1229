"""Which symbols an indicator runs for at a bar: those whose inputs are known, and always have been since they began."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scanner.engines.base import Counts
from scanner.engines.machine import Matrix
from scanner.program import Cell

Mask = npt.NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max


class Gate:
    """Where the indicators of the same inputs run: from the first bar at which all are finite to the first at which
    one is not. A column's `begin` and `end` are bars, or NEVER."""

    def __init__(self, inputs: tuple[Cell, ...], columns: int) -> None:
        self.inputs = inputs
        self.begin, self.end = np.full(columns, NEVER), np.full(columns, NEVER)
        self.outputs: list[Matrix] = []
        self.settle()

    def settle(self) -> None:
        """To be called whenever `begin` or `end` have changed."""
        self.off = (self.begin == NEVER) | (self.end != NEVER)
        self.all = not self.off.any()

    def let(self, t: Counts, has: Mask, finite: Sequence[Mask | None]) -> Mask | None:
        """The columns that run at this bar, None for all of `has`; `finite`: of each input, None for all of `has`."""
        unknown = [mask for mask in finite if mask is not None]
        if not unknown and (self.all or not (has & self.off).any()):
            return None
        known = np.logical_and.reduce(unknown) if unknown else np.ones(len(has), dtype=bool)
        begins = has & known & (self.begin == NEVER)
        ends = has & ~known & ~self.off
        if begins.any() or ends.any():
            self.begin[begins] = t[begins]
            self.end[ends] = t[ends]
            self.settle()
            for output in self.outputs:
                output[:, ends] = np.nan
        runs: Mask = has & ~self.off
        return runs

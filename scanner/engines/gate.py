"""Which symbols an indicator runs for at a bar: those whose inputs are known, and always have been since they began."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max


class Gate:
    """Where the indicators of the same inputs run: from the first bar at which all are finite to the first at which
    one is not.

    `begin`, `end`: (symbols,) bars, or NEVER. `inputs`: the rows (1, symbols) where their newest values stand.
    """

    def __init__(self, inputs: Sequence[Any], begin: Counts, end: Counts) -> None:
        self.inputs, self.begin, self.end = list(inputs), begin, end
        self.outputs: list[Any] = []
        """The rows of its indicators' newest values, which are NaN where they do not run."""

    @property
    def off(self) -> Mask:
        """(symbols,): who has not begun, or has ended."""
        off: Mask = (self.begin == NEVER) | (self.end != NEVER)
        return off

    def let(self, t: Counts, has: Mask, finite: Callable[[Any], Mask | None]) -> Mask:
        """The columns that run at this bar, among those of `has`; `finite`: of a row (1, symbols), None for all."""
        off = self.off
        known = np.ones(len(has), dtype=bool)
        for row in self.inputs:
            if (mask := finite(row)) is not None:
                known &= mask
        begins, ends = has & known & (self.begin == NEVER), has & ~known & ~off
        if begins.any() or ends.any():
            self.begin[begins] = t[begins]
            self.end[ends] = t[ends]
            for output in self.outputs:
                output[:, ends] = np.nan
            off = self.off
        return has & ~off

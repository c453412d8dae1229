"""Which symbols an indicator runs for at a bar: those whose inputs are known, and always have been since they began."""

import math
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

    def let(self, t: Counts, has: Mask, get: Callable[[Any], npt.NDArray[Any]]) -> Mask:
        """The columns that run at this bar, among those of `has`; `get`: a row in numpy."""
        off = self.off
        known = np.ones(len(has), dtype=bool)
        for row in self.inputs:
            if not math.isfinite(float(row[0].dot(row[0]))):  # a number only if all are, and quickly had
                known &= np.isfinite(get(row[0]))
        begins, ends = has & known & (self.begin == NEVER), has & ~known & ~off
        if begins.any() or ends.any():
            self.begin[begins] = t[begins]
            self.end[ends] = t[ends]
            for output in self.outputs:
                output[:, ends] = np.nan
            off = self.off
        return has & ~off

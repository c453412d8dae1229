"""Which symbols are asked about at a bar, and where the rings hold their older bars."""

from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.indicators.window import MOST_BARS

Array = npt.NDArray[Any]
Columns = npt.NDArray[np.intp]
"""Places of symbols."""


class Asked:
    """Some columns, None for all; good until the next bar.

    `t`, `begun`: (symbols,) the bar at which each stands, and its first one.
    """

    def __init__(self, columns: Columns | None, t: Array, begun: Array) -> None:
        self.columns, self._width = columns, len(t)
        self.t = t.copy() if columns is None else t.take(columns)
        age = self.t - (begun if columns is None else begun.take(columns))
        self._age, self._least = age, age.min(initial=MOST_BARS)
        self._places: dict[tuple[int, int], Array] = {}

    def places(self, n: int, rows: int) -> Array:
        """Of the bar n bars ago, in the numbers of a ring."""
        if (n, rows) not in self._places:
            places = np.arange(self._width) if self.columns is None else self.columns
            self._places[n, rows] = (self.t - n) % rows * self._width + places
        return self._places[n, rows]

    def unknown(self, n: int) -> Array | None:
        """Who has no such bar; None for nobody."""
        return None if self._least >= n else self._age < n

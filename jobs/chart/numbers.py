"""Numbers in few characters."""

import math


def large(value: float) -> str:
    """1.23m, 4.56b; a dash for what is unknown."""
    if not math.isfinite(value):
        return "-"
    for size, unit in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.0f}"

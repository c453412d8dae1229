"""Golden bits: a compiled kernel gives, to the last bit, what the numpy form of the same source gives."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.panel import Floats
from scanner.engines import plain
from scanner.engines.base import Counts, Series
from scanner.indicators.spec import Indicator

N_SYMBOLS = 8
LEAST_BARS = 40


class Bits(NamedTuple):
    """How many values were compared, how many differ, and by how many units in the last place at most."""

    n_values: int
    n_differing: int
    max_ulp: int


def golden(indicator: Indicator, run: Callable[..., tuple[Floats, ...]]) -> Bits:
    """What `run`, an engine's or of its shape, gives for an indicator with a kernel, against the numpy form of it.

    The input is a small market of symbols that move, are listed late, stand still, have one bar or none, or a gap.
    """
    params = indicator.bind()
    inputs = [Series(matrix, lengths) for matrix, lengths in market(indicator)]
    return compare(run(indicator, params, inputs), plain.run(indicator, params, inputs))


def market(indicator: Indicator, n_symbols: int = N_SYMBOLS, bars: int | None = None) -> list[tuple[Floats, Counts]]:
    """An indicator's inputs as (bars, symbols) matrices, with the symbols' lengths; the same at every call."""
    bars = max(LEAST_BARS, 2 * indicator.lookback(**indicator.bind()) + 2) if bars is None else bars
    rng = np.random.default_rng(20)
    shape = (bars, n_symbols)
    column = np.arange(n_symbols) % N_SYMBOLS
    moves = rng.normal(0, 0.02, shape)
    moves[:, column == 2] = 0.0
    moves[:, column == 5] *= (np.arange(bars) // 9 % 2)[:, None]
    close = np.round(20 * np.exp(np.cumsum(moves, axis=0)), 2)
    still = moves == 0.0
    start, above, below = np.round(np.where(still, 0.0, rng.normal(0, 0.2, (3, *shape))), 2)
    fields = {
        "open": close + start,
        "high": close + np.maximum(start, 0) + abs(above),
        "low": close + np.minimum(start, 0) - abs(below),
        "close": close,
        "volume": np.where(still & (rng.random(shape) < 0.5), 0.0, np.round(rng.lognormal(13, 0.5, shape))),
    }
    fields["amount"] = fields["volume"] * close
    fields["y"] = np.where(rng.random(shape) < 0.1, close, close + start)
    fields["condition"] = ((rng.random(shape) < 0.4) | (np.arange(bars) % 40 > 12)[:, None]).astype(np.float64)
    fields["session"] = np.repeat(19_000.0 + np.arange(bars) // 7, n_symbols).reshape(shape)
    lengths = np.full(n_symbols, bars)
    lengths[column == 1] = bars * 3 // 4
    lengths[column == 3] = min(bars, 1)
    lengths[column == 4] = 0
    result = []
    for name in indicator.inputs:
        matrix = fields.get(name, close).copy()
        if indicator.kernel is not None and indicator.kernel.total:
            matrix[rng.random(shape) < 0.02] = np.nan
        matrix[np.arange(bars)[:, None] < bars - lengths] = np.nan
        matrix[bars * 4 // 5 : bars * 4 // 5 + 1, column == 6] = np.nan
        result.append((matrix, lengths))
    return result


def compare(got: tuple[Floats, ...], wanted: tuple[Floats, ...]) -> Bits:
    """Two results, value by value; any NaN is equal to any other, 0.0 is not -0.0."""
    n_values = n_differing = max_ulp = 0
    for one, other in zip(got, wanted, strict=True):
        a, b = (np.ascontiguousarray(values).view(np.int64) for values in (one, other))
        differ = (a != b) & ~(np.isnan(one) & np.isnan(other))
        n_values += one.size
        n_differing += int(differ.sum())
        for x, y in zip(a[differ].tolist(), b[differ].tolist(), strict=True):
            max_ulp = max(max_ulp, abs(_place(x) - _place(y)))
    return Bits(n_values, n_differing, max_ulp)


def _place(bits: int) -> int:
    """A number's place among all float64, from its bits."""
    return bits if bits >= 0 else -(bits + 2**63)

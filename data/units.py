"""The units a source counts in, told by its own rows: amount / volume is the mean price, so it lies within [low, high].

Volume comes in shares or in lots of 100, amount in CNY or in thousands. The four combinations differ by factors of
ten and more, far beyond a day's range, so a row fits one of them or none. A source keeps one unit, but for STAR shares
(688, 689), which some vendors count in shares and all else in lots: they may have their own within a file.

Tolerances, measured on 2.78 million published rows: with none, 3,086 rows of A shares fall outside (limit days, where
low = high, and amounts rounded to the yuan); with one tick on each side three do, and those are wrong. Whole lots may
be rounded by up to a lot.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.panel import Floats

SCALES = ((1.0, 1.0), (100.0, 1.0), (100.0, 1000.0), (1.0, 1000.0))
"""(shares in a unit of volume, CNY in a unit of amount), the likelier first."""
LOT = 100.0
TICK = 0.01
YUAN = 1.0
CLEAR = 3
"""So many rows must speak for STAR shares' own unit."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Units:
    """What the units make of rows; arrays are (rows,)."""

    volume: Floats
    """Shares."""
    amount: Floats
    """CNY, NaN where the source has none."""
    coarse: Floats
    """Shares by which the volume may be off, because the source rounds to lots: 0 or just under 100."""
    wrong: Mask
    """Rows that were checked and do not fit the unit of their source."""
    unknown: Mask
    """Rows whose units nothing tells."""


def recognise_units(
    volume: Floats,
    amount: Floats,
    low: Floats,
    high: Floats,
    checked: Mask,
    star: Mask,
    source: npt.NDArray[np.int64],
    vendor: npt.NDArray[np.int64],
) -> Units:
    """Units of each source, and the rows that do not fit them.

    `low`, `high`: raw prices, CNY. `checked`: rows to judge by and to be judged: traded, with an amount in CNY.
    `source`: number of each row's file. `vendor`, (sources,): number of the group of files alike to it. A file none of
    whose rows tells takes the group's units; where that does not tell either, it is taken to count in shares and CNY.
    """
    fitting = [_fits(scale, volume, amount, low, high) & checked for scale in SCALES]
    n_sources = len(vendor)
    own = np.stack([np.bincount(source[fit], minlength=n_sources) for fit in fitting])
    alike = np.stack([np.bincount(vendor, weights=votes) for votes in own])[:, vendor]
    whole = np.where(own.any(axis=0), own, alike)
    chosen = whole.argmax(axis=0)[source]
    stars = np.stack([np.bincount(source[fit & star], minlength=n_sources) for fit in fitting])
    judged = np.bincount(source[checked & star], minlength=n_sources)
    clear = (stars.max(axis=0) >= CLEAR) & (2 * stars.max(axis=0) > judged)
    chosen = np.where(star & clear[source], stars.argmax(axis=0)[source], chosen)
    wrong = checked & ~np.choose(chosen, fitting)
    shares, cny = np.array(SCALES).T
    coarse = _coarse(shares[chosen], volume)
    volume = np.where(shares[chosen] == 1.0, volume, np.round(volume * shares[chosen]))
    amount = np.where(cny[chosen] == 1.0, amount, np.round(amount * cny[chosen], 2))
    told = np.asarray(whole.any(axis=0))
    return Units(volume, amount, coarse, wrong, ~told[source])


def _fits(scale: tuple[float, float], volume: Floats, amount: Floats, low: Floats, high: Floats) -> Mask:
    """Rows whose mean price lies within their range at this scale, within the tolerances."""
    shares, cny = scale
    with np.errstate(invalid="ignore", over="ignore"):
        traded = volume * shares
        spent = amount * cny
        if shares == 1.0:
            return (spent + YUAN >= (low - TICK) * traded) & (spent - YUAN <= (high + TICK) * traded)
        coarse = _coarse(np.full(len(volume), shares), volume)
        floor, ceiling = np.maximum(traded - coarse, 0.0), traded + coarse
        return (spent + YUAN >= (low - TICK) * floor) & (spent - YUAN <= (high + TICK) * ceiling)


def _coarse(shares: Floats, volume: Floats) -> Floats:
    """Shares by which each volume may be off; a volume with a fraction of a lot is exact."""
    with np.errstate(invalid="ignore"):
        return np.where((shares == LOT) & (volume == np.floor(volume)), LOT - 1.0, 0.0)

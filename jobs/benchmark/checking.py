"""Both sides computed the same numbers, or nothing is timed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.errors import ScanError
from data.panel import Floats
from jobs.benchmark.engines import Outputs, Way, Work
from jobs.benchmark.loop import Call

PLAIN = ("talib-loop", "talib-bare", "talib-processes")
"""The ways that are TA-Lib alone, in whose integers 0 stands for no value."""


STREAM = "talib-stream"
"""TA-Lib's stream handles."""


class UnequalError(ScanError):
    """An engine's numbers are not TA-Lib's."""


def check(work: Work, wanted: Outputs, way: Way) -> None:
    """Compare what a way computed with the loop's values; raises UnequalError.

    TA-Lib's own engine must give its bits; kernels, and TA-Lib's stream handles, the same NaN, and values within the
    kernels' declared tolerance, but for stretches without movement where a kernel declares a value: there TA-Lib's
    values are what rounding left.
    """
    got = warmed_up(work, way.outputs()) if way.engine in PLAIN else way.outputs()
    exact = way.engine.startswith("talib") and way.engine != STREAM
    k = 0
    for call in work.calls:
        still = None if exact else _still(call, work)
        for name in call.indicator.outputs:
            _compare(f"{way.engine}: {call.key} {name}", got[k], wanted[k], call, exact, still)
            k += 1
    if k != len(got):
        raise UnequalError(f"{way.engine} gave {len(got)} outputs; {k} were asked for")


def warmed_up(work: Work, outputs: Outputs) -> list[Floats]:
    """The loop's outputs with NaN during the lookback, where TA-Lib's integers are 0."""
    n = work.bars.length
    found = iter(outputs)
    begin = n - work.bars.packed.lengths
    result = []
    for call in work.calls:
        for _ in call.indicator.outputs:
            values = next(found)
            rows = np.arange(n - len(values), n)[:, None]
            result.append(np.where(rows < begin + call.lookback, np.nan, values))
    return result


def _compare(
    what: str, got: Floats, wanted: Floats, call: Call, exact: bool, still: npt.NDArray[np.bool_] | None
) -> None:
    wanted = wanted[-len(got) :]
    kernel = call.indicator.kernel
    known = ~np.isnan(wanted)
    largest = float(np.abs(wanted[known]).max(initial=0.0))
    allowed = 0.0 if exact or kernel is None else kernel.rtol * largest
    if not np.array_equal(known, ~np.isnan(got)):
        places = int((known == np.isnan(got)).sum())
        raise UnequalError(f"{what}: NaN in {places} places where TA-Lib has a value, or the reverse")
    apart = np.abs(np.where(known, got, 0.0) - np.where(known, wanted, 0.0))
    if still is not None:
        apart[still[-len(got) :]] = 0.0
    worst = float(apart.max(initial=0.0))
    if worst > allowed:
        raise UnequalError(f"{what}: {worst:g} apart where {allowed:g} is allowed")


def _still(call: Call, work: Work) -> npt.NDArray[np.bool_] | None:
    """(bars, symbols): where no input changed during the lookback, of a kernel that declares a value for that."""
    if call.indicator.kernel is None or call.indicator.kernel.flat is None:
        return None
    n = work.bars.length
    moved = np.zeros((n, work.bars.n_symbols), dtype=bool)
    for name in call.indicator.inputs:
        matrix = work.bars.packed.fields[name]
        moved[1:] |= matrix[1:] != matrix[:-1]
    place = np.arange(n)[:, None]
    quiet: npt.NDArray[np.bool_] = place - np.maximum.accumulate(np.where(moved, place, 0), axis=0) >= call.lookback
    return quiet


def equal_bits(what: str, got: Sequence[Floats], wanted: Sequence[Floats]) -> None:
    """Raises UnequalError where any bit differs; NaN is NaN."""
    for k, (one, other) in enumerate(zip(got, wanted, strict=True)):
        rows = other[-len(one) :]
        differ = int(((one != rows) & ~(np.isnan(one) & np.isnan(rows))).sum())
        if differ:
            raise UnequalError(f"{what}: output {k} differs in {differ} values")

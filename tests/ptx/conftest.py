"""PTX run on a CPU, and inputs of every shape that a market has."""

import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data.panel import Floats
from scanner.engines.base import Counts, Series, joint_span, load
from scanner.indicators.spec import Indicator
from scanner.ptx.on_cpu import PtxMachine

BARS = 150
"""More than a default lookback of any kernel but the very long ones'."""


@pytest.fixture(scope="session")
def gcc() -> None:
    if not shutil.which("gcc"):
        pytest.skip("a C compiler is missing: no gcc")


@pytest.fixture(scope="session")
def machine(gcc: None) -> PtxMachine:
    """All that is shipped."""
    return PtxMachine()


class Cases:
    """(name, lengths, fields): markets that a kernel has to get right, some symbols of each."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.lengths = np.array([BARS, BARS, 131, 90, 60, 21, 2, 1, 0, BARS, BARS, 97], dtype=np.int64)
        shape = (BARS, len(self.lengths))
        close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0)), 2)
        close[70:115, 1] = close[70, 1]  # it moves, stands still for longer than a lookback, and moves again
        close[:, 9] = 7.0  # it never moves
        start = np.round(close * np.exp(rng.normal(0, 0.01, shape)), 2)
        spread = np.round(rng.exponential(0.1, shape), 2)
        start[70:115, 1] = start[:, 9] = np.nan
        start = np.where(np.isnan(start), close, start)
        spread[70:115, 1] = spread[:, 9] = 0.0
        volume = np.round(rng.lognormal(13, 0.5, shape))
        volume[100:108, 2] = 0.0
        high, low = np.maximum(start, close) + spread, np.minimum(start, close) - spread
        self.fields = {"open": start, "high": high, "low": low, "close": close, "volume": volume}
        self.fields["amount"] = volume * close
        self.fields["session"] = np.repeat(np.arange(BARS) // 5 + 19_000.0, shape[1]).reshape(shape)
        for matrix in self.fields.values():
            matrix[np.arange(BARS)[:, None] < BARS - self.lengths] = np.nan
            matrix[120, 10] = np.nan  # a bar that lacks a number ends it
        # Of three values, and numbers that no price is.
        self.wild = rng.choice([0.0, 1.0, 1.0, 2.0, -0.0, np.nan, np.inf, -np.inf], (3, *shape))

    def inputs(self, indicator: Indicator) -> list[Series]:
        """What an indicator takes; a total one takes anything."""
        assert indicator.kernel
        if indicator.kernel.total:
            return [Series(self.wild[k], self.lengths) for k in range(len(indicator.inputs))]
        close = self.fields["close"]
        return [Series(self.fields.get(name, close), self.lengths) for name in indicator.inputs]


@pytest.fixture(scope="session")
def cases() -> Cases:
    return Cases()


def altered(indicator: Indicator) -> tuple[Any, ...]:
    """Parameters other than the defaults."""
    return tuple(min(p.hi, p.default + 2 if p.kind is int else p.default * 1.5) for p in indicator.params)


def least(indicator: Indicator) -> tuple[Any, ...]:
    """The smallest integers that are allowed."""
    return tuple(p.lo if p.kind is int else p.default for p in indicator.params)


def by_ptx(machine: PtxMachine, indicator: Indicator, args: Sequence[Any], inputs: Sequence[Series]) -> list[Floats]:
    """Outputs of the PTX; (bars, symbols), NaN where it wrote nothing."""
    assert indicator.kernel
    params = indicator.bind(*args)
    first, stop = joint_span(indicator, inputs)
    matrices = [series.by_bar for series in inputs]
    state = machine.zeros(indicator.kernel.rows(params), len(first))
    outputs = [np.full(matrices[0].shape, np.nan) for _ in indicator.outputs]
    machine.batch(indicator, params, first, stop, matrices, state, outputs)
    return outputs


def by_vector(indicator: Indicator, args: Sequence[Any], inputs: Sequence[Series]) -> list[Floats]:
    """Outputs of the kernel compiled for this CPU."""
    return list(load("vector").run(indicator, indicator.bind(*args), inputs))


def differing(one: Sequence[Floats], other: Sequence[Floats]) -> int:
    """How many values differ in any bit; a NaN is a NaN."""
    assert [a.shape for a in one] == [b.shape for b in other]
    return sum(
        int(((a.view(np.uint64) != b.view(np.uint64)) & ~(np.isnan(a) & np.isnan(b))).sum())
        for a, b in zip(one, other, strict=True)
    )


def columns(series: Series, chosen: Counts) -> Series:
    """Some symbols of a series."""
    return Series(np.ascontiguousarray(series.by_bar[:, chosen]), series.lengths[chosen])

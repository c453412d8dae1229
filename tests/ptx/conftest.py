"""PTX run on a CPU, by the code that launches it on a GPU, against the kernels compiled for this CPU."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from data.panel import Floats
from scanner.engines.base import Series, joint_span, load
from scanner.engines.golden import compare, market
from scanner.engines.on_gpu import CudaMachine
from scanner.engines.pretend import HostDevice
from scanner.indicators.spec import Indicator
from scanner.ptx.arguments import Launch
from scanner.ptx.on_cpu import PtxMachine

N_SYMBOLS = 70
"""More than a block has threads."""


class Proof:
    """What is compared with what."""

    def on_cpu(self, texts: Mapping[str, str] | None = None) -> CudaMachine:
        """The machine of the engine `cuda`, on a device that is this CPU with that PTX; all that is shipped."""
        return self.machine(PtxMachine(texts).launch)

    def machine(self, launch: Callable[[Launch], None]) -> CudaMachine:
        return CudaMachine(HostDevice(launch))

    def market(self, indicator: Indicator, n_symbols: int = N_SYMBOLS, bars: int | None = None) -> list[Series]:
        """Symbols that move, are listed late, stand still, have one bar, none, or a gap; total kernels: odd numbers."""
        assert indicator.kernel
        rng, made = np.random.default_rng(5), []
        shorter = np.arange(n_symbols) % 16 // 8 * rng.integers(0, 40, n_symbols)
        for matrix, lengths in market(indicator, n_symbols, bars):
            # Compiled loops do several bars at a time: let there be every remainder.
            lengths = np.maximum(lengths - shorter, 0)
            matrix[np.arange(len(matrix))[:, None] < len(matrix) - lengths] = np.nan
            if indicator.kernel.total:
                odd = rng.random(matrix.shape) < 0.1
                matrix[odd] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324], odd.sum())
            made.append(Series(matrix, lengths))
        return made

    def settings(self, indicator: Indicator) -> list[tuple[Any, ...]]:
        """The defaults; other parameters; the smallest integers that are allowed."""
        other = tuple(min(p.hi, p.default + 2 if p.kind is int else p.default * 1.5) for p in indicator.params)
        least = tuple(p.lo if p.kind is int else p.default for p in indicator.params)
        return [(), other, least] if indicator.params else [()]

    def run(
        self,
        machine: CudaMachine,
        indicator: Indicator,
        args: Sequence[Any],
        inputs: Sequence[Series],
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """(bars, symbols) of each output, all bars at once; of `keep` rows: a ring."""
        assert indicator.kernel
        params = indicator.bind(*args)
        first, stop = joint_span(indicator, inputs)
        matrices = [machine.put(series.by_bar) for series in inputs]
        state = machine.zeros(indicator.kernel.rows(params), len(first))
        outputs = [machine.zeros(len(matrices[0]) if keep is None else keep, len(first)) for _ in indicator.outputs]
        machine.batch(indicator, params, first, stop, matrices, state, outputs)
        return tuple(machine.get(output) for output in outputs)

    def differing(
        self, machine: CudaMachine, indicator: Indicator, args: Sequence[Any], inputs: Sequence[Series]
    ) -> int:
        """How many values differ in any bit from those of the engine `vector`; a NaN is a NaN."""
        wanted = load("vector").run(indicator, indicator.bind(*args), inputs)
        return compare(self.run(machine, indicator, args, inputs), wanted).n_differing


@pytest.fixture(scope="session")
def proof() -> Proof:
    return Proof()


@pytest.fixture(scope="session")
def gcc() -> None:
    if not shutil.which("gcc"):
        pytest.skip("a C compiler is not on this machine")


@pytest.fixture(scope="session")
def shipped(gcc: None, proof: Proof) -> CudaMachine:
    return proof.on_cpu()

"""The engine `vector`: every symbol at once, bar by bar, by row kernels compiled for this CPU."""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise

import numpy as np

from data.panel import Floats
from scanner.engines.base import Engine, Series, joint_span, load
from scanner.engines.compiling import BLOCK, compiled
from scanner.engines.verdict import refusal
from scanner.indicators.spec import Indicator

LARGE = 1 << 17
"""Bars times symbols from which on more than one thread pays."""


class VectorEngine:
    """Row kernels over blocks of symbols, on `threads` threads at most (0: as many as there are cores).

    In a task of a Dask worker it is one thread, since the workers share the cores.
    """

    name = "vector"

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or _cores()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="vector")

    @cached_property
    def _talib(self) -> Engine:
        return load("talib")

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`; what has no kernel, or none that can be compiled here, is computed by the engine `talib`."""
        if indicator.kernel is None or refusal(indicator, self.by_kernel):
            return self._talib.run(indicator, params, inputs, keep=keep)
        return self.by_kernel(indicator, params, inputs, keep=keep)

    def by_kernel(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`, by the compiled kernel, whatever bits it gives."""
        assert indicator.kernel is not None
        first, stop = joint_span(indicator, inputs)
        matrices = [series.by_bar for series in inputs]
        bars, n_symbols = matrices[0].shape
        width = bars if keep is None else min(keep, bars)
        outputs = [np.empty((width, n_symbols)) for _ in indicator.outputs]
        if width == 0 or n_symbols == 0:
            return tuple(outputs)
        state = np.zeros((indicator.kernel.rows(params), n_symbols))
        drive = compiled(indicator)
        arguments = (first, stop, *matrices, state, *outputs, *(params[param.name] for param in indicator.params))
        threads = 1 if matrices[0].size < LARGE or _in_dask_task() else self.threads
        blocks = -(-n_symbols // BLOCK)
        if threads == 1:
            drive(0, n_symbols, *arguments)
        else:
            edges = [min(n_symbols, BLOCK * (blocks * k // threads)) for k in range(threads + 1)]
            for part in [self._pool.submit(drive, a, b, *arguments) for a, b in pairwise(edges)]:
                part.result()
        # The outputs are rings, whose oldest row need not be the first.
        oldest = bars % width
        return tuple(np.roll(output, -oldest, axis=0) if oldest else output for output in outputs)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_dask_task() -> bool:
    module = sys.modules.get("distributed.worker")
    if module is None:
        return False
    try:
        module.get_worker()
    except ValueError:
        return False
    return True


engine = VectorEngine()

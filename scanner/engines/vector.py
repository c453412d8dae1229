"""The engine `vector`: every symbol at once, bar by bar, by row kernels compiled for this CPU."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise

import numpy as np

from data.panel import Floats
from scanner.engines.base import Call, Counts, Engine, Series, check_inputs, joint_span, load
from scanner.engines.buffers import LINE, Buffers, aligned
from scanner.engines.compiling import BLOCK, compiled, loops
from scanner.engines.verdict import refusal
from scanner.indicators.spec import Indicator

LARGE = 1 << 17
"""Bars times symbols from which on more than one thread pays."""
STREAMED_BYTES = 4 << 20
"""Results of as many bytes go to memory past the caches, which they would only fill."""
_PITCH = BLOCK + 8
"""Columns of the states of a block: rows a power of two apart would contend for the same places of a cache."""


class VectorEngine:
    """Row kernels over blocks of symbols, on `threads` threads at most (0: as many as there are cores).

    In a task of a Dask worker it is one thread, since the workers share the cores. Holds memory for its results.
    """

    name = "vector"

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or _cores()
        self._buffers = Buffers()

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
        return self.run_all([Call(indicator, params, inputs, keep)])[0]

    def run_all(self, calls: Sequence[Call]) -> list[tuple[Floats, ...]]:
        """As `Batching.run_all`: a thread takes a block of symbols through all kernels, reading it from memory once."""
        compiled = [call.indicator.kernel is not None and not refusal(call.indicator, self.by_kernel) for call in calls]
        results = iter(self._by_kernels([call for call, chosen in zip(calls, compiled, strict=True) if chosen]))
        return [
            next(results) if chosen else self._talib.run(call.indicator, call.params, call.inputs, keep=call.keep)
            for call, chosen in zip(calls, compiled, strict=True)
        ]

    def by_kernel(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`, by the compiled kernel, whatever bits it gives."""
        return self._by_kernels([Call(indicator, params, inputs, keep)])[0]

    def _by_kernels(self, calls: Sequence[Call]) -> list[tuple[Floats, ...]]:
        self._buffers.begin()
        for call in calls:
            check_inputs(call.indicator, call.inputs)
        series = {id(one): one for call in calls for one in call.inputs}
        shape = next(iter(series.values())).by_bar.shape if series else (0, 0)
        n_blocks = -(-shape[1] // BLOCK)
        size = shape[0] * shape[1] * len(calls)
        threads = 1 if size < LARGE or _in_dask_task() else min(self.threads, n_blocks)
        for one in series.values():
            if one.known is None:
                one.known = self._looked(one, threads)
        plan = _Plan(calls, shape, self._buffers)
        if plan.n_steps:
            self._together(plan.run, threads)
        return plan.results()

    def _looked(self, series: Series, threads: int) -> tuple[Counts, Counts]:
        """`Series.span`, by as many threads."""
        matrix, (bars, n) = series.by_bar, series.by_bar.shape
        first, stop = bars - series.lengths, np.empty(n, dtype=np.int64)
        edges = [n * k // threads for k in range(threads + 1)]
        parts = iter(pairwise(edges))
        self._together(lambda: loops().look(matrix.ctypes.data, *next(parts), bars, n, first, stop), threads)
        return first, stop

    def _together(self, work: Callable[[], None], threads: int) -> None:
        others = [self._pool.submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            for other in others:
                other.result()


class _Plan:
    """Calls made ready: what every block of columns goes through. `shape`: bars and symbols."""

    def __init__(self, calls: Sequence[Call], shape: tuple[int, int], buffers: Buffers) -> None:
        self.bars, self.n_symbols = shape
        self._calls: list[Call] = []
        self._outputs = []
        self._held: list[object] = []
        steps, matrices = [], []
        spans: dict[tuple[int, ...], tuple[int, int]] = {}
        self._rows, skew = 0, None
        for call in calls:
            kernel = call.indicator.kernel
            assert kernel is not None
            inputs = [one.by_bar for one in call.inputs]
            if skew is None:
                skew = inputs[0].ctypes.data % LINE
            keep = self.bars if call.keep is None else min(call.keep, self.bars)
            outputs = [buffers.empty(keep, self.n_symbols, skew) for _ in call.indicator.outputs]
            self._outputs.append(outputs)
            if not keep or not self.n_symbols:
                continue
            program = compiled(call.indicator)
            values = program.values([call.params[param.name] for param in call.indicator.params])
            key = () if kernel.total else tuple(map(id, call.inputs))
            if key not in spans:
                first, stop = (np.ascontiguousarray(part) for part in joint_span(call.indicator, call.inputs))
                self._held += (first, stop)
                spans[key] = first.ctypes.data, stop.ctypes.data
            rows = kernel.rows(call.params)
            self._rows = max(self._rows, rows)
            self._held += (*inputs, values)
            self._calls.append(call)
            counts = (len(inputs), len(outputs), rows, keep)
            steps.append((program.address, *counts, *spans[key], values.ctypes.data))
            matrices.append([matrix.ctypes.data for matrix in (*inputs, *outputs)])
        self.n_steps = len(steps)
        self._width = max(map(len, matrices), default=0)
        self._steps = np.array(steps, dtype=np.int64)
        self._matrices = np.array([[*row, *[0] * (self._width - len(row))] for row in matrices], dtype=np.int64)
        self._skew = (skew or 0) // 8
        results = sum(output.nbytes for outputs in self._outputs for output in outputs)
        self._streamed = results >= STREAMED_BYTES
        self._next = np.zeros(1, dtype=np.int64)

    def run(self) -> None:
        """Take the blocks that no other thread takes, one by one, through all calls; raises KernelError."""
        scratch = aligned((self._rows + self._width) * _PITCH)
        states = scratch.ctypes.data
        failed = loops().work(
            *(self._next.ctypes.data, BLOCK, self._skew, self.n_symbols, self.bars, self._steps, self._matrices),
            *(np.empty(3 * (self._width + 1), dtype=np.int64), states),
            *(states + 8 * self._rows * _PITCH if self._streamed else 0, _PITCH),
        )
        if failed:
            raise compiled(self._calls[failed - 1].indicator).failed()

    def results(self) -> list[tuple[Floats, ...]]:
        """Call by call, the oldest row first: while they are computed they are rings."""
        return [tuple(_unrolled(output, self.bars) for output in outputs) for outputs in self._outputs]


def _unrolled(ring: Floats, bars: int) -> Floats:
    oldest = bars % len(ring) if len(ring) else 0
    return np.roll(ring, -oldest, axis=0) if oldest else ring


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

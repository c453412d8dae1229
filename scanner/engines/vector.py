"""The engine `vector`: every symbol at once, bar by bar, by row kernels compiled for this CPU."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from data.panel import Floats
from scanner.engines.base import Call, Counts, Engine, Series, check_inputs, load, spans
from scanner.engines.buffers import Buffers
from scanner.engines.compiling import compiled, loader, span
from scanner.engines.verdict import refusal
from scanner.indicators.spec import Indicator

LARGE = 1 << 17
"""Bars times symbols from which on more than one thread pays."""
BLOCK = 256
"""Columns that are taken through all bars and kernels together: what they need stays in the caches of a core."""
_PITCH = BLOCK + 8
"""Columns of the matrices of a block: rows a power of two apart would contend for the same places of a cache."""


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
        plan = _Plan(calls, self._buffers)
        if plan.n_symbols and plan.bars:
            size = plan.bars * plan.n_symbols * len(calls)
            threads = 1 if size < LARGE or _in_dask_task() else min(self.threads, -(-plan.n_symbols // BLOCK))
            blocks = iter(range(0, plan.n_symbols, BLOCK))
            others = [self._pool.submit(plan.run, blocks, self._buffers) for _ in range(threads - 1)]
            try:
                plan.run(blocks, self._buffers)
            finally:
                for other in others:
                    other.result()
        return plan.results()


class _Plan:
    """Calls made ready: what every block of columns goes through."""

    def __init__(self, calls: Sequence[Call], buffers: Buffers) -> None:
        for call in calls:
            check_inputs(call.indicator, call.inputs)
        series = {id(one): one for call in calls for one in call.inputs}
        places = {key: k for k, key in enumerate(series)}
        self._matrices = [one.by_bar for one in series.values()]
        self.bars, self.n_symbols = self._matrices[0].shape if series else (0, 0)
        self._lengths = next(iter(series.values())).lengths if series else np.empty(0, dtype=np.int64)
        self._outputs = []
        self._steps = []
        self._rows, self._width = 0, 0
        for call in calls:
            kernel = call.indicator.kernel
            assert kernel is not None
            keep = self.bars if call.keep is None else min(call.keep, self.bars)
            outputs = [buffers.empty(keep, self.n_symbols) for _ in call.indicator.outputs]
            self._outputs.append(outputs)
            if keep:
                rows = kernel.rows(call.params)
                self._rows, self._width = max(self._rows, rows), max(self._width, len(outputs))
                program = compiled(call.indicator)
                values = program.values([call.params[param.name] for param in call.indicator.params])
                inputs = tuple(places[id(one)] for one in call.inputs)
                addresses = [output.ctypes.data for output in outputs]
                self._steps.append((program, inputs, kernel.total, rows, keep, addresses, values))

    def run(self, blocks: Iterable[int], buffers: Buffers) -> None:
        """Take the blocks that no other thread takes, one by one, through all calls."""
        read = loader()
        whole = buffers.empty(len(self._matrices) * self.bars, _PITCH)
        tiles = [whole[k * self.bars : (k + 1) * self.bars] for k in range(len(self._matrices))]
        state, out = np.empty((self._rows, _PITCH)), np.empty((self._width, _PITCH))
        places = [tile.ctypes.data for tile in tiles]
        states, outs = state.ctypes.data, out.ctypes.data
        first, stop = np.empty((2, len(tiles), BLOCK), dtype=np.int64)
        for left in blocks:
            n = min(BLOCK, self.n_symbols - left)
            lengths = self._lengths[left : left + n]
            listed = self.bars - lengths
            odd = []
            for k, (matrix, tile) in enumerate(zip(self._matrices, tiles, strict=True)):
                first[k, :n] = listed
                odd.append(read(matrix, left, left + n, tile, first[k], stop[k]))
            everywhere = span(listed, np.full(n, self.bars), self.bars)
            known: dict[tuple[int, ...], tuple[Counts, Counts, Counts, int]] = {}
            for kernel, inputs, total, rows, keep, results, values in self._steps:
                between = everywhere
                if not total and any(odd[k] for k in inputs):
                    if inputs not in known:
                        known[inputs] = span(*_joint(inputs, first, stop, tiles, lengths), self.bars)
                    between = known[inputs]
                kernel.drive(
                    *((n, *between), self.bars, _PITCH, [places[k] for k in inputs], (states, rows), outs),
                    *((keep, self.n_symbols, [result + 8 * left for result in results]), values),
                )

    def results(self) -> list[tuple[Floats, ...]]:
        """Call by call, the oldest row first: while they are computed they are rings."""
        return [tuple(_unrolled(output, self.bars) for output in outputs) for outputs in self._outputs]


def _unrolled(ring: Floats, bars: int) -> Floats:
    oldest = bars % len(ring) if len(ring) else 0
    return np.roll(ring, -oldest, axis=0) if oldest else ring


def _joint(
    inputs: tuple[int, ...], first: Counts, stop: Counts, tiles: Sequence[Floats], lengths: Counts
) -> tuple[Counts, Counts]:
    """(columns,) first and stop of some series of a block together."""
    n, bars = len(lengths), len(tiles[0])
    chosen = list(inputs)
    if (stop[chosen, :n] == bars).all():
        return first[chosen, :n].max(axis=0), stop[chosen[0], :n]
    return spans([tiles[k][:, :n] for k in inputs], lengths)


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

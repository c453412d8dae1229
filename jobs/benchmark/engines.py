"""The engines as ways of doing one piece of work: an indicator or twenty over all bars."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from data.panel import Floats
from jobs.benchmark.bars import Bars
from jobs.benchmark.loop import Call, Loop
from jobs.benchmark.share import LOOP, Processes, Share, computed, shares_of, work
from scanner.cluster import DaskCluster
from scanner.engines.base import Series, joint_span
from scanner.engines.machine import Machine, machine_of
from scanner.engines.vector import VectorEngine

DEADLINE_S = 600.0
Outputs = Sequence[Floats]
"""Each the last rows of one output, (rows, symbols)."""
Answers = Sequence[Outputs | None]
"""Of each share."""


@dataclass(frozen=True)
class Way:
    """One engine's way of doing a case: `run` is what is timed, `outputs` what it computed, to be checked first."""

    engine: str
    threads: int
    run: Callable[[], Any]
    outputs: Callable[[], Outputs]


@dataclass(frozen=True)
class Work:
    """What is to be computed: `calls` over `bars`, of which the last `keep` rows are stored (None: all)."""

    calls: tuple[Call, ...]
    bars: Bars
    keep: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(call.key for call in self.calls)


@dataclass
class Field:
    """Where benchmarks run: what is started once for all cases.

    `folder`: -> where the bars of shares lie. `engines`: those asked for; `missing`: engine -> why it is left out.
    """

    processes: Processes
    cluster: DaskCluster | None
    gpus: DaskCluster | None
    folder: Callable[[Bars], str]
    cores: int
    missing: dict[str, str]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ways(job: Work, field: Field, *, shared: bool = True) -> Iterator[Way]:
    """Every engine's way that there is here, TA-Lib's loop first; `shared`: those of several processes too."""
    yield _loop(job, LOOP, bare=False)
    yield _loop(job, "talib-bare", bare=True)
    if shared:
        yield _shares(job, field, "talib-processes", LOOP, field.cores, field.processes.run)
        for engine, cluster in (("talib", field.cluster), ("vector", field.cluster), ("cuda", field.gpus)):
            if engine not in field.missing and cluster is not None:
                yield _shares(job, field, f"{engine}-dask", engine, cluster.workers, _on(cluster))
    if "vector" not in field.missing:
        for threads in dict.fromkeys((1, field.cores)):
            run = _Run(partial(computed, job.keys, job.bars, VectorEngine(threads), job.keep))
            yield Way("vector", threads, run, run.last)
    if "cuda" not in field.missing and all(call.indicator.kernel for call in job.calls):
        machine = machine_of("cuda")
        assert machine is not None
        resident = Resident(machine, job)
        yield Way("cuda", 1, resident, resident.outputs)
        yield Way("cuda-copies", 1, resident.with_copies, resident.outputs)


def _on(cluster: DaskCluster) -> Callable[[Sequence[Share]], Answers]:
    return lambda shares: cluster.map(work, shares, deadline_s=DEADLINE_S)


class _Run:
    """A call whose last result is kept until the next one."""

    def __init__(self, call: Callable[[], Outputs]) -> None:
        self._call = call
        self._result: Outputs = ()

    def __call__(self) -> None:
        self._result = ()
        self._result = self._call()

    def last(self) -> Outputs:
        """What it computed; let go."""
        self()
        result, self._result = self._result, ()
        return result


def _loop(job: Work, name: str, *, bare: bool) -> Way:
    loop = Loop(job.calls, job.bars, job.keep, bare=bare)

    def outputs() -> Outputs:
        loop()
        return [matrix.T for matrix in loop.out]

    return Way(name, 1, loop, outputs)


def _shares(
    job: Work, field: Field, name: str, engine: str, parts: int, run: Callable[[Sequence[Share]], Answers]
) -> Way:
    """Shares of the symbols in processes; the last two rows are what can be checked of them."""
    folder = field.folder(job.bars)
    shares = [
        Share(folder, left, right, engine, job.keys, job.keep) for left, right in shares_of(job.bars.n_symbols, parts)
    ]

    def outputs() -> Outputs:
        answers = run([replace(share, answer=True) for share in shares])
        return [np.concatenate(parts, axis=1) for parts in zip(*(a for a in answers if a is not None), strict=True)]

    return Way(name, len(shares), lambda: run(shares), outputs)


class Resident:
    """Row kernels on a machine whose memory holds inputs, state and outputs: nothing is copied but the last row."""

    def __init__(self, machine: Machine, job: Work) -> None:
        self.machine, self.job = machine, job
        series = {name: Series(matrix, job.bars.packed.lengths) for name, matrix in job.bars.packed.fields.items()}
        self._fields = {name: each.by_bar for name, each in series.items()}
        self._spans = [joint_span(c.indicator, [series[n] for n in c.indicator.inputs]) for c in job.calls]
        self._put()
        rows, n = job.keep or job.bars.length, job.bars.n_symbols
        self._state = [machine.zeros(call.indicator.kernel.rows(call.params), n) for call in job.calls]  # type: ignore[union-attr]
        self._outputs = [[machine.zeros(rows, n) for _ in call.indicator.outputs] for call in job.calls]

    def _put(self) -> None:
        needed = {name for call in self.job.calls for name in call.indicator.inputs}
        self._inputs = {name: self.machine.put(self._fields[name]) for name in needed}

    def __call__(self) -> None:
        for call, (first, stop), state, outputs in zip(
            self.job.calls, self._spans, self._state, self._outputs, strict=True
        ):
            state[...] = 0.0
            inputs = [self._inputs[name] for name in call.indicator.inputs]
            self.machine.batch(call.indicator, call.params, first, stop, inputs, state, outputs)
        # Kernels are only launched until something is waited for.
        self.machine.get(self._outputs[-1][-1][-1:])

    def with_copies(self) -> None:
        """As from nothing: inputs in, all outputs out."""
        self._put()
        self()
        self._fetched = [self.machine.get(output) for outputs in self._outputs for output in outputs]

    def outputs(self) -> Outputs:
        """What it computed, oldest row first."""
        self()
        turn = -(self.job.bars.length % (self.job.keep or self.job.bars.length))
        return [np.roll(self.machine.get(o), turn, axis=0) for outputs in self._outputs for o in outputs]

"""The row kernels on a GPU, one thread a column, with the bits of the engine `vector`; what happens when it fails."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from data.errors import EngineError
from data.panel import Floats
from scanner.engines.base import ON_CPU, Counts, Engine, Series, joint_span, load
from scanner.engines.device import Array, Device, DeviceFullError, DeviceLostError, the_device
from scanner.engines.gate import Gate
from scanner.engines.golden import golden
from scanner.engines.machine import Advance, Ask, Chain, Keep, Step
from scanner.engines.report import DeviceMemory, Report
from scanner.indicators.spec import Indicator
from scanner.indicators.window import WINDOWS
from scanner.ptx.arguments import plan

log = logging.getLogger(__name__)

PARTS = (1, 2, 4)
"""Into how many parts a shard's columns are cut, one try after the other, where the GPU's memory does not suffice."""


class CudaMachine:
    """A `scanner.engines.machine.Machine` whose matrices stay on the GPU; its errors are those of `Device`.

    A kernel's golden bits are compared at its first use, but where it is `unchecked`: EngineError where they differ.
    """

    name = "cuda"

    def __init__(self, device: Device | None = None, *, unchecked: bool = False) -> None:
        self.device = the_device() if device is None else device
        self.xp = self.device.xp
        self._judge = None if unchecked else CudaEngine(lambda: self.device)

    def zeros(self, rows: int, columns: int) -> Any:
        return self.device.zeros(rows, columns)

    def put(self, values: Array) -> Any:
        return self.device.upload(np.ascontiguousarray(values))

    def get(self, values: Any) -> Array:
        return self.device.download(values)

    def batch(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        first: Counts,
        stop: Counts,
        inputs: Sequence[Any],
        state: Any,
        outputs: Sequence[Any],
    ) -> None:
        for output in outputs:
            self.device.erase(output)
        self._trust(indicator)
        spans = self._spans(first, np.maximum(first, stop))
        self._launch(Advance(indicator, params, inputs, state, outputs), spans)
        bars, width = len(inputs[0]), len(outputs[0])
        if (stop < bars).any():
            # Where a column ends before the last bar its ring still holds older ones.
            newest = np.arange(max(bars - width, 0), bars)
            later = np.zeros((width, len(stop)), dtype=bool)
            later[newest % width] = newest[:, None] >= stop
            for output in outputs:
                self.device.erase(output, later)

    def asking(self, steps: Sequence[Step]) -> Ask | None:
        return None

    def chain(self, works: Sequence[Advance | Keep]) -> Chain:
        bound = [self._kept(work) if isinstance(work, Keep) else work for work in works]
        for work in bound:
            self._trust(work.indicator)

        def run(t: Counts, has: npt.NDArray[np.bool_]) -> None:
            every = self._spans(t, t + has)
            through: dict[Gate | None, tuple[Any, Any]] = {None: every}
            seen: dict[int, npt.NDArray[np.bool_] | None] = {}

            def finite(row: Any) -> npt.NDArray[np.bool_] | None:
                if id(row) not in seen:  # several gates look at the same
                    known = math.isfinite(float(row[0].dot(row[0])))  # a number only if all are, and quickly had
                    seen[id(row)] = None if known else np.isfinite(self.get(row[0]))
                return seen[id(row)]

            for work in bound:
                if work.gate is not None and work.gate not in through:
                    through[work.gate] = self._spans(t, t + work.gate.let(t, has, finite))
                self._launch(work, through[work.gate])

        return run

    def _kept(self, work: Keep) -> Advance:
        """As a kernel: the value no bar ago, wherever each column stands."""
        prev = WINDOWS["prev"]
        assert prev.kernel is not None
        state = self.zeros(prev.kernel.rows({"n": 0}), work.row.shape[1])
        return Advance(prev, {"n": 0}, [work.row], state, [work.ring])

    def _trust(self, indicator: Indicator) -> None:
        if self._judge is not None:
            self._judge.trust(indicator)

    def _launch(self, work: Advance, spans: tuple[Any, Any]) -> None:
        self.device.launch(plan(work.indicator, work.params, *spans, work.inputs, work.state, work.outputs))

    def _spans(self, begin: Counts, end: Counts) -> tuple[Any, Any]:
        return self.device.upload(np.ascontiguousarray(begin)), self.device.upload(np.ascontiguousarray(end))


class CudaEngine:
    """Row kernels on the GPU that `device` makes, first asked for by the first scan.

    Inputs stay on the GPU as long as their series live. Where its memory runs out the pool is freed and the columns are
    cut into halves, then into quarters; where that does not help, or the GPU refuses in another way, the CPU takes the
    rest of the scan. A GPU that is lost, or gives other bits than the golden ones, is left alone by this process for
    good. `read`: what reads the GPU's memory.

    One scan at a time: `watch` holds a lock.
    """

    name = "cuda"

    def __init__(
        self,
        device: Callable[[], Device] = the_device,
        cpu: Callable[[], Engine] | None = None,
        read: Callable[[], DeviceMemory] | None = None,
    ) -> None:
        self._make_device, self._make_cpu, self._read = device, cpu or on_the_cpu, read
        self._lock = threading.RLock()
        self._report: Report | None = None
        self._shut: str | None = None
        """Why this process leaves the GPU alone."""
        self._lost = False
        self._trusted: set[Indicator] = set()
        self._resident: WeakKeyDictionary[Series, Any] = WeakKeyDictionary()

    @cached_property
    def machine(self) -> CudaMachine:
        """The GPU, for kernels whose state stays there; raises EngineError."""
        return CudaMachine(self._make_device(), unchecked=True)

    @cached_property
    def cpu(self) -> Engine:
        """What computes in the GPU's place."""
        return self._make_cpu()

    @contextmanager
    def watch(self) -> Iterator[Report]:
        """One scan: what the engine did during it."""
        with self._lock:
            if self._report is not None:
                yield self._report
                return
            report = self._report = Report(self.name)
            try:
                if self._shut is not None:
                    self._fall_back(self._shut)
                report.before = self._reading()
                yield report
                report.after = self._reading()
            finally:
                self._report = None

    def run(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        inputs: Sequence[Series],
        *,
        keep: int | None = None,
    ) -> tuple[Floats, ...]:
        """As `Engine.run`; what has no kernel is computed on the CPU."""
        if indicator.kernel is None:
            return self.cpu.run(indicator, params, inputs, keep=keep)
        with self.watch() as report:
            if not report.fallbacks:
                try:
                    self.trust(indicator)
                    return self.on_gpu(indicator, params, inputs, keep)
                except DeviceLostError as error:
                    self._lost, self._shut = True, str(error)
                    self._resident.clear()
                    self._fall_back(self._shut)
                except EngineError as error:
                    self._fall_back(str(error))
            return self.cpu.run(indicator, params, inputs, keep=keep)

    def trust(self, indicator: Indicator) -> None:
        """Compare a kernel's golden bits at its first use; raises EngineError where they differ."""
        if indicator not in self._trusted:
            bits = golden(indicator, self.on_gpu)
            if bits.n_differing:
                self._shut = (
                    f"{bits.n_differing} of {bits.n_values} golden values of {indicator.name} differ on the GPU, by up"
                    f" to {bits.max_ulp} units in the last place"
                )
                raise EngineError(self._shut)
            self._trusted.add(indicator)

    def on_gpu(
        self, indicator: Indicator, params: Mapping[str, float], inputs: Sequence[Series], keep: int | None = None
    ) -> tuple[Floats, ...]:
        """As `run`, on the GPU whatever bits it gives; raises EngineError where it fails."""
        first, stop = joint_span(indicator, inputs)
        bars, columns = inputs[0].by_bar.shape
        width = bars if keep is None else min(keep, bars)
        out = np.empty((len(indicator.outputs), width, columns))
        if out.size == 0:
            return tuple(out)
        for parts in PARTS:
            edges = [columns * k // parts for k in range(parts + 1)]
            try:
                for a, b in pairwise(edges):
                    if a < b:
                        out[:, :, a:b] = self._columns(indicator, params, first, stop, inputs, width, a, b)
                break
            except DeviceFullError as error:
                full = str(error)
            # Only here have the arrays of what failed gone, with its traceback.
            self._resident.clear()
            self.machine.device.release()
            if parts == PARTS[-1]:
                raise DeviceFullError(full)
            if self._report is not None:
                self._report.retries += 1
            log.warning("%s of %d columns: %s; trying again in smaller parts", indicator.name, columns, full)
        # The outputs are rings, whose oldest row need not be the first.
        return tuple(np.roll(out, -(bars % width), axis=1)) if bars % width else tuple(out)

    def _matrix(self, series: Series, a: int, b: int) -> Any:
        """The columns [a, b) of an input on the GPU; the whole of it is kept there."""
        if b - a < series.by_bar.shape[1]:
            return self.machine.put(series.by_bar[:, a:b])
        if series not in self._resident:
            self._resident[series] = self.machine.put(series.by_bar)
        return self._resident[series]

    def _columns(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        first: Counts,
        stop: Counts,
        inputs: Sequence[Series],
        width: int,
        a: int,
        b: int,
    ) -> Floats:
        """(outputs, width, columns): the last `width` bars of each output as rings, of the columns [a, b); one copy."""
        assert indicator.kernel is not None
        columns = b - a
        first, stop = first[a:b], stop[a:b]
        device = self.machine.device
        matrices = [self._matrix(series, a, b) for series in inputs]
        state = device.zeros(indicator.kernel.rows(params), columns)
        block = device.zeros(len(indicator.outputs) * width, columns)
        outputs = [block[k * width : (k + 1) * width] for k in range(len(indicator.outputs))]
        self.machine.batch(indicator, params, first, stop, matrices, state, outputs)
        return device.download(block).reshape(len(indicator.outputs), width, columns)

    def _fall_back(self, reason: str) -> None:
        assert self._report is not None
        self._report.engine = self.cpu.name
        self._report.fallbacks.append(reason)
        self._report.lost = self._lost
        log.error("%s; the engine %s takes the rest of this scan", reason, self.cpu.name)

    def _reading(self) -> DeviceMemory | None:
        """The GPU's memory; None where it cannot be told."""
        if self._shut is not None:
            return None
        try:
            return self.machine.device.memory() if self._read is None else self._read()
        except EngineError as error:
            log.warning("the GPU's memory cannot be read: %s", error)
            return None


def on_the_cpu() -> Engine:
    """The engine that stands in for the GPU: the fastest that runs here."""
    *others, last = ON_CPU
    for name in others:
        with suppress(EngineError):
            return load(name)
    return load(last)

"""Where row kernels run: over all bars at once, and one bar at a time on matrices that stay."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from data.panel import Floats
from scanner.engines.base import Counts, Engine
from scanner.engines.gate import Gate, Mask
from scanner.indicators.spec import Indicator

Matrix = Any
"""A machine's own C-contiguous float64 (rows, columns): numpy's on a CPU, CuPy's on a GPU."""
Chain = Callable[[Counts, Mask], None]
"""(t, has), numpy (columns,): takes the columns of `has` through a bar, each standing at its own t."""


@dataclass(frozen=True, eq=False)
class Advance:
    """A kernel bound to its matrices, which are all rings. Columns that `gate` does not let through stay."""

    indicator: Indicator
    params: Mapping[str, float]
    inputs: Sequence[Matrix]
    state: Matrix
    outputs: Sequence[Matrix]
    gate: Gate | None = None


@dataclass(frozen=True, eq=False)
class Keep:
    """A row (1, columns) written into its ring."""

    row: Matrix
    ring: Matrix


@dataclass(frozen=True, eq=False)
class Step:
    """What is made of the values of earlier steps, at `places` among them.

    `word`: what is done; "row" reads a `ring` as it was `back` bars ago, "number" is one, where that bar was.
    """

    word: str
    places: tuple[int, ...] = ()
    ring: Matrix = None
    back: int = 0
    number: float = 0.0


Ask = Callable[[Counts, Counts, npt.NDArray[np.intp]], Floats]
"""(t, begun, columns), the bar at which each symbol stands, and its first: the steps' values, (steps, columns)."""


class Machine(Protocol):
    """Runs row kernels on matrices of its own. State is zero, outputs are NaN, where the caller has put them so."""

    name: str
    xp: Any
    """The array library of its matrices."""

    def zeros(self, rows: int, columns: int) -> Matrix:
        """A new matrix."""

    def put(self, values: npt.NDArray[Any]) -> Matrix:
        """A copy of (rows, columns) or (columns,) on this machine."""

    def get(self, values: Any) -> npt.NDArray[Any]:
        """The same in numpy, not to be written to."""

    def batch(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        first: Counts,
        stop: Counts,
        inputs: Sequence[Matrix],
        state: Matrix,
        outputs: Sequence[Matrix],
    ) -> None:
        """Every row t of the inputs, in [first, stop) of each column; outputs are NaN elsewhere.

        `state`: of zeros; afterwards that of the last row. Outputs may have fewer rows than the inputs, and are then
        rings: row t stands at t modulo their length. `first` and `stop` are numpy, (columns,).
        """

    def chain(self, works: Sequence[Advance | Keep]) -> Chain:
        """What a bar does, one after the other; a gate must have all its indicators in one chain."""

    def asking(self, steps: Sequence[Step]) -> Ask | None:
        """What takes a few symbols through many small steps; None where numpy does it as well."""


class CpuMachine:
    """Kernels compiled by numba, on one thread; raises EngineError where there is no numba."""

    name = "vector"
    xp = np

    def __init__(self) -> None:
        from scanner.engines import asking, compiling, walking

        self._compiling, self._walking, self._asking = compiling, walking, asking

    def zeros(self, rows: int, columns: int) -> Floats:
        return np.zeros((rows, columns))

    def put(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.array(values, order="C")

    def get(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values

    def batch(
        self,
        indicator: Indicator,
        params: Mapping[str, float],
        first: Counts,
        stop: Counts,
        inputs: Sequence[Floats],
        state: Floats,
        outputs: Sequence[Floats],
    ) -> None:
        bars = len(inputs[0])
        if len(first) == 0 or bars == 0:
            return
        kernel = self._compiling.compiled(indicator)
        kernel.batch(first, stop, inputs, state, outputs, _values(indicator, params))
        state[:, first >= bars] = 0.0

    def chain(self, works: Sequence[Advance | Keep]) -> Chain:
        walk = self._walking.Walk()
        for work in works:
            if isinstance(work, Keep):
                walk.keep(work.row, work.ring)
            else:
                kernel = self._compiling.compiled(work.indicator)
                matrices = [*work.inputs, work.state, *work.outputs]
                walk.kernel(kernel, matrices, _values(work.indicator, work.params), work.gate)
        return walk.bind()

    def asking(self, steps: Sequence[Step]) -> Ask | None:
        return self._asking.bind(steps)


def _values(indicator: Indicator, params: Mapping[str, float]) -> list[float]:
    return [params[param.name] for param in indicator.params]


MACHINES = {"cuda": "scanner.engines.on_gpu.CudaMachine", "vector": "scanner.engines.machine.CpuMachine"}
"""Engine -> the machine that its streams run on; the others compute anew at each bar."""


def machine_of(engine: str) -> Machine | None:
    """The machine of an engine's streams; None where it has none."""
    if engine not in MACHINES:
        return None
    module, _, name = MACHINES[engine].rpartition(".")
    return cast(Machine, getattr(importlib.import_module(module), name)())


def unfit(engine: Engine, indicators: Iterable[Indicator]) -> dict[str, str]:
    """Indicators whose kernels an engine has found unfit to run here -> why."""
    run = getattr(engine, "by_kernel", None)
    if run is None:
        return {}
    from scanner.engines import verdict

    found = {indicator.name: verdict.refusal(indicator, run) for indicator in indicators}
    return {name: why for name, why in found.items() if why}

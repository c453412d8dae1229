"""What an entry takes, and how it is handed over: 8-byte words, in the way of numba's kernels.

An array is (0, 0, size, item size, address, *shape, *strides) and a number is itself. numba promises none of it, so the
manifest says what every entry takes, a test counts the parameters in the PTX, and the packages that make the PTX are
pinned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.indicators.spec import Indicator, Value

WORDS = {"i64[]": 7, "f64[,]": 9, "i64": 1, "f64": 1}
"""Kind of argument -> its 8-byte words."""
THREADS = 64
"""Threads a block: small, so that 5,000 columns reach every multiprocessor."""

Words = npt.NDArray[np.uint64]
_ARRAYS = {"i64[]": ("int64", 1), "f64[,]": ("float64", 2)}


def layout(indicator: Indicator) -> tuple[str, ...]:
    """The kinds of an entry's arguments: begin, end, inputs, state, outputs, parameters."""
    matrices = len(indicator.inputs) + 1 + len(indicator.outputs)
    numbers = ("i64" if param.kind is int else "f64" for param in indicator.params)
    return ("i64[]", "i64[]", *["f64[,]"] * matrices, *numbers)


def pack(kinds: Sequence[str], arguments: Sequence[Any]) -> Words:
    """The words of arguments of these kinds; arrays lie in memory of the host (numpy) or of the device (CuPy).

    Raises ValueError for an array that is not C-contiguous or not of its kind, and where there are more or fewer.
    """
    words: list[int] = []
    for place, (kind, value) in enumerate(zip(kinds, arguments, strict=True)):
        if kind == "i64":
            words.append(int(np.int64(value).view(np.uint64)))
        elif kind == "f64":
            words.append(int(np.float64(value).view(np.uint64)))
        else:
            dtype, ndim = _ARRAYS[kind]
            if value.dtype != dtype or value.ndim != ndim or not value.flags.c_contiguous:
                raise ValueError(
                    f"argument {place} must be {kind}, C-contiguous; got {value.dtype} of {value.ndim} dimensions, "
                    f"strides {value.strides}"
                )
            words += [0, 0, value.size, value.itemsize, address(value), *value.shape, *value.strides]
    return np.array(words, dtype=np.uint64)


def address(array: Any) -> int:
    """Where an array of numpy or CuPy lies."""
    device = getattr(array, "__cuda_array_interface__", None)
    return int((device or array.__array_interface__)["data"][0])


@dataclass(frozen=True, eq=False)
class Launch:
    """One call of an entry: `blocks` blocks of THREADS threads, one a column; none where there is no column."""

    indicator: Indicator
    arguments: tuple[Any, ...]

    @property
    def columns(self) -> int:
        return len(self.arguments[0])

    @property
    def blocks(self) -> int:
        return -(-self.columns // THREADS)

    @cached_property
    def words(self) -> Words:
        """The arguments as the entry takes them."""
        return pack(layout(self.indicator), self.arguments)


def plan(
    indicator: Indicator,
    params: Mapping[str, Value],
    begin: Any,
    end: Any,
    inputs: Sequence[Any],
    state: Any,
    outputs: Sequence[Any],
) -> Launch:
    """The call that runs a kernel over the bars [begin, end) of each column.

    `begin`, `end`: int64 (columns,); matrices: float64 (rows, columns), C-contiguous; all of them where the entry runs.
    The caller has zeroed the state and filled the outputs. Raises ValueError where their columns differ.
    """
    matrices = (*inputs, state, *outputs)
    if len(inputs) != len(indicator.inputs) or len(outputs) != len(indicator.outputs):
        raise ValueError(
            f"{indicator.name} takes {len(indicator.inputs)} inputs and {len(indicator.outputs)} outputs; "
            f"got {len(inputs)} and {len(outputs)}"
        )
    widths = {len(begin), len(end), *(matrix.shape[1] for matrix in matrices)}
    if len(widths) > 1:
        raise ValueError(f"{indicator.name}: arguments of {sorted(widths)} columns, where all must have as many")
    return Launch(indicator, (begin, end, *matrices, *(params[param.name] for param in indicator.params)))

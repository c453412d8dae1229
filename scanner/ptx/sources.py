"""The Python that is compiled for GPUs: a kernel, what it uses, and the entry that runs it for one column a thread."""

import hashlib
import inspect
from types import FunctionType

from scanner.indicators.grammar import parts
from scanner.indicators.spec import Indicator

_MODULE = '''"""Generated: one row kernel and the entry that runs it: thread j, bars [begin[j], end[j]) of column j."""

from __future__ import annotations

import math

from numba import cuda

{parts}

def {entry}(begin, end, {arguments}):
    j = cuda.grid(1)
    if 0 <= j < len(begin) and {some_rows}:
        for t in range(begin[j], end[j]):
            {kernel}(t, j, j + 1, {arguments})
'''


def entry_name(indicator: Indicator) -> str:
    """The name of an indicator's entry in the PTX."""
    return f"mystocks_{indicator.name.lower()}"


def source(indicator: Indicator) -> str:
    """The module of an indicator's entry; raises KernelError for a kernel that is outside its language."""
    assert indicator.kernel is not None
    advance = indicator.kernel.advance
    names = [f"i{k}" for k in range(len(indicator.inputs))]
    names += ["state", *(f"o{k}" for k in range(len(indicator.outputs)))]
    names += [f"p{k}" for k in range(len(indicator.params))]
    return _MODULE.format(
        parts="\n".join(_text(name, part) for name, part in parts(advance).items()),
        entry=entry_name(indicator),
        arguments=", ".join(names),
        kernel=advance.__name__,
        some_rows=" and ".join(f"len({name}) > 0" for name in names if name[0] != "p" and name != "state"),
    )


def digest(indicator: Indicator) -> str:
    """SHA-256 of an entry's source: another one, and its PTX has to be made anew."""
    return hashlib.sha256(source(indicator).encode()).hexdigest()


def _text(name: str, part: object) -> str:
    if not isinstance(part, FunctionType):
        return f"{name} = {part!r}\n"
    text = inspect.getsource(part)
    # A function that returns a view of an array has to be part of its caller: views cannot be passed back on a GPU.
    inline = ", inline='always'" if "-> Floats:" in text else ""
    return f"\n@cuda.jit(device=True{inline})\n{text}"

"""The Python that is compiled for GPUs: a kernel, what it uses, and the entry that runs it for one column a thread."""

import hashlib

from scanner.indicators.source import pieces
from scanner.indicators.spec import Indicator

_MODULE = '''"""Generated: one row kernel and the entry that runs it: thread j, bars [begin[j], end[j]) of column j."""

from __future__ import annotations

import math

from numba import cuda

{pieces}

def {entry}(begin, end, {arguments}):
    j = cuda.grid(1)
    if j < len(begin):
        for t in range(begin[j], end[j]):
            {kernel}(t, j, j + 1, {arguments})
'''


def entry_name(indicator: Indicator) -> str:
    """The name of an indicator's entry in the PTX."""
    return f"mystocks_{indicator.name.lower()}"


def source(indicator: Indicator) -> str:
    """The module of an indicator's entry."""
    assert indicator.kernel is not None
    advance = indicator.kernel.advance
    names = [f"i{k}" for k in range(len(indicator.inputs))]
    names += ["state", *(f"o{k}" for k in range(len(indicator.outputs)))]
    names += [f"p{k}" for k in range(len(indicator.params))]
    return _MODULE.format(
        pieces="\n".join(_decorated(text) for _, text in pieces(advance)),
        entry=entry_name(indicator),
        arguments=", ".join(names),
        kernel=advance.__name__,
    )


def digest(indicator: Indicator) -> str:
    """SHA-256 of an entry's source: another one, and its PTX has to be made anew."""
    return hashlib.sha256(source(indicator).encode()).hexdigest()


def _decorated(text: str) -> str:
    if not text.startswith("def "):
        return text
    # A function that returns a view of an array has to be part of its caller: views cannot be passed back on a GPU.
    inline = ", inline='always'" if "-> Floats:" in text else ""
    return f"\n@cuda.jit(device=True{inline})\n{text}"

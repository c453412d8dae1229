"""Many small steps over few symbols in one call: what rules ask at a bar, compiled."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.panel import Floats
from scanner.engines import compiling
from scanner.engines.base import Counts
from scanner.engines.machine import Ask, Step

_ASK = '''"""Generated: many small steps over few symbols."""

import math

import numpy as np
from numba import float64, int64, njit, types

from scanner.engines.words import numbers

table = types.Array(int64, 2, "C", readonly=True)
counts = types.Array(int64, 1, "C", readonly=True)


@njit(
    types.void(table, counts, counts, counts, float64[:, ::1], float64[::1]),
    nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True,
)
def ask(steps, t, begun, columns, out, constants):
    n = len(columns)
    together, least = True, np.iinfo(np.int64).max
    for c in range(n):
        j = columns[c]
        together &= t[j] == t[columns[0]]
        least = min(least, t[j] - begun[j])
    for k in range(len(steps)):
        code, one, other, third = steps[k]
        row = out[k]
        if code <= 1:
            if code == 0:
                for c in range(n):
                    row[c] = constants[k]
            elif together:
                values = numbers(one + 8 * ((t[columns[0]] - third) % other * len(t)))
                for c in range(n):
                    row[c] = values[columns[c]]
            else:
                values = numbers(one)
                for c in range(n):
                    j = columns[c]
                    row[c] = values[(t[j] - third) % other * len(t) + j]
            if least < third:
                for c in range(n):
                    j = columns[c]
                    row[c] = row[c] if t[j] - begun[j] >= third else math.nan
        else:
            x, y = out[one], out[other]
{cases}
'''
_CASES = {
    ">": "1.0 if a > b else 0.0",
    ">=": "1.0 if a >= b else 0.0",
    "<": "1.0 if a < b else 0.0",
    "<=": "1.0 if a <= b else 0.0",
    "==": "1.0 if a == b else 0.0",
    "!=": "1.0 if (a < b) | (a > b) else 0.0",
    "and": "a * b",
    "or": "max(a, b)",
    "not": "1.0 - a",
    "is one": "1.0 if a == 1.0 else 0.0",
    "is not zero": "1.0 if a != 0.0 else 0.0",
    "numbers": "1.0 if a == 1.0 else (math.nan if b == 1.0 else 0.0)",
    "+": "a + b",
    "-": "a - b",
    "*": "a * b",
    "/": "math.nan if b == 0.0 else a / b",
    "neg": "-a",
    "abs": "abs(a)",
}
"""A step of two others' values a and b -> what it makes of them: the words of `scanner.newest`. Conditions are 1.0
where they are met, else 0.0."""
CODES = {word: code for code, word in enumerate(("number", "row", *_CASES))}


def _text() -> str:
    lines = [
        f"            {'if' if number == 0 else 'elif'} code == {CODES[name]}:\n                for c in range(n):\n"
        f"                    a, b = x[c], y[c]\n                    row[c] = {case}"
        for number, (name, case) in enumerate(_CASES.items())
    ]
    return _ASK.format(cases="\n".join(lines))


def bind(steps: Sequence[Step]) -> Ask | None:
    """Steps that can be asked of symbols; None where a word is unknown here."""
    if not all(step.word in CODES for step in steps):
        return None
    rows = [(CODES[step.word], *_places(step)) for step in steps]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    constants = np.array([step.number for step in steps])
    ask = _module().ask

    def run(t: Counts, begun: Counts, columns: npt.NDArray[np.intp], held: Any = steps) -> Floats:
        out = np.empty((len(table), len(columns)))
        if len(columns):
            ask(table, t, begun, columns, out, constants)
        return out

    return run


def _places(step: Step) -> tuple[int, int, int]:
    if step.word == "row":
        return step.ring.ctypes.data, len(step.ring), step.back
    return (0, 0, step.back) if step.word == "number" else (step.places[0], step.places[-1], 0)


@functools.cache
def _module() -> Any:
    text = _text()
    return compiling.module(compiling.home("ask", text, lambda: text))

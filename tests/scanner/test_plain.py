"""Kernels as numpy: their language, kept by every one of them, and what the turning into numpy must get right."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import KernelError
from scanner.engines.plain import plain
from scanner.indicators import kernels
from scanner.indicators.grammar import check
from scanner.indicators.spec import Indicator

HEAD = """
import math
import numpy as np
from math import sqrt
from scanner.indicators.rows import ema, row, slide_high
from scanner.indicators.momentum import mfi
LIMIT = 3.0
EPSILON = 1.0
NAMES = ("a", "b")

def around():
    hidden = 1.0
    def kernel(t, j0, j1, x, state, out, n):
        v = row(out, t, j0, j1)
        for j in range(j1 - j0):
            v[j] = hidden
    return kernel

def half(a):
    return a / 2.0

other_half = half

def logarithm(a):
    return math.log(a)

def again(a):
    return again(a)

def kernel(t, j0, j1, x, state, out, n):
    now, v, seen = row(x, t, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
"""
WHOLE = """
    total = 0
    for lag in range(1, n):
        old = row(x, t - lag, j0, j1)
        total = total + lag // 2
    if n > 2:
        total = max(total, len(x))
    for j in range(j1 - j0):
        a = now[j]
        k = seen[j] + 1.0
        known = (k > LIMIT) & (a == a)
        b = ema(abs(a), -a, k, n) + half(math.sqrt(a)) * total
        v[j] = b if known else math.nan
        seen[j] = k
"""

Made = Callable[[str], Callable[..., None]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The kernel of that text, defined in a file."""

    def make(text: str) -> Callable[..., None]:
        file = tmp_path / "written.py"
        file.write_text(HEAD + text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("written", file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel: Callable[..., None] = module.kernel
        return kernel

    return make


@pytest.mark.parametrize("indicator", kernels(), ids=lambda i: i.name)
def test_every_kernel_speaks_the_language(indicator: Indicator) -> None:
    assert indicator.kernel
    check(indicator.kernel.advance)


def test_the_language_is_spoken_here(made: Made) -> None:
    check(made(WHOLE))


COLUMNS = "    for j in range(j1 - j0):\n        "
LOOPS = COLUMNS + "a = now[j]\n        v[j] = a\n"
VIOLATIONS = {
    "a logarithm": (COLUMNS + "v[j] = math.log(now[j])", 1, "`math.log(now[j])` has no place among numbers"),
    "one in a function": (COLUMNS + "v[j] = logarithm(now[j])", None, "`math.log(a)` has no place among numbers"),
    "a power": (COLUMNS + "v[j] = now[j] ** 2", 1, "`now[j] ** 2` has no place among numbers"),
    "numpy": (COLUMNS + "v[j] = np.sqrt(now[j])", 1, "`np.sqrt(now[j])` has no place among numbers"),
    "an imported function": (COLUMNS + "v[j] = sqrt(now[j])", 1, "sqrt is no function and no number of ours"),
    "an unknown name": (COLUMNS + "v[j] = nobody", 1, "nobody is no function and no number of ours"),
    "a constant that is no number": (COLUMNS + "v[j] = NAMES", 1, "NAMES is no function and no number of ours"),
    "a subscript in a select": (
        COLUMNS + "v[j] = now[j] if seen[j] > 1.0 else 0.0",
        1,
        "`seen[j]` within a select: read it into a local before",
    ),
    "one deep in a select": (COLUMNS + "a = n\n        v[j] = abs(now[j] - 1.0) if a > 1 else 0", 2, "`now[j]` within"),
    "min over columns": (COLUMNS + "v[j] = min(now[j], 1.0)", 1, "`min(now[j], 1.0)` has no place among numbers"),
    "a remainder over columns": (COLUMNS + "v[j] = now[j] % 2.0", 1, "`now[j] % 2.0` has no place among numbers"),
    "a statement if over columns": (COLUMNS + "if n > 2:\n            v[j] = 1.0", 1, "`if n > 2:` has no place"),
    "a lag within columns": (COLUMNS + "for lag in range(n):\n            v[j] = 1.0", 1, "`for lag in range(n):` has"),
    "another column": (COLUMNS + "v[j] = now[j - 1]", 1, "`now[j - 1]` is no row at the loop's own column"),
    "a matrix over columns": (COLUMNS + "v[j] = x[j]", 1, "`x[j]` is no row at the loop's own column"),
    "the column's number": (COLUMNS + "v[j] = now[j] + j", 1, "j is no number of this column, or not yet"),
    "a row as a number": (COLUMNS + "v[j] = now + 1.0", 1, "now is no number of this column, or not yet"),
    "and": (COLUMNS + "v[j] = 1.0 if n > 1 and n < 3 else 0.0", 1, "`n > 1 and n < 3` has no place among numbers"),
    "not": (COLUMNS + "v[j] = 1.0 if not n > 1 else 0.0", 1, "`not n > 1` has no place among numbers"),
    "a chain": (COLUMNS + "v[j] = 1.0 if 0 < n < 3 else 0.0", 1, "`0 < n < 3` has no place among numbers"),
    "& of numbers": (COLUMNS + "v[j] = 1.0 if (n > 1) & (n + 1) else 0.0", 1, "`n + 1` is no comparison"),
    "True": (COLUMNS + "v[j] = 1.0 if True else 0.0", 1, "`True` has no place among numbers"),
    "+=": (COLUMNS + "v[j] += 1.0", 1, "`v[j] += 1.0` has no place in the loop over columns"),
    "a keyword": (COLUMNS + "v[j] = half(a=n)", 1, "`half(a=n)` has no place among numbers"),
    "rows within columns": (COLUMNS + "v[j] = slide_high(t, j0, j1, x, n, state, 1)", 1, "`slide_high("),
    "infinity": (COLUMNS + "v[j] = math.inf", 1, "`math.inf` has no place among numbers"),
    "a column's number later": (LOOPS + COLUMNS + "v[j] = a", 4, "a is no number of this column, or not yet"),
    "one used around its loop": (LOOPS + "    n = a", 3, "a is a column's number, which ends with its loop"),
    "one used before its value": (COLUMNS + "v[j] = a\n        a = now[j]", 1, "a is no number of this column, or not"),
    "a name for two things": ("    a = 1\n" + LOOPS, 0, "a is a column's number in a loop over columns, and something"),
    "a parameter as a column's": (COLUMNS + "n = now[j]\n        v[j] = n", 1, "n is a column's number here, and some"),
    "while": ("    while n > 1:\n        n = n - 1", 0, "`while n > 1:` has no place around the loop over columns"),
    "a local array": ("    work = [0.0, 0.0]", 0, "`[0.0, 0.0]` has no place around the loop"),
    "other columns": ("    other = state[0, j0 + 1 : j1]", 0, "`state[0, j0 + 1:j1]` is no row of the columns j0:j1"),
    "a ring at a column": (
        "    ring = state[0:2]\n" + COLUMNS + "v[j] = ring[j]", 2, "`ring[j]` is no row at the loop's own column"
    ),
    "every other row": ("    ring = state[0:3:2]", 0, "`state[0:3:2]` has no place around the loop"),
    "itself": (COLUMNS + "v[j] = again(n)", None, "again calls itself"),
    "names around": ("\nkernel = around()", None, "kernel uses names of a function around it"),
    "a lambda": ("\nkernel = lambda t, j0, j1, x, state, out: None", None, "a kernel is a function, written with def"),
    "a name of two things": (
        "    mfi(t, j0, j1, x, x, x, x, state, out, n)\n" + COLUMNS + "v[j] = EPSILON",
        2,
        "EPSILON is one thing here and another in a function that it calls",
    ),
    "another name of a function": (COLUMNS + "v[j] = other_half(n)", 1, "other_half is half by another name"),
}  # fmt: skip


@pytest.mark.parametrize("what", VIOLATIONS)
def test_what_is_outside_the_language_is_refused_with_its_place(what: str, made: Made, tmp_path: Path) -> None:
    text, line, told = VIOLATIONS[what]
    kernel = made(text)
    with pytest.raises(KernelError) as refusal:
        plain(kernel)
    assert told in str(refusal.value)
    if line is not None:
        assert str(refusal.value).startswith(f"{tmp_path / 'written.py'}:{HEAD.count(chr(10)) + 1 + line}: ")
        assert "a kernel takes + - * /, comparisons" in str(refusal.value)


def advanced(kernel: Callable[..., None], x: Any, n: int = 3) -> Any:
    """The kernel as it stands, in plain Python a column, and as numpy: both give (state, out)."""
    results = []
    for form in (kernel, plain(kernel)):
        matrix, state, out = np.array(x), np.zeros((3, len(x[0]))), np.zeros((len(x), len(x[0])))
        with np.errstate(all="ignore"):
            for t in range(len(x)):
                form(np.int64(t), 0, len(x[0]), matrix, state, out, np.int64(n))
        results.append((state, out))
    return results


SEMANTICS = {
    "a whole": WHOLE.replace("math.sqrt(a)", "math.sqrt(abs(a))"),
    "a number read before its row is written": COLUMNS
    + "a = seen[j]\n        seen[j] = now[j]\n        v[j] = a + 1.0 if a > 0.0 else a",
    "a row under two names": "    same = state[0, j0:j1]\n"
    + COLUMNS
    + "a = seen[j]\n        same[j] = now[j] + a\n        v[j] = seen[j] - a",
    "a select of integers": COLUMNS + "a = now[j]\n        v[j] = (2 if a > 1.0 else n) / 4 * a",
    "a division by zero": "    m = (n - 1) / (n - 3)\n"
    + COLUMNS
    + "a = now[j]\n        v[j] = a / 0.0 if a > m else m",
    "a negative zero": COLUMNS + "a = now[j]\n        v[j] = -(a * 0.0) if a >= 0.0 else 0.0 * a",
    "a remainder below zero": "    old = row(x, t - 7, j0, j1)\n" + COLUMNS + "v[j] = old[j]",
}


@pytest.mark.parametrize("what", SEMANTICS)
def test_numpy_says_what_the_kernel_says(what: str, made: Made) -> None:
    x = [[1.0, math.nan, -2.0, 0.0, 3.5], [2.0, 1.0, 0.3, 1.0, math.nan], [5.0, -1.0, 0.1, 2.0, 3.0]]
    if what == "a division by zero":
        kernel = made(SEMANTICS[what])
        state, out = np.zeros((1, 5)), np.zeros((3, 5))
        with np.errstate(all="ignore"):
            plain(kernel)(np.int64(0), 0, 5, np.array(x), state, out, np.int64(3))
        assert (out[0] == math.inf).all()
        return
    (state, out), (also_state, also_out) = advanced(made(SEMANTICS[what]), x)
    np.testing.assert_array_equal(also_out.view(np.int64), out.view(np.int64))
    np.testing.assert_array_equal(also_state.view(np.int64), state.view(np.int64))
    assert (out != 0).any() or what == "a negative zero"

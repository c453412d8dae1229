"""Conditions as masks against the three values that `pointwise` computes with."""

from itertools import product

import numpy as np
import pytest

from scanner.evaluate import pointwise
from scanner.language import parse
from scanner.newest import Pass
from scanner.terms import COMPARISONS, Term

EVERY = np.array(list(product([np.nan, -np.inf, 0.0, 1.0, np.inf], repeat=3))).T.copy()
ROWS = dict(zip(("open", "high", "low"), EVERY, strict=True))


def row_of(term: Term) -> np.ndarray:
    if term.op in ("field", "const"):
        return ROWS[term.data] if term.op == "field" else np.float64(term.data)
    with np.errstate(all="ignore"):
        return np.asarray(pointwise(term, [row_of(arg) for arg in term.args]))


@pytest.mark.parametrize("sign", COMPARISONS)
@pytest.mark.parametrize(
    "form",
    [
        "open {} high",
        "not (open {} high)",
        "open {} high and low > 0.5",
        "open {} 1 or not (low > 0.5 and open < high)",
        "not (not (open {} low) or high / low > 1) and abs(low) <= 1",
    ],
)
def test_masks_are_the_three_values(form: str, sign: str) -> None:
    term = parse(form.format(sign))
    steps = Pass([term], lambda t: (lambda: row_of(t)) if t.op in ("field", "const") else None)
    wanted = row_of(term)
    np.testing.assert_array_equal(steps()[term], wanted)
    holds = Pass([term], lambda t: (lambda: row_of(t)) if t.op in ("field", "const") else None, met={term})
    np.testing.assert_array_equal(holds()[term], wanted == 1.0)


def test_a_condition_that_is_computed_elsewhere_is_read() -> None:
    term = parse("not (open > high)")
    rows = {term.args[0]: np.array([1.0, 0.0, np.nan])}
    steps = Pass([term], lambda t: (lambda: rows[t]) if t in rows else None)
    np.testing.assert_array_equal(steps()[term], [0.0, 1.0, np.nan])

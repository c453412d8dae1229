"""Conditions as masks against the three values that `pointwise` computes with."""

from itertools import product

import numpy as np
import pytest

from scanner.engines import asking
from scanner.evaluate import pointwise
from scanner.language import parse
from scanner.newest import Leaf, Pass
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
    steps = Pass([term], lambda t: Leaf(lambda _: row_of(t)) if t.op in ("field", "const") else None)
    wanted = row_of(term)
    np.testing.assert_array_equal(steps()[term], wanted)
    holds = Pass([term], lambda t: Leaf(lambda _: row_of(t)) if t.op in ("field", "const") else None, met={term})
    np.testing.assert_array_equal(holds()[term], wanted == 1.0)


@pytest.mark.parametrize("sign", COMPARISONS)
@pytest.mark.parametrize("back", [0, 2])
def test_compiled_steps_are_those_of_numpy(sign: str, back: int) -> None:
    term = parse(
        f"not (open {sign} high or low > 0.5) or (-(open - high) / low) * 2 + abs(low) {sign} 1 and high >= low"
    )
    rings = {name: np.roll(np.stack([row, row[::-1], row * 2, row + 1]), 1, axis=0) for name, row in ROWS.items()}
    n = EVERY.shape[1]
    t, begun = np.full(n, 7), np.arange(n) % 8

    def leaf(term: Term) -> Leaf | None:
        if term.op == "const":
            return Leaf(lambda columns: np.float64(term.data), number=term.data)
        if term.op != "field":
            return None
        ring = rings[term.data]
        row = np.where(t - begun >= back, ring[(7 - back) % len(ring)], np.nan)
        return Leaf(lambda columns: row.take(columns), ring, back)

    columns = np.arange(0, n, 3)
    for met in ((), {term}):
        steps = Pass([term, *term.args], leaf, met)
        found = asking.bind(steps.steps())(t, begun, columns)
        for each, values in steps(columns).items():
            np.testing.assert_array_equal(found[steps.wanted[each]], values)


def test_a_step_that_no_ring_holds_is_left_to_numpy() -> None:
    assert Pass([parse("open > 1")], lambda t: Leaf(lambda _: row_of(t)) if not t.args else None).steps() is None
    strange = parse("board in ['main']")
    steps = Pass([strange], lambda t: Leaf(lambda _: row_of(t), EVERY) if not t.args else None).steps()
    assert steps is not None
    assert asking.bind(steps) is None


def test_a_condition_that_is_computed_elsewhere_is_read() -> None:
    term = parse("not (open > high)")
    rows = {term.args[0]: np.array([1.0, 0.0, np.nan])}
    steps = Pass([term], lambda t: Leaf(lambda _: rows[t]) if t in rows else None)
    np.testing.assert_array_equal(steps()[term], [0.0, 1.0, np.nan])

"""The functions of the language against loops that do as their words say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import scanner
from data.errors import ExpressionError
from scanner.functions import FUNCTIONS, both, compare, either, negated, rank_within

nan = np.nan
numbers = arrays(
    float, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=st.sampled_from([nan, 0.0, 1.0, 2.0, 3.5])
)
conditions = arrays(float, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=st.sampled_from([nan, 0.0, 1.0]))


def loop(x: np.ndarray, n: int, of_window: Callable[[np.ndarray], float]) -> np.ndarray:
    out = np.full(x.shape, nan)
    for t in range(n - 1, len(x)):
        for j in range(x.shape[1]):
            out[t, j] = of_window(x[t - n + 1 : t + 1, j])
    return out


def unless_unknown(of_window: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    return lambda window: nan if np.isnan(window).any() else of_window(window)


def all_true(window: np.ndarray) -> float:
    return 0.0 if (window == 0).any() else nan if np.isnan(window).any() else 1.0


@pytest.mark.parametrize("name", ["highest", "lowest"])
@given(x=numbers, n=st.integers(1, 21))
def test_extremes_of_a_window(name: str, x: np.ndarray, n: int) -> None:
    expected = loop(x, n, unless_unknown(max if name == "highest" else min))
    np.testing.assert_array_equal(FUNCTIONS[name].core(x, n), expected)


@given(x=conditions, n=st.integers(1, 21))
def test_count_and_every(x: np.ndarray, n: int) -> None:
    np.testing.assert_array_equal(FUNCTIONS["count"].core(x, n), loop(x, n, unless_unknown(sum)))
    np.testing.assert_array_equal(FUNCTIONS["every"].core(x, n), loop(x, n, all_true))


@given(x=conditions)
def test_bars_since(x: np.ndarray) -> None:
    expected = np.full(x.shape, nan)
    for j in range(x.shape[1]):
        for t in range(len(x)):
            met = [s for s in range(t + 1) if x[s, j] == 1]
            expected[t, j] = t - met[-1] if met else nan
    np.testing.assert_array_equal(FUNCTIONS["bars_since"].core(x), expected)


@given(data=st.data(), x=numbers)
def test_crosses_and_prev(data: st.DataObject, x: np.ndarray) -> None:
    y = data.draw(arrays(float, x.shape, elements=st.sampled_from([nan, 0.0, 1.0, 2.0])))
    over, under = FUNCTIONS["cross_over"].core(x, y), FUNCTIONS["cross_under"].core(x, y)
    before = FUNCTIONS["prev"].core(x, 1)
    for j in range(x.shape[1]):
        assert np.isnan(before[0, j])
        for t in range(1, len(x)):
            now, then = (x[t, j], y[t, j]), (x[t - 1, j], y[t - 1, j])
            np.testing.assert_array_equal(before[t, j], then[0])
            assert (over[t, j] == 1) == (now[0] > now[1] and then[0] <= then[1])
            assert (under[t, j] == 1) == (now[0] < now[1] and then[0] >= then[1])


def test_a_constant_can_be_crossed() -> None:
    x = np.array([[29.0], [31.0], [32.0]])
    assert FUNCTIONS["cross_over"].core(x, 30.0).ravel().tolist()[1:] == [1, 0]
    assert FUNCTIONS["cross_under"].core(30.0, x).ravel().tolist()[1:] == [1, 0]


@given(
    x=arrays(
        float, st.tuples(st.integers(1, 4), st.integers(0, 9)), elements=st.sampled_from([nan, 1.0, 2.0, 3.0, 9.0])
    )
)
def test_rank_is_the_mean_place_among_the_known(x: np.ndarray) -> None:
    expected = np.full(x.shape, nan)
    for t, row in enumerate(x):
        known = np.sort(row[~np.isnan(row)])
        for j, value in enumerate(row):
            if not np.isnan(value):
                places = np.flatnonzero(known == value) + 1
                expected[t, j] = places.mean() / len(known)
    np.testing.assert_allclose(scanner.rank(x), expected, rtol=1e-15)


def test_rank_within_groups_of_bar_ends() -> None:
    x = np.array([[5.0, 1.0, 7.0, nan]])
    assert rank_within(x, np.array([[0, 1, 0, 0]])).tolist()[0][:3] == [0.5, 1.0, 1.0]


TRUTH = (0.0, nan, 1.0)


@pytest.mark.parametrize("x", TRUTH)
@pytest.mark.parametrize("y", TRUTH)
def test_three_valued_logic(x: float, y: float) -> None:
    """Kleene's: what is unknown decides nothing."""

    def known(value: float) -> set[bool]:
        return {True, False} if np.isnan(value) else {bool(value)}

    for found, expected in (
        (both(np.array(x), np.array(y)), {a and b for a in known(x) for b in known(y)}),
        (either(np.array(x), np.array(y)), {a or b for a in known(x) for b in known(y)}),
        (negated(np.array(x)), {not a for a in known(x)}),
    ):
        assert known(float(found)) == expected


@pytest.mark.parametrize("operator", [np.greater, np.less_equal, np.equal, np.not_equal])
def test_a_comparison_with_the_unknown_is_unknown(operator: Callable[..., np.ndarray]) -> None:
    assert np.isnan(compare(np.array([nan, 1.0, nan]), np.array([1.0, nan, nan]), operator)).all()


def test_what_a_python_strategy_gets_is_true_or_false() -> None:
    x = np.array([[1.0, nan], [3.0, nan], [2.0, nan]])
    assert scanner.cross_over(x, 2.0).tolist() == [[False, False], [True, False], [False, False]]
    assert scanner.cross_under(x, 2.5).tolist() == [[False, False], [False, False], [True, False]]
    assert scanner.every(x > 0, 2).tolist() == [[False, False], [True, False], [True, False]]
    np.testing.assert_array_equal(scanner.prev(x), [[nan, nan], [1, nan], [3, nan]])
    np.testing.assert_array_equal(scanner.highest(x, 3)[-1], [3, nan])
    np.testing.assert_array_equal(scanner.lowest(x, 2)[-1], [2, nan])
    np.testing.assert_array_equal(scanner.count(x > 1, 3)[-1], [2, 0])
    np.testing.assert_array_equal(scanner.bars_since(x > 2)[-1], [1, nan])


def test_too_short_an_array_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        ExpressionError, match=r"highest needs 60 bars; the array has 2\. .*`bars = 60` in the strategy"
    ):
        scanner.highest(np.ones((2, 3)), 60)
    with pytest.raises(ExpressionError, match="prev needs 3 bars; the array has 2"):
        scanner.prev(np.ones((2, 3)), 2)
    with pytest.raises(ExpressionError, match="every n must be an integer of 1 or more"):
        scanner.every(np.ones((2, 3)), 0)


@settings(max_examples=20)
@given(x=numbers, n=st.integers(1, 4), data=st.data())
def test_no_function_looks_further_back_than_it_says(x: np.ndarray, n: int, data: st.DataObject) -> None:
    """Changing what lies beyond the reach changes nothing."""
    for function in FUNCTIONS.values():
        if function.reach(n) is None or function.across:
            continue
        changed = x.copy()
        changed[: max(len(x) - 1 - function.reach(n), 0)] = data.draw(st.sampled_from([nan, 7.0]))
        arguments = [n if kind == "n" else None for kind in function.arguments]
        last = [
            function.core(*(values if a is None else a for a in arguments))[-1]
            for values in (np.sign(x), np.sign(changed))
        ]
        np.testing.assert_array_equal(*last)

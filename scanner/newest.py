"""The newest bar of many terms in one pass: conditions as masks, which cost an eighth of numbers."""

import functools
import operator
from collections.abc import Callable, Container, Iterable
from typing import Any

import numpy as np

from scanner.evaluate import pointwise
from scanner.terms import ARITHMETIC, COMPARISONS, Term

_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"and": operator.and_, "or": operator.or_}


def _apart(x: Any, y: Any) -> Any:
    return (x < y) | (x > y)


_HOLDS = {**COMPARISONS, "!=": _apart}
"""A comparison -> whether it holds: false where a side is NaN."""
_EXACT: dict[str, Callable[..., Any]] = {sign: ARITHMETIC[sign] for sign in "+-*"}
"""What `pointwise` would look up each time."""
_FAILS = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
"""A comparison -> the one that holds where it fails."""


class Pass:
    """Terms -> their rows, each step once, in an order fixed beforehand.

    A condition of three values is two masks, where it holds and where it may hold. What is asked only whether it holds,
    as rules are, takes one of them, and no look at what is unknown.

    `leaf`: gives a function that gives the row of a term that is computed elsewhere, None for what is computed here.
    `met`: conditions of which it is enough to know whether they hold: bool instead of 1.0, 0.0 and NaN.
    """

    def __init__(
        self, terms: Iterable[Term], leaf: Callable[[Term], Callable[[], Any] | None], met: Container[Term] = ()
    ) -> None:
        self._leaf = leaf
        self._slots: dict[tuple[str, Term], int] = {}
        self._work: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
        self._wanted = {term: self._holds(term) if term in met else self._row(term) for term in terms}

    def __call__(self) -> dict[Term, Any]:
        """(symbols,) of each term, as `pointwise` gives it."""
        values: list[Any] = []
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for work, slots in self._work:
                values.append(work(*[values[slot] for slot in slots]))
        return {term: values[slot] for term, slot in self._wanted.items()}

    def _add(self, key: tuple[str, Term], work: Callable[..., Any], *slots: int) -> int:
        self._work.append((work, slots))
        self._slots[key] = len(self._work) - 1
        return self._slots[key]

    def _row(self, term: Term) -> int:
        """Where the row of a term will stand."""
        key = "row", term
        if key in self._slots:
            return self._slots[key]
        if (read := self._leaf(term)) is not None:
            return self._add(key, read)
        if _logical(term):
            return self._add(key, _numbers, self._holds(term), self._may(term))
        work = _EXACT.get(term.op) or functools.partial(_pointwise, term)
        return self._add(key, work, *map(self._row, term.args))

    def _holds(self, term: Term) -> int:
        """Where the mask of who meets a condition will stand."""
        key = "holds", term
        if key in self._slots:
            return self._slots[key]
        if self._leaf(term) is None and _logical(term):
            if term.op == "not":
                return self._add(key, np.logical_not, self._may(*term.args))
            if term.op in _LOGIC:
                return self._add(key, _joint(term), *map(self._holds, term.args))
            return self._add(key, _HOLDS[term.op], *map(self._row, term.args))
        return self._add(key, _is_one, self._row(term))

    def _may(self, term: Term) -> int:
        """Where the mask of who meets it, or is unknown to, will stand."""
        key = "may", term
        if key in self._slots:
            return self._slots[key]
        if self._leaf(term) is None and _logical(term):
            if term.op == "not":
                return self._add(key, np.logical_not, self._holds(*term.args))
            if term.op in _LOGIC:
                return self._add(key, _joint(term), *map(self._may, term.args))
            return self._add(key, np.logical_not, self._holds(Term(_FAILS[term.op], term.args, kind="condition")))
        return self._add(key, _is_not_zero, self._row(term))


def _logical(term: Term) -> bool:
    return term.op in COMPARISONS or term.op in _LOGIC or term.op == "not"


def _joint(term: Term) -> Callable[..., Any]:
    join = _LOGIC[term.op]
    return join if len(term.args) == 2 else lambda *masks: functools.reduce(join, masks)


def _pointwise(term: Term, *args: Any) -> Any:
    return pointwise(term, args)


def _is_one(row: Any) -> Any:
    return row == 1.0


def _is_not_zero(row: Any) -> Any:
    return row != 0.0


def _numbers(holds: Any, may: Any) -> Any:
    return np.where(holds, 1.0, np.where(may, np.nan, 0.0))

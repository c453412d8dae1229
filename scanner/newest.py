"""The newest bar of many terms in one pass: conditions as masks, which cost an eighth of numbers."""

import functools
import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.asked import Columns
from scanner.engines.machine import Step
from scanner.evaluate import pointwise
from scanner.terms import ARITHMETIC, COMPARISONS, Term

_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"and": operator.and_, "or": operator.or_}


def _apart(x: Any, y: Any) -> Any:
    return (x < y) | (x > y)


_HOLDS = {**COMPARISONS, "!=": _apart}
"""A comparison -> whether it holds: false where a side is NaN."""
_EXACT: dict[str, Callable[..., Any]] = {sign: ARITHMETIC[sign] for sign in "+-*"}
"""What `pointwise` would look up each time."""
_WORDS: dict[Any, str] = {
    **{work: sign for sign, work in (_HOLDS | _EXACT | _LOGIC).items()},
    np.logical_not: "not",
}
"""A step -> what `scanner.engines.asking` calls it."""
_FAILS = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
"""A comparison -> the one that holds where it fails."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A term that is computed elsewhere.

    `read`: gives its row, or of the symbols at some places their values. `ring`: where the machine holds it, if it
    does, as (rows, symbols), bar t in row t modulo their number; `back`: bars ago. `number`: what it always is.
    """

    read: Callable[[Columns | None], Any]
    ring: Any = None
    back: int = 0
    number: float | None = None


class Pass:
    """Terms -> their rows, each step once, in an order fixed beforehand.

    A condition of three values is two masks, where it holds and where it may hold. What is asked only whether it holds,
    as rules are, takes one of them, and no look at what is unknown.

    `leaf`: of a term that is computed elsewhere; None for what is computed here.
    `met`: conditions of which it is enough to know whether they hold: bool instead of 1.0, 0.0 and NaN.
    """

    def __init__(
        self,
        terms: Iterable[Term],
        leaf: Callable[[Term], Leaf | None],
        met: Container[Term] = (),
    ) -> None:
        self._leaf = leaf
        self._slots: dict[tuple[str, Term], int] = {}
        self._work: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
        self._leaves: dict[int, Leaf] = {}
        self.wanted = {term: self._holds(term) if term in met else self._row(term) for term in terms}
        """Where the row of each will stand among those of all steps."""

    def __call__(self, columns: Columns | None = None) -> dict[Term, Any]:
        """(symbols,) of each term, as `pointwise` gives it; or of the symbols in `columns` alone."""
        values: list[Any] = []
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for work, slots in self._work:
                values.append(work(*[values[slot] for slot in slots]) if slots else work(columns))
        return {term: values[slot] for term, slot in self.wanted.items()}

    def steps(self) -> list[Step] | None:
        """The steps as a machine takes them (`Machine.asking`); None where one reads what no ring holds."""
        found: list[Step] = []
        for place, (work, slots) in enumerate(self._work):
            leaf = self._leaves.get(place)
            if leaf is None:
                found.append(Step(_word(work), slots))
            elif leaf.ring is None and leaf.number is None:
                return None
            else:
                found.append(
                    Step("number" if leaf.ring is None else "row", (), leaf.ring, leaf.back, leaf.number or 0.0)
                )
        return found

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
            slot = self._add(key, read.read)
            self._leaves[slot] = read
            return slot
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
                return self._joint(key, [self._holds(arg) for arg in term.args])
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
                return self._joint(key, [self._may(arg) for arg in term.args])
            return self._add(key, np.logical_not, self._holds(Term(_FAILS[term.op], term.args, kind="condition")))
        return self._add(key, _is_not_zero, self._row(term))

    def _joint(self, key: tuple[str, Term], slots: list[int]) -> int:
        first, *others = slots
        for other in others:
            first = self._add(key, _LOGIC[key[1].op], first, other)
        return first


def _word(work: Any) -> str:
    if isinstance(work, functools.partial):
        (term,) = work.args
        return str(term.data[0] if term.op == "function" else term.op)
    return _WORDS.get(work, "")


def _logical(term: Term) -> bool:
    return term.op in COMPARISONS or term.op in _LOGIC or term.op == "not"


def _pointwise(term: Term, *args: Any) -> Any:
    return pointwise(term, args)


def _is_one(row: Any) -> Any:
    return row == 1.0


def _is_not_zero(row: Any) -> Any:
    return row != 0.0


def _numbers(holds: Any, may: Any) -> Any:
    return np.where(holds, 1.0, np.where(may, np.nan, 0.0))


_WORDS |= {_is_one: "is one", _is_not_zero: "is not zero", _numbers: "numbers"}

"""What must be kept from bar to bar so that terms can be advanced one bar at a time."""

import operator
from collections.abc import Container, Mapping
from functools import cached_property

from scanner.engines.base import Engine
from scanner.engines.machine import unfit
from scanner.fields import FIELDS
from scanner.functions import FUNCTIONS
from scanner.indicators.spec import Indicator, Value
from scanner.indicators.window import WINDOWS
from scanner.terms import Term, order

UNDO = 64
"""A copy of each state is taken every so many bars, and a bar is undone by advancing that copy to the bar before."""

Cell = tuple[Term, int]
"""One row of values that is kept: a term, and which of its outputs."""


class Program:
    """Terms in the order in which a bar advances them. `terms`: each with how many of its newest bars are wanted.

    A term with a kernel, be it an indicator or a window function, owns state; its inputs, and what these are computed
    from, are computed at each bar, every other term when it is asked for. What has no kernel, or one that `unfit`
    names, is computed anew from all bars by the engine. What only looks back, and feeds no kernel, needs none: it is
    read from the rows that are kept of its inputs.
    """

    def __init__(self, terms: Mapping[Term, int], unfit: Container[str] = ()) -> None:
        self.terms = dict(terms)
        self.order = order(terms)
        found = {term: kernel for term in self.order if (kernel := kernel_of(term)) is not None}
        self.kernels = {term: kernel for term, kernel in found.items() if kernel[0].name not in unfit}
        self.anew = {t for t in self.order if (t.op == "indicator" or t in found) and t not in self.kernels}
        self.late = self._late()
        """Terms that are read from kept rows -> how many bars back they look."""
        for term in self.late:
            del self.kernels[term]

    def _late(self) -> dict[Term, int]:
        late: dict[Term, int] = {}
        fed: set[Term] = set()
        wanted = self._wanted()
        for term in reversed(self.order):
            if term not in self.kernels:
                continue
            back = _back(term)
            if back and term not in fed and wanted[term] <= 1 and not any(arg.across for arg in term.args):
                late[term] = back
            fed.update(order(term.args))
        return late

    def plain(self, term: Term) -> Term:
        """The same with each late cross as the comparisons that it stands for."""
        if term in self.kernels or term in self.anew or not term.args:
            return term
        if term in self.late:
            if term.data[0] == "prev":
                return term
            x, y = term.args
            now, before = (">", "<=") if term.data[0] == "cross_over" else ("<", ">=")
            old = [Term("function", (arg,), ("prev", 1)) for arg in (x, y)]
            parts = Term(now, (x, y), kind="condition"), Term(before, tuple(old), kind="condition")
            return Term("and", parts, kind="condition")
        args = tuple(map(self.plain, term.args))
        return term if all(map(operator.is_, args, term.args)) else Term(term.op, args, term.data, term.kind)

    @cached_property
    def live(self) -> tuple[Term, ...]:
        """What each bar computes, in order: kernels, what they are fed by, and every field with a number."""
        fields = [t for t in self.order if t.op == "field" and FIELDS[t.data].kind != "text"]
        read = [arg for term in self.late for arg in term.args if arg.op != "const"]
        found = set(order([*self.kernels, *fields, *read]))
        fed = {arg for term in self.kernels for arg in term.args}

        def kept(term: Term) -> bool:
            match term.op:
                case "field":
                    return term in fields
                case "const":
                    return term in fed
                case op:
                    return term in found and op != "output"

        return tuple(filter(kept, self.order))

    @cached_property
    def stages(self) -> list[list[Term]]:
        """The live terms in turn: what is computed without kernels, then the kernels that this feeds; and so on.

        Of these the ones with the same inputs stand together, as far as one does not feed on another.
        """
        number: dict[Term, tuple[int, int]] = {}
        for term in self.order:
            stage, depth = max((number[arg] for arg in term.args), default=(0, 0))
            if term in self.kernels:
                stage, depth = (stage, depth + 1) if stage % 2 else (stage + 1, 0)
            elif term.op != "output" and stage % 2:
                stage, depth = stage + 1, 0
            number[term] = stage, depth
        live = [term for term in self.live if term.op != "const"]
        last = max((number[term][0] for term in live), default=0)
        stages: list[list[Term]] = [[] for _ in range(last - last % 2 + 2)]
        for term in live:
            stages[number[term][0]].append(term)
        gates = {arg: k for k, arg in enumerate(dict.fromkeys(term.args for term in self.kernels))}
        for kernels in stages[1::2]:
            kernels.sort(key=lambda term: (number[term][1], gates[term.args]))
        return stages

    @cached_property
    def across(self) -> bool:
        """Whether a kernel is fed by what looks across the market, so that a symbol's bar changes others' state."""
        return any(arg.across for term in self.kernels for arg in term.args)

    @cached_property
    def keep(self) -> Mapping[Cell, int]:
        """How many rows of what must stay for kernels to read, with those of a bar undone and of one looked at."""
        rows: dict[Cell, int] = {}
        for term, (indicator, params) in self.kernels.items():
            for arg in term.args:
                cell = cell_of(arg)
                rows[cell] = max(rows.get(cell, 1), indicator.lookback(**params) + 3 + UNDO)
        for term, back in self.late.items():
            for cell in (cell_of(arg) for arg in term.args if arg.op != "const"):
                rows[cell] = max(rows.get(cell, 1), back + 3)
        for term, keep in self._wanted().items():
            for cell in cells_of(term):
                if term in self.kernels and keep > 1:
                    rows[cell] = max(rows.get(cell, 1), keep + 1)
        return rows

    def _wanted(self) -> dict[Term, int]:
        """Every term below the wanted ones -> how many of its newest bars these are computed from, kernels aside."""
        need = dict.fromkeys(self.order, 0) | self.terms
        for term in reversed(self.order):
            if term not in self.kernels and term not in self.anew:
                for arg in term.args:
                    need[arg] = max(need[arg], need[term])
        return need

    def need(self, length: int) -> dict[Term, int]:
        """The live terms -> how many bars of each an opening over `length` bars computes."""
        rows = dict.fromkeys(self.live, min(1, length))
        for term in reversed(self.order):
            for arg in term.args:
                arg = cell_of(arg)[0]
                if term in self.kernels:
                    rows[arg] = length
                elif term in rows and arg in rows:
                    rows[arg] = max(rows[arg], rows[term])
        for (term, _), keep in self.keep.items():
            rows[term] = max(rows[term], min(keep, length))
        return rows


def _back(term: Term) -> int:
    """How many bars back a function looks that is nothing but this; 0 of any other term."""
    if term.op != "function":
        return 0
    name, n = term.data
    return n if name == "prev" else int(name in ("cross_over", "cross_under"))


def kernel_of(term: Term) -> tuple[Indicator, Mapping[str, Value]] | None:
    """The indicator whose kernel computes a term, and its parameters; None where there is none."""
    if term.op == "indicator" and term.indicator.kernel is not None:
        return term.indicator, term.parameters
    if term.op == "function" and term.data[0] in WINDOWS:
        name, n = term.data
        return WINDOWS[name], {} if n is None else {"n": n}
    return None


def cell_of(term: Term) -> Cell:
    """Where the values of a term with one output stand."""
    if term.op == "output":
        (parent,) = term.args
        return parent, parent.indicator.outputs.index(term.data)
    return term, 0


def cells_of(term: Term) -> tuple[Cell, ...]:
    """All of them."""
    if term.op == "indicator":
        return tuple((term, k) for k in range(len(term.indicator.outputs)))
    return (cell_of(term),)


def looks_across(term: Term) -> bool:
    """Whether it is itself a function across the market."""
    return term.op == "function" and FUNCTIONS[term.data[0]].across


def program_for(terms: Mapping[Term, int], engine: Engine) -> Program:
    """The program of some terms, without the kernels that the engine has found unfit."""
    kernels = [indicator for indicator, _ in Program(terms).kernels.values()]
    return Program(terms, unfit(engine, kernels))

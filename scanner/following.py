"""A plan's terms on a shard's resident bars: opened once, then advanced with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.adjust import Basis
from scanner.engines.base import Engine
from scanner.engines.machine import Machine
from scanner.fields import FIELDS, Source, newest
from scanner.firing import Firing
from scanner.history import cut, part
from scanner.newest import Pass
from scanner.program import program_for
from scanner.running import Running
from scanner.scan import Computed, Mask, Plan
from scanner.terms import order


@dataclass(frozen=True)
class News:
    """What one bar end brought."""

    has: npt.NDArray[np.bool_]
    """(symbols,): who has a bar."""
    changed: npt.NDArray[np.intp]
    """Symbols whose older prices it changed, for they are adjusted to the newest: places."""


class Following:
    """The terms of a plan, advanced with the bars; each `source` holds all bars up to the one it is given with."""

    def __init__(self, plan: Plan, engine: Engine, machine: Machine, source: Source) -> None:
        self._plan, self._terms = plan, plan.terms
        self._engine, self._machine = engine, machine
        self._program = program_for(self._terms, engine)
        fed = order([*self._program.kernels, *self._program.late])
        # Whether a bar's status is known depends on the day from which one looks.
        self._by_name = any(term.op == "field" and FIELDS[term.data].named for term in fed)
        self.source = source
        self._running = self._run()

    def _run(self) -> Running:
        running = Running(self._program, self, self._machine, self._engine)
        program, plain = self._program, self._program.plain
        self._wanted = [(term, plain(term)) for term, _ in self._plan.wanted if self._terms[term] == 1]
        extra = [plain(term) for term in self._plan.extra if term not in program.kernels]
        self._pass = Pass([*(term for _, term in self._wanted), *extra], running.leaf)
        rules = [(rule, shown) for (rule, _), shown in zip(self._plan.rules, self._plan.shown, strict=True)]
        self._firing = Firing(rules, running, plain)
        return running

    def row(self, name: str) -> npt.NDArray[Any]:
        """(symbols,) a field at each symbol's newest bar."""
        return newest(name, self.source)

    def serves(self, plan: Plan, engine: Engine) -> bool:
        """Whether it is that plan's, on that engine."""
        return engine.name == self._engine.name and (plan is self._plan or plan == self._plan)

    def advance(self, source: Source, news: News, bar_end: int) -> None:
        """Take the bars of one more bar end, which are the newest in `source`."""
        before, self.source = self.source, source
        renamed = self._by_name and source.names is not before.names and source.names != before.names
        if renamed or 2 * len(news.changed) > len(news.has):
            self._running = self._run()
            return
        self._running.advance(news.has, bar_end)
        if len(news.changed):
            self.open_anew(source, news.changed)

    def open_anew(self, source: Source, columns: npt.NDArray[np.intp]) -> None:
        """Open some symbols again over their bars, of which older ones have changed: places."""
        self.source = source
        length = int(max(self._running.t.max() + 1, source.length))
        bars = _Part(source, columns, length)
        self._running.replace(columns, Running(self._program, bars, self._machine, self._engine))

    def found(self, source: Source, current: Mask) -> Computed:
        """The plan's wanted terms at the newest bars, as `evaluate` gives them, and what its rules find."""
        self.source = source
        rows = self._pass()
        found = {term: self._matrix(rows[plain]) for term, plain in self._wanted}
        for term, _ in self._plan.wanted:
            if (keep := self._terms[term]) != 1:
                found[term] = self._running.rows(term, min(keep, source.length))
        return found, self._firing(current)

    def _matrix(self, row: Any) -> Any:
        if isinstance(row, np.ndarray):
            return row[None]
        if isinstance(row, tuple):
            return tuple(map(self._matrix, row))
        return row if np.ndim(row) == 0 else self._machine.get(row)[None]


class _Part:
    """Some of the symbols of a source."""

    def __init__(self, source: Source, columns: npt.NDArray[np.intp], length: int) -> None:
        known = source.basis
        basis = Basis(
            {name: cut(matrix, columns, length, np.nan) for name, matrix in known.prices.items()},
            cut(known.references, columns, length, np.nan),
            cut(known.gaps, columns, length, False),
        )
        packed = part(source.packed, columns, length)
        self.source = Source(packed, names=source.names, origin=source.origin, known=basis)

    def row(self, name: str) -> npt.NDArray[Any]:
        return newest(name, self.source)

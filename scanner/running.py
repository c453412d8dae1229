"""A program that runs: the state of every term for every symbol, opened over many bars, then advanced one at a time."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data.panel import NO_BAR
from scanner.asked import Asked, Columns
from scanner.engines.base import Engine, Series, joint_span
from scanner.engines.gate import NEVER, Gate
from scanner.engines.machine import Advance, Chain, Keep, Machine, Matrix
from scanner.evaluate import evaluate, pointwise
from scanner.fields import FIELDS, Source
from scanner.functions import rank_within
from scanner.newest import Leaf, Pass
from scanner.program import UNDO, Cell, Program, cell_of, cells_of, looks_across
from scanner.terms import Term

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Bars(Protocol):
    """The bars that a program runs over."""

    def row(self, name: str) -> Array:
        """(symbols,) a field at the newest bars; of symbols that have none among them, anything."""

    @property
    def source(self) -> Source:
        """All bars so far."""


class Running:
    """The columns of a program, one a symbol, on a machine.

    Each column counts its own bars in `t`; columns opened together stand at the same one. What a column holds is in
    matrices whose last axis is the columns, so columns can be copied, put aside and put back alike.
    """

    def __init__(self, program: Program, bars: Bars, machine: Machine, engine: Engine) -> None:
        """Open over all bars of `bars.source`. `engine` computes what has no kernel."""
        self.program, self.machine, self.engine, self._bars = program, machine, engine, bars
        packed = bars.source.packed
        length, columns = packed.bar_ends.shape
        self.t = np.full(columns, length - 1)
        self.last = packed.bar_ends[-1].copy() if length else np.full(columns, NO_BAR)
        """UTC ns: each symbol's newest bar end."""
        self._begun = length - packed.lengths
        """Where each symbol's first bar stands."""
        self._has, self._whole = np.zeros(columns, dtype=bool), False
        self._now: dict[Cell, Matrix] = {}
        self._rings: dict[Cell, Matrix] = {}
        self._states: dict[Term, Matrix] = {}
        self._gates: dict[tuple[Cell, ...], Gate] = {}
        self._gate_of: dict[Term, Gate | None] = {}
        self._known: dict[Term, Any] = {}
        self._asked: Asked | None = None
        self._open(bars.source)
        self._copies = {term: machine.put(machine.get(state)) for term, state in self._states.items()}
        self._copied = {term: self.t.copy() for term in self._states}
        self._groups = [list(self._copies)[turn::UNDO] for turn in range(UNDO)]
        self._turn = 0
        self._advances = {term: self._bound(term) for term in program.kernels}
        self._alone: dict[Term, Chain] = {}
        self._stages = [stage for stage in self._staged() if stage]
        self._keep_all = machine.chain([keep for term in program.live for keep in self._keeps(term)])

    # Opening

    def _open(self, source: Source) -> None:
        length, columns = source.packed.bar_ends.shape
        need = self.program.need(length)
        values: dict[Term, Any] = {}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for term in self.program.order:
                if term in need or term.op == "const":
                    values[term] = found = self._opened(term, need.get(term, 1), values, source)
                    if term in need:
                        parts = found if isinstance(found, tuple) else (found,)
                        for cell, value in zip(cells_of(term), parts, strict=True):
                            self._settle(cell, value, length, columns)
                elif term.op == "field":
                    values[term] = FIELDS[term.data].value(source, length)
                elif term.op == "output" and term.args[0] in need:
                    parent, k = cell_of(term)
                    values[term] = values[parent][k]

    def _opened(self, term: Term, need: int, values: Mapping[Term, Any], source: Source) -> Any:
        """The last `need` rows of a live term, or of each of its outputs; of a kernel at least those of its ring."""
        xp = self.machine.xp
        if term.op == "const":
            return np.float64(term.data)
        if term.op == "field":
            return self.machine.put(np.asarray(FIELDS[term.data].value(source, need), dtype=np.float64))
        if term in self.program.kernels:
            return self._batch(term, need, values, source)
        if term in self.program.anew:
            found: Any = evaluate({term: need}, source, self.engine)[term]
            return tuple(map(self.machine.put, found)) if isinstance(found, tuple) else self.machine.put(found)
        args = [value if np.ndim(value) == 0 else value[-need:] for value in (values[arg] for arg in term.args)]
        if looks_across(term):
            full = np.broadcast_to(self.machine.get(args[0]), (need, len(self.t)))
            return self.machine.put(rank_within(full, source.ends(need)))
        value = pointwise(term, args)
        return value if np.ndim(value) else xp.asarray(value)

    def _batch(self, term: Term, need: int, values: Mapping[Term, Any], source: Source) -> Any:
        machine = self.machine
        indicator, params = self.program.kernels[term]
        assert indicator.kernel is not None
        lengths, shape = source.packed.lengths, source.packed.bar_ends.shape
        inputs = []
        for arg in term.args:
            value = values[arg]
            inputs.append(value if np.ndim(value) else machine.put(np.full(shape, float(value))))
        first, stop = joint_span(indicator, [Series(machine.get(matrix), lengths) for matrix in inputs])
        state = machine.zeros(indicator.kernel.rows(params), shape[1])
        self._states[term] = state
        outputs = [machine.zeros(need, shape[1]) for _ in indicator.outputs]
        if shape[0] and shape[1]:
            machine.batch(indicator, params, first, stop, inputs, state, outputs)
            state[:, first >= shape[0]] = 0.0
            if need < shape[0] and shape[0] % need:  # they are rings, whose oldest row need not be the first
                outputs = [machine.xp.roll(output, -(shape[0] % need), axis=0) for output in outputs]
        self._gate_of[term] = None
        if not indicator.kernel.total:
            key = tuple(map(cell_of, term.args))
            if key not in self._gates:
                begin = np.where(first < shape[0], first, NEVER)
                end = np.where((stop < shape[0]) & (first < shape[0]), stop, NEVER)
                self._gates[key] = Gate([self._now[cell] for cell in key], begin, end)
            self._gate_of[term] = self._gates[key]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def _settle(self, cell: Cell, value: Any, length: int, columns: int) -> None:
        """The rows of a cell as they stay: the newest, and the ring of those that kernels read."""
        xp = self.machine.xp
        self._now[cell] = now = self.machine.zeros(1, columns)
        now[:] = np.nan if np.ndim(value) and len(value) == 0 else value if np.ndim(value) == 0 else value[-1]
        if (rows := self.program.keep.get(cell, 1)) > 1:
            self._rings[cell] = ring = self.machine.zeros(rows, columns)
            ring[:] = value if np.ndim(value) == 0 else np.nan
            kept = min(rows, length)
            if kept and np.ndim(value):
                ring[xp.asarray(np.arange(length - kept, length) % rows)] = value[-kept:]

    # One bar

    def _bound(self, term: Term) -> Advance:
        """A kernel on its matrices."""
        inputs = [self._rings[cell_of(arg)] for arg in term.args]
        outputs = [self._now[cell] for cell in cells_of(term)]
        gate = self._gate_of[term]
        if gate is not None:
            gate.outputs += outputs
        return Advance(*self.program.kernels[term], inputs, self._states[term], outputs, gate)

    def _keeps(self, term: Term) -> list[Keep]:
        return [Keep(self._now[cell], self._rings[cell]) for cell in cells_of(term) if cell in self._rings]

    def _staged(self) -> Iterator[list[Callable[[Mask], None]]]:
        """What each bar does: in turn what numpy computes, and the kernels and rings that this feeds, all at once."""
        for number, terms in enumerate(self.program.stages):
            if number % 2 == 0:
                yield [
                    functools.partial(self._read, term.data, self._now[term, 0][0])
                    if term.op == "field"
                    else functools.partial(self._take, term)
                    for term in terms
                ]
                continue
            before = [keep for term in self.program.stages[number - 1] for keep in self._keeps(term)]
            works: list[Advance | Keep] = [*before]
            for term in terms:
                works += [self._advances[term], *self._keeps(term)]
            chain = self.machine.chain(works)
            yield [functools.partial(self._run, chain)]

    def _run(self, chain: Chain, has: Mask) -> None:
        chain(self.t, has)

    def _read(self, name: str, newest: Matrix, has: Mask) -> None:
        row = self._bars.row(name)
        self._copyto(newest, row if self.machine.xp is np else self.machine.put(row), has)

    def _take(self, term: Term, has: Mask) -> None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = self._compute(term)
            for cell, row in zip(cells_of(term), found if isinstance(found, tuple) else (found,), strict=True):
                self._copyto(self._now[cell][0], row, has)

    def advance(self, has: Mask, ends: Any, *, copy: bool = True) -> None:
        """One more bar for the columns of `has`, whose bar ends are `ends`; its fields are read from `bars`."""
        if copy:
            self._copy(has)
        self._has, self._whole = has, bool(has.all())
        if self._whole:
            self.t += 1
            self.last[:] = ends
        else:
            self.t += has
            np.copyto(self.last, ends, where=has)
        self._known.clear()
        self._asked = None
        for stage in self._stages:
            for work in stage:
                work(has)

    def row(self, term: Term) -> Any:
        """(symbols,) a term at each symbol's newest bar, on the machine; of several outputs a tuple of such.

        Good until the next bar.
        """
        if term not in self._known:
            cells = cells_of(term)
            if cells[0] in self._now:
                found = tuple(self._now[cell][0] for cell in cells)
                self._known[term] = found if len(found) > 1 else found[0]
            else:
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    self._known[term] = self._compute(term)
        return self._known[term]

    def leaf(self, term: Term) -> Leaf | None:
        """How `row` has a term that is more than what `pointwise` makes of others; None for the others.

        It reads in numpy at some places, on the machine for all symbols.
        """
        cells = cells_of(term)
        if term.op == "const":
            return Leaf(lambda columns: np.float64(term.data), number=term.data)
        if term.op == "function" and term.data[0] == "prev" and cells[0] not in self._now:
            (arg,), n = term.args, term.data[1]
            number = arg.data if arg.op == "const" else None
            ring = None if arg.op == "const" else self._rings[cell_of(arg)]
            return Leaf(functools.partial(self._back, arg, n), ring, n, number)
        if all(cell in self._now for cell in cells) and (
            term in self.program.kernels or term.op in ("field", "output")
        ):
            rows = [self._now[cell] for cell in cells]
            if len(rows) == 1:
                return Leaf(functools.partial(self._some, rows[0][0]), rows[0])
            return Leaf(lambda columns: tuple(self._some(row[0], columns) for row in rows))
        if cells[0] in self._now or term.op in ("field", "output") or term in self.program.anew or looks_across(term):
            return Leaf(lambda columns: self._some(self.row(term), columns))
        return None

    def asking(self, steps: Pass) -> Callable[[Columns], Array] | None:
        """The rows of all steps of a pass at some places; None where numpy computes them one by one."""
        found = steps.steps()
        ask = None if found is None else self.machine.asking(found)
        return None if ask is None else lambda columns: ask(self.t, self._begun, columns)

    def _some(self, row: Any, columns: Columns | None) -> Any:
        if columns is None or np.ndim(row) == 0:
            return row
        return (row if isinstance(row, np.ndarray) else self.machine.get(row)).take(columns)

    def _compute(self, term: Term) -> Any:
        if term.op == "const":
            return np.float64(term.data)
        if term.op == "field":
            return self._bars.row(term.data)
        if term in self.program.anew:
            found: Any = evaluate({term: 1}, self._bars.source, self.engine)[term]
            parts = [self.machine.put(part[-1]) for part in (found if isinstance(found, tuple) else (found,))]
            return tuple(parts) if len(parts) > 1 else parts[0]
        if term.op == "output":
            parent, k = cell_of(term)
            return self.row(parent)[k]
        if term.op == "function" and term.data[0] == "prev":
            return self._back(term.args[0], term.data[1], None)
        if (plain := self.program.plain(term)) is not term:
            return self.row(plain)
        args = [self.row(arg) for arg in term.args]
        if looks_across(term):
            row = np.broadcast_to(self.machine.get(args[0]), self.last.shape)
            return self.machine.put(rank_within(row[None], self.last[None])[0])
        return pointwise(term, args)

    def _back(self, arg: Term, n: int, columns: Columns | None) -> Any:
        """A kept term n bars ago, of all symbols on the machine, or of some in numpy; NaN before the first bar."""
        if self._asked is None or self._asked.columns is not columns:
            self._asked = Asked(columns, self.t, self._begun)
        found: Any = arg.data
        if arg.op != "const":
            ring = self._rings[cell_of(arg)]
            flat, places = ring.reshape(-1), self._asked.places(n, len(ring))
            found = (
                flat.take(places) if self.machine.xp is np else self.machine.get(flat[self.machine.xp.asarray(places)])
            )
        if (unknown := self._asked.unknown(n)) is not None:
            found = np.where(unknown, np.nan, found)
        elif np.ndim(found) == 0:
            found = np.full(self._asked.t.shape, found)
        return found if columns is not None else self.machine.put(found)

    def rows(self, term: Term, keep: int) -> Any:
        """The last `keep` rows of a wanted term that does not look across the market, as `evaluate` gives them."""
        cells = cells_of(term)
        if term.op == "field":
            return FIELDS[term.data].value(self._bars.source, keep)
        if term.op == "const":
            return np.float64(term.data)
        if cells[0] in self._rings and cells[0][0] in self.program.kernels:
            found = tuple(self._newest(self._rings[cell], keep) for cell in cells)
            return found if len(found) > 1 else found[0]
        if cells[0][0] in self.program.anew:
            return evaluate({term: keep}, self._bars.source, self.engine)[term]
        args = [self.rows(arg, keep) for arg in term.args]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return pointwise(term, args)

    def _newest(self, ring: Matrix, keep: int) -> Array:
        rows = self.t - np.arange(keep - 1, -1, -1)[:, None]
        return np.take_along_axis(self.machine.get(ring), rows % len(ring), axis=0)

    # Bars undone, looked at, and opened anew

    def _copy(self, has: Mask) -> None:
        """Every state is copied once in UNDO bars, a few of them at each: as it is before the new bar."""
        for term in self._groups[self._turn]:
            self._copyto(self._copies[term], self._states[term], has)
            np.copyto(self._copied[term], self.t, where=has)
        self._turn = (self._turn + 1) % UNDO

    def _copyto(self, to: Matrix, values: Matrix, mask: Mask) -> None:
        if (mask is self._has and self._whole) or mask.all():
            to[...] = values
        elif self.machine.xp is np:
            np.copyto(to, values, where=mask)
        else:
            self.machine.xp.copyto(to, values, where=self.machine.put(mask))

    def undoable(self, mask: Mask) -> Mask:
        """Which of some columns can be put back to the bar before their newest."""
        able = mask.copy()
        for copied in self._copied.values():
            able &= (copied < self.t) & (self.t - copied <= UNDO)
        return able

    def undo(self, mask: Mask) -> None:
        """Put columns back to the bar before their newest, of which an advance must follow."""
        before = self.t - mask
        for term, state in self._states.items():
            gate, copied = self._gate_of[term], self._copied[term]
            if term not in self._alone:
                self._alone[term] = self.machine.chain([replace(self._advances[term], gate=None)])
            self._copyto(state, self._copies[term], mask)
            for ahead in range(1, int((before - copied)[mask].max(initial=0)) + 1):
                t = copied + ahead
                again = mask & (t <= before)
                if gate is not None:
                    again &= (t >= gate.begin) & (t < gate.end)
                if again.any():
                    self._alone[term](t, again)
        for gate in self._gates.values():
            gate.begin[mask & (gate.begin == self.t)] = NEVER
            gate.end[mask & (gate.end == self.t)] = NEVER
            if (outside := mask & gate.off).any():
                for output in gate.outputs:
                    output[:, outside] = np.nan
        self.t -= mask
        self._asked = None

    def set_aside(self, mask: Mask, *, rings: bool) -> Callable[[], None]:
        """Remember some columns; the function that is returned puts them back as they are now.

        `rings`: theirs too, which no more than one bar beyond the newest, or in its place, makes unnecessary.
        """
        columns: Any = slice(None) if mask.all() else np.flatnonzero(mask)
        matrices = self._matrices(rings)
        kept = [matrix[..., columns].copy() for matrix in matrices]

        def put_back() -> None:
            for matrix, values in zip(matrices, kept, strict=True):
                matrix[..., columns] = values
            self._keep_all(self.t, mask)
            self._known.clear()
            self._asked = None

        return put_back

    def replace(self, columns: npt.NDArray[np.int64], other: Any) -> None:
        """Columns of another opening of the same program take the place of these."""
        for mine, theirs in zip(self._matrices(), other._matrices(), strict=True):
            mine[..., columns] = theirs
        self._known.clear()
        self._asked = None

    def _matrices(self, rings: bool = True) -> list[Matrix]:
        gates = [side for gate in self._gates.values() for side in (gate.begin, gate.end)]
        copies = [*self._copies.values(), *self._copied.values(), *self._rings.values()] if rings else []
        return [self.t, self.last, self._begun, *gates, *self._states.values(), *self._now.values(), *copies]

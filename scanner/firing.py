"""Where rules fire at the newest bar: what is asked of few symbols is computed of few."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scanner.asked import Columns
from scanner.newest import Pass
from scanner.running import Running
from scanner.scan import hits_of
from scanner.strategy import Hits, Rule
from scanner.terms import Term


@dataclass(frozen=True)
class _Asked:
    """A rule's place among the rules, what else must hold for it, and the terms that it shows, by their text."""

    place: int
    rule: Rule
    when: Term
    shown: Mapping[str, Term]

    @property
    def terms(self) -> list[Term]:
        return [self.when, *self.shown.values()]

    def hits(self, columns: Columns, inside: Columns, values: Mapping[Term, Any]) -> Hits:
        """Those at some places among `columns`, of which `values` are."""
        rows = (values[term] for term in self.shown.values())
        taken = [row.take(inside).tolist() if np.ndim(row) else [float(row)] * len(inside) for row in rows]
        return hits_of(self.rule, columns.take(inside), self.shown, taken)


class _Behind:
    """Rules that look further only where a condition holds, which they have in common."""

    def __init__(self, gate: Term, asked: Sequence[_Asked], running: Running) -> None:
        self.gate = gate
        self._asked = asked
        self._steps = Pass([term for each in asked for term in each.terms], running.leaf, {each.when for each in asked})
        self._ask = running.asking(self._steps)
        wanted = list(self._steps.wanted)
        place = self._steps.wanted if self._ask else {term: k for k, term in enumerate(wanted)}
        self._whens = np.array([place[each.when] for each in asked])
        self._shown = [np.array([[place[term]] for term in each.shown.values()], dtype=np.intp) for each in asked]

    def hits(self, columns: Columns) -> Iterator[tuple[int, Hits]]:
        """Where the rules fire among some places: each that does by its place among the rules."""
        if self._ask is not None:
            values = self._ask(columns)
        else:
            rows = self._steps(columns).values()
            values = np.stack([np.broadcast_to(np.asarray(row, dtype=float), len(columns)) for row in rows])
        which, inside = values[self._whens].nonzero()
        starts = np.searchsorted(which, np.arange(len(self._asked) + 1)).tolist()
        for each, shown, start, stop in zip(self._asked, self._shown, starts, starts[1:], strict=False):
            if start < stop:
                some = inside[start:stop]
                yield each.place, hits_of(each.rule, columns.take(some), each.shown, values[shown, some].tolist())


class Firing:
    """Rules of one symbol each, decided at the newest bars.

    A condition that several rules have in common is decided first, and what else these rules want only where it holds:
    of few symbols, where it is a rare one. No bit depends on it, for a term's value at a symbol is no other symbol's.

    `plain`: gives terms as they can be read.
    """

    def __init__(
        self,
        rules: Sequence[tuple[Rule, Mapping[str, Term]]],
        running: Running,
        plain: Callable[[Term], Term],
    ) -> None:
        self._elsewhere = running.machine.xp is not np
        """Whether rows are on a GPU: numpy decides here, for the little that is asked of all symbols."""
        self._n = len(rules)
        number = Counter(part for rule, _ in rules for part in set(_parts(rule.when)))
        self._alone: list[_Asked] = []
        behind: dict[Term, list[_Asked]] = {}
        for place, (rule, shown) in enumerate(rules):
            parts = _parts(rule.when)
            values = {text: plain(term) for text, term in shown.items()}
            gate = max(parts, key=number.__getitem__)
            rest = [plain(part) for part in parts if part != gate]
            if number[gate] > 1 and rest:
                when = rest[0] if len(rest) == 1 else Term("and", tuple(rest), kind="condition")
                behind.setdefault(plain(gate), []).append(_Asked(place, rule, when, values))
            else:
                self._alone.append(_Asked(place, rule, plain(rule.when), values))
        wanted = [*behind, *(term for asked in self._alone for term in asked.terms)]
        self._first = Pass(wanted, running.leaf, {*behind, *(asked.when for asked in self._alone)})
        self._behind = [_Behind(gate, asked, running) for gate, asked in behind.items()]

    def __call__(self, among: npt.NDArray[np.bool_]) -> list[Hits]:
        """Each rule's, of the symbols of `among`."""
        found: list[Hits] = [hits_of(None, _NOBODY, {}, [])] * self._n
        every = np.arange(len(among))
        values = self._first(every if self._elsewhere else None)
        for asked in self._alone:
            found[asked.place] = asked.hits(every, (values[asked.when] & among).nonzero()[0], values)
        for behind in self._behind:
            columns = (values[behind.gate] & among).nonzero()[0]
            if len(columns):
                for place, hits in behind.hits(columns):
                    found[place] = hits
        return found


_NOBODY: Columns = np.empty(0, dtype=np.intp)


def _parts(term: Term) -> list[Term]:
    """Conditions that all must hold for one to hold."""
    return [part for arg in term.args for part in _parts(arg)] if term.op == "and" else [term]

"""Signals on a chart: those of the history, and those that a rule would have given at bars of which it has none."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data.history import SignalHistory
from data.panel import NO_BAR, Floats, Packed, Times
from data.signal import Signal, from_table
from jobs.chart.content import Mark
from jobs.revising import key_of
from scanner.fields import Source
from scanner.history import cut
from scanner.strategy import Rule, window

Found = tuple[int, str, str, float, float, bool]
"""Bar end, action, strategy, confidence, price as it was traded, whether the history has it."""


def recorded(history: SignalHistory, symbol: str, frame: str, times: Times, strategy: str | None) -> list[Found]:
    """The signals of a symbol's closed bars among `times` (UTC ns) that were not revoked."""
    table = history.query(
        after=int(times[0]) - 1,
        upto=int(times[-1]),
        symbols=[symbol],
        strategies=None if strategy is None else [strategy],
        frames=[frame],
        newest_first=False,
    )
    stand: dict[Any, Signal] = {}
    for signal in from_table(table):
        if signal.revokes is not None:
            stand.pop((key_of(signal), signal.bar_end), None)
        elif not signal.developing:
            stand[key_of(signal), signal.bar_end] = signal
    return [(s.bar_end, s.action, s.strategy, s.confidence, s.price, True) for s in stand.values()]


def computed(
    rule: Rule,
    holds: Floats,
    packed: Packed,
    since: int,
    kept: Iterable[Found],
    *,
    names: Mapping[str, tuple[str, str]],
    origin: int,
) -> list[Found]:
    """Where a rule would have given a signal on the symbol of `packed`, at bars from `since` (UTC ns) on.

    `holds`: (bars,) 1.0 where its condition is true. Its universe, gaps of the price basis and cooldown, also after the
    signals that the history has (`kept`), count as in a scan at that bar; the status ST does so far as a name was seen
    that day.
    """
    ends, close = packed.bar_ends[:, 0], packed.fields["close"][:, 0]
    reach = window({rule.when: 1, **dict.fromkeys(rule.shown, 1)})
    given = {end for end, action, *_ in kept if action == rule.action}
    found: list[Found] = []
    last = NO_BAR
    for row in np.flatnonzero((holds == 1) | np.isin(ends, list(given))).tolist():
        end = int(ends[row])
        if end not in given:
            silent = rule.cooldown > 0 and last >= ends[max(row - rule.cooldown, 0)]
            if silent or not _mine(rule, _upto(packed, row), reach, names, origin):
                continue
            if end >= since:
                found.append((end, rule.action, rule.name, rule.confidence, float(close[row]), False))
        last = end
    return found


def _upto(packed: Packed, row: int) -> Packed:
    """One symbol's bars up to a row."""
    one = np.zeros(1, dtype=np.intp)
    lengths = packed.lengths - (packed.length - 1 - row)
    fields = {name: cut(matrix[: row + 1], one, row + 1, np.nan) for name, matrix in packed.fields.items()}
    return Packed(packed.frame, packed.symbols, packed.bar_ends[: row + 1], lengths, fields)


def _mine(rule: Rule, packed: Packed, reach: int | None, names: Mapping[str, tuple[str, str]], origin: int) -> bool:
    """Whether a scan at the newest of these bars would let the rule speak."""
    source = Source(packed, names=names, origin=origin)
    gapped = source.gap_age[0] < (np.inf if reach is None else reach - 1)
    return bool(rule.universe.mask(source)[0]) and not gapped


def marks_of(found: Iterable[Found], times: Times, factors: Floats) -> tuple[Mark, ...]:
    """One mark a bar and action, in the order of bars; computed anew or of the history, it is one signal."""
    groups: dict[tuple[int, str], dict[str, Found]] = {}
    for one in sorted(found, key=lambda one: (one[0], one[1], one[2], one[5])):
        groups.setdefault(one[:2], {})[one[2]] = one  # the history's comes last, and stays
    marks = []
    for (end, action), by_strategy in groups.items():
        place = int(np.searchsorted(times, end))
        if place == len(times) or times[place] != end:
            continue  # of a bar that the store does not have
        together = list(by_strategy.values())
        price = together[-1][4]
        marks.append(
            Mark(
                place,
                action,
                tuple(by_strategy),
                max(one[3] for one in together),
                price,
                price * float(factors[place]),
                any(one[5] for one in together),
            )
        )
    return tuple(marks)

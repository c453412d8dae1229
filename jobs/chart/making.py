"""A store -> the chart of one of its symbols."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.aggregate import newest
from data.calendar import TradingCalendar, local_day
from data.errors import CalendarHorizonError, StaleDataError, UsageError
from data.factors import FactorStore, applied
from data.history import SignalHistory
from data.panel import FIELDS, PRICES, Floats, Packed, Times
from data.schema import FLAG_INCOMPLETE, FLAG_NO_TRADE
from data.store import BarStore
from data.symbols import kind
from jobs.chart.content import Content, Halt, Line, Pane
from jobs.chart.marks import computed, marks_of, recorded
from jobs.chart.memory import memory
from jobs.chart.placing import Wanted, check, column, lines_of, named_by, pane_of
from jobs.show import local_time
from scanner.engines.base import Engine
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.strategy import PythonStrategy, Rule
from scanner.terms import Term

MOST_BARS = 5000
"""More than any screen has columns for."""
_COLUMNS = ("symbol", "bar_end", "revision", "flags", *FIELDS)


def make(
    store: BarStore,
    symbol: str,
    frame: str,
    drawn: Sequence[Wanted],
    engine: Engine,
    *,
    strategy: Rule | PythonStrategy | None = None,
    bars: int = 250,
    since: int | None = None,
    until: int | None = None,
    kinds: Sequence[str] = ("a_share", "cdr"),
    calendar: TradingCalendar | None = None,
) -> Content:
    """The chart of a symbol's newest `bars` bars with `since` <= bar_end <= `until` (UTC ns).

    `strategy`: what it names is drawn besides, and its signals alone are marked, also where the history has none.
    Values are those of a scan that sees the whole history up to the chart's newest bar; of frames below a day, so much
    of it as anything remembers. `kinds`: of the symbols that an expression across the market ranks.

    Raises StaleDataError where there are no such bars, UsageError where more is asked for than can be read.
    """
    if not 1 <= bars <= MOST_BARS:
        raise UsageError(f"bars must be in [1, {MOST_BARS}]; got {bars}")
    if strategy is not None:
        terms = {one.term for one in drawn}
        drawn = check([*drawn, *(one for one in named_by(strategy) if one.term not in terms)])
    rule = strategy if isinstance(strategy, Rule) else None
    asked = {one.term: None for one in drawn} | ({rule.when: None} if rule else {})
    across = any(term.across for term in asked)
    least = strategy.universe.min_bars_listed if strategy is not None else 0
    after = _after(store, frame, bars, until, asked, least)
    table = store.table(frame, after=after, upto=until, symbols=None if across else [symbol], columns=_COLUMNS)
    own = _own(table, symbol)
    if len(own) < bars and after is not None:
        table = store.table(frame, upto=until, symbols=None if across else [symbol], columns=_COLUMNS)
        own = _own(table, symbol)
    ends = own["bar_end"].cast(pa.int64()).to_numpy()
    first = max(len(ends) - bars, 0 if since is None else int(np.searchsorted(ends, since)))
    if first >= len(ends):
        raise StaleDataError(_nothing(store, symbol, frame, ends, since, until))
    shown = slice(first, None)

    names = store.names(upto=int(ends[-1]))
    origin = min(file.first for file in store.files(frame))
    factors = FactorStore(store.root).table()
    packed = applied(Packed.from_table(own, frame, [symbol]), factors)
    source = Source(packed, names=names, origin=origin)
    if across:
        everybody = sorted({symbol, *(s for s in pc.unique(table["symbol"]).to_pylist() if kind(s) in kinds)})
        market = Source(applied(Packed.from_table(table, frame, everybody), factors), names=names, origin=origin)
        values = _of(evaluate(dict.fromkeys(asked, market.length), market, engine), everybody.index(symbol))
    else:
        values = evaluate(dict.fromkeys(asked, source.length), source, engine)

    prices = {name: source.basis.prices[name][:, 0] for name in PRICES}
    close = packed.fields["close"][:, 0]
    to_scale = prices["close"] / close
    overlays, volume_lines, panes = _placed(drawn, values, shown, to_scale)
    times: Times = ends[shown]
    found = recorded(
        SignalHistory(store.root / "signals"), symbol, frame, times, None if strategy is None else strategy.name
    )
    notes = []
    newest_of_all = store.last_bar_end(frame, upto=until)
    if newest_of_all is not None and newest_of_all > ends[-1]:
        notes.append(f"no bar since, up to {local_time(newest_of_all)[: 10 if frame == '1d' else 16]}")
    if rule is not None:
        found += computed(
            rule, column(values[rule.when], packed.length), packed, int(times[0]), found, names=names, origin=origin
        )
    if strategy is not None and strategy.frames and frame not in strategy.frames:
        notes.append(f"{strategy.name} runs on {', '.join(strategy.frames)} alone")
    if strategy is not None and rule is None:
        notes.append(f"{strategy.name} is written in Python: its signals are those of the history alone")
    up, down = (np.nan_to_num(side[shown, 0]) == 1 for side in source.at_limits(source.length))
    flags = own["flags"].to_numpy()[shown]
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * (close / source.references(source.length)[:, 0] - 1)
    return Content(
        symbol,
        names[symbol][0] if symbol in names else None,
        frame,
        times,
        {name: series[shown] for name, series in prices.items()},
        close[shown],
        packed.fields["volume"][shown, 0],
        packed.fields["amount"][shown, 0],
        change[shown],
        float(prices["close"][first - 1]) if first else float("nan"),
        (flags & FLAG_NO_TRADE) != 0,
        (flags & FLAG_INCOMPLETE) != 0,
        up.astype(np.int8) - down.astype(np.int8),
        tuple(overlays),
        tuple(volume_lines),
        tuple(panes),
        marks_of(found, times, to_scale[shown]),
        _halts(times, calendar),
        tuple((np.flatnonzero(source.basis.gaps[first + 1 :, 0]) + 1).tolist()),
        tuple(notes),
    )


def _own(table: pa.Table, symbol: str) -> pa.Table:
    """A symbol's bars, each in its newest revision, in the order of time."""
    return newest(table.filter(pc.equal(table["symbol"], symbol)) if table.num_rows else table)


def _after(store: BarStore, frame: str, bars: int, until: int | None, terms: Iterable[Term], least: int) -> int | None:
    """The bar end (UTC ns, excluded) before all that is needed for the newest `bars`; None: everything is.

    Daily bars are read whole: they are few. `least`: bars that are needed whatever the terms remember.
    """
    reach = None if frame == "1d" else memory(terms, frame)
    if reach is None:
        return None
    ends = store.bar_ends(frame, upto=until, newest=bars + max(reach, least))
    return ends[0] - 1 if ends else None


def _of(values: dict[Term, Any], column: int) -> dict[Term, Any]:
    """A market's values -> one symbol's, (bars, 1)."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(part) for part in value)
        return value[:, column : column + 1] if np.ndim(value) == 2 else value

    return {term: cut(value) for term, value in values.items()}


def _placed(
    drawn: Sequence[Wanted], values: dict[Term, Any], shown: slice, to_scale: Floats
) -> tuple[list[Line], list[Line], list[Pane]]:
    """Lines over the prices, lines over the volume, panes."""
    overlays: list[Line] = []
    volume_lines: list[Line] = []
    panes: list[Pane] = []
    for one in drawn:
        lines = lines_of(one, values[one.term], shown, to_scale)
        if one.where == "pane":
            panes.append(pane_of(one, lines))
        else:
            (overlays if one.where == "prices" else volume_lines).extend(lines)
    return overlays, volume_lines, panes


def _halts(times: Times, calendar: TradingCalendar | None) -> tuple[Halt, ...]:
    """Where neighbouring bars have sessions between them."""
    days = local_day(times)
    far = np.flatnonzero(np.diff(days).astype(np.int64) > 1) + 1
    found = []
    try:
        calendar = calendar or TradingCalendar()
        for place in far.tolist():
            missed = len(calendar.sessions(days[place - 1].astype(object), days[place].astype(object))) - 2
            if missed > 0:
                found.append(Halt(place, missed))
    except CalendarHorizonError:
        pass  # of days that the calendar does not know nothing is said
    return tuple(found)


def _nothing(store: BarStore, symbol: str, frame: str, ends: Times, since: int | None, until: int | None) -> str:
    if len(ends):
        return (
            f"{symbol} has no {frame} bars from {local_time(since or 0)} on; its newest is of"
            f" {local_time(int(ends[-1]))}"
        )
    own = [f for f in store.frames() if store.table(f, symbols=[symbol], columns=["symbol"]).num_rows]
    bound = "" if until is None else f" up to {local_time(until)}"
    there = f"it has {', '.join(own)}: --frame {own[0]}" if own else "it has none of any frame"
    return f"the store {store.root} holds no {frame} bars of {symbol}{bound}; {there}"

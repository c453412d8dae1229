"""Streams: expressions over a market that trades on, advanced one bar at a time."""

import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.errors import MarketDataError
from data.panel import NO_BAR, Floats, Packed, Panel
from scanner.engines.base import Engine, choose
from scanner.engines.machine import machine_of
from scanner.evaluate import evaluate, expressions_of
from scanner.fields import FIELDS, Source, newest
from scanner.history import History, part
from scanner.program import Program, program_for
from scanner.running import Running
from scanner.terms import Term

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
FORMAT = 1
"""Of a saved stream."""


class Newest(Mapping[str, Floats]):
    """The values of one bar end: expression as it was written -> float64 (symbols,), gathered when asked for."""

    def __init__(self, terms: Mapping[str, Term], read: Callable[[Term], Floats], engine: str) -> None:
        self._terms, self._read = terms, read
        self._values: dict[str, Floats] = {}
        self.engine = engine
        """The engine whose kernels computed it."""

    def __getitem__(self, expression: str) -> Floats:
        if expression not in self._values:
            self._values[expression] = self._read(self._terms[expression])
        return self._values[expression]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def gather(self) -> Self:
        """All of them, since the next bar is about to replace what they are gathered from."""
        for expression in self._terms:
            self[expression]
        return self


class Stream:
    """Expressions of the rule language over each symbol's own bars, advanced by new ones.

    What `update` returns is, bit for bit, the row that `compute` over the longer history gives. Prices are taken as
    they stand. `panel`: the bars so far, its symbols those of the stream; one that has no bar yet is listed when its
    first one comes. An indicator without a kernel, and on the engine `talib` every one, is computed anew from all bars
    at each update, and so are `prev_close`, the limits and what follows from them.

    Bars may come for any of the symbols, and for one bar end in several updates. A second bar of a symbol's newest bar
    end takes the first one's place; one of an older bar end takes its place among the others, and that symbol is
    opened anew. All bars are kept, for that and to be saved. Not to be shared between threads.

    Raises ExpressionError, ParameterError, EngineError.
    """

    def __init__(self, expressions: Iterable[str] | str, panel: Panel, engine: str | Engine = "auto") -> None:
        self._open(expressions, panel.pack(), engine)

    def _open(self, expressions: Iterable[str] | str, packed: Packed, engine: str | Engine) -> None:
        self.terms = expressions_of(expressions)
        """Expression -> term."""
        self.frame, self.symbols = packed.frame, packed.symbols
        self.engine = choose(engine)[0] if isinstance(engine, str) else engine
        self._place = {symbol: j for j, symbol in enumerate(self.symbols)}
        self._machine = machine_of(self.engine.name)
        self._program = program_for(dict.fromkeys(self.terms.values(), 1), self.engine)
        self._history = History(packed)
        self._rows: Mapping[str, Floats] = {}
        self._source: Source | None = None
        self._light: Source | None = None
        self._given: weakref.ref[Newest] | None = None
        self._running = self._run()

    def _run(self) -> "Running | Anew":
        if self._machine is None:
            return Anew(self._program, self, self.engine)
        return Running(self._program, self, self._machine, self.engine)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(symbols,): how many bars each symbol has."""
        return self._history.lengths

    # What a running program asks of its bars

    @property
    def source(self) -> Source:
        """All bars."""
        if self._source is None:
            self._source = Source(self._history.packed(), adjust=False)
        return self._source

    def row(self, name: str) -> Array:
        """(symbols,) a field at the newest bars."""
        if name in self._rows:
            return self._rows[name]
        if FIELDS[name].deep:
            return newest(name, self.source)
        if self._light is None:
            fields = {name: row[None] for name, row in self._rows.items()}
            packed = Packed(self.frame, self.symbols, self._running.last[None], self._history.lengths, fields)
            self._light = Source(packed, adjust=False)
        return newest(name, self._light)

    # Bars

    def update(self, bars: Panel | pa.Table | pa.RecordBatch) -> Newest:
        """Take bars of any of the symbols: a table as `Panel.from_table` reads it, or a panel.

        Returns the values at the newest bar end among them, NaN for symbols whose newest bar is another; a condition
        is 1.0, 0.0 or NaN where unknown. Raises MarketDataError for a symbol that the stream does not have.
        """
        values = None
        for end, has, rows in self._split(bars):
            values = self.advance(end, rows, has)
        if values is None:
            raise MarketDataError("an update must have at least one bar; got none")
        return values

    def preview(self, bars: Panel | pa.Table | pa.RecordBatch) -> Newest:
        """What `update` would return for bars of one bar end, such as those that still develop; nothing changes.

        Raises MarketDataError for several bar ends, and for a bar older than its symbol's newest.
        """
        given = list(self._split(bars))
        if len(given) != 1:
            raise MarketDataError(f"a preview takes bars of one bar end; got {len(given)}")
        end, has, rows = given[0]
        running, history = self._running, self._history
        same = has & (running.last == end)
        if (has & (running.last > end)).any():
            raise MarketDataError("a preview takes no bar older than its symbol's newest; update with it")
        self._finish()
        self._history = history.copy()
        put_back = running.set_aside(has, rings=bool((same & ~running.undoable(same)).any()))
        try:
            return self._advance(end, rows, has, copy=False).gather()
        finally:
            put_back()
            self._running, self._history = running, history
            self._given = None
            self._forget({})

    def values(self) -> Newest:
        """The values at the newest bar end of all."""
        self._finish()
        return self._newest(int(self._running.last.max(initial=NO_BAR)))

    def advance(self, bar_end: int, rows: Mapping[str, Floats], has: Mask | None = None) -> Newest:
        """`update` by rows: field -> float64 (symbols,), in the order of `symbols`; `has`: who has a bar, by default
        all. `bar_end`: UTC ns. The stream keeps the arrays: they must not be changed afterwards."""
        every = np.ones(len(self.symbols), dtype=bool) if has is None else np.ascontiguousarray(has, dtype=bool)
        return self._advance(bar_end, rows, every, copy=True)

    def _advance(self, bar_end: int, rows: Mapping[str, Floats], has: Mask, *, copy: bool) -> Newest:
        self._finish()
        running = self._running
        old = running.last >= bar_end
        if not old.any() or not (self._program.across or (has & old).any()):
            self._history.append(bar_end, has, rows)
            self._forget(rows)
            running.advance(has, bar_end, copy=copy)
        else:
            late, same = has & (running.last > bar_end), has & (running.last == bar_end)
            self._correct(bar_end, rows, has, late, same, copy)
        return self._newest(bar_end)

    def _correct(self, end: int, rows: Mapping[str, Floats], has: Mask, late: Mask, same: Mask, copy: bool) -> None:
        """Bars among which some are not their symbols' first of that bar end, or not their newest."""
        running = self._running
        undone = running.undoable(same)
        new = has & ~late & ~same
        if undone.any():
            self._history.revise(undone, rows)
        if (old := np.flatnonzero(late | (same & ~undone))).size:
            self._history.amend(end, old.tolist(), rows)
        if new.any():
            self._history.append(end, new, rows)
        self._forget(rows)
        if self._program.across:  # one symbol's bar changes what others have kept
            self._running = self._run()
            return
        if undone.any():
            running.undo(undone)
        if (undone | new).any():
            running.advance(undone | new, end, copy=copy)
        if old.size:
            packed = self._history.packed()
            length = int(max(running.t.max() + 1, packed.length))
            running.replace(old, self._part(part(packed, old, length)))

    def _part(self, packed: Packed) -> "Running | Anew":
        """The program opened over some of the symbols."""
        bars = _Fixed(Source(packed, adjust=False))
        if self._machine is None:
            return Anew(self._program, bars, self.engine)
        return Running(self._program, bars, self._machine, self.engine)

    def _split(self, bars: Panel | pa.Table | pa.RecordBatch) -> Iterator[tuple[int, Mask, dict[str, Floats]]]:
        """Bar ends in order, each with who has a bar and all rows."""
        if isinstance(bars, pa.RecordBatch):
            bars = pa.Table.from_batches([bars])
        panel = bars if isinstance(bars, Panel) else Panel.from_table(bars, self.frame)
        strangers = [symbol for symbol in panel.symbols if symbol not in self._place]
        if strangers:
            raise MarketDataError(
                f"the stream has no symbol {strangers[0]!r}: open it with a panel that has a column for it"
            )
        columns: Any = slice(None)
        if panel.symbols != self.symbols:
            columns = [self._place[symbol] for symbol in panel.symbols]
        present = panel.present
        names = dict.fromkeys([*self._history.fields, *panel.fields])
        for number, end in enumerate(panel.times.tolist()):
            has = np.zeros(len(self.symbols), dtype=bool)
            has[columns] = present[number]
            rows = {}
            for name in names:
                rows[name] = np.full(len(self.symbols), np.nan)
                if name in panel.fields:
                    rows[name][columns] = panel.fields[name][number]
            yield end, has, rows

    def _newest(self, end: int) -> Newest:
        values = Newest(self.terms, lambda term: self._value(term, end), self.engine.name)
        self._given = weakref.ref(values)
        return values

    def _value(self, term: Term, end: int) -> Floats:
        row = self._running.row(term)
        if self._machine is not None:
            row = self._machine.get(row)
        value: Floats = np.where(self._running.last == end, row, np.nan)
        return value

    def _finish(self) -> None:
        if self._given is not None and (given := self._given()) is not None:
            given.gather()
        self._given = None

    def _forget(self, rows: Mapping[str, Floats]) -> None:
        self._rows, self._source, self._light = rows, None, None

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the expressions and all bars, as an .npz file; opening them gives every state again, to the bit."""
        packed = self._history.packed()
        told = {
            "format": FORMAT,
            "expressions": list(self.terms),
            "frame": self.frame,
            "symbols": list(self.symbols),
            "engine": self.engine.name,
            "fields": list(packed.fields),
        }
        target = Path(path)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tmp", delete=False) as file:
            try:
                np.savez(
                    file,
                    told=np.frombuffer(json.dumps(told).encode(), dtype=np.uint8),
                    bar_ends=packed.bar_ends,
                    lengths=packed.lengths,
                    **{f"field {name}": np.asarray(matrix) for name, matrix in packed.fields.items()},  # type: ignore[arg-type]
                )
            except BaseException:
                os.unlink(file.name)
                raise
        os.replace(file.name, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: str | Engine | None = None) -> Self:
        """A saved stream, on the engine that it had or another. Raises MarketDataError for a file that is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                told = json.loads(bytes(file["told"]))
                if told["format"] != FORMAT:
                    raise MarketDataError(f"{path} is a stream of format {told['format']}; this version reads {FORMAT}")
                fields = {name: file[f"field {name}"] for name in told["fields"]}
                ends, lengths = file["bar_ends"], file["lengths"]
        except (ValueError, KeyError, EOFError) as error:
            raise MarketDataError(f"{path} is no saved stream: {error}") from error
        packed = Packed(told["frame"], tuple(told["symbols"]), ends, lengths, fields)
        stream = cls.__new__(cls)
        stream._open(told["expressions"], packed, told["engine"] if engine is None else engine)
        return stream


class _Fixed:
    """Bars that do not go on."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def row(self, name: str) -> Array:
        return newest(name, self.source)


class Anew:
    """What `Running` is to engines whose kernels run on no machine: every term computed from all bars at each bar."""

    def __init__(self, program: Program, bars: Any, engine: Engine) -> None:
        self._program, self._bars, self._engine = program, bars, engine
        ends = bars.source.packed.bar_ends
        self.last = ends[-1].copy() if len(ends) else np.full(ends.shape[1], np.iinfo(np.int64).min)
        self.t = np.full(ends.shape[1], len(ends) - 1)
        self._known: dict[Term, Any] = {}

    def advance(self, has: Mask, ends: Any, *, copy: bool = True) -> None:
        np.copyto(self.last, ends, where=has)
        self._known = {}

    def row(self, term: Term) -> Any:
        if not self._known:
            self._known = evaluate(self._program.terms, self._bars.source, self._engine)
        value = self._known[term]
        return value if np.ndim(value) == 0 else value[-1]

    def undoable(self, mask: Mask) -> Mask:
        return mask

    def undo(self, mask: Mask) -> None:
        self._known = {}

    def set_aside(self, mask: Mask, *, rings: bool) -> Callable[[], None]:
        last = self.last.copy()

        def put_back() -> None:
            self.last[:] = last
            self._known = {}

        return put_back

    def replace(self, columns: npt.NDArray[np.int64], other: Any) -> None:
        self._known = {}

"""Signal: one strategy's word on one symbol at one bar, with an id that a retry or a restart cannot change."""

import hashlib
import json
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa

from data.notebook import html_table
from data.schema import SIGNAL, SIGNAL_ADDED

ACTIONS = ("BUY", "SELL", "ALERT")
_NAMES = tuple(SIGNAL.names)
_ALL = itemgetter(*_NAMES)
_encoder = msgspec.json.Encoder(enc_hook=float)  # numpy's numbers; what is not finite is null
_decode = msgspec.json.Decoder().decode
EARLIER = pa.schema([field for field in SIGNAL if field.name not in SIGNAL_ADDED])
"""Signals as earlier versions kept them."""


@dataclass(frozen=True)
class Signal:
    """One row of the history; the fields are those of `data.schema.SIGNAL`, where their units stand.

    `values` maps the terms that made it fire to numbers (None where one is not finite). Stamps are UTC ns, 0 where the
    stage did not happen (a scan of stored bars has no payload). `epoch` and `seq` are given by the history.
    """

    strategy: str
    version: str
    symbol: str
    frame: str
    bar_end: int
    action: str
    confidence: float
    price: float
    engine: str
    origin: int
    values: Mapping[str, float | None] = field(default_factory=dict)
    name: str | None = None
    developing: bool = False
    at_limit_up: bool | None = None
    at_limit_down: bool | None = None
    revision: int = 0
    revokes: str | None = None
    quote_ns: int = 0
    received_ns: int = 0
    bar_closed_ns: int = 0
    scanned_ns: int = 0
    published_ns: int = 0
    epoch: str = ""
    seq: int = 0

    @cached_property
    def id(self) -> str:
        """SHA-256 over what makes it the same signal: strategy, version, action, symbol, frame, bar end, developing.

        And where a revision of the bar made it: its number, and what it revokes.
        """
        # The same text as json.dumps of these in a list, in a fifth of its time.
        texts = f"{_quoted(self.strategy)}, {_quoted(self.version)}, {_quoted(self.action)}, {_quoted(self.symbol)}"
        key = f"{texts}, {_quoted(self.frame)}, {self.bar_end}, {_quoted(self.developing)}"
        if self.revision:
            key += f", {self.revision}, {_quoted(self.revokes)}"
        return hashlib.sha256(f"[{key}]".encode()).hexdigest()

    def like(self, changed: Mapping[str, Any]) -> Self:
        """Another signal that differs in some fields; far sooner made than by the constructor."""
        copy = object.__new__(type(self))
        known = {**self.__dict__, **changed}
        known.pop("id", None)
        object.__setattr__(copy, "__dict__", known)
        return copy

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: times that users read as ISO 8601 in UTC, stamps as integers of ns, no NaN."""
        row = dict(zip(_NAMES, _fields(self), strict=True))
        row["bar_end"], row["origin"], row["values"] = iso(self.bar_end), iso(self.origin), _json_values(self)
        return row

    def _repr_html_(self) -> str:
        """What a notebook shows: what was said, and the values that made it fire."""
        names = ("bar_end", "symbol", "name", "action", "strategy", "frame", "price", "confidence", "engine", "id")
        row = self.to_dict()
        return html_table([*((name, row[name]) for name in names), *self.values.items()])

    def numbered(self, epoch: str, seq: int, published_ns: int) -> Self:
        """The same signal as the history keeps it; its id is not computed again."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, id=self.id, epoch=epoch, seq=seq, published_ns=published_ns)
        return copy

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what it does not know, a later version's, is left out."""
        row = {**SIGNAL_ADDED, **row}
        times = {
            name: int(np.datetime64(row[name].removesuffix("Z"), "ns").view(np.int64)) for name in ("bar_end", "origin")
        }
        return cls(**{f.name: row[f.name] for f in fields(cls)} | times)


def _fields(signal: Signal) -> tuple[Any, ...]:
    """Its fields in the order of the schema."""
    if "id" not in signal.__dict__:
        _ = signal.id  # computed once, and then one of them
    found: tuple[Any, ...] = _ALL(signal.__dict__)
    return found


@lru_cache(maxsize=16_384)
def _quoted(value: str | bool | None) -> str:
    return json.dumps(value, ensure_ascii=False)


def encode(row: Mapping[str, Any]) -> bytes:
    """What `Signal.to_dict` gives, as JSON in UTF-8 without spaces."""
    return _encoder.encode(row)


def _json_values(signal: Signal) -> dict[str, float | None]:
    return {name: None if value is None else finite(value) for name, value in signal.values.items()}


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


@lru_cache(maxsize=1024)
def iso(ns: int) -> str:
    """UTC ns -> 2025-05-23T07:00:00Z, with a fraction only where there is one."""
    seconds, rest = divmod(ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}Z".replace(".000000000", "")


def to_table(signals: Iterable[Signal]) -> pa.Table:
    """Signals -> a table of `data.schema.SIGNAL`."""
    rows = [_fields(signal) for signal in signals]
    columns: dict[str, Sequence[Any]] = dict(zip(_NAMES, zip(*rows, strict=True), strict=True)) if rows else {}
    columns["values"] = [_encoder.encode(values).decode() for values in columns.get("values", ())]
    return pa.Table.from_arrays([pa.array(columns.get(f.name, ()), f.type) for f in SIGNAL], schema=SIGNAL)


def to_batch(signals: Sequence[Signal]) -> pa.RecordBatch:
    """The same as one batch. While it lives, `signals_of` knows what it was made of."""
    batches = to_table(signals).combine_chunks().to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=SIGNAL)
    return _remember(batch, signals)


def signals_of(batch: pa.RecordBatch) -> Sequence[Signal]:
    """The signals of a batch, made once for all who ask within a process; none of them may change the list."""
    known = _made.get(id(batch))
    if known is None:
        _remember(batch, known := from_table(pa.Table.from_batches([batch])))
    return known


_made: dict[int, Sequence[Signal]] = {}
"""By the batch's identity: as long as that lives, nobody else has it."""


def _remember(batch: pa.RecordBatch, signals: Sequence[Signal]) -> pa.RecordBatch:
    _made[id(batch)] = signals
    weakref.finalize(batch, _made.pop, id(batch), None).atexit = False
    return batch


def from_table(table: pa.Table) -> list[Signal]:
    """The inverse of `to_table`; ids are taken as they stand there. Of columns that are left out the fields are too."""
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        column = table[name]
        columns[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    if "values" in columns:
        columns["values"] = [_decode(text) for text in columns["values"]]
    signals = []
    for row in zip(*columns.values(), strict=True):
        signal = object.__new__(Signal)  # far sooner than by the constructor
        signal.__dict__.update(zip(columns, row, strict=True))
        signals.append(signal)
    return signals


def completed(table: pa.Table) -> pa.Table:
    """Signals of an earlier version, with the columns that have come since."""
    added = {
        name: pa.repeat(pa.scalar(value, SIGNAL.field(name).type), len(table)) for name, value in SIGNAL_ADDED.items()
    }
    return pa.Table.from_arrays(
        [added[name] if name in added else table[name] for name in SIGNAL.names], schema=SIGNAL.remove_metadata()
    )

"""Signal: one strategy's word on one symbol at one bar, with an id that a retry or a restart cannot change."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
import pyarrow as pa

from data.schema import SIGNAL, SIGNAL_ADDED

ACTIONS = ("BUY", "SELL", "ALERT")
_NAMES = tuple(SIGNAL.names)
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
        key = [self.strategy, self.version, self.action, self.symbol, self.frame, self.bar_end, self.developing]
        if self.revision:
            key += [self.revision, self.revokes]
        return hashlib.sha256(json.dumps(key, ensure_ascii=False).encode()).hexdigest()

    def like(self, changed: Mapping[str, Any]) -> Self:
        """Another signal that differs in some fields; far sooner made than by the constructor."""
        copy = object.__new__(type(self))
        known = {**self.__dict__, **changed}
        known.pop("id", None)
        object.__setattr__(copy, "__dict__", known)
        return copy

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: times that users read as ISO 8601 in UTC, stamps as integers of ns, no NaN."""
        known = self.__dict__ | {"id": self.id, "bar_end": iso(self.bar_end), "origin": iso(self.origin)}
        known["values"] = _json_values(self)
        return {name: known[name] for name in _NAMES}

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
    rows = list(signals)
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _NAMES if name != "values"}
    columns["values"] = [json.dumps(_json_values(row), ensure_ascii=False, allow_nan=False) for row in rows]
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in SIGNAL], schema=SIGNAL)


def from_table(table: pa.Table) -> list[Signal]:
    """The inverse of `to_table`; ids are taken as they stand there."""
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        column = table[name]
        columns[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    columns["values"] = [json.loads(text) for text in columns["values"]]
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

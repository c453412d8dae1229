"""Routes: which subscribers hear of a batch, by the patterns that they subscribed to."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.columns import column
from streaming.ports import Event


class Patterned(Protocol):
    """Somebody with a pattern."""

    @property
    def pattern(self) -> str:
        """What is subscribed to; `*` stands for any text, dots included."""
        ...


R = TypeVar("R", bound=Patterned)


@dataclass
class Route(Generic[R]):
    """Who gets what is published on one topic."""

    topic: str
    whole: list[R]
    """Those who get the batch as it is."""
    parts: list[tuple[R, re.Pattern[str]]]
    """Those whose pattern may fit some symbols and not others."""
    _dictionary: pa.Array | None = field(default=None, init=False)
    _codes: list[npt.NDArray[np.int64]] = field(default_factory=list, init=False)
    """For each of `parts`, the codes of its symbols in that dictionary."""

    @classmethod
    def of(cls, topic: str, readers: Iterable[R]) -> "Route[R]":
        """The route of a topic among these readers."""
        whole, parts = [], []
        for reader in readers:
            pattern = _compiled(reader.pattern)
            # No pattern spells the NUL that stands for the symbol; what fits it fits every symbol.
            if pattern.fullmatch(topic.replace("*", "\0")):
                whole.append(reader)
            elif "*" in topic:
                parts.append((reader, pattern))
        return cls(topic, whole, parts)

    def events(self, batch: pa.RecordBatch) -> list[tuple[R, Event]]:
        """Each reader's event; none for those who asked for symbols that are not in the batch."""
        event = Event(self.topic, batch)
        found = [(reader, event) for reader in self.whole]
        if not self.parts:
            return found
        symbol = batch.column(batch.schema.get_field_index("symbol"))
        if self._dictionary is None or not self._dictionary.equals(symbol.dictionary):
            self._dictionary = symbol.dictionary
            topics = {self.topic.replace("*", name): code for code, name in enumerate(symbol.dictionary.to_pylist())}
            self._codes = [_fitting(reader.pattern, pattern, topics) for reader, pattern in self.parts]
        codes = symbol.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        for (reader, _), wanted in zip(self.parts, self._codes, strict=True):
            first, last = np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
            rows = np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)] or [order[:0]])
            if len(rows):
                topic = self.topic
                if len(wanted) == 1:
                    topic = topic.replace("*", symbol.dictionary[int(wanted[0])].as_py())
                found.append((reader, Event(topic, _rows(batch, np.sort(rows)))))
        return found


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(text) for text in pattern.split("*")), re.DOTALL)


def _fitting(text: str, pattern: re.Pattern[str], topics: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """The codes of the topics that a pattern fits; one that spells its topic out is looked up."""
    if "*" not in text:
        codes = [topics[text]] if text in topics else []
    else:
        codes = [code for topic, code in topics.items() if pattern.fullmatch(topic)]
    return np.array(codes, dtype=np.int64)


def _rows(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Some rows of a batch: a view where they stand together."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return batch.slice(int(rows[0]), len(rows))
    return batch.take(column(rows, pa.int64()))

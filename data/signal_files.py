"""SignalFolder: the files of signals in a folder, what their names say, and which of them count.

    20250523T070000-20250523T070000-20250523T070001123456a3f1-1-12.parquet      one appended batch
    20250523T013100-20250523T070000-c4f0c2a9b1d3e.parquet                       one compacted day

A name says which bar ends (UTC) a file spans and which epoch and sequence numbers it holds, so a reader opens only
what it needs. A compacted file names in its metadata the files it replaces, and readers leave those out.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import StoreError
from data.files import around, moment, stamp

_SPAN = r"(\d{8}T\d{6})-(\d{8}T\d{6})"
EPOCH = r"\d{8}T\d{12}[0-9a-f]{4}"
_NAME = re.compile(rf"^{_SPAN}-(?:({EPOCH})-(\d+)-(\d+)|c[0-9a-f]{{12}})\.parquet$")
_ABOUT = b"mystocks-scan"


class Batch(NamedTuple):
    """Signals appended together, or one after the other: the sequence numbers `first` to `last` of an epoch."""

    epoch: str
    first: int
    last: int


@dataclass(frozen=True)
class SignalFile:
    """One file: the bar ends it spans (UTC ns, both included) and the batch it holds; None where it is a compacted one,
    which holds several."""

    first: int
    last: int
    path: Path
    batch: Batch | None


class SignalFolder:
    """The files of signals below `root`. What it keeps of them goes when they go, and of a compacted one it is little:
    a service's memory must not grow with its history, nor may the cost of an append."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, SignalFile] = {}
        self._batches: dict[str, tuple[Batch, ...]] = {}

    def listed(self) -> list[SignalFile]:
        """Every file, by name. Listed until twice the same: a listing under way while files are replaced may see
        neither the old ones nor the new one."""
        before = None
        while True:
            try:
                names = {name for name in os.listdir(self.root) if _NAME.match(name)}
            except FileNotFoundError:
                names = set()
            if names == before:
                break
            before = names
        known = self._known
        self._known = known = {name: known.get(name) or self._parsed(name) for name in sorted(names)}
        return list(known.values())

    def files(self, on_damage: Callable[[Path, StoreError], None] | None = None) -> list[SignalFile]:
        """The files that count: those that a compacted file replaces are left out.

        `on_damage` is told of a compacted file that cannot be read; without it that raises StoreError.
        """
        files, replaced = self.listed(), set[str]()
        for place in around([(file.first, file.last) for file in files]):
            if files[place].batch is None:
                try:
                    replaced |= set(about(files[place].path).get("replaces", []))
                except FileNotFoundError:
                    return self.files(on_damage)  # replaced in its turn
                except StoreError as error:
                    if on_damage is None:
                        raise
                    on_damage(files[place].path, error)
        return [file for file in files if file.path.name not in replaced]

    def batches(self, file: SignalFile) -> tuple[Batch, ...]:
        """What a file holds, in order; batches that follow one on the other as one."""
        if file.batch is not None:
            return (file.batch,)
        name = file.path.name
        if name not in self._batches:
            inside = (_NAME.match(old) for old in about(file.path).get("replaces", []))
            found = _joined(_batch(match) for match in inside if match is not None)
            self._batches = {name: batches for name, batches in self._batches.items() if name in self._known}
            self._batches[name] = found
        return self._batches[name]

    def _parsed(self, name: str) -> SignalFile:
        match = _NAME.match(name)
        assert match is not None
        return SignalFile(moment(match[1]), moment(match[2]), self.root / name, _batch(match))


def about(path: Path) -> dict[str, Any]:
    """What a file's metadata say. Raises FileNotFoundError, and StoreError naming a damaged file."""
    try:
        found: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {}).get(_ABOUT, b"{}"))
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
    return found


def saying(table: pa.Table, said: dict[str, Any]) -> pa.Table:
    """A table with metadata that `about` reads."""
    return table.replace_schema_metadata({_ABOUT: json.dumps(said).encode()})


def stamps(first: int, last: int) -> str:
    """The span of a file in whole seconds, rounded outwards."""
    return f"{stamp(first)}-{stamp(-(-last // 10**9) * 10**9)}"


def _batch(match: re.Match[str]) -> Batch | None:
    return None if match[3] is None else Batch(match[3], int(match[4]), int(match[5]))


def _joined(batches: Iterable[Batch | None]) -> tuple[Batch, ...]:
    found: list[Batch] = []
    for batch in sorted(batch for batch in batches if batch is not None):
        if found and (batch.epoch, batch.first) == (found[-1].epoch, found[-1].last + 1):
            found[-1] = found[-1]._replace(last=batch.last)
        else:
            found.append(batch)
    return tuple(found)

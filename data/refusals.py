"""Rows that an import refuses: each has one reason, is counted, and is listed with the place it comes from."""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from data.files import write_atomically
from data.panel import Floats, Times
from data.recognise import NO_MOMENT, VALUES

REASONS = (
    "unreadable",
    "unknown symbol",
    "not a session",
    "future",
    "no trade",
    "non-finite or non-positive price",
    "inconsistent open/high/low/close",
    "negative volume or amount",
    "units",
    "conflicting duplicate",
)
"""Why a row is refused; of several reasons the first counts."""
CODE = {reason: code for code, reason in enumerate(REASONS, start=1)}
"""Reason -> its number in arrays of reasons, where 0 is a row that is not refused."""

LISTED = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("symbol", pa.string()),
        ("date", pa.string()),
        ("reason", pa.string()),
        *((name, pa.float64()) for name in VALUES),
        ("text", pa.string()),
    ]
)
"""Columns of a rejects file. `line` is the row's number in a Parquet file, 0 for a file as a whole; `symbol` stands as
in the file; numbers are in the file's units, of a conflicting duplicate in CNY and shares; `text` is the line, or what
is wrong."""


class Refusals:
    """The rows refused so far in one import."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._listed: list[pa.Table] = []

    def add(
        self,
        reasons: npt.NDArray[np.uint8],
        files: pa.Array,
        lines: npt.NDArray[np.int64],
        symbols: pa.Array,
        local: Times,
        values: dict[str, Floats],
        texts: list[str | None],
    ) -> None:
        """Refuse rows; all are of equal length, `reasons` by `CODE`, `local` on Shanghai's clock."""
        self.counts.update({REASONS[code - 1]: int(n) for code, n in enumerate(np.bincount(reasons)) if code and n})
        columns: dict[str, Any] = {
            "file": files.cast(pa.string()),
            "line": lines,
            "symbol": symbols.cast(pa.string()),
            "date": _dates(local),
            "reason": pa.DictionaryArray.from_arrays(reasons.astype(np.int32) - 1, list(REASONS)).cast(pa.string()),
            **{name: pa.array(values[name], from_pandas=True) for name in VALUES},
            "text": pa.array(texts, pa.string()),
        }
        self._listed.append(pa.table(columns, schema=LISTED))

    def write(self, folder: Path, now: int) -> Path | None:
        """List the rows in a CSV file of `LISTED` in `folder`, named by `now` (UTC ns); None where there are none."""
        if not self._listed:
            return None
        return write_listing(pa.concat_tables(self._listed), folder, now)


def write_listing(table: pa.Table, folder: Path, now: int) -> Path:
    """Write a table as a CSV file in `folder`, named by `now` (UTC ns) and its content."""
    folder.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pacsv.write_csv(table, sink)
    data = sink.getvalue().to_pybytes()
    stamp = datetime.fromtimestamp(now // 10**9, UTC).strftime("%Y%m%dT%H%M%S")
    path = folder / f"{stamp}-{hashlib.sha256(data).hexdigest()[:8]}.csv"

    def fill(aside: Path) -> None:
        aside.write_bytes(data)

    write_atomically(path, fill)
    return path


def _dates(local: Times) -> pa.Array:
    """Labels as text: the date, and the time of day where it is not midnight."""
    known = local != NO_MOMENT
    moments = pa.array(np.where(known, local, 0), pa.int64(), mask=~known).cast(pa.timestamp("ns"))
    text = pc.strftime(moments.cast(pa.timestamp("s"), safe=False), "%Y-%m-%d %H:%M")
    return pc.replace_substring(text, " 00:00", "")

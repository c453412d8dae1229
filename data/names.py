"""NameTable: the names of symbols by session, as files below a folder of the store."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.schema import NAME

Names = dict[str, tuple[str, str]]
"""Symbol -> (short name, day it was seen on as YYYY-MM-DD)."""


class NameTable:
    """Reads names; safe to use from several threads. Sessions add a file each, so what was read once is remembered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[str] = set()
        self._known: Names = {}
        self._lock = Lock()

    def newest(self, *, upto: int | None = None) -> Names:
        """Each symbol's newest name, of days not after `upto` (UTC ns)."""
        limit = None if upto is None else datetime.fromtimestamp(upto / 1e9 + 8 * 3600, UTC).date()
        with self._lock:
            there = {path.name: path for path in self._folder.glob("*.parquet")}
            if not self._read <= there.keys():
                self._read, self._known = set(), {}
            fresh = _rows(path for name, path in sorted(there.items()) if name not in self._read)
            days = [day for _, day in self._known.values()]
            if limit is None or not (
                max(days, default="") > limit.isoformat() or (fresh.num_rows and pc.max(fresh["day"]).as_py() > limit)
            ):
                self._known = _newest(fresh, self._known)
                self._read = set(there)
                return dict(self._known)
        rows = _rows(there.values())  # a look back
        return _newest(rows.filter(pc.less_equal(rows["day"], pa.scalar(limit))), {})


def _rows(paths: Iterable[Path]) -> pa.Table:
    return pa.concat_tables([NAME.empty_table(), *(pq.read_table(path).cast(NAME) for path in paths)])


def _newest(rows: pa.Table, known: Names) -> Names:
    """What is known, and the newest of some rows."""
    newest = (
        rows.unify_dictionaries()
        .combine_chunks()
        .sort_by("day")
        .group_by("symbol", use_threads=False)
        .aggregate([("day", "last"), ("name", "last")])
    )
    found = dict(known)
    columns = (newest[name].to_pylist() for name in ("symbol", "day_last", "name_last"))
    for symbol, day, name in zip(*columns, strict=True):
        if symbol not in found or found[symbol][1] <= day.isoformat():
            found[symbol] = name, day.isoformat()
    return found

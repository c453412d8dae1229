"""Files that are there whole or not at all: written aside, synced, renamed, and the folder synced."""

import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then make it durable under its name in one step."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        write(aside)
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""

    def write(aside: Path) -> None:
        aside.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_parquet(path: Path, table: pa.Table, *, row_group_size: int | None = None) -> None:
    """Write `table` to `path` atomically: zstd, with page checksums."""

    def write(aside: Path) -> None:
        pq.write_table(
            table,
            aside,
            compression="zstd",
            use_dictionary=[
                f.name for f in table.schema if pa.types.is_dictionary(f.type) or pa.types.is_string(f.type)
            ],
            write_page_checksum=True,
            row_group_size=row_group_size,
        )

    write_atomically(path, write)


def sweep(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove what writers killed half-way left in `folder` (not below it); how many files that was.

    A younger file may be that of a writer still at work.
    """
    left = [path for path in folder.glob(f".*{TEMPORARY}") if path.is_file() and _age_s(path) > older_than_s]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def around(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Which of some spans (both ends included) have another one within them: their places, ascending."""
    order = sorted(range(len(spans)), key=spans.__getitem__)

    def has_one(at: int) -> bool:
        first, last = spans[order[at]]
        if at > 0 and spans[order[at - 1]][0] == first:
            return True  # it begins there too, and ends no later
        begun = itertools.takewhile(lambda place: spans[place][0] <= last, itertools.islice(order, at + 1, None))
        return any(spans[place][1] <= last for place in begun)

    return sorted(place for at, place in enumerate(order) if has_one(at))


def stamp(ns: int) -> str:
    """A moment (UTC ns) to the second, as names have it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y%m%dT%H%M%S")


def moment(stamp: str) -> int:
    """The UTC ns of a name's stamp."""
    return int(datetime.fromisoformat(f"{stamp}Z").timestamp()) * 10**9

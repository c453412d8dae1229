"""Files of bars in a folder: what their names say, and which of them count."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import StoreError
from data.files import around, moment, stamp

_NAME = re.compile(r"^(\d{8}T\d{6})-(\d{8}T\d{6})-(c?)([0-9a-f]{12})\.parquet$")


@dataclass(frozen=True, order=True)
class BarFile:
    """One file of bars: the bar ends it spans (UTC ns, both included) and whether it is a compacted one."""

    first: int
    last: int
    path: Path
    compacted: bool


def listed(folder: Path) -> list[BarFile]:
    """Every file of bars there is, those too that a compacted one replaces."""
    named = ((path, _NAME.match(path.name)) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted(BarFile(moment(m[1]), moment(m[2]), path, bool(m[3])) for path, m in named if m is not None)


def counting(files: list[BarFile]) -> list[BarFile]:
    """The files that no other one replaces."""
    # What a file replaces lies within its span: the others, as many as there were days, need not be opened.
    over = (files[place] for place in around([(file.first, file.last) for file in files]))
    replaced = {name for file in over if file.compacted for name in replaces(file.path)}
    return [file for file in files if file.path.name not in replaced]


def replaces(path: Path) -> list[str]:
    """The names of the files that a compacted file replaces."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        return []
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: {error}") from error
    return list(json.loads(metadata.get(b"replaces", b"[]")))


def apart(files: Iterable[BarFile]) -> Iterator[list[BarFile]]:
    """Files in groups, the newest first, each wholly behind the next."""
    group: list[BarFile] = []
    begins = 0
    for file in sorted(files, key=lambda file: file.last, reverse=True):
        if group and file.last < begins:
            yield group
            group = []
        begins = min(begins, file.first) if group else file.first
        group.append(file)
    if group:
        yield group


def together(files: Iterable[BarFile], frame: str) -> list[list[BarFile]]:
    """Files that lie within one day, of daily bars within one month; a file that spans several is left as it is."""
    known = len("20250523") if frame != "1d" else len("202505")
    periods: dict[str, list[BarFile]] = {}
    for file in files:
        first, last = stamp(file.first)[:known], stamp(file.last)[:known]
        if first == last:
            periods.setdefault(first, []).append(file)
    return list(periods.values())


def file_name(first: int, last: int, digest: str, *, compacted: bool) -> str:
    """The name of a file from its span (UTC ns) and twelve hexadecimal digits of its content."""
    return f"{stamp(first)}-{stamp(last)}-{'c' if compacted else ''}{digest}.parquet"

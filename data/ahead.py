"""Files of bars that are read before they are asked for, while whoever asks gets ready."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from data.bar_files import BarFile
from data.store import read_file

READERS = 4


class ReadAhead:
    """A `ReadFile` that has begun to read columns of files on threads of its own, and keeps what it read until all of
    these are asked for together."""

    def __init__(self, files: Iterable[BarFile], columns: Sequence[str]) -> None:
        self._columns = frozenset(columns)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="read-ahead")
        self._begun = {file.path: self._threads.submit(read_file, file.path, columns) for file in files}
        self._threads.shutdown(wait=False)

    def __call__(self, path: Path, columns: Sequence[str]) -> pa.Table:
        if path not in self._begun or not self._columns.issuperset(columns):
            return read_file(path, columns)
        last = self._columns == frozenset(columns)
        begun = self._begun.pop(path) if last else self._begun[path]
        return begun.result().select(list(columns))

    def close(self) -> None:
        """Begin no more files, and keep nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._begun = {}

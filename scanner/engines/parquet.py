"""What reads a shard's files: pyarrow, or cuDF in a process that scans on a GPU and has it installed.

cuDF is imported by the first such read, in the worker, never by who asks for the scan. It decodes on the GPU and knows
no page checksums, which pyarrow compares; what it cannot read pyarrow does, and says what is wrong with it. Unverified
on hardware.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from data.store import STORED, ReadFile, read_file
from scanner.engines import gpu

log = logging.getLogger(__name__)


def reader(engine: str) -> ReadFile:
    """What reads files of bars for scans by that engine."""
    return read_by_cudf if engine == "cuda" and gpu.installed("cudf") else read_file


def read_by_cudf(path: Path, columns: Sequence[str]) -> pa.Table:
    """As `data.store.read_file`, decoded on the GPU."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        import cudf

        table = cudf.read_parquet(path, columns=list(columns)).to_arrow(preserve_index=False)
        return table.select(list(columns)).cast(pa.schema([STORED.field(name) for name in columns]))
    except Exception as error:  # whatever it is, pyarrow says it better, or can do without cuDF
        log.warning("cuDF does not read %s: %s: %s", path, type(error).__name__, error)
        return read_file(path, columns)

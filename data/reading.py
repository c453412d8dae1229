"""Vendors' files -> `Rows`, one form for every shape: numbers as they stand in the file, and the line each came from.

Nothing is judged here but whether a line can be read at all. What cannot is a row too, marked `bad`: a file that holds
no bars in any known shape is one such row, so that nothing that was named is passed over in silence.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from data.cells import labels_of, numbers_of, words_of
from data.csv_table import read_csv
from data.errors import UsageError
from data.panel import Floats, Times
from data.recognise import (
    NO_MOMENT,
    REQUIRED,
    VALUES,
    Shape,
    UnrecognisedError,
    basis_in,
    frame_of,
    shape_of,
    symbol_texts,
)

SUFFIXES = (".csv", ".txt", ".tsv", ".parquet", ".pq")
BATCH_ROWS = 3_000_000
"""A Parquet file of more rows is read in parts."""


TEXT_LENGTH = 500
"""So much of a line that cannot be read is kept, to be listed."""


@dataclass(frozen=True)
class Rows:
    """Rows of one file. Arrays are (rows,)."""

    path: Path
    columns: tuple[str, ...]
    """The names of its columns."""
    frame: str
    symbols: tuple[str, ...]
    """Symbols as the file spells them."""
    codes: npt.NDArray[np.int32]
    """Each row's symbol, as a place in `symbols`."""
    local: Times
    """Each row's label on Shanghai's clock, ns since 1970; NO_MOMENT where it could not be read."""
    fields: Mapping[str, Floats]
    """Every name of `recognise.VALUES`, in the vendor's units, NaN where there is no number."""
    lines: npt.NDArray[np.int64]
    """Each row's line in the file, or its number in a Parquet file, from 1; 0 for the file as a whole."""
    bad: npt.NDArray[np.bool_]
    """Rows that could not be read."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """Line -> its text, or what is wrong with the file, of rows that could not be read."""
    names: tuple[str, ...] = ()
    """Names of symbols, as the file has them."""
    name_codes: npt.NDArray[np.int32] | None = None
    """Each row's name, as a place in `names`, -1 for none; None where the file has no names."""

    def __len__(self) -> int:
        return len(self.lines)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and the CSV and Parquet files below the folders named, in order of their names; each once.

    Raises UsageError for a path that does not exist, or a folder that holds no such file.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
            if not below:
                raise UsageError(f"the folder {path} holds no file that ends in {', '.join(SUFFIXES)}")
        elif path.exists():
            below = [path]
        else:
            raise UsageError(f"there is nothing at {path}")
        for file in below:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_rows(path: Path, adjusted: str | None = None) -> Iterator[Rows]:
    """The rows of one file, in one part or several. `adjusted`: the adjustment its prices are said to have."""
    try:
        _agree(path.name, adjusted)
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        yield from _parquet(path) if parquet else _csv(path, adjusted)
    except (UnrecognisedError, OSError, pa.ArrowException, csv.Error) as error:
        yield whole_file(path, str(error))


def whole_file(path: Path, why: str) -> Rows:
    """A file that could not be read, as one row that says why."""
    nan = np.full(1, np.nan)
    return Rows(
        path,
        (),
        "1d",
        ("",),
        np.zeros(1, dtype=np.int32),
        np.full(1, NO_MOMENT),
        dict.fromkeys(VALUES, nan),
        np.zeros(1, dtype=np.int64),
        np.ones(1, dtype=bool),
        {0: why},
    )


def _parquet(path: Path) -> Iterator[Rows]:
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    shape = shape_of(schema.names, path)
    wanted = [schema.names[place] for place in shape.columns.values()]
    text = [name for name in wanted if pa.types.is_string(schema.field(name).type)]
    file = pq.ParquetFile(path, read_dictionary=text, page_checksum_verification=True)
    first = 1
    if file.metadata.num_rows <= BATCH_ROWS:
        parts: Iterator[pa.Table] = iter([file.read(columns=wanted)])
    else:
        parts = (pa.Table.from_batches([part]) for part in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted))
    for table in parts:
        columns = {role: table[schema.names[place]] for role, place in shape.columns.items()}
        lines = np.arange(first, first + table.num_rows)
        first += table.num_rows
        yield _rows(path, schema.names, shape, columns, lines, {}, lambda line: None)


def _csv(path: Path, adjusted: str | None) -> Iterator[Rows]:
    table = read_csv(path.read_bytes(), path)
    if table is not None:
        _agree(table.title, adjusted)
        yield _rows(path, table.names, table.shape, table.columns, table.lines, table.lost, table.text_of)


def _agree(text: str, adjusted: str | None) -> None:
    """Refuse a file whose name or title says that its prices are adjusted, where they are not said to be."""
    basis = basis_in(text)
    if basis not in (None, adjusted):
        raise UnrecognisedError(
            f"{text.strip()[:60]!r} says that prices are adjusted: import it with --adjusted {basis}"
        )


def _rows(
    path: Path,
    heads: Sequence[str],
    shape: Shape,
    columns: Mapping[str, pa.ChunkedArray],
    lines: npt.NDArray[np.int64],
    lost: Mapping[int, str],
    text_of: Callable[[int], str | None],
) -> Rows:
    """Columns by role -> Rows. `lost`: lines that cannot be cut into columns. `text_of`: line -> its text or None."""
    n = len(lines)
    bad = np.zeros(n, dtype=bool)
    fields: dict[str, Floats] = {}
    for name in VALUES:
        if name in columns:
            fields[name], wrong = numbers_of(columns[name])
            bad |= wrong
        else:
            fields[name] = np.full(n, np.nan)
    bad |= np.isinf(fields["volume"]) | np.isinf(fields["amount"])
    local = labels_of(shape, columns, n)
    bad |= (local == NO_MOMENT) | np.logical_and.reduce([np.isnan(fields[name]) for name in REQUIRED])
    if shape.symbol is None:
        codes, texts = words_of(columns["symbol"])
        symbols = tuple(symbol_texts([*texts, None]))
        codes = np.where(codes < 0, len(texts), codes).astype(np.int32)
    else:
        codes, symbols = np.zeros(n, dtype=np.int32), (shape.symbol,)
    names: tuple[str, ...] = ()
    name_codes = None
    if "name" in columns:
        name_codes, given = words_of(columns["name"])
        names = tuple((name or "").strip() for name in given)
    texts_of_bad: dict[int, str] = {}
    keep = np.ones(n, dtype=bool)
    for place in np.flatnonzero(bad):
        line = int(lines[place])
        text = text_of(line)
        if text is not None and text.strip():
            texts_of_bad[line] = text
        else:
            keep[place] = text is None  # an empty line is no row
    extra = {line: text for line, text in lost.items() if text.strip()}
    if not keep.all() or extra:
        more = len(extra)
        lines = np.concatenate([lines[keep], np.fromiter(extra, dtype=np.int64, count=more)])
        codes = np.concatenate([codes[keep], np.full(more, len(symbols), dtype=np.int32)])
        symbols = (*symbols, "")
        local = np.concatenate([local[keep], np.full(more, NO_MOMENT)])
        bad = np.concatenate([bad[keep], np.ones(more, dtype=bool)])
        fields = {name: np.concatenate([value[keep], np.full(more, np.nan)]) for name, value in fields.items()}
        if name_codes is not None:
            name_codes = np.concatenate([name_codes[keep], np.full(more, -1, dtype=np.int32)])
    return Rows(
        path,
        tuple(heads),
        frame_of(local),
        symbols,
        codes,
        local,
        fields,
        lines,
        bad,
        {line: text[:TEXT_LENGTH] for line, text in (texts_of_bad | extra).items()},
        names,
        name_codes,
    )

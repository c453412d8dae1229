"""A vendor's CSV file -> its columns, with the line that each row stands on: a bad line costs itself and no other."""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from data.cells import NOTHING
from data.recognise import VALUES, Shape, UnrecognisedError, decode, shape_of

DELIMITERS = (",", "\t", ";", "|")
HEADER_LINES = 10
"""The header is among the first so many lines: some vendors put a title above it."""
_BLOCK_BYTES = 1 << 26
_BREAK = re.compile(r"\r\n|\r|\n")
_INK = re.compile(r"\S")


@dataclass(frozen=True)
class CsvTable:
    """The columns that bars need. Lines count from 1, the header included."""

    title: str
    """What stands above the header."""
    names: tuple[str, ...]
    shape: Shape
    columns: Mapping[str, pa.ChunkedArray]
    """By role; empty lines are rows without any value."""
    lines: npt.NDArray[np.int64]
    """The line of each row."""
    lost: Mapping[int, str]
    """Line -> text of what could not be cut into columns."""
    text_of: Callable[[int], str]
    """The text of a row's line."""


def read_csv(data: bytes, path: PurePath) -> CsvTable | None:
    """The table in a file's bytes; None where it has a header and nothing else. Raises UnrecognisedError."""
    text = decode(data)
    header, delimiter, names, shape = _header(text, path)
    breaks = (found.end() for found in _BREAK.finditer(text))
    if _INK.search(text, next(islice(breaks, header - 1, None), len(text))) is None:
        return None
    torn = _torn(text, header)
    if torn:
        rows = enumerate(_BREAK.split(text), start=1)
        data = "\n".join("" if line in torn else row for line, row in rows).encode()
    elif not data.isascii():
        data = text.encode()
    try:
        table, lost = _parse(data, header, delimiter, len(names), shape, pa.float64())
    except pa.ArrowInvalid:
        # Some cell is no number: as text, so that it costs its own row and no other.
        table, lost = _parse(data, header, delimiter, len(names), shape, pa.string())
    lines = np.setdiff1d(np.arange(header + 1, header + 1 + table.num_rows + len(lost)), list(lost))
    whole: list[str] = []

    def text_of(line: int) -> str:
        if not whole:
            whole.extend(_BREAK.split(text))
        return "" if line in torn or line > len(whole) else whole[line - 1]

    title = " ".join(_BREAK.split(text[:20_000])[: header - 1])
    columns = {role: table[f"c{place}"] for role, place in shape.columns.items()}
    return CsvTable(title, tuple(names), shape, columns, lines, lost | torn, text_of)


def _header(text: str, path: PurePath) -> tuple[int, str, list[str], Shape]:
    """(lines up to the header and with it, delimiter, column names, shape)."""
    problem = None
    for number, head in enumerate(_BREAK.split(text[:20_000])[:HEADER_LINES], start=1):
        for delimiter in DELIMITERS:
            if delimiter not in head:
                continue
            names = next(csv.reader([head], delimiter=delimiter))
            try:
                return number, delimiter, names, shape_of(names, path)
            except UnrecognisedError as error:
                problem = problem or error
    if problem is None:
        none = f"no line of the first {HEADER_LINES} is divided by , tab ; or |"
        problem = UnrecognisedError(f"it is no table: {none}" if text.strip() else "it is empty")
    raise problem


def _torn(text: str, header: int) -> dict[int, str]:
    """Lines with a quote that has no other half: it would swallow every line up to the next quote."""
    if '"' not in text:
        return {}
    rows = enumerate(_BREAK.split(text), start=1)
    return {line: row for line, row in rows if line > header and row.count('"') % 2}


def _parse(
    data: bytes, header: int, delimiter: str, n_columns: int, shape: Shape, numbers: pa.DataType
) -> tuple[pa.Table, dict[int, str]]:
    """(columns c0, c1, ... that bars need, with `numbers` as the type of values; lines that could not be cut)."""
    lost: dict[int, str] = {}

    def keep(row: pacsv.InvalidRow) -> str:
        lost[row.number] = row.text
        return "skip"

    words = pa.dictionary(pa.int32(), pa.string())
    kinds = {f"c{place}": numbers if role in VALUES else words for role, place in shape.columns.items()}
    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(
            use_threads=False,  # with threads a bad line has no number
            skip_rows=header,
            column_names=[f"c{place}" for place in range(n_columns)],
            block_size=min(max(len(data), 1 << 20), _BLOCK_BYTES),
        ),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=keep),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(kinds), column_types=kinds, null_values=list(NOTHING), strings_can_be_null=True
        ),
    )
    return table, lost

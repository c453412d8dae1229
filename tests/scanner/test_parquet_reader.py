"""Files of bars read by cuDF, of which there is a pretended one here, and by pyarrow: the same tables."""

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.errors import StoreError
from data.store import BarStore, read_file
from scanner.engines import gpu, parquet


@pytest.fixture
def read_by_cudf(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a pretended cuDF read: plain texts, times without a zone, an index, as cuDF gives them."""
    read: list[Path] = []

    class Frame:
        def __init__(self, table: pa.Table) -> None:
            self.table = table

        def to_arrow(self, preserve_index: bool | None = None) -> pa.Table:
            columns: dict[str, Any] = {}
            for name, column in zip(self.table.column_names, self.table.columns, strict=True):
                if pa.types.is_dictionary(column.type):
                    column = column.cast(pa.string())
                elif pa.types.is_timestamp(column.type):
                    column = pc.local_timestamp(column)
                columns[name] = column
            if preserve_index is not False:
                columns["__index_level_0__"] = pa.array(range(len(self.table)))
            return pa.table(columns)

    def read_parquet(path: Path, columns: list[str]) -> Frame:
        read.append(path)
        return Frame(pq.read_table(path, columns=columns))

    fake: Any = ModuleType("cudf")
    fake.read_parquet = read_parquet
    monkeypatch.setitem(sys.modules, "cudf", fake)
    monkeypatch.setattr(gpu, "installed", lambda module: module == "cudf")
    return read


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, daily: pa.Table) -> Path:
    store = BarStore(tmp_path_factory.mktemp("market"), origin="sim")
    ends = daily["bar_end"].cast(pa.int64())
    middle = sorted(set(ends.to_pylist()))[60]
    store.append(daily.filter(pc.less_equal(ends, middle)), "1d")
    store.append(daily.filter(pc.greater(ends, middle)), "1d")
    return store.root


def test_the_tables_are_the_same(root: Path, read_by_cudf: list[Path]) -> None:
    plain, by_gpu = BarStore(root), BarStore(root, read=parquet.reader("cuda"))
    end = plain.bar_ends("1d")[100]
    symbols = plain.symbols("1d")[::3]
    for asked in ({}, {"upto": end}, {"after": end, "columns": ["symbol", "close"]}, {"symbols": symbols}):
        expected, found = plain.table("1d", **asked), by_gpu.table("1d", **asked)
        assert found.schema == expected.schema
        assert found.to_pylist() == expected.to_pylist()
    assert set(read_by_cudf) == {file.path for file in plain.files("1d")}


def test_other_engines_and_machines_without_cudf_read_by_pyarrow(
    read_by_cudf: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parquet.reader("vector") is read_file
    assert parquet.reader("cuda") is parquet.read_by_cudf
    monkeypatch.setattr(gpu, "installed", lambda module: False)
    assert parquet.reader("cuda") is read_file


def test_what_cudf_does_not_read_pyarrow_does(
    root: Path,
    read_by_cudf: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def refuse(path: Path, columns: list[str]) -> Any:
        raise RuntimeError("CUDF failure")

    monkeypatch.setattr(sys.modules["cudf"], "read_parquet", refuse)
    with caplog.at_level(logging.WARNING, "scanner.engines.parquet"):
        assert BarStore(root, read=parquet.read_by_cudf).table("1d").num_rows == BarStore(root).table("1d").num_rows
    assert "RuntimeError: CUDF failure" in caplog.text
    damaged = BarStore(tmp_path, origin="sim", read=parquet.read_by_cudf)
    file = tmp_path / "bars" / "1d" / "20240102T070000-20240131T070000-4f0c2a9b1d3e.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="4f0c2a9b1d3e"):
        damaged.table("1d")

"""The factor table: what quotes tell, what files tell, which counts, and prices on one basis."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import MarketDataError, StoreError
from data.factors import FactorStore, forward_factors, quoted_factors, read_factors
from data.schema import FACTOR

A, B, C = "600519.SH", "000001.SZ", "430047.BJ"
DAY = np.datetime64("2024-06-19")


def quoted(day: np.datetime64[Any] = DAY, **closes: tuple[float, float]) -> pa.Table:
    """Factors of A, B and C by (previous close of the quote, last close stored)."""
    pairs = np.array([closes.get(name, (10.0, 10.0)) for name in "abc"])
    return quoted_factors((A, B, C), pairs[:, 0], pairs[:, 1], day)


def shown(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_a_quotes_previous_close_that_is_not_the_last_close_is_a_factor() -> None:
    table = quoted(a=(9.5, 10.0), b=(10.0004, 10.0), c=(5.0, 10.0))
    assert table.schema.equals(FACTOR)
    assert shown(table) == [(A, date(2024, 6, 19), 0.95, "quote"), (C, date(2024, 6, 19), 0.5, "quote")]


@pytest.mark.parametrize(
    "pair", [(0.0, 10.0), (10.0, 0.0), (np.nan, 10.0), (9.0, np.nan), (np.inf, 10.0), (-1.0, 10.0)]
)
def test_where_either_close_is_unknown_there_is_no_factor(pair: tuple[float, float]) -> None:
    assert quoted(b=pair).num_rows == 0


def test_the_store_keeps_each_factor_once_and_an_imported_one_counts_before_a_quoted_one(tmp_path: Path) -> None:
    store = FactorStore(tmp_path)
    assert store.table().equals(FACTOR.empty_table())
    assert store.append(quoted()) is None
    assert store.append(quoted(a=(9.5, 10.0), c=(5.0, 10.0))) is not None
    assert store.append(quoted(a=(9.5, 10.0), c=(5.0, 10.0))) is None, "said already"
    (tmp_path / "own.csv").write_text("symbol,day,factor\nsh600519,2024-06-19,0.94\n")
    imported, _ = read_factors(tmp_path / "own.csv")
    store.append(imported)
    later = store.append(quoted(a=(9.6, 10.0), c=(5.1, 10.0)))
    day = date(2024, 6, 19)
    assert shown(FactorStore(tmp_path).table()) == [(C, day, 0.51, "quote"), (A, day, 0.94, "import")]
    assert store.append(quoted(a=(9.6, 10.0))) is None, "the imported one does not hide what was quoted"
    known_at = pq.read_table(later)["known_at"][0].value
    assert shown(store.table(known_by=known_at - 1))[0] == (C, day, 0.5, "quote")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = FactorStore(tmp_path)
    path = store.append(quoted(a=(9.5, 10.0)))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=path.name):
        store.table()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_files_bad_rows_are_refused_by_number_and_reason(tmp_path: Path, suffix: str) -> None:
    rows = [("000001", "2024-06-14", "0.97"), ("what", "2024-06-14", "1.1"), ("600519.SH", "14 June", "0.9")]
    rows += [("600519.SH", "2024-06-14", text) for text in ("0", "nan", "two", "1e9", "2")]
    path = tmp_path / f"factors{suffix}"
    if suffix == ".csv":
        path.write_text("symbol,day,factor,note\n" + "".join(f"{','.join(row)},x\n" for row in rows))
    else:
        pq.write_table(pa.table(dict(zip(FACTOR.names, zip(*rows, strict=True), strict=False))), path)
    table, refused = read_factors(path)
    day = date(2024, 6, 14)
    assert shown(table) == [(B, day, 0.97, "import"), (A, day, 2.0, "import")]
    assert refused == [
        "row 2: 'what' is no known symbol",
        "row 3: day must be a date such as 2024-06-19; got '14 June'",
        *(
            f"row {n}: factor must be a number in [0.001, 1000]; got {text!r}"
            for n, text in enumerate(("0", "nan", "two", "1e9"), 4)
        ),
    ]


def test_a_file_without_the_columns_and_one_that_is_no_table_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("symbol,factor\n600519,1.1\n")
    with pytest.raises(MarketDataError, match="lacks the columns day"):
        read_factors(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(MarketDataError, match=r"a\.parquet is not readable"):
        read_factors(tmp_path / "a.parquet")


def test_prices_before_an_ex_rights_day_are_put_on_the_basis_of_the_date_asked_for() -> None:
    days = np.arange("2024-06-17", "2024-06-22", dtype="datetime64[D]")
    factors = pa.concat_tables([quoted(days[1], a=(5.0, 10.0)), quoted(days[3], a=(8.0, 10.0), c=(9.0, 10.0))])
    np.testing.assert_allclose(forward_factors(factors, (A, B), days)[:, 0], [0.4, 0.8, 0.8, 1, 1])
    np.testing.assert_array_equal(forward_factors(factors, (A, B), days)[:, 1], 1)
    np.testing.assert_allclose(forward_factors(factors, (A,), days, days[2])[:, 0], [0.5, 1, 1, 1, 1])
    # A day that fell between the sessions at hand counts for those before it.
    np.testing.assert_allclose(forward_factors(factors, (A,), days[[0, 2, 4]])[:, 0], [0.4, 0.8, 1])

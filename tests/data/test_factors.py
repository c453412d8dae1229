"""The factor table: what quotes tell, what files tell, which counts, and prices on one basis."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.adjust import basis
from data.errors import MarketDataError, StoreError
from data.factors import FactorStore, applied, quoted_factors, read_factors
from data.panel import Packed
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


def bars(frame: str, *rows: tuple[str, str, float, float | None]) -> Packed:
    """Packed bars of A and B: (symbol, end in Shanghai, close, previous close)."""
    columns = list(zip(*rows, strict=True))
    ends = [int(np.datetime64(text, "ns").astype(np.int64)) - 8 * 3600 * 10**9 for text in columns[1]]
    close = pa.array(columns[2], pa.float64())
    about = {
        "symbol": pa.array(columns[0]),
        "bar_end": pa.array(ends),
        "revision": pa.array([0] * len(rows), pa.int32()),
        **dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), close),
        "prev_close": pa.array(columns[3], pa.float64()),
    }
    return Packed.from_table(pa.table(about), frame, (A, B))


def adjusted(packed: Packed, factors: pa.Table) -> list[float]:
    """A's closes on the basis of its newest bar."""
    return [float(price) for price in basis(applied(packed, factors)).prices["close"][:, 0]]


DAYS = ("2024-06-17T15:00", "2024-06-18T15:00", "2024-06-19T15:00", "2024-06-21T15:00")


def test_prices_before_an_ex_rights_day_are_put_on_its_basis() -> None:
    packed = bars("1d", *((A, end, 10.0, None) for end in DAYS))
    assert adjusted(packed, FACTOR.empty_table()) == [10, 10, 10, 10]
    assert adjusted(packed, quoted(a=(5.0, 10.0))) == [5, 5, 10, 10]
    # One that fell on a day of halt counts at the next bar, and several do together.
    on_the_20th = quoted(np.datetime64("2024-06-20"), a=(8.0, 10.0))
    assert adjusted(packed, on_the_20th) == [8, 8, 8, 10]
    assert adjusted(packed, pa.concat_tables([quoted(a=(5.0, 10.0)), on_the_20th])) == [4, 4, 8, 10]
    on_the_21st = quoted(np.datetime64("2024-06-21"), a=(5.0, 10.0))
    assert adjusted(packed, pa.concat_tables([on_the_20th, on_the_21st])) == [4, 4, 4, 10]
    # Of the first bar's day, and of days to come, there is nothing before it or nothing yet.
    assert adjusted(packed, quoted(np.datetime64("2024-06-17"), a=(5.0, 10.0))) == [10, 10, 10, 10]
    assert adjusted(packed, quoted(np.datetime64("2024-06-22"), a=(5.0, 10.0))) == [10, 10, 10, 10]


def test_a_stored_previous_close_counts_before_a_quoted_factor_and_after_an_imported_one(tmp_path: Path) -> None:
    packed = bars("1d", (A, DAYS[0], 10.0, None), (A, DAYS[1], 10.0, 10.0), (A, DAYS[2], 9.0, 9.5))
    assert adjusted(packed, quoted(a=(5.0, 10.0))) == [9.5, 9.5, 9.0]
    (tmp_path / "own.csv").write_text("symbol,day,factor\nsh600519,2024-06-19,0.9\n")
    imported, _ = read_factors(tmp_path / "own.csv")
    assert adjusted(packed, imported) == pytest.approx([9, 9, 9])


def test_all_bars_of_a_session_and_no_other_symbol() -> None:
    ends = ("2024-06-18T15:00", "2024-06-19T09:31", "2024-06-19T09:32", "2024-06-20T09:31")
    packed = bars("1m", *((symbol, end, 10.0, None) for symbol in (A, B) for end in ends))
    found = applied(packed, quoted(a=(5.0, 10.0)))
    np.testing.assert_array_equal(found.fields["prev_close"][:, 0], [np.nan, 5, 5, np.nan])
    assert np.isnan(found.fields["prev_close"][:, 1]).all()
    assert np.isnan(packed.fields["prev_close"]).all(), "the bars given stay as they are"
    np.testing.assert_array_equal(basis(found).prices["close"][:, 0], [5, 10, 10, 10])
    assert applied(packed, quoted(c=(5.0, 10.0))) is packed


def test_a_gap_that_a_factor_explains_is_none() -> None:
    packed = bars("1d", (A, DAYS[0], 10.0, None), (A, DAYS[1], 10.0, None), (A, DAYS[2], 5.0, None))
    assert basis(packed).gaps[:, 0].tolist() == [False, False, True]
    assert not basis(applied(packed, quoted(a=(5.0, 10.0)))).gaps.any()

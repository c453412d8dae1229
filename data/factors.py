"""The factor table: by how much corporate actions changed the basis of prices, and who says so.

At a session's first quote the exchange's previous close is the ex-rights reference, and factor = that reference / the
last close that was traded. Only factors other than 1 are kept. They lie in the store as Parquet:

    STORE/factors/import-4f0c2a9b1d3e.parquet       one file an appended table; the hash of the content names it

Of several factors for one (symbol, day) an imported one counts before a quoted one, and of one origin the one that was
stored last.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from data.adjust import SAME_PRICE
from data.calendar import local_day
from data.columns import column, symbol_column
from data.errors import MarketDataError, StoreError
from data.files import write_parquet
from data.panel import Floats, Packed
from data.schema import FACTOR, TIME
from data.symbols import canonical_or_none

_Key = tuple[date, str, str]

QUOTE, IMPORT = "quote", "import"
_STORED = FACTOR.append(pa.field("known_at", TIME, nullable=False, metadata={"unit": "UTC ns: when it was stored"}))
_MOST = 1000.0
"""No corporate action has multiplied a price by more, or divided it."""


def quoted_factors(symbols: Sequence[str], prev_close: Floats, last_close: Floats, day: np.datetime64[Any]) -> pa.Table:
    """Factors (`data.schema.FACTOR`) that a session's first quotes tell.

    `prev_close`: (symbols,) CNY, the quotes' previous close; `last_close`: (symbols,) CNY, the stored close of each
    symbol's last session before `day`; NaN or 0 where there is none. Equal ones, to half the smallest tick, give none.
    """
    known = (prev_close > 0) & (last_close > 0) & np.isfinite(prev_close) & np.isfinite(last_close)
    rows = np.flatnonzero(known & (np.abs(prev_close - np.where(known, last_close, 0)) > SAME_PRICE))
    return _table(
        symbol_column(np.arange(len(rows), dtype=np.int32), pa.array([symbols[int(j)] for j in rows], pa.string())),
        np.full(len(rows), day.astype("datetime64[D]")),
        prev_close[rows] / last_close[rows],
        QUOTE,
    )


def read_factors(path: Path | str) -> tuple[pa.Table, list[str]]:
    """A CSV or Parquet file of symbol (any spelling), day (2024-06-19) and factor -> (factors, what was refused).

    Refused rows are told by their number, counting from 1, and the reason. Raises MarketDataError where the file cannot
    be read or lacks a column.
    """
    path = Path(path)
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path, convert_options=_TEXTS)
    except (OSError, pa.ArrowInvalid) as error:
        raise MarketDataError(f"{path} is not readable as factors: {error}") from error
    missing = [name for name in FACTOR.names[:3] if name not in table.column_names]
    if missing:
        raise MarketDataError(
            f"{path} lacks the columns {', '.join(missing)} of a factor table; it has {', '.join(table.column_names)}"
        )
    refused, symbols, days, factors = list[str](), list[str](), list[np.datetime64[Any]](), list[float]()
    rows = zip(*(table[name].to_pylist() for name in FACTOR.names[:3]), strict=True)
    for number, (text, day, factor) in enumerate(rows, 1):
        symbol, at, value = canonical_or_none(str(text)), _day(day), _number(factor)
        if symbol is None:
            refused.append(f"row {number}: {text!r} is no known symbol")
        elif at is None:
            refused.append(f"row {number}: day must be a date such as 2024-06-19; got {day!r}")
        elif not 1 / _MOST <= value <= _MOST:
            refused.append(f"row {number}: factor must be a number in [{1 / _MOST:g}, {_MOST:g}]; got {factor!r}")
        else:
            symbols.append(symbol)
            days.append(at)
            factors.append(value)
    column_ = pa.array(symbols, pa.string()).dictionary_encode()
    return _table(column_, np.array(days, dtype="datetime64[D]"), np.array(factors, dtype=np.float64), IMPORT), refused


class FactorStore:
    """The factor table of the store at `root`. Readers need no lock; appending is safe from several processes."""

    def __init__(self, root: Path | str) -> None:
        self._folder = Path(root) / "factors"

    def append(self, factors: pa.Table) -> Path | None:
        """Make `factors` (`data.schema.FACTOR`) durable as one file; None where there are none.

        Those that the table says already are left out, so appending the same again changes nothing.
        """
        known = self._newest()
        fresh = [known.get(_key(row), {}).get("factor") != row["factor"] for row in factors.to_pylist()]
        table = factors.select(FACTOR.names).cast(FACTOR).filter(pa.array(fresh, pa.bool_())).combine_chunks()
        if table.num_rows == 0:
            return None
        stamp = column(np.full(table.num_rows, time.time_ns()), TIME)
        table = table.append_column(_STORED.field("known_at"), stamp)
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256("\n".join(map(str, table.to_pylist())).encode()).hexdigest()[:12]
        kind = IMPORT if IMPORT in table["origin"].to_pylist() else QUOTE
        path = self._folder / f"{kind}-{digest}.parquet"
        write_parquet(path, table)
        return path

    def table(self, *, known_by: int | None = None) -> pa.Table:
        """The factors that count, one a (symbol, day), ordered by day, then symbol.

        `known_by`: as the table stood at that time (UTC ns). Raises StoreError naming a damaged file.
        """
        rows = self._newest(known_by)
        if not rows:
            return pa.Table.from_batches([], FACTOR)
        # Of equal keys the last one stays, and "import" stands before "quote".
        chosen = {key[:2]: rows[key] for key in sorted(rows, reverse=True)}
        return pa.Table.from_pylist([chosen[key] for key in sorted(chosen)], schema=_STORED).select(FACTOR.names)

    @property
    def imported(self) -> str:
        """Which imported factors there are, told without reading them: another text once more of them are."""
        return ",".join(sorted(path.stem for path in self._folder.glob(f"{IMPORT}-*.parquet")))

    def _newest(self, known_by: int | None = None) -> dict[_Key, dict[str, Any]]:
        """What each origin said last."""
        tables = []
        for path in sorted(self._folder.glob("*.parquet")) if self._folder.is_dir() else []:
            try:
                tables.append(pq.ParquetFile(path, page_checksum_verification=True).read().cast(_STORED))
            except (pa.ArrowInvalid, OSError) as error:
                raise StoreError(f"{path}: {error}") from error
        if not tables:
            return {}
        table = pa.concat_tables(tables).sort_by("known_at")
        if known_by is not None:
            table = table.filter(pc.less_equal(table["known_at"], pa.scalar(known_by, pa.int64()).cast(TIME)))
        return {_key(row): row for row in table.to_pylist()}


def applied(packed: Packed, factors: pa.Table) -> Packed:
    """Packed bars whose sessions know the previous close that factors tell, from which `data.adjust` puts older prices
    on the newest one's basis.

    On a symbol's first session from a factor's day on, `prev_close` is the close before it times the factor; times all
    of them where it was halted over several. An imported factor counts before a previous close that was stored, a
    quoted one only where none was.
    """
    places = {symbol: j for j, symbol in enumerate(packed.symbols)}
    at = [places.get(symbol, -1) for symbol in factors["symbol"].to_pylist()]
    own: dict[int, list[int]] = {}
    for row, j in enumerate(at):
        if j >= 0:
            own.setdefault(j, []).append(row)
    if not own:
        return packed
    day = factors["day"].cast(pa.int32()).to_numpy()
    factor, imported = factors["factor"].to_numpy(), np.array(factors["origin"].to_pylist()) == IMPORT
    close = packed.fields["close"]
    stored = packed.fields.get("prev_close")
    closes = np.full(close.shape, np.nan) if stored is None else stored.copy()
    for j, rows in own.items():
        first = packed.length - int(packed.lengths[j])
        days = local_day(packed.bar_ends[first:, j]).astype(np.int64)
        product, sure = dict[int, float](), dict[int, bool]()
        for row, k in zip(rows, np.searchsorted(days, day[rows]).tolist(), strict=True):
            if 0 < k < len(days):
                product[k] = product.get(k, 1.0) * factor[row]
                sure[k] = sure.get(k, False) or bool(imported[row])
        for k, by in product.items():
            session = slice(first + k, first + int(np.searchsorted(days, days[k], side="right")))
            known = np.isnan(closes[session, j]) | sure[k]
            closes[session, j] = np.where(known, close[first + k - 1, j] * by, closes[session, j])
    return replace(packed, fields={**packed.fields, "prev_close": closes})


_TEXTS = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(FACTOR.names[:3], pa.string()))
"""Codes keep their zeros, and what is wrong is told by row."""


def _table(
    symbols: pa.DictionaryArray, days: npt.NDArray[np.datetime64], factors: npt.NDArray[np.float64], origin: str
) -> pa.Table:
    day = pa.array(days, pa.date32())
    return pa.table([symbols, day, pa.array(factors), pa.array([origin] * len(days), pa.string())], schema=FACTOR)


def _key(row: dict[str, Any]) -> _Key:
    return row["day"], row["symbol"], row["origin"]


def _day(value: object) -> np.datetime64[Any] | None:
    try:
        day = date.fromisoformat(str(value).strip()[:10])
    except ValueError:
        return None
    return np.datetime64(day, "D")


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")

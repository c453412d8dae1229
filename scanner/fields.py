"""The fields that an expression can name, each declared once, and the source they are computed from.

Prices are forward-adjusted (the newest price unchanged); limits, `prev_close` and `pct_change` are of raw prices, as
the exchange computes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.adjust import LISTING_SESSIONS, Basis, basis, first_bar_ends, session_starts
from data.calendar import local_day
from data.limits import is_st_name, limit_prices, limit_ratio
from data.panel import NO_BAR, PRICES, Floats, Packed
from data.symbols import BOARDS, board, kind

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Field:
    """A name of the language: what kind of value it is and how its last `keep` bars, (keep, symbols), are had."""

    name: str
    kind: Literal["number", "condition", "text"]
    doc: str
    value: Callable[["Source", int], Array]
    values: tuple[str, ...] = ()
    """Of a text: what it can be."""
    deep: bool = False
    """Whether the bars before are needed to know the newest."""
    named: bool = False
    """Whether it follows from the symbols' names, of which only those of one day are known."""


class Source:
    """The bars of some symbols, with what is derived from them computed when first asked for.

    `names`: symbol -> (short name, day it was seen on), for ST status. `origin`: UTC ns of the first bar end that any
    symbol of the scan may have. `known`: the basis of prices, where it was computed before. `adjust`: without it prices
    are taken as they stand. `memo`: where what holds for a session is kept from bar to bar, of the same symbols. Arrays
    that come out are (bars, symbols), newest last.
    """

    def __init__(
        self,
        packed: Packed,
        *,
        names: Mapping[str, tuple[str, str]] | None = None,
        origin: int | None = None,
        known: Basis | None = None,
        adjust: bool = True,
        memo: dict[str, Any] | None = None,
    ) -> None:
        self.packed = packed
        self.origin = origin
        self.names = {} if names is None else names
        self._known = known
        self._adjust = adjust
        self._memo = memo

    @property
    def length(self) -> int:
        """Bars of the longest symbol."""
        return self.packed.length

    @cached_property
    def basis(self) -> Basis:
        """Adjusted prices, reference closes and gaps."""
        return basis(self.packed, self.origin) if self._known is None else self._known

    def series(self, name: str) -> Floats | None:
        """(length, symbols): a stored field as indicators see it, or `session`; None where there is none."""
        if name in PRICES and self._adjust:
            return self.basis.prices[name]
        if name == "session":
            return self.sessions(self.length)
        return self.packed.fields.get(name)

    @cached_property
    def gap_age(self) -> Floats:
        """(symbols,): how many bars ago the newest ex-rights gap was, 0 at the newest bar; infinite where none was."""
        if self.length == 0:
            return np.full(len(self.packed.symbols), np.inf)
        known = self.basis
        columns = slice(None) if known.gapped is None else known.gapped
        newest_first = known.gaps[::-1, columns]
        age = np.full(len(self.packed.symbols), np.inf)
        age[columns] = np.where(newest_first.any(axis=0), newest_first.argmax(axis=0), np.inf)
        return age

    @property
    def boards(self) -> Array:
        """(symbols,) names of boards."""
        return _facts(self.packed.symbols)[0]

    @property
    def kinds(self) -> Array:
        """(symbols,) kinds of symbols."""
        return _facts(self.packed.symbols)[1]

    def raw(self, name: str, keep: int) -> Array:
        """The last bars of a stored field as it was stored; NaN where there is none."""
        if name not in self.packed.fields:
            return np.full((keep, len(self.packed.symbols)), np.nan)
        return tail(self.packed.fields[name], keep)

    def ends(self, keep: int) -> Array:
        """(keep, symbols) UTC ns, NO_BAR where there is none; `keep` at most `length`."""
        return self.packed.bar_ends[self.length - keep :]

    def days(self, keep: int, columns: Any = slice(None)) -> Array:
        """(keep, symbols) dates in Asia/Shanghai; of no bar, 1970. `columns`: of which symbols."""
        ends = self.ends(keep)[:, columns]
        return local_day(np.where(ends == NO_BAR, 0, ends).ravel()).reshape(ends.shape)

    def sessions(self, keep: int) -> Array:
        """(keep, symbols) days since 1970-01-01 of the trading day, NaN of no bar; as stored where it is."""
        if "session" in self.packed.fields:
            return tail(self.packed.fields["session"], keep)
        known = min(keep, self.length)
        days = self.days(known).astype(np.float64)
        days[self.ends(known) == NO_BAR] = np.nan
        return tail(days, keep)

    def references(self, keep: int) -> Array:
        """(keep, symbols) CNY, raw: the close that each bar's session is measured by."""
        return tail(self.basis.references, keep)

    def listed(self, keep: int) -> Array:
        """(keep, symbols): the how-manieth known bar it is, from 1; 0 or less before the first."""
        ordinal: Array = self.packed.lengths - np.arange(keep - 1, -1, -1)[:, None].astype(np.float64)
        return ordinal

    def st(self, keep: int, columns: Any = slice(None)) -> Array:
        """(keep, symbols) 1.0, 0.0, or NaN where no name was seen on that day. `columns`: of which symbols."""
        memo: dict[str, Any] = {} if self._memo is None else self._memo
        if memo.get("names") is not self.names:
            known = [self.names.get(symbol, ("", "1900-01-01")) for symbol in self.packed.symbols]
            seen = np.array([day for _, day in known], dtype="datetime64[D]")
            memo["names"], memo["st"] = self.names, (seen, np.array([_is_st(name) for name, _ in known], np.float64))
        seen, status = memo["st"]
        return np.where(self.days(keep, columns) == seen[columns], status[columns], np.nan)

    def limits(self, keep: int) -> tuple[Array, Array]:
        """(keep, symbols) raw prices of limit up and limit down; NaN where status, rule or reference is unknown."""
        if keep != 1 or self._memo is None or self.packed.frame == "1d":
            return self._limits(keep)
        facts = [self.days(1).view(np.int64), self.references(1), np.isnan(self.raw("prev_close", 1))]
        known = self._memo.get("limits")
        if known is None or known[1] is not self.names or not all(map(same, known[0], facts)):
            known = self._memo["limits"] = [fact.copy() for fact in facts], self.names, self._limits(1)
        limits: tuple[Array, Array] = known[2]
        return limits

    def _limits(self, keep: int, columns: Any = slice(None)) -> tuple[Array, Array]:
        references = self.references(keep)[:, columns]
        ratio = limit_ratio(
            np.broadcast_to(self.boards[columns], references.shape).ravel(),
            self.days(keep, columns).ravel(),
            self.st(keep, columns).ravel(),
            self._sessions_listed(keep)[:, columns].ravel(),
        ).reshape(references.shape)
        return limit_prices(references, ratio)

    def at_limits(self, keep: int, columns: Any = None) -> tuple[Array, Array]:
        """(keep, symbols): whether a bar closed at its limit up, and down, as 1.0, 0.0 or NaN where unknown.

        `columns`: places, where only some of the symbols are asked about.
        """
        if columns is None:
            columns = slice(None)
            up, down = self.limits(keep)
        elif self.packed.frame == "1d":
            up, down = self._limits(keep, columns)
        else:
            up, down = (side[:, columns] for side in self.limits(keep))
        close = self.raw("close", keep)[:, columns]
        return (
            np.where(np.isnan(up) | np.isnan(close), np.nan, close >= up - 1e-6),
            np.where(np.isnan(down) | np.isnan(close), np.nan, close <= down + 1e-6),
        )

    def _sessions_listed(self, keep: int) -> Array:
        """(keep, symbols): the how-manieth known session a bar lies in.

        The exchange's previous close at the scan's very first bars is of a symbol that was listed before them.
        """
        if self.packed.frame == "1d":
            return self.listed(keep)
        before = ~np.isnan(self.raw("prev_close", keep))
        if self.origin is not None:
            before &= first_bar_ends(self.packed) <= self.origin
        sessions = np.full(before.shape, LISTING_SESSIONS + 1.0)
        new = np.flatnonzero(~before.all(axis=0))
        starts = session_starts(self.packed.frame, self.packed.bar_ends[:, new])
        counted = np.cumsum(starts, axis=0)[self.length - keep :]
        sessions[:, new] = np.where(before[:, new], sessions[:, new], counted)
        return sessions


@lru_cache(maxsize=64)
def _facts(symbols: tuple[str, ...]) -> tuple[Array, Array]:
    """Boards and kinds of symbols."""
    return (
        np.array([board(symbol) for symbol in symbols], dtype=object),
        np.array([kind(symbol) for symbol in symbols], dtype=object),
    )


_is_st = lru_cache(maxsize=None)(is_st_name)


def tail(values: Array, keep: int) -> Array:
    """The last `keep` rows; padded above with NaN where there are fewer."""
    if len(values) >= keep:
        return values[len(values) - keep :]
    out = np.full((keep, *values.shape[1:]), np.nan, dtype=np.result_type(values, np.float64))
    out[keep - len(values) :] = values
    return out


def same(one: Array, other: Array) -> bool:
    """Whether two arrays hold the same numbers; NaN is NaN."""
    return np.array_equal(one, other, equal_nan=True)


def _series(name: str) -> Callable[[Source, int], Array]:
    def value(source: Source, keep: int) -> Array:
        series = source.series(name)
        return np.full((keep, len(source.packed.symbols)), np.nan) if series is None else tail(series, keep)

    return value


def _pct_change(source: Source, keep: int) -> Array:
    return np.multiply(100.0, source.raw("close", keep) / source.references(keep) - 1.0)


FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in (
        Field("open", "number", "CNY, forward-adjusted", _series("open")),
        Field("high", "number", "CNY, forward-adjusted", _series("high")),
        Field("low", "number", "CNY, forward-adjusted", _series("low")),
        Field("close", "number", "CNY, forward-adjusted", _series("close")),
        Field("volume", "number", "shares", _series("volume")),
        Field("amount", "number", "CNY", _series("amount")),
        Field(
            "session",
            "number",
            "the trading day, as days since 1970-01-01 in Asia/Shanghai",
            lambda source, keep: source.sessions(keep),
        ),
        Field(
            "prev_close",
            "number",
            "CNY, raw: the exchange's reference of the session, else the close of the session before",
            lambda source, keep: source.references(keep),
            deep=True,
        ),
        Field("pct_change", "number", "percent, close against prev_close, both raw", _pct_change, deep=True),
        Field(
            "limit_up",
            "number",
            "CNY, raw; unknown where the ST status, that day's rule or prev_close is, and on limit-free days",
            lambda source, keep: source.limits(keep)[0],
            deep=True,
            named=True,
        ),
        Field(
            "limit_down",
            "number",
            "CNY, raw; unknown as limit_up is",
            lambda source, keep: source.limits(keep)[1],
            deep=True,
            named=True,
        ),
        Field(
            "at_limit_up",
            "condition",
            "the bar closed at its limit up; unknown as limit_up is",
            lambda source, keep: source.at_limits(keep)[0],
            deep=True,
            named=True,
        ),
        Field(
            "at_limit_down",
            "condition",
            "the bar closed at its limit down; unknown as limit_up is",
            lambda source, keep: source.at_limits(keep)[1],
            deep=True,
            named=True,
        ),
        Field(
            "bars_listed",
            "number",
            "how many bars the symbol has had, this one included, as far back as the scan sees",
            lambda source, keep: source.listed(keep),
        ),
        Field(
            "board",
            "text",
            f"one of {', '.join(BOARDS)}",
            lambda source, keep: np.broadcast_to(source.boards, (keep, len(source.packed.symbols))),
            values=BOARDS,
        ),
        Field(
            "is_st",
            "condition",
            "under the exchange's special treatment; unknown where no name was seen that day",
            lambda source, keep: source.st(keep),
            named=True,
        ),
    )
}
"""Name -> field. Adding one here adds it to rules, to the linter and to the docs."""


def newest(name: str, source: Source) -> Array:
    """(symbols,) a field at each symbol's newest bar."""
    row: Array = FIELDS[name].value(source, 1)[-1]
    return row

"""The fields that an expression can name, each declared once, and the source they are computed from.

Prices are forward-adjusted (the newest price unchanged); limits, `prev_close` and `pct_change` are of raw prices, as the
exchange computes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data.adjust import adjusted, ex_gaps, reference_closes, session_starts
from data.calendar import local_day
from data.limits import is_st_name, limit_prices, limit_ratio
from data.panel import NO_BAR, Floats, Packed
from data.symbols import board, kind

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Field:
    """A name of the language: what kind of value it is and how its last `keep` bars, (keep, symbols), are had."""

    name: str
    kind: Literal["number", "condition", "text"]
    doc: str
    value: Callable[["Source", int], Array]


class Source:
    """The bars of some symbols, with what is derived from them computed when first asked for.

    `names`: symbol -> (short name, day it was seen on), for ST status. `origin`: UTC ns of the first bar end that any
    symbol of the scan may have. Arrays that come out are (bars, symbols), newest
    last.
    """

    def __init__(
        self,
        packed: Packed,
        *,
        names: Mapping[str, tuple[str, str]] | None = None,
        adjust: bool = True,
        origin: int | None = None,
    ) -> None:
        self.packed = packed
        self.origin = origin
        self.names = names or {}
        self._adjust = adjust

    @property
    def length(self) -> int:
        """Bars of the longest symbol."""
        return self.packed.length

    @cached_property
    def series(self) -> Mapping[str, Floats]:
        """Name -> (symbols, length): what indicators run on."""
        return adjusted(self.packed) if self._adjust else self.packed.fields

    @cached_property
    def references(self) -> Floats:
        """(symbols, length): the raw previous close of each bar's session."""
        return reference_closes(self.packed)

    @cached_property
    def gaps(self) -> npt.NDArray[np.bool_] | None:
        """(symbols, length): bars at which the basis of prices changed unseen; None where there is none."""
        return ex_gaps(self.packed, self.origin)

    @cached_property
    def boards(self) -> Array:
        """(symbols,) names of boards."""
        return np.array([board(symbol) for symbol in self.packed.symbols], dtype=object)

    @cached_property
    def kinds(self) -> Array:
        """(symbols,) kinds of symbols."""
        return np.array([kind(symbol) for symbol in self.packed.symbols], dtype=object)

    def raw(self, name: str, keep: int) -> Array:
        """The last bars of a stored field as it was stored."""
        return tail(self.packed.fields[name].T, keep)

    def ends(self, keep: int) -> Array:
        """(keep, symbols) UTC ns, NO_BAR where there is none."""
        return self.packed.bar_ends.T[self.length - keep :]

    def days(self, keep: int) -> Array:
        """(keep, symbols) dates in Asia/Shanghai; of no bar, 1970."""
        ends = self.ends(keep)
        return local_day(np.where(ends == NO_BAR, 0, ends).ravel()).reshape(ends.shape)

    def listed(self, keep: int) -> Array:
        """(keep, symbols): the how-manieth known bar it is, from 1; 0 or less before the first."""
        return self.packed.lengths - np.arange(keep - 1, -1, -1)[:, None].astype(np.float64)

    def st(self, keep: int) -> Array:
        """(keep, symbols) 1.0, 0.0, or NaN where no name was seen on that day."""
        seen = np.array([self.names.get(s, ("", "1900-01-01"))[1] for s in self.packed.symbols], dtype="datetime64[D]")
        status = np.array([float(is_st_name(self.names.get(s, ("", ""))[0])) for s in self.packed.symbols])
        return np.where(self.days(keep) == seen, status, np.nan)

    def limits(self, keep: int) -> tuple[Array, Array]:
        """(keep, symbols) raw prices of limit up and limit down; NaN where status, rule or reference is unknown."""
        shape = (keep, len(self.packed.symbols))
        listed = self.listed(keep) if self.packed.frame == "1d" else self._sessions_listed(keep)
        ratio = limit_ratio(
            np.broadcast_to(self.boards, shape).ravel(), self.days(keep).ravel(), self.st(keep).ravel(), listed.ravel()
        ).reshape(shape)
        return limit_prices(tail(self.references.T, keep), ratio)

    def _sessions_listed(self, keep: int) -> Array:
        """(keep, symbols): the how-manieth known session a bar lies in; a symbol with a stored reference was listed
        before its first known one, so its first session counts as many."""
        counted = np.cumsum(session_starts(self.packed), axis=1).T[self.length - keep :].astype(np.float64)
        stored = self.packed.fields.get("prev_close")
        return counted if stored is None else np.where(np.isnan(self.raw("prev_close", keep)), counted, 1000.0)


def tail(values: Array, keep: int) -> Array:
    """The last `keep` rows; padded above with NaN where there are fewer."""
    if len(values) >= keep:
        return values[len(values) - keep :]
    out = np.full((keep, *values.shape[1:]), np.nan)
    out[keep - len(values) :] = values
    return out


def _series(name: str) -> Callable[[Source, int], Array]:
    def value(source: Source, keep: int) -> Array:
        if name not in source.series:
            return np.full((keep, len(source.packed.symbols)), np.nan)
        return tail(source.series[name].T, keep)

    return value


def _pct_change(source: Source, keep: int) -> Array:
    return 100.0 * (source.raw("close", keep) / tail(source.references.T, keep) - 1.0)


def _at_limit(side: int) -> Callable[[Source, int], Array]:
    def value(source: Source, keep: int) -> Array:
        limit = source.limits(keep)[side]
        close = source.raw("close", keep)
        met = close >= limit - 1e-6 if side == 0 else close <= limit + 1e-6
        return np.where(np.isnan(limit) | np.isnan(close), np.nan, met)

    return value


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
            "prev_close",
            "number",
            "CNY, raw: the exchange's reference of the session, else the close of the session before",
            lambda source, keep: tail(source.references.T, keep),
        ),
        Field("pct_change", "number", "percent, close against prev_close, raw", _pct_change),
        Field(
            "limit_up",
            "number",
            "CNY, raw; unknown where ST status, the rule of that date or the reference is",
            lambda source, keep: source.limits(keep)[0],
        ),
        Field("limit_down", "number", "CNY, raw; unknown as limit_up is", lambda source, keep: source.limits(keep)[1]),
        Field("at_limit_up", "condition", "the bar closed at its limit up", _at_limit(0)),
        Field("at_limit_down", "condition", "the bar closed at its limit down", _at_limit(1)),
        Field(
            "bars_listed",
            "number",
            "how many bars the symbol has had, this one included, as far as the scan's history goes",
            lambda source, keep: source.listed(keep),
        ),
        Field(
            "board",
            "text",
            "main, chinext, star, bse, ...",
            lambda source, keep: np.broadcast_to(source.boards, (keep, len(source.packed.symbols))),
        ),
        Field(
            "is_st",
            "condition",
            "the exchange's special treatment; unknown where no name was seen that day",
            lambda source, keep: source.st(keep),
        ),
    )
}
"""Name -> field. Adding one here adds it to rules, to the linter and to the docs."""

"""Price limits: how far a price may move in a day, by board and date, as declared facts.

    limit up, down = previous close x (1 +- ratio), rounded half up to the price tick

`LIMITS` and `FREE_DAYS` say what holds from which date on, each beside the notice that states it. Where the rule, its
date or the status it depends on is unknown, the answer is NaN, never a guess; so it is on the days after a listing that
have no limit, and for kinds of securities that the tables do not cover. Two cases cannot be told from what is passed
in: the first day of a delisting period and of a relisting, which have no limit either.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from data.symbols import kind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LimitFact:
    """From `since` on, securities of `board` may move by `ratio` of their previous close.

    `status`: `any`, or `st`, which touches only those under special treatment. `confirmed`: whether the words and the
    date were found in `source`; a fact that is not holds as unknown.
    """

    board: str
    status: str
    since: date
    ratio: float
    source: str
    confirmed: bool = True


@dataclass(frozen=True)
class FreeDaysFact:
    """From `since` on, there is no limit (or one of another kind) on the first `days` sessions after a listing."""

    board: str
    since: date
    days: int
    source: str
    confirmed: bool = True


_ORIGIN = "https://www.szse.cn/aboutus/sse/documents/P020180328485825173419.pdf"
"""SZSE on the origin of the limits: 10 % from 1996-12-16 but for the day of listing, ST 5 % from 1998-04-27."""
_CHINEXT_2009 = "https://www.szse.cn/aboutus/trends/news/t20090924_517882.html"
"""SZSE, 2009-09-24: ChiNext trades by the main board's rules."""
_CHINEXT_2020 = "https://www.szse.cn/aboutus/trends/conference/t20200821_580925.html"
"""SZSE, 2020-08-21: from 2020-08-24 20 % on ChiNext, old listings included, none on the first five days."""
_CHINEXT_ST = "https://www.szse.cn/disclosure/notice/general/t20200710_579459.html"
"""SZSE, no. 620 of 2020: 20 % for ChiNext shares under risk warning too, 5 % until then."""
_STAR_2019 = "https://www.sse.com.cn/lawandrules/sselawsrules2025/repeal/rules/c/10785118/files/f6fc4a1d4c1f469183a013c4dc36a535.pdf"
"""SSE, special rules of the STAR market, article 18; the first session was 2019-07-22."""
_BSE_2021 = "https://www.bse.cn/jygl_list/200010919.html"
"""BSE, trading rules in force from 2021-11-15, 3.3.11 and 3.3.12."""
_SSE_2013 = "https://www.sse.com.cn/aboutus/mediacenter/hotandd/c/c_20150912_3988713.shtml"
"""SSE, 2013-12-13: on the day of listing 64 % to 144 % of the issue price, which no feed carries."""
_MAIN_2023 = "https://investor.szse.cn/column/qa/t20230306_599093.html"
"""SZSE on the trading rules of 2023, applied from the first registered listing, 2023-04-10: five days without limit."""
_MAIN_2026 = "https://www.sse.com.cn/aboutus/mediacenter/hotandd/c/c_20260424_10816474.shtml"
"""SSE, 2026-04-24: main-board shares under risk warning from 5 % to 10 %, in force from 2026-07-06. So says the SZSE,
no. 551 of 2026, 3.3.13 and 10.9: https://www.szse.cn/lawrules/rule/trade/current/t20260424_620190.html"""

LIMITS = (
    LimitFact("main", "any", date(1996, 12, 16), 0.10, _ORIGIN),
    LimitFact("main", "st", date(1998, 4, 27), 0.05, _ORIGIN),
    LimitFact("main", "st", date(2026, 7, 6), 0.10, _MAIN_2026),
    LimitFact("chinext", "any", date(2009, 10, 30), 0.10, _CHINEXT_2009),
    LimitFact("chinext", "st", date(2009, 10, 30), 0.05, _CHINEXT_ST),
    LimitFact("chinext", "any", date(2020, 8, 24), 0.20, _CHINEXT_2020),
    LimitFact("star", "any", date(2019, 7, 22), 0.20, _STAR_2019),
    LimitFact("bse", "any", date(2021, 11, 15), 0.30, _BSE_2021),
    LimitFact("b_share", "any", date(1996, 12, 16), 0.10, _ORIGIN),
    LimitFact("b_share", "st", date(1998, 4, 27), 0.05, _ORIGIN),
    LimitFact("b_share", "st", date(2026, 7, 6), 0.10, _MAIN_2026),
)

FREE_DAYS = (
    FreeDaysFact("main", date(1996, 12, 16), 1, _SSE_2013),
    FreeDaysFact("main", date(2023, 4, 10), 5, _MAIN_2023),
    FreeDaysFact("chinext", date(2009, 10, 30), 1, _CHINEXT_2009),
    FreeDaysFact("chinext", date(2020, 8, 24), 5, _CHINEXT_2020),
    FreeDaysFact("star", date(2019, 7, 22), 5, _STAR_2019),
    FreeDaysFact("bse", date(2021, 11, 15), 1, _BSE_2021),
    FreeDaysFact("b_share", date(1996, 12, 16), 1, _ORIGIN),
)

TICKS = {("SH", "b_share"): 0.001, ("SH", "etf"): 0.001, ("SZ", "etf"): 0.001}
"""Price ticks that are not 0.01, in the currency of trading: B shares of Shanghai in USD, funds in CNY. SSE, 2023:
https://www.sse.com.cn/lawandrules/sselawsrules2025/repeal/rules/c/c_20250612_10824490.shtml"""

_ST_NAME = re.compile(r"(?:XD|XR|DR)?(?:S?\*?ST|S(?=[^\x00-\x7f]))")


def limit_ratio(
    boards: Sequence[str] | npt.NDArray[np.str_],
    days: npt.NDArray[np.datetime64],
    is_st: npt.ArrayLike,
    bars_listed: npt.ArrayLike,
) -> Floats:
    """The daily limit as a fraction of the previous close, NaN where it is unknown or there is none.

    `boards`: of `data.symbols.BOARDS`. `days`: datetime64[D]. `is_st`: 1, 0 or NaN where unknown, which matters only
    where the board's ST limit differs. `bars_listed`: which daily bar since the listing this is, from 1; a history that
    begins later counts from its own first bar, so that its first days are NaN. Shapes are broadcast against each other.
    """
    board, day, st, listed = np.broadcast_arrays(
        np.asarray(boards), days.astype("datetime64[D]"), np.asarray(is_st, float), np.asarray(bars_listed, float)
    )
    out = np.full(board.shape, np.nan)
    for at, table in _of_board(board):
        normal, under_st = table.normal(day[at]), table.under_st(day[at])
        ratio = np.where(st[at] == 1, under_st, np.where((st[at] == 0) | (normal == under_st), normal, np.nan))
        out[at] = np.where(listed[at] > table.free_days(day[at]), ratio, np.nan)
    return out


def widest_ratio(boards: Sequence[str] | npt.NDArray[np.str_], days: npt.NDArray[np.datetime64]) -> Floats:
    """The widest limit that any security of the board has on the day; NaN where the rule is unknown.

    A move beyond it is no trading: previous close and price are not of one kind (ex-rights, resumption, listing).
    """
    board, day = np.broadcast_arrays(np.asarray(boards), days.astype("datetime64[D]"))
    out = np.full(board.shape, np.nan)
    for at, table in _of_board(board):
        out[at] = np.fmax(table.normal(day[at]), table.under_st(day[at]))
    return out


def limit_prices(prev_close: npt.ArrayLike, ratio: npt.ArrayLike, tick: npt.ArrayLike = 0.01) -> tuple[Floats, Floats]:
    """Limit up and limit down: previous close x (1 +- ratio), rounded half up to the tick as the exchange does it.

    At least one tick from the previous close, and never below one tick. `ratio` is taken to a thousandth, and
    `prev_close` to the tick. NaN where the previous close is not a price or the ratio is NaN.
    """
    close, share, step = np.broadcast_arrays(
        np.asarray(prev_close, float), np.asarray(ratio, float), np.asarray(tick, float)
    )
    known = np.isfinite(close) & (close > 0) & np.isfinite(share)
    # In whole ticks and thousandths, for 10.05 x 1.1 is 11.055 to the exchange and 11.055000000000001 in floats.
    per_unit = np.rint(1 / step)
    ticks = np.rint(np.where(known, close, 0) * per_unit).astype(np.int64)
    thousandths = np.rint(np.where(known, share, 0) * 1000).astype(np.int64)
    up = np.maximum((ticks * (1000 + thousandths) + 500) // 1000, ticks + 1)
    down = np.maximum(np.minimum((ticks * (1000 - thousandths) + 500) // 1000, ticks - 1), 1)
    return np.where(known, up / per_unit, np.nan), np.where(known, down / per_unit, np.nan)


def price_tick(symbol: str) -> float:
    """The smallest step of a canonical symbol's price, in the currency it trades in. Raises UnknownSymbolError."""
    return TICKS.get((symbol[7:], kind(symbol)), 0.01)


def is_st_name(name: str) -> bool:
    """Whether an exchange's short name marks a security that has the ST limit: ST, *ST, SST, S*ST.

    So does a bare S before a Chinese name: shares whose reform is unfinished trade under the same limit. Full-width
    letters and the marks of an ex-rights day in front (XD, XR, DR) are understood.
    """
    return _ST_NAME.match("".join(unicodedata.normalize("NFKC", name).split()).upper()) is not None


@dataclass(frozen=True)
class _Steps:
    """A value that changes on dates; NaN before the first."""

    since: npt.NDArray[np.datetime64]
    values: Floats

    def __call__(self, days: npt.NDArray[np.datetime64]) -> Floats:
        return self.values[np.searchsorted(self.since, days, side="right")]


@dataclass(frozen=True)
class _Board:
    normal: _Steps
    under_st: _Steps
    free_days: _Steps


def _steps(facts: Sequence[tuple[date, float, bool]]) -> _Steps:
    """Of several facts of one date, the last counts."""
    ordered = {since: value if confirmed else np.nan for since, value, confirmed in sorted(facts, key=lambda f: f[0])}
    return _Steps(np.array(list(ordered), dtype="datetime64[D]"), np.array([np.nan, *ordered.values()]))


def _board(name: str, limits: Sequence[LimitFact], free_days: Sequence[FreeDaysFact]) -> _Board:
    own = [(fact.status, (fact.since, fact.ratio, fact.confirmed)) for fact in limits if fact.board == name]
    return _Board(
        normal=_steps([step for status, step in own if status == "any"]),
        under_st=_steps([step for _, step in own]),
        free_days=_steps([(fact.since, fact.days, fact.confirmed) for fact in free_days if fact.board == name]),
    )


_BOARDS = {name: _board(name, LIMITS, FREE_DAYS) for name in dict.fromkeys(fact.board for fact in LIMITS)}


def _of_board(boards: npt.NDArray[np.str_]) -> Iterator[tuple[npt.NDArray[np.bool_], _Board]]:
    """Each board that stands in `boards`, with where it stands."""
    for name, table in _BOARDS.items():
        at = boards == name
        if at.any():
            yield at, table

"""The simulated market by the day: who is listed, and how each session follows from the one before.

Prices are integers of cents and volumes integers of lots (100 shares), so that every sum and every limit is exact.
Nothing here looks at the clock: sessions are declared, randomness is keyed by seed and session.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import UsageError
from data.limits import limit_prices, limit_ratio
from data.symbols import board

Cents = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Session = np.datetime64[Any]

_FIRST, _LAST = np.datetime64("2024-01-02"), np.datetime64("2026-06-30")
_CLOSED = """
    2024-02-09/2024-02-18 2024-04-04/2024-04-05 2024-05-01/2024-05-03 2024-06-10 2024-09-16/2024-09-17
    2024-10-01/2024-10-07 2025-01-01 2025-01-28/2025-02-04 2025-04-04 2025-05-01/2025-05-05 2025-06-02
    2025-10-01/2025-10-08 2026-01-01/2026-01-02 2026-02-16/2026-02-23 2026-04-06 2026-05-01/2026-05-05 2026-06-19
"""
"""The exchanges' holidays between the two days, as each year's notices give them (a test compares the calendar)."""


def _sessions() -> tuple[Session, ...]:
    ranges = [[np.datetime64(day) for day in item.split("/")] for item in _CLOSED.split()]
    closed = np.concatenate([np.arange(days[0], days[-1] + 1) for days in ranges])
    days = np.arange(_FIRST, _LAST + 1)
    return tuple(days[np.is_busday(days, holidays=closed)])


SESSIONS = _sessions()
"""The simulated market's declared sessions, all past, 601 of them."""

_WEIGHTS = {
    "600": 17, "601": 4, "603": 15, "605": 2, "688": 11, "000": 8, "001": 2, "002": 19, "003": 2, "300": 17, "301": 6,
    "302": 1, "920": 5,
}  # fmt: skip
"""How many of a hundred or so symbols begin with a prefix, about as in the real market."""
_EXCHANGE = {"6": "SH", "0": "SZ", "3": "SZ", "9": "BJ"}
_CODES = range(1, 1000)
MAX_SYMBOLS = len(_WEIGHTS) * len(_CODES)

_FRONT = tuple("华东南北中金天海江山云龙凤宏盛恒泰瑞祥永新光明国安嘉博科润德")
_TRADE = (
    *("科技", "股份", "电子", "医药", "能源", "材料", "机电", "食品", "化工", "银行"),
    *("证券", "软件", "智能", "环保", "重工", "生物", "通信", "传媒", "物流", "建设"),
)

_LIMIT_FREE = 7
"""Bars after which a listing's age changes nothing in any rule of limits."""
FLOOR = 100
"""No simulated price falls below one yuan."""
_BOARDS = ("main", "chinext", "star", "bse")


def generator(seed: int, session: int, part: int) -> np.random.Generator:
    """The randomness of one part of one session: reproducible on its own, independent of every other part."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, (session + 1) << 16 | part], dtype=np.uint64)))


@dataclass(frozen=True)
class Listings:
    """What a seed makes of each symbol, once and for all; arrays are (symbols,)."""

    seed: int
    symbols: tuple[str, ...]
    names: tuple[str, ...]
    boards: npt.NDArray[np.int64]
    """Place in `_BOARDS`."""
    since: npt.NDArray[np.int64]
    """Session of the listing; -1 where it was before the first."""
    st_from: npt.NDArray[np.int64]
    st_to: npt.NDArray[np.int64]
    issue: Cents
    sigma: npt.NDArray[np.float64]
    """Standard deviation of a day's return."""
    lots: npt.NDArray[np.float64]
    """Lots that change hands on a usual day."""
    ratios: npt.NDArray[np.float64] = field(repr=False)
    """(sessions, board x ST x age): the legal limit, NaN where there is none."""

    def is_st(self, session: int) -> Mask:
        """Which symbols are under special treatment."""
        return np.asarray((self.st_from <= session) & (session < self.st_to))

    def limits(self, session: int) -> npt.NDArray[np.float64]:
        """The legal limit of each symbol as a ratio of its reference price; NaN where it has none."""
        age = np.where(self.since < 0, _LIMIT_FREE, np.clip(session - self.since + 1, 1, _LIMIT_FREE))
        of: npt.NDArray[np.float64] = self.ratios[
            session, (self.boards * 2 + self.is_st(session)) * _LIMIT_FREE + age - 1
        ]
        return of

    def named(self, session: int) -> dict[str, str]:
        """Symbol -> short name of what is listed on that session; ST stands in front."""
        st = self.is_st(session)
        return {
            symbol: f"{'*' if j % 2 else ''}ST{name[:2]}" if st[j] else name
            for j, (symbol, name) in enumerate(zip(self.symbols, self.names, strict=True))
            if self.since[j] <= session
        }


@dataclass(frozen=True)
class Day:
    """One session of the market; (symbols,) each, prices in cents. Prices mean nothing where `trading` is False."""

    index: int
    session: Session
    listed: Mask
    trading: Mask
    reference: Cents
    """The exchange's previous close: the last close, less what was paid out."""
    open: Cents
    high: Cents
    low: Cents
    close: Cents
    """The last close there was, also of a symbol that is halted."""
    lots: Cents
    limit_up: Cents
    """0 where no limit holds."""
    limit_down: Cents
    halt_left: npt.NDArray[np.int64]
    """Sessions that a halt still lasts."""


def make_listings(n_symbols: int, seed: int) -> Listings:
    """The symbols of a market. Raises UsageError where `n_symbols` is out of bounds."""
    if not 1 <= n_symbols <= MAX_SYMBOLS:
        raise UsageError(
            f"the simulated market has 1 to {MAX_SYMBOLS} symbols; got {n_symbols}. Choose --symbols in that range"
        )
    rng = generator(seed, -1, 0)
    symbols = sorted(_codes(n_symbols, rng))
    boards = np.array([_BOARDS.index(board(symbol)) for symbol in symbols])
    names = ["".join(parts) for parts in product(_FRONT, _FRONT, _TRADE)]
    chosen = rng.permutation(len(names))[:n_symbols]
    since = np.where(rng.random(n_symbols) < 0.06, rng.integers(1, len(SESSIONS), n_symbols), -1)
    st = (boards == 0) & (since < 0) & (rng.random(n_symbols) < 0.04)
    st_from = np.where(rng.random(n_symbols) < 0.5, 0, rng.integers(0, len(SESSIONS), n_symbols))
    st_to = np.minimum(st_from + rng.integers(200, 500, n_symbols), len(SESSIONS))
    return Listings(
        seed=seed,
        symbols=tuple(symbols),
        names=tuple(names[k] for k in chosen),
        boards=boards,
        since=since,
        st_from=st_from,
        st_to=np.where(st, st_to, 0),
        issue=np.exp(rng.uniform(np.log(300), np.log(8000), n_symbols)).astype(np.int64),
        sigma=rng.uniform(0.01, 0.03, n_symbols),
        lots=np.exp(rng.normal(np.log(60_000), 1.5, n_symbols)).clip(200, 3e6),
        ratios=_ratios(),
    )


def next_day(listings: Listings, before: Day | None, index: int) -> Day:
    """The session after `before`; the first where that is None."""
    n = len(listings.symbols)
    rng = generator(listings.seed, index, 0)
    u = rng.random((6, n))
    z = rng.standard_normal((4, n))
    listed = listings.since <= index
    last = listings.issue if before is None else before.close
    left = np.zeros(n, dtype=np.int64) if before is None else np.maximum(before.halt_left - 1, 0)
    halt_left = np.where((left == 0) & listed & (u[0] < 0.0008), 1 + (u[1] ** 3 * 25).astype(np.int64), left)
    trading = listed & (halt_left == 0)

    reference = np.where(trading & (listings.since < index), _ex_rights(last, u[2], u[3]), last)
    ratio = listings.limits(index)
    limited = ~np.isnan(ratio)
    prices = [np.rint(price * 100) for price in limit_prices(reference / 100, np.where(limited, ratio, 0.4))]
    up, down = (price.astype(np.int64) for price in prices)
    bottom = np.maximum(down, FLOOR)

    sigma = listings.sigma
    jump = np.where(u[4] < 0.008, np.where(u[4] < 0.005, 0.3, -0.3), 0.0)
    move = 0.0002 + 0.008 * rng.standard_normal() + sigma * z[0] + jump

    def price(ratio_: npt.NDArray[np.float64], base: Cents = reference) -> Cents:
        return np.clip(np.rint(base * (1 + ratio_)).astype(np.int64), bottom, up)

    close = price(move)
    open_ = price(0.3 * move + 0.4 * sigma * z[1])
    high = price(0.4 * sigma * np.abs(z[2]), np.maximum(open_, close))
    low = price(-0.4 * sigma * np.abs(z[3]), np.minimum(open_, close))
    # A day on which every trade is at the limit.
    sealed = limited & (u[5] < 0.0015)
    at = np.where(u[5] < 0.001, up, bottom)
    open_, high, low, close = (np.where(sealed, at, p) for p in (open_, high, low, close))
    lots = listings.lots * np.exp(0.4 * rng.standard_normal(n) + 6 * np.abs(np.clip(move, -0.1, 0.1)))
    lots = np.clip(lots * np.where(sealed, 0.05, 1.0), 60, 2e7).astype(np.int64)
    return Day(
        index=index,
        session=SESSIONS[index],
        listed=listed,
        trading=trading,
        reference=reference,
        open=open_,
        high=high,
        low=low,
        close=np.where(trading, close, last),
        lots=np.where(trading, lots, 0),
        limit_up=np.where(limited, up, 0),
        limit_down=np.where(limited, down, 0),
        halt_left=halt_left,
    )


def _codes(n: int, rng: np.random.Generator) -> list[str]:
    """`n` symbols, spread over the prefixes by their weights as far as each prefix has codes."""
    rank = {prefix: rng.permutation(len(_CODES)) for prefix in _WEIGHTS}
    wanted = sorted(
        ((rank[prefix][k] + 0.5) / weight, f"{prefix}{code:03d}.{_EXCHANGE[prefix[0]]}")
        for prefix, weight in _WEIGHTS.items()
        for k, code in enumerate(_CODES)
    )
    return [symbol for _, symbol in wanted[:n]]


def _ratios() -> npt.NDArray[np.float64]:
    """(sessions, boards x ST x age) legal limits by the dated rules."""
    cases = list(product(_BOARDS, (0.0, 1.0), range(1, _LIMIT_FREE + 1)))
    boards, st, age = (np.array(column) for column in zip(*cases * len(SESSIONS), strict=True))
    days = np.repeat(np.array(SESSIONS), len(cases))
    return limit_ratio(boards, days, st, age).reshape(len(SESSIONS), len(cases))


def _ex_rights(last: Cents, u: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> Cents:
    """The reference price: about once a year a dividend has been paid, more rarely shares were given."""
    paid = last - np.maximum(np.rint(last * 0.03 * size), 1)
    split = np.rint(last / (1 + np.rint(1 + 9 * size) / 10))
    reference = np.where(u < 0.004, np.where(u < 0.003, paid, split), last)
    return np.maximum(reference, FLOOR).astype(np.int64)

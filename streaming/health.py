"""How old quotes are, in the market's own time, and when a connection counts as stalled.

A quote of 11:30 is not ninety minutes old at 13:00: only the time in which the market trades continuously makes a quote
older. Nights, lunch, auctions and holidays do not, so a watchdog by this age is quiet in them.
"""

import logging
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np

from data.calendar import DAY, MINUTE, SECOND, SHANGHAI, TradingCalendar
from data.errors import CalendarHorizonError
from data.panel import Times

log = logging.getLogger(__name__)

Stall = Literal["mute", "stale"]

_HALVES = (((9 * 60 + 30) * MINUTE, (11 * 60 + 30) * MINUTE), (13 * 60 * MINUTE, (14 * 60 + 57) * MINUTE))
"""From midnight in Shanghai; in the closing auction quotes may stand still."""
_WHOLE = sum(end - start for start, end in _HALVES)
_FARTHEST = 10
"""Sessions beyond this age are not counted."""


class TradingClock:
    """Time as the market counts it. `is_session`: whether a day has a session; by default the exchange's calendar.

    Beyond the calendar's horizon a weekday counts as a session, which is said once a day.
    """

    def __init__(self, is_session: Callable[[date], bool] | None = None) -> None:
        asked = TradingCalendar().is_session if is_session is None else is_session

        @lru_cache(maxsize=1024)
        def known(day: int) -> bool:
            at = np.datetime64(day, "D")
            try:
                return asked(date.fromisoformat(str(at)))
            except CalendarHorizonError as error:
                log.warning("%s; whether quotes are due is taken from the weekday", error)
                return bool(np.is_busday(at))

        self._is_session = known

    def trades(self, now_ns: int) -> bool:
        """Whether the market trades continuously at `now_ns` (UTC ns), so that quotes are due."""
        day, time = divmod(now_ns + SHANGHAI, DAY)
        return any(start <= time < end for start, end in _HALVES) and self._is_session(day)

    def has_session(self, now_ns: int) -> bool:
        """Whether the day of `now_ns` (UTC ns) has a session."""
        return self._is_session((now_ns + SHANGHAI) // DAY)

    def ages_s(self, quote_ns: Times, now_ns: int) -> "np.typing.NDArray[np.float64]":
        """(n,) seconds of trading between quotes (UTC ns) and `now_ns`; infinite where there is none (0 or less)."""
        today = (now_ns + SHANGHAI) // DAY
        day = (quote_ns + SHANGHAI) // DAY
        age = _traded(quote_ns)
        np.subtract(_traded(np.array([now_ns]))[0] if self._is_session(today) else 0, age, out=age)
        for earlier in range(today - 1, today - 1 - _FARTHEST, -1):
            # What was left of the quote's own session, and the whole of those since.
            age[day <= earlier] += _WHOLE if self._is_session(earlier) else 0
            if not (day < earlier).any():
                break
        return np.where(quote_ns > 0, np.maximum(age, 0) / SECOND, np.inf)

    def age_s(self, quote_ns: int, now_ns: int) -> float:
        """`ages_s` of one quote."""
        return float(self.ages_s(np.array([quote_ns], dtype=np.int64), now_ns)[0])


def _traded(ns: Times) -> Times:
    """How much of its day's continuous trading is over at each time."""
    time = (ns + SHANGHAI) % DAY
    parts = [np.clip(time, start, end) - start for start, end in _HALVES]
    return np.asarray(sum(parts), dtype=np.int64)


class StallWatch:
    """The watchdog of one connection: `stalled` says what is wrong where no newer quote came for `stall_s` of trading.

    `mute`: nothing came at all. `stale`: frames come, and what they hold is old.
    """

    def __init__(self, clock: TradingClock, *, stall_s: float, opened_ns: int) -> None:
        self._clock, self._stall_s = clock, stall_s
        self._frame_ns = self._fresh_ns = opened_ns

    def frame(self, now_ns: int, *, fresh: bool) -> None:
        """A frame has come; `fresh`: with a quote newer than any before."""
        self._frame_ns = now_ns
        if fresh:
            self._fresh_ns = now_ns

    def stalled(self, now_ns: int) -> Stall | None:
        """What is wrong at `now_ns` (UTC ns); None out of session, whatever was."""
        if not self._clock.trades(now_ns) or self._clock.age_s(self._fresh_ns, now_ns) <= self._stall_s:
            return None
        return "mute" if self._clock.age_s(self._frame_ns, now_ns) > self._stall_s else "stale"

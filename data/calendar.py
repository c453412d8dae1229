"""The trading calendar, and the edges of bars.

Sessions come from the `exchange_calendars` package (XSHG: the mainland exchanges keep the same days), which vouches for
them only to the last year that its authors entered. What lies past it comes from an overlay, a YAML file of years:

    2027:
      source: https://www.sse.com.cn/...       # the exchange's notice of that year's holidays
      closed:                                  # weekdays (or whole ranges) without a session
        - 2027-01-01
        - [2027-02-05, 2027-02-12]             # first and last day, both included

A year in the overlay is vouched for whole, so it must list every holiday; years follow on without a gap. For a year
that the package knows too, the days listed are closed in addition (an unscheduled closure). Beyond that nothing is
guessed.

Bars are labelled by their END, interval (start, end]; the day has 240 one-minute bars, 09:31..11:30 and 13:01..15:00,
in Asia/Shanghai, which has been UTC+8 without daylight saving since September 1991. Times are UTC in nanoseconds.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from data.errors import CalendarHorizonError, FrameError, SettingsError
from data.panel import Times
from data.schema import FRAMES
from data.sessions import FIRST, Days, library

WARN_DAYS = 30

SECOND = 10**9
MINUTE = 60 * SECOND
DAY = 1440 * MINUTE
SHANGHAI = 480 * MINUTE
"""Asia/Shanghai is this far ahead of UTC."""


def _at(hour: int, minute: int) -> int:
    """Nanoseconds from midnight."""
    return (hour * 60 + minute) * MINUTE


AUCTION = _at(9, 15)
OPEN, LUNCH, RESUME, CLOSE = _at(9, 30), _at(11, 30), _at(13, 0), _at(15, 0)
LAST_SNAPSHOT = _at(15, 5)
"""Snapshots up to this time still tell of the closing auction."""
BEFORE, AFTER_HOURS = -1, 240
"""What `minute_index` says of times that belong to no bar."""

_FRAME_MINUTES = {frame: int(frame[:-1]) for frame in FRAMES if frame.endswith("m")}
_HALVES = ((OPEN, LUNCH), (RESUME, CLOSE))
_END_OFFSETS = {
    frame: np.concatenate([np.arange(start, end, n * MINUTE) + n * MINUTE for start, end in _HALVES])
    for frame, n in _FRAME_MINUTES.items()
} | {"1d": np.array([CLOSE])}


class TradingCalendar:
    """Which days are sessions, between `first` and `last`; any other day raises CalendarHorizonError.

    `overlay`: the YAML file of years beyond the package's horizon. Raises SettingsError where it cannot be used.
    """

    def __init__(self, overlay: Path | None = None) -> None:
        self.overlay = overlay
        self._sessions, self.last = library()
        self.first = FIRST
        if overlay is not None:
            self._sessions, self.last = _extend(self._sessions, self.last, overlay)
        self._sessions.flags.writeable = False

    def is_session(self, day: date) -> bool:
        """Whether `day` has a trading session."""
        return bool(self.is_session_many(np.array([day], dtype="datetime64[D]"))[0])

    def is_session_many(self, days: Days) -> npt.NDArray[np.bool_]:
        """Whether each of `days` (datetime64[D]) has a trading session."""
        days = days.astype("datetime64[D]")
        if len(days):
            self._check(days.min())
            self._check(days.max())
        place = np.searchsorted(self._sessions, days).clip(max=len(self._sessions) - 1)
        return np.asarray(self._sessions[place] == days)

    def sessions(self, first: date, last: date) -> Days:
        """The sessions from `first` to `last`, both included, as datetime64[D]."""
        start, end = self._check(first), self._check(last)
        return self._sessions[
            np.searchsorted(self._sessions, start) : np.searchsorted(self._sessions, end, side="right")
        ]

    def offset(self, day: date, n: int) -> date:
        """The n-th session after `day`, before it where `n` is negative; for 0, the newest at or before it."""
        at = self._check(day)
        place = int(np.searchsorted(self._sessions, at, side="left" if n < 0 else "right")) + n - (n >= 0)
        if not 0 <= place < len(self._sessions):
            raise CalendarHorizonError(f"the session {n} sessions from {day} lies outside {self._range()}")
        return _date(self._sessions[place])

    def last_closed(self, now_ns: int) -> date:
        """The newest session that has ended, 15:00 in Shanghai, at `now_ns` (UTC ns)."""
        day, time = divmod(now_ns + SHANGHAI, DAY)
        today = _date(np.datetime64(day, "D"))
        if time >= CLOSE:
            return self.offset(today, 0)
        return self.offset(today, -1)

    def days_left(self, today: date) -> int:
        """How many days after `today` the calendar still vouches for."""
        return (self.last - today).days

    def warning(self, today: date) -> str | None:
        """What to tell the operator where fewer than 30 days remain."""
        left = self.days_left(today)
        if left >= WARN_DAYS:
            return None
        when = f"ends in {left} days, on" if left >= 0 else "ended on"
        return f"the trading calendar {when} {self.last}: {_REMEDY}"

    def _check(self, day: date | np.datetime64) -> np.datetime64:
        at = _day64(day)
        if not _day64(self.first) <= at <= _day64(self.last):
            raise CalendarHorizonError(f"{at} is outside {self._range()}")
        return at

    def _range(self) -> str:
        return f"what the trading calendar vouches for, {self.first} to {self.last}: {_REMEDY}"


_REMEDY = (
    "upgrade the package exchange-calendars, or list the exchange's holidays of the next year in a YAML file and name"
    " it as calendar_overlay in the settings (its format: python -m pydoc data.calendar)"
)


def bar_ends(day: date | np.datetime64 | Days, frame: str) -> Times:
    """The bar ends of a session (or of several, one after the other), UTC ns: 240 for 1m, 4 for 60m, 1 for 1d."""
    days = np.atleast_1d(np.asarray(day, dtype="datetime64[D]"))
    return (day_ns(days)[:, None] + _frame_ends(frame)).ravel()


def bar_start(bar_ends: Times, frame: str) -> Times:
    """Where the bars of `bar_ends` (UTC ns) begin, itself excluded; a daily bar begins at 09:30."""
    _frame_ends(frame)
    return bar_ends - (CLOSE - OPEN if frame == "1d" else _FRAME_MINUTES[frame] * MINUTE)


def local_day(ns: Times) -> Days:
    """The date in Shanghai of each time (UTC ns)."""
    return ((ns + SHANGHAI) // DAY).astype("datetime64[D]")


def day_ns(day: Days) -> Times:
    """Midnight in Shanghai of each day (datetime64[D]), UTC ns."""
    return day.astype("datetime64[D]").astype(np.int64) * DAY - SHANGHAI


def minute_index(quote_ns: Times) -> npt.NDArray[np.int64]:
    """Which one-minute bar of its day a quote stamped `quote_ns` (UTC ns) belongs to: 0 is 09:31, 239 is 15:00.

    A stamp on a bar's end belongs to that bar. Before 09:15: -1. The opening auction, to 09:30:00, belongs to 09:31;
    11:30 to 13:00 to 11:30; 13:00:00 to 13:01; 15:00 to 15:05:00 to 15:00; later is after hours: 240.
    """
    time = (quote_ns + SHANGHAI) % DAY
    # Times are clipped into their half of the day, so that the auction and the lunch break fall to its edge bars.
    morning = -(-(np.clip(time, OPEN + 1, LUNCH) - OPEN) // MINUTE) - 1
    afternoon = 119 - (-(np.clip(time, RESUME + 1, CLOSE) - RESUME) // MINUTE)
    index = np.where(time < RESUME, morning, afternoon)
    return np.where(time < AUCTION, BEFORE, np.where(time > LAST_SNAPSHOT, AFTER_HOURS, index))


def _frame_ends(frame: str) -> Times:
    if frame not in _END_OFFSETS:
        raise FrameError(f"frame must be one of {', '.join(FRAMES)}; got {frame!r}")
    return _END_OFFSETS[frame]


def _extend(sessions: Days, last: date, overlay: Path) -> tuple[Days, date]:
    """Sessions and horizon with the overlay's years."""
    for year, closed in sorted(_read(overlay).items()):
        if year > last.year:
            if year != last.year + 1:
                raise SettingsError(f"{overlay}: year {year} follows a gap; the calendar ends on {last}")
            end = date(year, 12, 31)
            fresh = np.arange(_day64(last) + 1, _day64(end) + 1)
            sessions, last = np.concatenate([sessions, fresh[np.is_busday(fresh)]]), end
        sessions = sessions[~np.isin(sessions, closed)]
    return sessions, last


def _read(overlay: Path) -> dict[int, Days]:
    """The overlay's closed days by year. Raises SettingsError naming the file, the place and what is wanted."""
    try:
        years = yaml.safe_load(overlay.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"calendar_overlay {overlay} is not readable as YAML: {error}") from error
    if not isinstance(years, dict):
        raise SettingsError(f"calendar_overlay {overlay} must map years to their source and closed days")
    return {_year(overlay, year): _closed(overlay, year, entry) for year, entry in years.items()}


def _year(overlay: Path, year: object) -> int:
    if not isinstance(year, int) or not FIRST.year <= year <= 9999:
        raise SettingsError(f"{overlay}: {year!r} is no year")
    return year


def _closed(overlay: Path, year: object, entry: object) -> Days:
    place = f"{overlay}: {year}"
    if not isinstance(entry, dict) or set(entry) != {"source", "closed"}:
        raise SettingsError(f"{place} must have 'source' (the notice) and 'closed' (its days), and nothing else")
    if not isinstance(entry["source"], str) or not isinstance(entry["closed"], list) or not entry["closed"]:
        raise SettingsError(
            f"{place}: source must be the notice's address, and closed a list of days that is not empty"
        )
    days = set[date]()
    for item in entry["closed"]:
        ends = item if isinstance(item, list) else [item, item]
        if len(ends) != 2 or any(type(day) is not date or day.year != year for day in ends) or ends[0] > ends[1]:
            raise SettingsError(f"{place}: closed must hold days of that year or [first, last]; got {item}")
        days |= {ends[0] + timedelta(n) for n in range((ends[1] - ends[0]).days + 1)}
    return np.array(sorted(days), dtype="datetime64[D]")


def _day64(day: date | np.datetime64) -> np.datetime64:
    return np.datetime64(day.astype("datetime64[D]") if isinstance(day, np.datetime64) else day)


def _date(day: np.datetime64) -> date:
    return date.fromisoformat(str(day.astype("datetime64[D]")))

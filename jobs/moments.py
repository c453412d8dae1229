"""Points of time and places in the stream of signals, as options say them.

2026-06-30          a day                        09:30           of today; seconds may follow
2026-06-30T10:15    a time, Shanghai's unless    -2h             so long ago: s, m, h or d
                    it says another zone         today
EPOCH:SEQ           a place: a signal's epoch and number, as JSON and `watch` show them
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone

import click

from data.signal_files import EPOCH

SHANGHAI = timezone(timedelta(hours=8))
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"-(\d{1,6})([smhd])")
_PLACE = re.compile(rf"({EPOCH}):(\d{{1,18}})")
FORMS = "2026-06-30, 2026-06-30T10:15, 10:15, today or -2h"


@dataclass(frozen=True)
class Moment:
    """What an option said of time, to be understood when it is known what time it is."""

    text: str

    def span(self, now_ns: int) -> tuple[int, int]:
        """Its first and its last ns (UTC): of a day, or twice the same. Raises ValueError for what is none."""
        text, now = self.text.strip(), datetime.fromtimestamp(now_ns // 10**9, SHANGHAI)
        if match := _AGO.fullmatch(text):
            return _twice(now - timedelta(**{_UNITS[match[2]]: int(match[1])}))
        if text == "today":
            return _day(now)
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
            return _twice(datetime.combine(now.date(), time.fromisoformat(text), SHANGHAI))
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text):
            return _day(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI))
        if not re.match(r"\d{4}-?\d\d-?\d\d[T ]", text):
            raise ValueError(text)
        said = datetime.fromisoformat(text)
        return _twice(said if said.tzinfo else said.replace(tzinfo=SHANGHAI))


@dataclass(frozen=True)
class Place:
    """A place in the stream of signals: everything up to it was seen."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


def place(ctx: click.Context, param: click.Parameter, value: str | None) -> Place | None:
    """The callback of an option that takes a place."""
    if value is None:
        return None
    match = _PLACE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"a place is EPOCH:SEQ, as 20260630T010000123456a3f1:12; got {value!r}")
    return Place(match[1], int(match[2]))


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> Moment | None:
    """The callback of an option that takes a time."""
    if value is None:
        return None
    try:
        Moment(value).span(0)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"a time is {FORMS}; got {value!r}") from error
    return Moment(value)


def moment_or_place(ctx: click.Context, param: click.Parameter, value: str | None) -> Moment | Place | None:
    """The callback of an option that takes either."""
    return (place if value is not None and _PLACE.fullmatch(value) else moment)(ctx, param, value)


def _twice(at: datetime) -> tuple[int, int]:
    ns = int((at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
    return ns, ns


def _day(at: datetime) -> tuple[int, int]:
    first = _twice(at.replace(hour=0, minute=0, second=0, microsecond=0))[0]
    return first, first + 86_400 * 10**9 - 1

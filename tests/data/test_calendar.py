"""The calendar against exchange_calendars and the real market; the edges of bars against the written convention."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import exchange_calendars
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.calendar import (
    AFTER_HOURS,
    BEFORE,
    MINUTE,
    TradingCalendar,
    bar_ends,
    bar_start,
    day_ns,
    local_day,
    minute_index,
)
from data.errors import CalendarHorizonError, FrameError, SettingsError
from data.schema import FRAMES

DAY = date(2024, 1, 2)
PEER = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""exchange_calendars 4.13 calls what pandas 3.1 has deprecated."""
NEXT_YEAR = """
2027:
  source: https://www.sse.com.cn/notice
  closed:
    - 2027-01-01
    - [2027-02-05, 2027-02-12]
"""


@pytest.fixture(scope="module")
def calendar() -> TradingCalendar:
    return TradingCalendar()


def shanghai(clock: str, day: date = DAY) -> int:
    """A Shanghai wall-clock time as UTC ns; `clock` may carry a fraction of a second."""
    hour, minute, second = clock.split(":")
    nanos = round(float(second) * 10**9)
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) - 8 * 3600
    return (midnight + int(hour) * 3600 + int(minute) * 60) * 10**9 + nanos


def clock(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC) + timedelta(hours=8):%H:%M}"


# -- bars ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "count", "some"),
    [
        ("1m", 240, {0: "09:31", 119: "11:30", 120: "13:01", 239: "15:00"}),
        ("5m", 48, {0: "09:35", 23: "11:30", 24: "13:05", 47: "15:00"}),
        ("15m", 16, {0: "09:45", 7: "11:30", 8: "13:15", 15: "15:00"}),
        ("30m", 8, {0: "10:00", 3: "11:30", 4: "13:30", 7: "15:00"}),
        ("60m", 4, {0: "10:30", 1: "11:30", 2: "14:00", 3: "15:00"}),
        ("1d", 1, {0: "15:00"}),
    ],
)
def test_bar_ends_of_a_day(frame: str, count: int, some: dict[int, str]) -> None:
    ends = bar_ends(DAY, frame)
    assert ends.dtype == np.int64
    assert len(ends) == count
    assert {k: clock(int(ends[k])) for k in some} == some
    assert (np.diff(ends) > 0).all()
    assert set(local_day(ends)) == {np.datetime64(DAY)}


@pytest.mark.parametrize("frame", FRAMES)
def test_bars_abut_but_for_lunch(frame: str) -> None:
    ends = bar_ends(DAY, frame)
    starts = bar_start(ends, frame)
    assert clock(int(starts[0])) == "09:30"
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    lunch = [] if frame == "1d" else [("11:30", "13:00")]
    assert [(clock(int(ends[k])), clock(int(starts[k + 1]))) for k in breaks] == lunch


def test_several_days_stand_one_after_the_other() -> None:
    days = np.array(["2024-01-02", "2024-01-03"], dtype="datetime64[D]")
    both = bar_ends(days, "60m")
    np.testing.assert_array_equal(both, np.concatenate([bar_ends(day, "60m") for day in days]))
    np.testing.assert_array_equal(bar_ends(days[0], "5m"), bar_ends(DAY, "5m"))


@pytest.mark.parametrize("frame", ["2m", "", "1D", "1w"])
def test_an_unknown_frame_is_an_error_that_names_those_that_exist(frame: str) -> None:
    for call in (lambda: bar_ends(DAY, frame), lambda: bar_start(bar_ends(DAY, "1m"), frame)):
        with pytest.raises(FrameError, match="frame must be one of 1m, 5m, 15m, 30m, 60m, 1d; got"):
            call()


@PEER
def test_session_minutes_are_those_of_exchange_calendars() -> None:
    outside = exchange_calendars.get_calendar("XSHG", side="right").session_minutes(str(DAY))
    np.testing.assert_array_equal(
        bar_ends(DAY, "1m"), outside.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    )


@pytest.mark.parametrize(
    ("time", "index"),
    [
        ("00:00:00", BEFORE),
        ("09:14:59.999999", BEFORE),
        ("09:15:00", 0),
        ("09:25:00", 0),
        ("09:30:00", 0),
        ("09:30:00.000001", 0),
        ("09:31:00", 0),
        ("09:31:00.000001", 1),
        ("09:32:00", 1),
        ("11:29:00", 118),
        ("11:29:00.000001", 119),
        ("11:30:00", 119),
        ("11:30:00.000001", 119),
        ("12:59:59.999999", 119),
        ("13:00:00", 120),
        ("13:00:00.000001", 120),
        ("13:01:00", 120),
        ("13:01:00.000001", 121),
        ("14:57:00", 236),
        ("14:59:00.000001", 239),
        ("15:00:00", 239),
        ("15:00:03", 239),
        ("15:05:00", 239),
        ("15:05:00.000001", AFTER_HOURS),
        ("15:36:00", AFTER_HOURS),
        ("23:59:59.999999", AFTER_HOURS),
    ],
)
def test_which_minute_a_quote_belongs_to(time: str, index: int) -> None:
    assert minute_index(np.array([shanghai(time)])).tolist() == [index]


def test_every_bar_end_belongs_to_its_own_bar_and_every_start_to_the_one_before() -> None:
    ends = bar_ends(DAY, "1m")
    np.testing.assert_array_equal(minute_index(ends), np.arange(240))
    np.testing.assert_array_equal(minute_index(bar_start(ends, "1m") + 1), np.arange(240))


@given(st.integers(0, 24 * 3600 * 10**6 - 1), st.dates(date(1992, 1, 1), date(2100, 1, 1)))
def test_a_quote_in_session_lies_in_its_bar(micros: int, day: date) -> None:
    now = int(day_ns(np.array([day], "datetime64[D]"))[0]) + micros * 1000
    assert local_day(np.array([now]))[0] == np.datetime64(day)
    index = int(minute_index(np.array([now]))[0])
    ends = bar_ends(day, "1m")
    inside = (bar_start(ends, "1m") < now) & (now <= ends)
    if inside.any():
        assert np.flatnonzero(inside).tolist() == [index]
    elif 0 <= index < 240:
        # the opening auction, the lunch break and the first minutes after the close
        assert clock(int(ends[index])) in ("09:31", "11:30", "13:01", "15:00")
        assert -16 * MINUTE <= now - ends[index] <= 90 * MINUTE


# -- sessions -----------------------------------------------------------------------------------------------------


def test_importing_the_calendar_loads_neither_pandas_nor_exchange_calendars() -> None:
    code = (
        "import sys, numpy as np, data.calendar as c;"
        "c.minute_index(c.bar_ends(np.datetime64('2024-01-02'), '1m'));"
        "print([m for m in ('pandas', 'exchange_calendars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@PEER
def test_sessions_are_those_of_exchange_calendars(calendar: TradingCalendar) -> None:
    outside = exchange_calendars.get_calendar("XSHG")
    first, last = outside.sessions[0].date(), outside.sessions[-1].date()
    expected = outside.sessions.to_numpy().astype("datetime64[D]")
    np.testing.assert_array_equal(calendar.sessions(first, last), expected)
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    np.testing.assert_array_equal(calendar.is_session_many(days), np.isin(days, expected))


@pytest.mark.parametrize(("year", "count"), [(2024, 242), (2025, 243), (2026, 242)])
def test_sessions_a_year(calendar: TradingCalendar, year: int, count: int) -> None:
    assert len(calendar.sessions(date(year, 1, 1), date(year, 12, 31))) == count


def test_a_known_holiday(calendar: TradingCalendar) -> None:
    assert calendar.is_session(date(2026, 2, 13))
    assert not calendar.is_session(date(2026, 2, 16))
    assert not calendar.is_session(date(2026, 2, 14))  # a Saturday on which offices work
    assert calendar.first == date(1990, 12, 19)
    assert calendar.is_session(calendar.first)


@pytest.mark.parametrize(
    ("day", "n", "expected"),
    [
        (date(2026, 2, 13), 1, date(2026, 2, 24)),
        (date(2026, 2, 13), 0, date(2026, 2, 13)),
        (date(2026, 2, 13), -1, date(2026, 2, 12)),
        (date(2026, 2, 15), 1, date(2026, 2, 24)),
        (date(2026, 2, 15), 0, date(2026, 2, 13)),
        (date(2026, 2, 15), -1, date(2026, 2, 13)),
        (date(2026, 2, 24), -2, date(2026, 2, 12)),
        (date(2026, 2, 12), 3, date(2026, 2, 25)),
    ],
)
def test_offset_counts_sessions(calendar: TradingCalendar, day: date, n: int, expected: date) -> None:
    assert calendar.offset(day, n) == expected


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        (date(2026, 2, 13), "14:59:59.999999", date(2026, 2, 12)),
        (date(2026, 2, 13), "15:00:00", date(2026, 2, 13)),
        (date(2026, 2, 13), "23:59:59", date(2026, 2, 13)),
        (date(2026, 2, 16), "15:00:00", date(2026, 2, 13)),
        (date(2026, 2, 24), "08:00:00", date(2026, 2, 13)),
        (date(2026, 2, 24), "00:00:00", date(2026, 2, 13)),
    ],
)
def test_the_last_closed_session(calendar: TradingCalendar, day: date, time: str, expected: date) -> None:
    assert calendar.last_closed(shanghai(time, day)) == expected


def test_nothing_is_guessed_outside_the_horizon(calendar: TradingCalendar) -> None:
    beyond, before = calendar.last + timedelta(1), date(1990, 12, 18)
    message = f"is outside what the trading calendar vouches for, 1990-12-19 to {calendar.last}: upgrade the package"
    for day in (beyond, before):
        for call in (
            lambda d=day: calendar.is_session(d),
            lambda d=day: calendar.is_session_many(np.array([DAY, d], "datetime64[D]")),
            lambda d=day: calendar.sessions(min(d, DAY), max(d, DAY)),
            lambda d=day: calendar.offset(d, 0),
            lambda d=day: calendar.last_closed(shanghai("16:00:00", d)),
        ):
            with pytest.raises(CalendarHorizonError, match=f"{day} {message}"):
                call()
    for n in (10_000, -10_000):
        with pytest.raises(CalendarHorizonError, match=f"the session {n} sessions from 2024-01-02 lies outside"):
            calendar.offset(DAY, n)
    assert calendar.is_session(calendar.last) in (True, False)
    assert calendar.is_session_many(np.array([], "datetime64[D]")).tolist() == []


def test_it_warns_when_fewer_than_thirty_days_remain(calendar: TradingCalendar) -> None:
    assert calendar.days_left(calendar.last) == 0
    assert calendar.warning(calendar.last - timedelta(30)) is None
    text = calendar.warning(calendar.last - timedelta(29))
    assert text is not None
    assert f"ends in 29 days, on {calendar.last}" in text
    assert "calendar_overlay" in text
    assert f"ended on {calendar.last}" in str(calendar.warning(calendar.last + timedelta(1)))


# -- overlay ------------------------------------------------------------------------------------------------------


def overlaid(folder: Path, text: str) -> TradingCalendar:
    path = folder / "overlay.yaml"
    path.write_text(text, encoding="utf-8")
    return TradingCalendar(path)


@pytest.fixture
def ends_2026(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's calendar as it is in 2026, whatever it has learned since."""
    known = TradingCalendar()
    sessions = known.sessions(known.first, date(2026, 12, 31))
    monkeypatch.setattr("data.calendar.library", lambda: (sessions, date(2026, 12, 31)))


@pytest.mark.usefixtures("ends_2026")
def test_an_overlay_moves_the_horizon(tmp_path: Path) -> None:
    calendar = overlaid(tmp_path, NEXT_YEAR)
    assert calendar.last == date(2027, 12, 31)
    weekdays = np.arange(np.datetime64("2027-01-01"), np.datetime64("2028-01-01"))
    weekdays = weekdays[np.is_busday(weekdays)]
    got = calendar.sessions(date(2027, 1, 1), date(2027, 12, 31))
    closed = set(weekdays.astype(str)) - set(got.astype(str))
    assert closed == {"2027-01-01", *(f"2027-02-{day:02d}" for day in (5, 8, 9, 10, 11, 12))}
    assert set(got.astype(str)) <= set(weekdays.astype(str))
    assert calendar.offset(date(2026, 12, 31), 1) == date(2027, 1, 4)
    assert calendar.warning(date(2026, 12, 20)) is None
    with pytest.raises(CalendarHorizonError, match="2028-01-01 is outside"):
        calendar.is_session(date(2028, 1, 1))


@pytest.mark.usefixtures("ends_2026")
def test_an_overlay_closes_days_that_the_package_has_open(tmp_path: Path) -> None:
    calendar = overlaid(tmp_path, "2026:\n  source: https://www.sse.com.cn/n\n  closed: [2026-11-23]\n")
    assert not calendar.is_session(date(2026, 11, 23))
    assert calendar.last == date(2026, 12, 31)
    assert TradingCalendar().is_session(date(2026, 11, 23))


@pytest.mark.usefixtures("ends_2026")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2", "is not readable as YAML"),
        ("", "must map years"),
        ("- 2027", "must map years"),
        (
            NEXT_YEAR.replace("2027:", "2028:").replace("2027-", "2028-"),
            "year 2028 follows a gap; .* ends on 2026-12-31",
        ),
        (NEXT_YEAR.replace("2027:", "next:"), "'next' is no year"),
        ("2027: [2027-01-01]", "2027 must have 'source'"),
        ("2027: {closed: [2027-01-01]}", "2027 must have 'source'"),
        (NEXT_YEAR + "  open: [2027-01-02]\n", "and nothing else"),
        ("2027: {source: x, closed: []}", "a list of days that is not empty"),
        ("2027: {source: 7, closed: [2027-01-01]}", "source must be the notice's address"),
        ("2027: {source: x, closed: [2026-12-31]}", r"closed must hold days of that year .* got 2026-12-31"),
        ("2027: {source: x, closed: [[2027-02-12, 2027-02-05]]}", "closed must hold days of that year"),
        ("2027: {source: x, closed: [[2027-02-12]]}", "closed must hold days of that year"),
        ("2027: {source: x, closed: ['1 Jan']}", "got 1 Jan"),
        ("2027: {source: x, closed: [2027-01-01 10:00:00]}", "closed must hold days of that year"),
    ],
)
def test_an_overlay_that_cannot_be_used_is_an_error_naming_the_place(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        overlaid(tmp_path, text)
    assert "overlay.yaml" in str(caught.value)


def test_an_overlay_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml is not readable"):
        TradingCalendar(tmp_path / "absent.yaml")


# -- the real market ----------------------------------------------------------------------------------------------


def test_every_day_of_the_real_market_is_a_session(market: Path, calendar: TradingCalendar) -> None:
    column = pq.read_table(market / "ashare_daily_2020_2025.parquet", columns=["date"])["date"]
    days = np.unique(column.to_numpy().astype("datetime64[D]"))
    assert calendar.is_session_many(days).all()
    np.testing.assert_array_equal(days, calendar.sessions(days[0].item(), days[-1].item()))

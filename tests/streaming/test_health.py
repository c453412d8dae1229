import logging
from datetime import date
from typing import Any

import numpy as np
import pytest

from data.errors import CalendarHorizonError
from streaming.health import StallWatch, TradingClock

CLOCK = TradingClock(lambda day: day.weekday() < 5 and day != date(2024, 1, 1))


def at(text: str) -> int:
    """A time in Shanghai, UTC ns."""
    return int(np.datetime64(text, "ns").astype(np.int64)) - 8 * 3600 * 10**9


@pytest.mark.parametrize(
    ("quote", "now", "age_s"),
    [
        ("2024-01-02T10:00:00", "2024-01-02T10:00:07", 7),
        ("2024-01-02T11:30:00", "2024-01-02T13:00:05", 5),
        ("2024-01-02T11:29:50", "2024-01-02T12:40:00", 10),
        ("2024-01-02T09:25:00", "2024-01-02T09:30:03", 3),
        ("2024-01-02T15:00:00", "2024-01-02T23:00:00", 0),
        ("2024-01-02T15:00:00", "2024-01-03T09:30:10", 10),
        ("2024-01-02T14:56:50", "2024-01-03T09:30:10", 20),
        ("2024-01-05T15:00:00", "2024-01-08T09:00:00", 0),  # over a weekend
        ("2024-01-04T15:00:00", "2024-01-08T09:30:00", 14220),  # a whole session is missing
        ("2023-12-29T15:00:00", "2024-01-02T09:30:01", 1),  # over a holiday
        ("2024-01-02T10:00:09", "2024-01-02T10:00:00", 0),  # clocks differ
    ],
)
def test_only_trading_makes_a_quote_older(quote: str, now: str, age_s: float) -> None:
    assert CLOCK.age_s(at(quote), at(now)) == age_s


def test_no_quote_is_infinitely_old_and_many_are_as_each() -> None:
    quotes = np.array([0, at("2024-01-02T10:00:00"), at("2024-01-01T10:00:00"), at("2023-12-29T14:00:00")])
    now = at("2024-01-02T10:00:01")
    assert CLOCK.ages_s(quotes, now).tolist() == [np.inf, *(CLOCK.age_s(int(quote), now) for quote in quotes[1:])]
    assert len(CLOCK.ages_s(np.array([], dtype=np.int64), now)) == 0


@pytest.mark.parametrize(
    ("now", "trades"),
    [
        ("2024-01-02T09:29:59", False),
        ("2024-01-02T09:30:00", True),
        ("2024-01-02T11:30:00", False),
        ("2024-01-02T13:00:00", True),
        ("2024-01-02T14:57:00", False),
        ("2024-01-01T10:00:00", False),
        ("2024-01-06T10:00:00", False),
    ],
)
def test_quotes_are_due_while_the_market_trades(now: str, trades: bool) -> None:
    assert CLOCK.trades(at(now)) is trades


def test_a_watch_tells_mute_from_stale_and_is_quiet_out_of_session() -> None:
    watch = StallWatch(CLOCK, stall_s=30, opened_ns=at("2024-01-02T11:29:50"))
    assert watch.stalled(at("2024-01-02T12:30:00")) is None
    assert watch.stalled(at("2024-01-02T13:00:20")) is None
    assert watch.stalled(at("2024-01-02T13:00:21")) == "mute"
    watch.frame(at("2024-01-02T13:00:20"), fresh=False)
    assert watch.stalled(at("2024-01-02T13:00:21")) == "stale"
    watch.frame(at("2024-01-02T13:00:22"), fresh=True)
    assert watch.stalled(at("2024-01-02T13:00:52")) is None
    assert watch.stalled(at("2024-01-02T13:00:53")) == "mute"
    assert watch.stalled(at("2024-01-02T20:00:00")) is None


def test_beyond_the_calendar_a_weekday_counts_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def beyond(day: date) -> Any:
        raise CalendarHorizonError(f"{day} is outside")

    clock = TradingClock(beyond)
    with caplog.at_level(logging.WARNING):
        assert clock.trades(at("2024-01-02T10:00:00"))
        assert clock.trades(at("2024-01-02T10:00:01"))
        assert not clock.trades(at("2024-01-06T10:00:00"))
    assert [record.message[:21] for record in caplog.records] == ["2024-01-02 is outside", "2024-01-06 is outside"]

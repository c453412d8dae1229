"""Up to when symbols have been heard of, in the market's time."""

import numpy as np

from data.calendar import SECOND, SHANGHAI, day_ns
from streaming.gaps import Heard
from streaming.health import TradingClock

MIDNIGHT = int(day_ns(np.array(["2026-06-30"], dtype="datetime64[D]"))[0])


def at(clock: str) -> int:
    hour, minute, second = map(int, clock.split(":"))
    return MIDNIGHT + (hour * 3600 + minute * 60 + second) * SECOND


def test_only_time_in_which_the_market_trades_makes_a_gap() -> None:
    assert (at("08:00:00")) % (24 * 3600 * SECOND) == 0, SHANGHAI
    heard = Heard(TradingClock(lambda day: True))
    heard.grow(2)
    both, one = np.array([0, 1]), np.array([0])

    def hear(place: np.ndarray, clock: str) -> list[tuple[int, list[int]]]:
        return [(since, who.tolist()) for since, who in heard.hear(place, at(clock), 5.0)]

    assert hear(both, "09:25:00") == [(0, [0, 1])]
    assert hear(both, "09:30:03") == []
    assert hear(one, "09:30:06") == []
    assert hear(both, "09:30:09") == [(at("09:30:03"), [1])]
    assert hear(one, "09:30:06") == []  # an older answer says nothing new
    assert hear(both, "09:30:15") == [(at("09:30:09"), [0, 1])]
    assert hear(both, "11:29:58") == [(at("09:30:15"), [0, 1])]
    assert hear(both, "13:00:02") == []
    assert hear(one, "14:56:58") == [(at("13:00:02"), [0])]
    assert hear(one, "15:00:01") == []  # the closing auction
    assert hear(both, "15:00:04") == [(at("13:00:02"), [1])]
    heard.forget(one)
    assert hear(both, "15:00:07") == [(0, [0])]

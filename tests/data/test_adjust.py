"""Forward adjustment, reference closes and ex-rights gaps, worked by hand."""

import numpy as np
import pytest

from data.adjust import adjusted_prices, basis, ex_gaps, first_bar_ends, reference_closes, session_starts
from data.calendar import bar_ends
from data.panel import FIELDS, NO_BAR, PRICES, Packed

nan = np.nan
SYMBOL = "600519.SH"
"""Main board: 10 % either way."""


def daily(
    close: list[float],
    open_: list[float] | None = None,
    prev: list[float] | None = None,
    symbol: str = SYMBOL,
    absent: int = 0,
) -> Packed:
    """One symbol's daily bars from 2024-03-01 on; it is listed `absent` days later than another that never moves."""
    n = len(close)
    days = np.datetime64("2024-03-01") + np.arange(absent + n)
    ends = np.tile(np.concatenate([bar_ends(day, "1d") for day in days]), (2, 1)).T.copy()
    ends[:absent, 0] = NO_BAR
    fields = {name: np.full(ends.shape, nan) for name in FIELDS}
    for name, values in (("open", open_ or close), ("high", close), ("low", close), ("close", close)):
        fields[name][absent:, 0] = values
        fields[name][:, 1] = 7.0
    fields["prev_close"][absent:, 0] = prev or nan
    return Packed("1d", (symbol, "600000.SH"), ends, np.array([n, absent + n]), fields)


def starts(packed: Packed) -> np.ndarray:
    return session_starts(packed.frame, packed.bar_ends)


def test_a_split_scales_what_lies_before_it_and_leaves_the_newest_price() -> None:
    """Ten shares become twenty after the second day: the exchange says the reference is 10.50, half of 21."""
    found = basis(daily([20.0, 21.0, 10.6, 10.7], open_=[19.8, 20.5, 10.5, 10.6], prev=[nan, 20.0, 10.5, 10.6]))
    np.testing.assert_allclose(found.prices["close"][:, 0], [10.0, 10.5, 10.6, 10.7], rtol=1e-15)
    np.testing.assert_allclose(found.prices["open"][:, 0], [9.9, 10.25, 10.5, 10.6], rtol=1e-15)
    np.testing.assert_array_equal(found.references[:, 0], [nan, 20.0, 10.5, 10.6])
    assert not found.gaps.any()
    assert found.prices["close"][-1, 0] == 10.7


def test_two_events_multiply() -> None:
    """A dividend of 1 on 10, then a split in two."""
    found = basis(daily([10.0, 9.0, 8.0, 4.0], prev=[nan, 9.0, 9.0, 4.0]))
    np.testing.assert_allclose(found.prices["close"][:, 0], [10 * 0.9 * 0.5, 4.5, 4.0, 4.0], rtol=1e-15)


def test_without_an_event_prices_are_those_stored() -> None:
    packed = daily([10.0, 10.2, 10.1], prev=[9.9, 10.0, 10.2])
    found = basis(packed)
    assert all(found.prices[name] is packed.fields[name] for name in PRICES)


def test_rounding_is_no_event() -> None:
    packed = daily([10.0, 10.2], prev=[9.9, 10.000000001])
    assert adjusted_prices(packed, starts(packed))["close"] is packed.fields["close"]


def test_a_halt_before_the_ex_rights_day_changes_nothing() -> None:
    whole = daily([20.0, 21.0, 10.6], prev=[nan, 20.0, 10.5])
    ends = whole.bar_ends.copy()
    ends[:, 0] -= np.array([10, 10, 0]) * 86400 * 10**9
    halted = Packed("1d", whole.symbols, ends, whole.lengths, whole.fields)
    np.testing.assert_array_equal(basis(halted).prices["close"], basis(whole).prices["close"])


def test_minutes_are_measured_by_their_sessions_reference() -> None:
    """Two sessions of two minutes; on the second the reference is half of the last close."""
    ends = np.concatenate([bar_ends(np.datetime64(day), "1m")[:2] for day in ("2024-03-04", "2024-03-05")])
    close = np.array([[20.0, 20.4, 10.3, 10.4]]).T
    fields = dict.fromkeys(PRICES, close) | {"prev_close": np.array([[19.0, 19.0, 10.2, 10.2]]).T}
    packed = Packed("1m", (SYMBOL,), ends[:, None], np.array([4]), fields)
    assert starts(packed).T.tolist() == [[True, False, True, False]]
    found = basis(packed)
    np.testing.assert_allclose(found.prices["close"].T, [[10.0, 10.2, 10.3, 10.4]], rtol=1e-15)
    assert found.references.T.tolist() == [[19.0, 19.0, 10.2, 10.2]]

    unknown = Packed("1m", (SYMBOL,), ends[:, None], np.array([4]), dict.fromkeys(PRICES, close))
    found = basis(unknown)
    assert found.prices["close"] is close
    assert found.gaps.T.tolist() == [[False, False, True, False]]
    np.testing.assert_array_equal(found.references, np.full((4, 1), nan))  # the basis changed: nobody knows it

    moved = Packed(
        "1m", (SYMBOL,), ends[:, None], np.array([4]), {name: close * [[1], [1], [2], [2]] for name in PRICES}
    )
    found = basis(moved)
    assert not found.gaps.any()
    np.testing.assert_array_equal(found.references.T, [[nan, nan, 20.4, 20.4]])


@pytest.mark.parametrize(
    ("opened", "symbol", "beyond"),
    [
        (8.99, SYMBOL, False),  # the limit of 10.00 is 9.00, and a tick is left for its rounding
        (8.98, SYMBOL, True),
        (11.01, SYMBOL, False),
        (11.02, SYMBOL, True),
        (8.5, "300750.SZ", False),  # 20 % on ChiNext
        (7.98, "300750.SZ", True),
        (6.99, "920118.BJ", False),  # 30 % in Beijing
        (5.0, "510300.SH", False),  # no limit is declared for funds: nothing is guessed
    ],
)
def test_an_open_beyond_the_widest_limit_is_a_gap(opened: float, symbol: str, beyond: bool) -> None:
    packed = daily([10.0] * 7 + [opened], symbol=symbol)
    gaps = ex_gaps(packed, starts(packed))
    assert gaps[:, 0].tolist() == [False] * 7 + [beyond]
    assert not gaps[:, 1].any()


def test_a_close_beyond_the_limit_is_none() -> None:
    """Only what happened before the open is no trading."""
    packed = daily([10.0] * 7 + [8.0], open_=[10.0] * 8)
    assert not ex_gaps(packed, starts(packed)).any()


def test_a_known_reference_covers_the_gap() -> None:
    packed = daily([10.0] * 7 + [5.0], prev=[nan] * 7 + [5.0])
    found = basis(packed)
    assert not found.gaps.any()
    np.testing.assert_allclose(found.prices["close"][:, 0], 5.0)


def test_the_first_sessions_of_a_listing_have_no_limit() -> None:
    listed = daily([10.0, 20.0, 40.0, 60.0, 90.0, 140.0], absent=3)
    assert ex_gaps(listed, starts(listed))[:, 0].tolist() == [False] * 8 + [True]
    origin = int(listed.bar_ends[3, 0])
    assert ex_gaps(listed, starts(listed), origin)[:, 0].sum() == 5, "it was there when the scan's history begins"


def test_the_first_sessions_of_a_listing_in_minutes() -> None:
    days = np.datetime64("2024-03-04") + np.arange(8)
    ends = np.tile(np.concatenate([bar_ends(day, "30m") for day in days]), (2, 1)).T.copy()
    close = np.ones(ends.shape)
    close[:, 1] = np.repeat(2.0 ** np.arange(8), 8)  # doubles every night
    ends[:8, 1] = NO_BAR
    packed = Packed("30m", ("600000.SH", SYMBOL), ends, np.array([64, 56]), dict.fromkeys(PRICES, close))
    gaps = ex_gaps(packed, starts(packed))
    assert np.flatnonzero(gaps[:, 1]).tolist() == [48, 56], "the sixth and seventh session since the listing"


def test_the_session_after_a_gap_is_measured_again() -> None:
    packed = daily([10.0] * 6 + [5.0, 5.1])
    found = basis(packed)
    np.testing.assert_array_equal(found.references[:, 0], [nan, *[10.0] * 5, nan, 5.0])


def test_first_bar_ends() -> None:
    packed = daily([10.0, 11.0], absent=2)
    assert first_bar_ends(packed).tolist() == [packed.bar_ends[2, 0], packed.bar_ends[0, 1]]
    nothing = Packed(
        "1d", (SYMBOL,), np.full((0, 1), NO_BAR), np.array([0]), {name: np.empty((0, 1)) for name in PRICES}
    )
    assert first_bar_ends(nothing).tolist() == [np.iinfo(np.int64).max]
    found = basis(nothing)
    assert found.gaps.shape == found.references.shape == found.prices["close"].shape == (0, 1)
    assert reference_closes(nothing, starts(nothing), found.gaps).shape == (0, 1)

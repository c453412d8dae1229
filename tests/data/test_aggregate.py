"""Daily bars made of minutes are the daily bars of the same day."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.aggregate import daily_bars
from data.simulator import SimulatedMarket


def test_minutes_of_two_sessions_give_the_days_own_bars() -> None:
    market = SimulatedMarket(300, seed=3)
    sessions = market.sessions[40:42]

    made = _ordered(daily_bars(market.bars("1m", *sessions)))
    expected = _ordered(market.bars("1d", *sessions))

    assert made["symbol"].to_pylist() == expected["symbol"].to_pylist()
    assert made["bar_end"].equals(expected["bar_end"])
    assert made["bar_start"].equals(expected["bar_start"])
    for name in ("open", "high", "low", "close", "volume", "prev_close"):
        np.testing.assert_allclose(made[name].to_numpy(), expected[name].to_numpy(), rtol=1e-12, err_msg=name)


def _ordered(bars: pa.Table) -> pa.Table:
    keys = pa.table({"bar_end": bars["bar_end"], "symbol": bars["symbol"].cast(pa.string())})
    return bars.take(pc.sort_indices(keys, [("bar_end", "ascending"), ("symbol", "ascending")]))


def test_no_bars_give_no_bars() -> None:
    empty = SimulatedMarket(5).bars("1m", SimulatedMarket(5).sessions[0]).slice(0, 0)

    assert daily_bars(empty).num_rows == 0
    assert isinstance(daily_bars(empty), pa.Table)

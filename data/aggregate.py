"""Daily bars from the bars of shorter frames."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import bar_ends, bar_start, local_day
from data.schema import BAR, FLAG_NO_TRADE, TIME


def daily_bars(bars: pa.Table) -> pa.Table:
    """Bars of one shorter frame (`data.schema.BAR`, one revision each) -> one daily bar for each symbol and session.

    Volume and amount are sums; open, high, low and close are those of the bars in which there was a trade, so a day
    without one gives no bar.
    """
    traded = bars.filter(pc.equal(pc.bit_wise_and(bars["flags"], pa.scalar(FLAG_NO_TRADE, pa.uint8())), 0))
    table = traded.sort_by("bar_end")
    days = local_day(table["bar_end"].cast(pa.int64()).to_numpy())
    groups = (
        table.append_column("day", pa.array(days.astype(np.int64)))
        .group_by(["symbol", "day"], use_threads=False)
        .aggregate(
            [
                ("open", "first"),
                ("high", "max"),
                ("low", "min"),
                ("close", "last"),
                ("volume", "sum"),
                ("amount", "sum"),
                ("prev_close", "first"),
            ]
        )
    )
    ends = bar_ends(groups["day"].to_numpy().astype("datetime64[D]"), "1d").ravel()
    n = groups.num_rows
    columns = {
        "symbol": groups["symbol"],
        "bar_start": pa.array(bar_start(ends, "1d"), pa.int64()).cast(TIME),
        "bar_end": pa.array(ends, pa.int64()).cast(TIME),
        "open": groups["open_first"],
        "high": groups["high_max"],
        "low": groups["low_min"],
        "close": groups["close_last"],
        "volume": groups["volume_sum"],
        # Sums of amounts quoted to three decimals; the rest is the addition's.
        "amount": pc.round(groups["amount_sum"], 3),
        "prev_close": groups["prev_close_first"],
        "flags": pa.array(np.zeros(n, dtype=np.uint8)),
        "revision": pa.array(np.zeros(n, dtype=np.int32)),
    }
    return pa.table({name: columns[name] for name in BAR.names}).cast(BAR)

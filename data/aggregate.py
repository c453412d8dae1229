"""Longer bars from shorter ones."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import bar_ends, bar_start, local_day, minute_index
from data.schema import BAR, FLAG_INCOMPLETE, FLAG_NO_TRADE, TIME


def daily_bars(bars: pa.Table) -> pa.Table:
    """Bars of one shorter frame (`data.schema.BAR`, one revision each) -> one daily bar for each symbol and session."""
    return longer_bars(bars, "1d")


def longer_bars(bars: pa.Table, frame: str) -> pa.Table:
    """Bars of one shorter frame (`data.schema.BAR`, one revision each) -> bars of `frame`, as ticks would give them.

    Volume and amount are sums; open, high, low and close are those of the bars in which there was a trade, and of all
    where there is none such. A bar is incomplete where one of its parts is. Parts that are missing are taken for bars
    before the symbol's first trade. Raises FrameError where there is no such frame.
    """
    any_day = np.datetime64(0, "D")
    n_bars = len(bar_ends(any_day, frame))
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    days = local_day(ends)
    place = minute_index(ends) // (len(bar_ends(any_day, "1m")) // n_bars)
    flags = bars["flags"].to_numpy()
    idle = (flags & FLAG_NO_TRADE) != 0
    # Where any part has a trade the others have nothing to say of prices: they are null, and null counts nowhere.
    code = bars["symbol"].combine_chunks()
    code = code if pa.types.is_dictionary(code.type) else code.dictionary_encode()
    key = pa.table({"symbol": code, "day": days.astype(np.int64), "place": place})
    prices = {name: pa.array(bars[name].to_numpy(), mask=idle) for name in ("open", "high", "low", "close")}
    table = key.append_column("end", pa.array(ends))
    for name, values in prices.items():
        table = table.append_column(name, values)
    for name in ("volume", "amount", "prev_close"):
        table = table.append_column(name, bars[name])
    table = table.append_column("carried", bars["close"])
    table = table.append_column("idle", pa.array(idle))
    table = table.append_column("incomplete", pa.array((flags & FLAG_INCOMPLETE) != 0))
    lenient, strict = pc.ScalarAggregateOptions(skip_nulls=True), pc.ScalarAggregateOptions(skip_nulls=False)
    groups = (
        table.sort_by("end")
        .group_by(["symbol", "day", "place"], use_threads=False)
        .aggregate(
            [
                ("open", "first", lenient),
                ("high", "max"),
                ("low", "min"),
                ("close", "last", lenient),
                ("volume", "sum"),
                ("amount", "sum", strict),
                ("prev_close", "last", lenient),
                ("carried", "last"),
                ("idle", "all"),
                ("incomplete", "any"),
            ]
        )
    )
    own = bar_ends(groups["day"].to_numpy().astype("datetime64[D]"), frame).reshape(groups.num_rows, n_bars)
    own = own[np.arange(groups.num_rows), groups["place"].to_numpy()]
    flat = groups["carried_last"]
    columns = {
        "symbol": groups["symbol"],
        "bar_start": pa.array(bar_start(own, frame), pa.int64()).cast(TIME),
        "bar_end": pa.array(own, pa.int64()).cast(TIME),
        "open": pc.coalesce(groups["open_first"], flat),
        "high": pc.coalesce(groups["high_max"], flat),
        "low": pc.coalesce(groups["low_min"], flat),
        "close": pc.coalesce(groups["close_last"], flat),
        "volume": groups["volume_sum"],
        # Sums of amounts quoted to three decimals; the rest is the addition's.
        "amount": pc.round(groups["amount_sum"], 3),
        "prev_close": groups["prev_close_last"],
        "flags": pa.array(
            (
                np.where(groups["idle_all"].to_numpy(), FLAG_NO_TRADE, 0)
                | np.where(groups["incomplete_any"].to_numpy(), FLAG_INCOMPLETE, 0)
            ).astype(np.uint8)
        ),
        "revision": pa.array(np.zeros(groups.num_rows, dtype=np.int32)),
    }
    return pa.table({name: columns[name] for name in BAR.names}).cast(BAR)


def newest(bars: pa.Table) -> pa.Table:
    """Of each bar of one frame the row of the highest revision, in the order of bar ends."""
    bars = bars.unify_dictionaries()
    code = bars["symbol"].combine_chunks()
    code = (code if pa.types.is_dictionary(code.type) else code.dictionary_encode()).indices.to_numpy()
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    order = np.lexsort((bars["revision"].to_numpy(), code, ends))
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (code[order][1:] != code[order][:-1]) | (ends[order][1:] != ends[order][:-1])
    return bars.take(pa.array(order[last]))

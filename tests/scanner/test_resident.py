"""A shard's resident bars: advanced bar by bar they are those read anew from the store, to the last bit."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.adjust import Basis
from data.panel import Packed
from data.schema import NAME
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner import resident
from scanner.resident import Resident, run_shard
from scanner.scan import Plan, ShardAnswer, make_plan
from scanner.tasks import ShardTask, split

RULES = """
strategies:
  - {name: up, when: close > prev(close) and RSI(6) > 60, action: BUY, cooldown: 3}
  - {name: strong, when: rank(ROC(5)) > 0.9, action: ALERT}
  - {name: limit, when: at_limit_up or pct_change < -5, action: SELL}
"""


@pytest.fixture(autouse=True)
def nothing_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a process of its own, as it were."""
    monkeypatch.setattr(resident, "_residents", type(resident._residents)())
    monkeypatch.setattr(resident, "_names", {})


@pytest.fixture
def plan(strategies: Any) -> Plan:
    return make_plan("1d", strategies(RULES).values())


def ends_of(table: pa.Table) -> list[int]:
    return sorted(set(table["bar_end"].cast(pa.int64()).to_pylist()))


def upto(table: pa.Table, end: int) -> pa.Table:
    return table.filter(pc.less_equal(table["bar_end"].cast(pa.int64()), end))


def at(table: pa.Table, end: int) -> pa.Table:
    return table.filter(pc.equal(table["bar_end"].cast(pa.int64()), end))


def assert_same(first: Resident, second: Resident) -> None:
    """Bit for bit."""
    one, two = first.packed(), second.packed()
    np.testing.assert_array_equal(one.bar_ends, two.bar_ends)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_array_equal(first.times, second.times)
    assert one.fields.keys() == two.fields.keys()
    for name, matrix in one.fields.items():
        np.testing.assert_array_equal(matrix, two.fields[name], err_msg=name)
    mine, theirs = first.basis(), second.basis()
    assert isinstance(mine, Basis)
    np.testing.assert_array_equal(mine.references, theirs.references)
    np.testing.assert_array_equal(mine.gaps, theirs.gaps)
    assert mine.gapped is not None
    assert set(np.flatnonzero(mine.gaps.any(axis=0))) <= set(mine.gapped)
    for name, matrix in mine.prices.items():
        np.testing.assert_array_equal(matrix, theirs.prices[name], err_msg=f"adjusted {name}")


def without_references(table: pa.Table, share: float) -> pa.Table:
    """Bars of which some lack the exchange's previous close, as imported ones do."""
    rng = np.random.default_rng(1)
    unknown = pa.array(rng.random(table.num_rows) < share)
    place = table.column_names.index("prev_close")
    return table.set_column(place, table.schema.field(place), pc.if_else(unknown, None, table["prev_close"]))


def advanced(table: pa.Table, frame: str, symbols: tuple[str, ...], first: int) -> Iterator[Resident]:
    """One that starts with the bars up to the `first`th bar end and takes the rest one by one."""
    ends = ends_of(table)
    kept = Resident(Packed.from_table(upto(table, ends[first]), frame, symbols), ends[first], ends[0])
    for end in ends[first + 1 :]:
        kept.advance(at(table, end), end)
        yield kept


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_days_advance_as_they_are_read(
    share: float, simulated: SimulatedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halts of days, listings, dividends and splits, seen or unseen; the room for new bars runs out three times."""
    monkeypatch.setattr(resident, "SPARE", 7)
    table = without_references(simulated.bars("1d", *simulated.sessions[100:130]), share)
    symbols, ends = simulated.symbols, ends_of(table)
    gaps = 0
    for kept in advanced(table, "1d", symbols, 8):
        assert_same(kept, Resident(Packed.from_table(upto(table, kept.upto), "1d", symbols), kept.upto, ends[0]))
        gaps += int(kept.basis().gaps.sum())
    assert (gaps > 0) == (share > 0)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_minutes_advance_as_they_are_read(share: float, simulated: SimulatedMarket) -> None:
    """From the end of one session over the next one's open, where references change and prices are adjusted anew."""
    session = 0
    for session in range(100, 130):
        day = simulated.day(simulated.sessions[session])
        before = simulated.day(simulated.sessions[session - 1])
        if (day.reference != before.close)[before.trading & day.trading].any():
            break  # a dividend or a split happened overnight
    table = simulated.bars("1m", *simulated.sessions[session - 1 : session + 1])
    ends = ends_of(table)
    window = table.filter(pc.is_in(table["bar_end"].cast(pa.int64()), pa.array(ends[200:275])))
    window = without_references(window, share)
    symbols = simulated.symbols
    ends = ends_of(window)
    adjusted = False
    for step, kept in enumerate(advanced(window, "1m", symbols, 30)):
        if step % 3 == 0 or 8 <= step < 14:
            assert_same(kept, Resident(Packed.from_table(upto(window, kept.upto), "1m", symbols), kept.upto, ends[0]))
        packed = kept.packed()
        adjusted |= not np.array_equal(packed.fields["close"], kept.basis().prices["close"], equal_nan=True)
    assert adjusted


def test_a_bar_end_at_which_nobody_traded(simulated: SimulatedMarket) -> None:
    table = simulated.bars("1d", *simulated.sessions[:3])
    ends, symbols = ends_of(table), simulated.symbols
    kept = Resident(Packed.from_table(table, "1d", symbols), ends[-1], ends[0])
    before = kept.packed()
    kept.advance(table.slice(0, 0), ends[-1] + 1)
    assert kept.upto == ends[-1] + 1
    np.testing.assert_array_equal(kept.packed().bar_ends, before.bar_ends)


def test_only_one_bar_end_at_a_time(simulated: SimulatedMarket) -> None:
    table = simulated.bars("1d", *simulated.sessions[:5])
    ends, symbols = ends_of(table), simulated.symbols
    kept = Resident(Packed.from_table(upto(table, ends[1]), "1d", symbols), ends[1], ends[0])
    with pytest.raises(ValueError, match="by one bar end"):
        kept.advance(table, ends[2])
    with pytest.raises(ValueError, match="by one bar end"):
        kept.advance(at(table, ends[3]), ends[2])


@pytest.fixture
def store(tmp_path: Path, daily: pa.Table) -> BarStore:
    made = BarStore(tmp_path / "store", origin="sim")
    made.append(daily, "1d")
    return made


def answer_of(answer: ShardAnswer) -> dict[str, Any]:
    """What an answer says, without how long it took."""
    wanted = [np.nan_to_num(rows, nan=-1e99).tolist() for rows in answer.wanted]
    return {**vars(answer), "elapsed_s": 0, "times": answer.times.tolist(), "wanted": wanted, "newest": None} | {
        "standings": {n: [a.tolist() for a in vars(s).values()] for n, s in answer.standings.items()}
    }


@pytest.mark.parametrize("engine", ["talib", "vector"])
def test_a_task_answers_the_same_however_it_came_to_its_bars(
    engine: str,
    store: BarStore,
    daily: pa.Table,
    plan: Plan,
    simulated: SimulatedMarket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Advanced, asked twice, asked for an older bar, over a gap in `previous`, for another origin, and read anew."""
    ends = ends_of(daily)
    shard = split(simulated.symbols, 2)[0]
    reads: list[int] = []
    read = resident._read
    monkeypatch.setattr(resident, "_read", lambda task, ahead: reads.append(task.bar_end) or read(task, ahead))

    def task(n: int, previous: int | None, origin: int = 0) -> ShardTask:
        batch = None if previous is None else at(daily, ends[n])
        before = None if previous is None else ends[previous]
        return ShardTask(str(store.root), "1d", None, shard, ends[origin], ends[n], engine, plan, before, batch)

    asked = [
        (task(100, None), True),
        (task(101, 100), False),
        (task(101, 100), False),  # the same again: a worker died after it had answered
        (task(102, 101), False),
        (task(105, 104), True),  # two bar ends were missed
        (task(101, 100), True),  # an older one
        (task(102, 101), False),
        (task(102, 101, origin=20), True),  # the next session's origin
        (task(103, 102, origin=20), False),
        (task(104, None, origin=20), True),
        (task(104, 103, origin=20), False),
    ]
    found = []
    for one, anew in asked:
        before = len(reads)
        found.append(answer_of(run_shard(one)))
        assert (len(reads) > before) == anew, one.bar_end
    assert len(resident._residents) == 1, "another origin replaces the bars; it does not pile up"
    for (one, _), answer in zip(asked, found, strict=True):
        resident._residents.clear()
        assert answer_of(run_shard(one)) == answer
    assert any(answer["hits"] for answer in found)


MORE_RULES = (
    RULES
    + """
  - {name: stopped, when: "every(pct_change > -5, 2)", action: ALERT}
  - {name: windows, when: "highest(high, 5) == high and bars_since(close < prev(close)) > 0", action: BUY}
  - {name: recursive, when: "EMA(RSI(3), 4) > 50 and MACD(3, 5, 2).hist > 0 and bars_listed > 3", action: BUY}
  - {name: adjusted, when: "close > SMA(20) and ATR(3) > 0", action: SELL}
  - {name: crossed, when: "cross_over(close, SMA(3)) and volume > prev(volume, 2)", action: BUY}
  - {name: stays, when: "volume > prev(volume, 2) and not cross_under(RSI(3), 50)", action: SELL}
  - {name: turns, when: "volume > prev(volume, 2) and (prev(prev(low)) > low or abs(ROC(2)) < prev(7))", action: SELL}
  - {name: mains, when: "volume < prev(volume) and board in ['main'] and high > prev(high)", action: ALERT}
  - {name: crosses, when: "volume < prev(volume) and cross_under(pct_change * 2, 1)", action: ALERT}
"""
)
NAMED = """
  - {name: limits, when: "count(at_limit_up, 3) > 0 or every(not is_st, 2)", action: ALERT}
"""
ROWS = """
from scanner import Strategy

class Rows(Strategy):
    indicators = {"rsi": "RSI(3)", "macd": "MACD(3, 5, 2)", "up": "close > prev(close)", "board": "board", "c": "close"}
    bars = 6
    def evaluate(self, market):
        return market.hits(market.indicators["rsi"][-1] > 50, action="ALERT")
"""


@pytest.mark.parametrize("named", ["", NAMED], ids=["by bars", "by names"])
@pytest.mark.parametrize("frame", ["1d", "1m"])
def test_a_shard_that_stayed_is_one_that_is_read_anew(
    frame: str, named: str, tmp_path: Path, strategies: Any, simulated: SimulatedMarket
) -> None:
    """Over sessions with halts, listings, dividends, names that change, and bars without a reference; bit for bit."""
    sessions = simulated.sessions[100:130] if frame == "1d" else simulated.sessions[108:111]
    table = without_references(simulated.bars(frame, *sessions), 0.3)
    if frame == "1m":  # the first and last minutes of each session
        ends = ends_of(table)
        chosen = [end for day in range(0, 720, 240) for end in (*ends[day : day + 9], *ends[day + 234 : day + 240])]
        table = table.filter(pc.is_in(table["bar_end"].cast(pa.int64()), pa.array(chosen)))
    store = BarStore(tmp_path / "store", origin="sim")
    store.append(table, frame)
    for day in sessions:
        names = [{"symbol": s, "day": day.item(), "name": name} for s, name in simulated.names(day).items()]
        store.append_names(pa.Table.from_pylist(names, NAME))
    rules = strategies(MORE_RULES + named).values()
    plan = make_plan(frame, [*rules, *strategies(ROWS, "rows.py").values()], ["KDJ(3, 2, 2)", "rank(close)"])
    ends, shard = ends_of(table), split(simulated.symbols, 4)[1]

    def task(n: int, batch: bool) -> ShardTask:
        given = (ends[n - 1], at(table, ends[n])) if batch else ()
        return ShardTask(str(store.root), frame, None, shard, ends[0], ends[n], "vector", plan, *given)

    stayed = resident._residents
    fired = 0
    for n in range(3, len(ends)):
        found = answer_of(run_shard(task(n, batch=True)))
        (kept,) = stayed.values()
        resident._residents = type(stayed)()
        anew = answer_of(run_shard(task(n, batch=False)))
        resident._residents = stayed
        assert found == anew, n
        assert (kept.following is not None) == (n > 3)
        fired += len(found["hits"])
    assert fired > 50


def test_bars_that_the_store_does_not_have_yet_come_with_the_task(
    tmp_path: Path, daily: pa.Table, plan: Plan, simulated: SimulatedMarket
) -> None:
    """The batch is stored while it is scanned: whoever reads anew may come before it is there, or after."""
    ends = ends_of(daily)
    store = BarStore(tmp_path / "live", origin="sim")
    store.append(upto(daily, ends[99]), "1d")
    batch = at(daily, ends[100])
    shard = split(simulated.symbols, 2)[1]
    task = ShardTask(
        str(store.root), "1d", None, shard, ends[0], ends[100], "talib", plan, ends[99], batch.to_batches()[0]
    )
    early = answer_of(run_shard(task))
    resident._residents.clear()
    store.append(batch, "1d")
    assert answer_of(run_shard(task)) == early
    assert early["n_current"] > 100
    assert len(early["times"]) == 101


def test_names_are_those_of_the_scanned_session(
    store: BarStore, daily: pa.Table, strategies: Any, simulated: SimulatedMarket
) -> None:
    """The shard stays from one session to the next; special treatment comes and goes overnight."""
    ends = ends_of(daily)
    plan = make_plan("1d", strategies("strategies: [{name: st, when: is_st, action: ALERT}]").values())
    marked = [simulated.symbols[0], simulated.symbols[5]]
    for end, name in zip(ends[100:103], ("ST{}", "{}", "*ST{}"), strict=True):
        day = pa.array([end], pa.int64()).cast(pa.timestamp("ns")).cast(pa.date32())[0]
        rows = [{"symbol": symbol, "day": day.as_py(), "name": name.format("石化")} for symbol in marked]
        store.append_names(pa.Table.from_pylist(rows, NAME))

    def task(n: int) -> ShardTask:
        batch = at(daily, ends[n])
        root = str(store.root)
        return ShardTask(root, "1d", None, simulated.symbols, ends[0], ends[n], "talib", plan, ends[n - 1], batch)

    def fired(n: int) -> list[str]:
        return [hit.symbol for hit in run_shard(task(n)).hits]

    present = sorted(set(at(daily, ends[100])["symbol"].to_pylist()) & set(marked))
    assert present
    assert [fired(n) for n in (100, 101, 102)] == [present, [], present]
    assert fired(100) == present, "also when one looks back"


def test_a_batch_that_revises_older_bars_makes_it_read_anew(
    store: BarStore, daily: pa.Table, plan: Plan, simulated: SimulatedMarket
) -> None:
    ends = ends_of(daily)
    root, shard = str(store.root), split(simulated.symbols, 2)[0]
    run_shard(ShardTask(root, "1d", None, shard, ends[0], ends[99], "talib", plan))
    old = at(daily, ends[98])
    close = pc.multiply(old["close"], 1.01)
    revised = old.set_column(old.column_names.index("close"), old.schema.field("close"), close).set_column(
        old.column_names.index("revision"), old.schema.field("revision"), pa.array([1] * old.num_rows, pa.int32())
    )
    batch = pa.concat_tables([revised, at(daily, ends[100])])
    task = ShardTask(root, "1d", None, shard, ends[0], ends[100], "talib", plan, ends[99], batch)
    found = answer_of(run_shard(task))
    (kept,) = resident._residents.values()
    whole = Packed.from_table(pa.concat_tables([upto(daily, ends[100]), revised]), "1d", shard)
    assert_same(kept, Resident(whole, ends[100], ends[0]))
    assert answer_of(run_shard(task)) == found


def test_a_process_keeps_so_many_shards_and_no_more(
    store: BarStore, daily: pa.Table, plan: Plan, simulated: SimulatedMarket
) -> None:
    ends = ends_of(daily)
    for shard in split(simulated.symbols, resident.MOST + 3):
        run_shard(ShardTask(str(store.root), "1d", None, shard, ends[0], ends[30], "talib", plan))
    assert len(resident._residents) == resident.MOST


def test_shards_hold_every_symbol_once_and_are_of_one_size() -> None:
    symbols = [f"{600000 + i}.SH" for i in range(23)]
    for n in (1, 2, 7, 23, 40):
        shards = split(symbols[::-1], n)
        assert sorted(symbol for shard in shards for symbol in shard) == symbols
        assert len(shards) == min(n, 23)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert split([], 3) == []


def test_what_lasts_is_unpickled_once(simulated: SimulatedMarket) -> None:
    """So that a plan that comes again is known by being the same object, and not looked through."""
    table = simulated.bars("1d", *simulated.sessions[:1])
    task = ShardTask("store", "1d", None, simulated.symbols, 1, 2, "talib", make_plan("1d", []), 1, table)
    one, two = (pickle.loads(pickle.dumps(replace(task, bar_end=end))) for end in (2, 3))
    assert one.plan is two.plan
    assert one.symbols is two.symbols
    assert (one.bar_end, two.bar_end) == (2, 3)
    assert one.batch.select(["symbol", "close"]).equals(table.select(["symbol", "close"]))
    assert replace(one, batch=None) == replace(task, batch=None)

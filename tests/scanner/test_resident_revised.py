"""Changes to bars that a shard keeps: it answers as one that reads them from the store, to the last bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.schema import BAR
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner import resident
from scanner.resident import run_shard
from scanner.scan import ShardAnswer, make_plan
from scanner.tasks import ShardTask, split
from tests.scanner.test_resident import MORE_RULES, ROWS, answer_of, at, ends_of, without_references

CHANGES: tuple[tuple[tuple[int, float, int], ...], ...] = (
    ((0, 0.02, 0), (0, 0.7, 0)),
    (),
    ((1, 0.1, 1),),
    ((1, 0.2, 1), (0, 0.1, 0)),
    (),
)


@pytest.fixture(autouse=True)
def nothing_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_residents", type(resident._residents)())
    monkeypatch.setattr(resident, "_names", {})


class Shard:
    """A shard that stays, beside one that reads anew each time."""

    def __init__(self, path: Path, strategies: Any, simulated: SimulatedMarket) -> None:
        table = without_references(simulated.bars("1m", *simulated.sessions[108:110]), 0.3)
        ends = ends_of(table)
        self.ends = [*ends[225:240], *ends[240:262]]  # over a night in which references change
        self.table = table.filter(pc.is_in(table["bar_end"].cast(pa.int64()), pa.array(self.ends)))
        self.symbols = split(simulated.symbols, 4)[1]
        self.store = BarStore(path, origin="sim")
        rules = [*strategies(MORE_RULES).values(), *strategies(ROWS, "rows.py").values()]
        self.plan = make_plan("1m", rules, ["KDJ(3, 2, 2)", "rank(close)"])
        self.revision = 0
        self.reads = 0

    def task(self, n: int, batch: pa.Table | None, **about: Any) -> ShardTask:
        previous = None if batch is None or "revises" in about else self.ends[n - 1]
        place = (str(self.store.root), "1m", None, self.symbols, self.ends[0], self.ends[n], "vector", self.plan)
        return ShardTask(*place, previous, batch, revision=self.revision, **about)

    def asked(self, task: ShardTask, monkeypatch: pytest.MonkeyPatch) -> ShardAnswer:
        """What the shard that stays says, as one that reads anew does."""
        read = resident._read
        with monkeypatch.context() as patched:

            def counted(*given: Any) -> Any:
                self.reads += 1
                return read(*given)

            patched.setattr(resident, "_read", counted)
            found = run_shard(task)
        stayed, resident._residents = resident._residents, type(resident._residents)()
        n = self.ends.index(task.bar_end)
        anew = run_shard(self.task(n, None))
        resident._residents = stayed
        assert answer_of(found) == answer_of(anew), n
        return found

    def close(self, n: int, monkeypatch: pytest.MonkeyPatch) -> ShardAnswer:
        batch = at(self.table, self.ends[n])
        self.store.append(batch, "1m")
        return self.asked(self.task(n, batch), monkeypatch)

    def revise(self, n: int, changes: pa.Table, monkeypatch: pytest.MonkeyPatch) -> ShardAnswer:
        self.store.append(changes, "1m")
        before, self.revision = self.revision, self.revision + 1
        return self.asked(self.task(n, changes, revises=before), monkeypatch)


def changed(bars: pa.Table, rows: "np.typing.NDArray[np.bool_]", number: int, times: float) -> pa.Table:
    """Some rows as a revision, traded higher."""
    some = bars.select(BAR.names).filter(pa.array(rows))
    columns = {name: some[name].to_numpy() * times for name in ("high", "close", "volume")}
    columns["revision"] = np.full(some.num_rows, number)
    for name, values in columns.items():
        field = BAR.field(name)
        some = some.set_column(some.schema.get_field_index(name), field, pa.array(values).cast(field.type))
    return some


def test_a_revised_shard_is_one_that_is_read_anew(
    tmp_path: Path, strategies: Any, simulated: SimulatedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest bar, twice, or the one before it, of few symbols or many; and bars go on coming."""
    shard = Shard(tmp_path / "store", strategies, simulated)
    rng = np.random.default_rng(2)
    for n in range(3):
        shard.store.append(at(shard.table, shard.ends[n]), "1m")
    n_hits, in_place = 0, False
    for n in range(3, len(shard.ends)):
        reads = shard.reads
        shard.close(n, monkeypatch)
        assert (shard.reads == reads) == in_place, n
        in_place = True
        # The bar, the share of symbols, and how often it is read where it is changed in place.
        for number, (back, share, answers_read) in enumerate(CHANGES[n % len(CHANGES)], 1):
            reads, bars = shard.reads, at(shard.table, shard.ends[n - back])
            rows = rng.random(bars.num_rows) < share
            found = shard.revise(n - back, changed(bars, rows, number, 1 + number / 100), monkeypatch)
            n_hits += len(found.hits)
            in_place &= shard.ends[n - back] - shard.ends[n - back - 1] < 10**11
            assert shard.reads - reads == (answers_read if in_place else 1)
    assert n_hits > 100


def test_a_late_bar_of_one_that_had_none_and_changes_that_come_again(
    tmp_path: Path, strategies: Any, simulated: SimulatedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(tmp_path / "store", strategies, simulated)
    late = shard.symbols[3]
    whole = shard.table
    shard.table = whole.filter(
        pc.or_(
            pc.not_equal(whole["symbol"].cast(pa.string()), late),
            pc.less(whole["bar_end"].cast(pa.int64()), shard.ends[8]),
        )
    )
    for n in range(5):
        shard.store.append(at(shard.table, shard.ends[n]), "1m")
    for n in range(5, 9):
        shard.close(n, monkeypatch)
    own = at(whole, shard.ends[8])
    missing = own.select(BAR.names).filter(pc.equal(own["symbol"].cast(pa.string()), late))
    assert missing.num_rows == 1
    reads = shard.reads
    shard.revise(8, missing, monkeypatch)
    assert shard.reads == reads + 1, "there is no bar to change"
    shard.close(9, monkeypatch)
    shard.close(10, monkeypatch)
    reads = shard.reads
    bars = at(shard.table, shard.ends[10])
    changes = changed(bars, np.arange(bars.num_rows) % 9 == 0, 1, 1.02)
    first = shard.revise(10, changes, monkeypatch)
    again = shard.asked(shard.task(10, changes, revises=shard.revision - 1), monkeypatch)
    assert answer_of(first) == answer_of(again)
    assert shard.reads == reads


def test_a_look_at_open_bars_is_a_read_of_them_and_leaves_nothing_behind(
    tmp_path: Path, strategies: Any, simulated: SimulatedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over a night, and where some have no bar yet; then the bars close otherwise."""
    shard = Shard(tmp_path / "store", strategies, simulated)
    for n in range(13):
        shard.store.append(at(shard.table, shard.ends[n]), "1m")
    n_hits = 0
    for n in range(13, 18):
        closed = at(shard.table, shard.ends[n])
        rows = np.arange(closed.num_rows) % 7 > 0
        open_bars = changed(closed, rows, 0, 1.01)
        aside = BarStore(tmp_path / f"aside-{n}", origin="sim")
        aside.append(shard.store.table("1m"), "1m")
        aside.append(open_bars, "1m")
        reads = shard.reads
        with monkeypatch.context() as patched:
            read = resident._read

            def counted(*given: Any, read: Any = read) -> Any:
                shard.reads += 1
                return read(*given)

            patched.setattr(resident, "_read", counted)
            first, again = (answer_of(run_shard(shard.task(n, open_bars, once=True))) for _ in range(2))
        assert shard.reads - reads == (n == 13), "the bars that have closed are read at the first look, and stay"
        stayed, resident._residents = resident._residents, type(resident._residents)()
        expected = answer_of(run_shard(replace(shard.task(n, None), root=str(aside.root))))
        resident._residents = stayed
        assert first == again == expected
        n_hits += len(first["hits"])
        reads = shard.reads
        shard.close(n, monkeypatch)
        assert shard.reads == reads
    assert n_hits > 20

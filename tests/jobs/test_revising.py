"""Revisions of closed bars: what newly fires, what is revoked, and what keeps nothing silent afterwards."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import DAY, bar_ends, bar_start
from data.history import SignalHistory
from data.schema import BAR
from data.signal import Signal, from_table
from data.store import BarStore
from jobs.scanning import MarketScan
from scanner.cluster import InlineCluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies

A, B, C = "000001.SZ", "600000.SH", "600519.SH"
SYMBOLS = (A, B, C)
SESSION = np.datetime64("2024-06-18")
ENDS = bar_ends(SESSION, "1m")
HIGH = "  - {name: high, when: close > 11, action: ALERT}\n"
RANK = "  - {name: best, when: 'rank(close) == 1', action: BUY}\n"


def bars(place: int, *, revision: int = 0, **closes: float) -> pa.RecordBatch:
    """Bars of minute `place`, by symbol's letter; as a revision with the metadata of one."""
    end = int(ENDS[place])
    names = dict(zip("abc", SYMBOLS, strict=True))
    n = len(closes)
    columns = {
        "symbol": [names[name] for name in closes],
        "bar_start": [int(bar_start(np.array([end]), "1m")[0])] * n,
        "bar_end": [end] * n,
        **{price: list(closes.values()) for price in ("open", "high", "low", "close")},
        "volume": [100.0] * n,
        "amount": [1000.0] * n,
        "prev_close": [10.0] * n,
        "flags": [0] * n,
        "revision": [revision] * n,
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in BAR]
    return pa.RecordBatch.from_arrays(arrays, schema=BAR)


class Live:
    """One frame of a store, scanned bar by bar as the live service does."""

    def __init__(self, path: Path, rules: str, engine: str = "talib") -> None:
        self.store = BarStore(path / "s", origin="market")
        self._rules = path / "rules.yaml"
        self._rules.write_text(f"strategies:\n{rules}")
        self._engine = engine
        self.last: int | None = None
        self.restart()

    def restart(self) -> None:
        self.history = SignalHistory(self.store.root / "signals")
        self.scan = MarketScan(
            self.store,
            "1m",
            load_strategies([self._rules]),
            symbols=SYMBOLS,
            engine=load(self._engine),
            cluster=InlineCluster(),
            history=self.history,
        )

    def close(self, place: int, **closes: float) -> list[Signal]:
        batch, end = bars(place, **closes), int(ENDS[place])
        self.store.append(batch, "1m")
        found = self.scan.scan(end, origin=int(ENDS[0]), batch=batch, previous=self.last)
        self.last = end
        return list(found.published)

    def revise(self, place: int, revision: int, **closes: float) -> list[Signal]:
        batch = bars(place, revision=revision, **closes)
        self.store.append(batch, "1m")
        stamps = {"quote_ns": 1, "received_ns": 2, "bar_closed_ns": 3}
        return list(self.scan.revise(batch, int(ENDS[place]), origin=int(ENDS[0]), **stamps).published)

    def catch_up(self, place: int) -> list[Signal]:
        self.restart()
        return list(self.scan.scan(int(ENDS[place]), origin=int(ENDS[0])).published)


def told(signals: list[Signal]) -> list[tuple[str, str, int, bool]]:
    return [(s.strategy, s.symbol, s.revision, s.revokes is not None) for s in signals]


@pytest.mark.parametrize("engine", ["talib", "vector"])
def test_what_newly_fires_is_published_with_its_number_and_what_no_longer_does_is_revoked(
    tmp_path: Path, engine: str
) -> None:
    live = Live(tmp_path, HIGH, engine)
    live.close(0, a=10, b=10, c=10)
    (first,) = live.close(1, a=10, b=12, c=10)
    assert told(live.revise(1, 1, a=12.5)) == [("high", A, 1, False)]
    (taken_back,) = live.revise(1, 2, b=10.5)
    assert (taken_back.revokes, taken_back.revision, taken_back.symbol) == (first.id, 2, B)
    assert (taken_back.quote_ns, taken_back.received_ns, taken_back.bar_closed_ns) == (1, 2, 3)
    assert taken_back.scanned_ns > 3
    (again,) = live.revise(1, 3, b=13)
    assert (again.revision, again.revokes) == (3, None)
    assert len({first.id, taken_back.id, again.id}) == 3
    kept = from_table(live.history.query(newest_first=False))
    assert told(kept) == [("high", B, 0, False), ("high", A, 1, False), ("high", B, 2, True), ("high", B, 3, False)]
    assert again.price == 13


def test_a_revision_that_changes_nothing_says_nothing(tmp_path: Path) -> None:
    live = Live(tmp_path, HIGH)
    live.close(0, a=12, b=10)
    assert live.revise(0, 1, a=12.4, b=10.1) == []
    assert live.revise(0, 1, a=12.4, b=10.1) == [], "nor does one that comes again"


def test_the_next_scan_sees_the_revised_bar(tmp_path: Path) -> None:
    live = Live(tmp_path, "  - {name: was, when: 'prev(close, 1) > 11', action: ALERT}\n")
    for place in range(3):
        assert live.close(place, a=10, b=10, c=10) == []
    assert live.revise(2, 1, c=12) == []
    assert told(live.close(3, a=10, b=10, c=10)) == [("was", C, 0, False)]


def test_a_restart_publishes_nothing_twice(tmp_path: Path) -> None:
    live = Live(tmp_path, HIGH)
    live.close(0, a=10, b=12, c=12)
    live.revise(0, 1, a=12, b=10)
    before = live.history.query().num_rows
    assert before == 4
    assert live.catch_up(0) == []
    assert live.revise(0, 1, a=12, b=10) == []
    assert live.history.query().num_rows == before


def test_a_revision_of_one_moves_the_rank_of_others(tmp_path: Path) -> None:
    live = Live(tmp_path, RANK)
    (first,) = live.close(0, a=10, b=12, c=11)
    assert first.symbol == B
    found = live.revise(0, 1, a=13)
    assert sorted(told(found)) == [("best", A, 1, False), ("best", B, 1, True)]


def test_what_was_revoked_keeps_nothing_silent(tmp_path: Path) -> None:
    live = Live(tmp_path, "  - {name: high, when: close > 11, action: ALERT, cooldown: 5}\n")
    assert told(live.close(0, a=12, b=12)) == [("high", A, 0, False), ("high", B, 0, False)]
    assert told(live.revise(0, 1, a=10)) == [("high", A, 1, True)]
    assert told(live.close(1, a=12, b=12)) == [("high", A, 0, False)]
    live.restart()
    assert live.close(2, a=12, b=12) == []


def test_a_late_bar_of_a_symbol_that_had_none_fires(tmp_path: Path) -> None:
    live = Live(tmp_path, HIGH)
    live.close(0, a=10, b=10)
    live.close(1, a=10)
    assert told(live.revise(1, 1, b=12)) == [("high", B, 1, False)]


def test_bars_before_what_indicators_see_and_strangers_say_nothing(tmp_path: Path) -> None:
    live = Live(tmp_path, HIGH)
    live.close(1, a=10, b=12)
    early = bars(0, revision=1, b=10)
    live.store.append(early, "1m")
    assert live.scan.revise(early, int(ENDS[0]), origin=int(ENDS[0]) + DAY).published == ()
    live.scan.shards = [(A,)]
    assert live.revise(1, 1, b=10) == []

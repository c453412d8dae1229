"""Cooldowns after a restart: as far back as a symbol's own bars reach, and no file of the history beyond them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import bar_ends, bar_start
from data.history import SignalHistory
from data.schema import BAR
from data.store import BarStore
from jobs.scanning import MarketScan
from scanner.cluster import InlineCluster
from scanner.engines.base import load
from scanner.loading import load as load_strategies

A, B = "000001.SZ", "600000.SH"
DAYS = np.arange(np.datetime64("2024-03-01"), np.datetime64("2024-05-01"))
ENDS = np.array([int(bar_ends(day, "1d")[0]) for day in DAYS])
RULES = """
strategies:
  - {name: up, frame: 1d, when: close > 11, action: BUY, cooldown: 3}
  - {name: always, frame: 1d, when: close > 0, action: ALERT}
"""


def bars(place: int, **closes: float) -> pa.RecordBatch:
    names, n, end = {"a": A, "b": B}, len(closes), ENDS[place : place + 1]
    columns = {
        "symbol": [names[name] for name in closes],
        "bar_start": [int(bar_start(end, "1d")[0])] * n,
        "bar_end": end.tolist() * n,
        **{price: list(closes.values()) for price in ("open", "high", "low", "close")},
        "volume": [100.0] * n,
        "amount": [1e3] * n,
        "prev_close": [10.0] * n,
        "flags": [0] * n,
        "revision": [0] * n,
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in BAR], schema=BAR)


class Service:
    """One frame of a store, scanned bar by bar; says who fired `up`."""

    def __init__(self, path: Path) -> None:
        self.store = BarStore(path / "s", origin="market")
        (path / "rules.yaml").write_text(RULES)
        self._rules = path / "rules.yaml"
        self.restart()

    def restart(self) -> None:
        self.history = SignalHistory(self.store.root / "signals")
        self._scan = MarketScan(
            *(self.store, "1d", load_strategies([self._rules])),
            symbols=(A, B),
            engine=load("talib"),
            cluster=InlineCluster(),
            history=self.history,
        )

    def close(self, place: int, **closes: float) -> list[str]:
        self.store.append(bars(place, **closes), "1d")
        found = self._scan.scan(int(ENDS[place]), origin=int(ENDS[0])).published
        return [signal.symbol for signal in found if signal.strategy == "up"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The day of the first bar of each file of signals that is read."""
    names: list[str] = []
    read = SignalHistory._read

    def noted(self: SignalHistory, path: Path, columns: list[str] | None = None) -> Any:
        names.append(path.name[:8])
        return read(self, path, columns)

    monkeypatch.setattr(SignalHistory, "_read", noted)
    return names


def test_a_restart_reads_what_a_cooldown_can_need_and_no_more(tmp_path: Path, opened: list[str]) -> None:
    service = Service(tmp_path)
    assert service.close(0, a=12, b=12) == [A, B]
    for place in range(1, 40):
        service.close(place, a=10, b=10)
    assert service.close(40, a=12, b=10) == [A]
    service.restart()
    opened.clear()
    assert service.close(41, a=12, b=12) == [B]
    of_days = {name.replace("-", "") for name in DAYS[[38, 39, 40, 41]].astype(str)}
    assert set(opened) <= of_days
    opened.clear()
    assert service.close(42, a=12, b=12) == service.close(43, a=12, b=12) == []
    assert set(opened) <= {name.replace("-", "") for name in DAYS[[42, 43]].astype(str)}, "what is known is kept"
    assert service.close(44, a=12, b=12) == [A]


def test_a_halt_does_not_end_a_cooldown(tmp_path: Path) -> None:
    service = Service(tmp_path)
    for place in range(4):
        service.close(place, a=10, b=10)
    assert service.close(4, a=12, b=12) == [A, B]
    for place in range(5, 30):
        service.close(place, a=10)
    service.restart()
    assert service.close(30, a=12, b=10) == [A]
    assert service.close(31, a=12, b=12) == [], "these are its first bars since"
    assert service.close(32, a=12, b=12) == []
    assert service.close(33, a=12, b=12) == [B]


def test_without_a_hit_that_could_be_silent_nothing_is_read(tmp_path: Path, opened: list[str]) -> None:
    service = Service(tmp_path)
    for place in range(10):
        service.close(place, a=12, b=12)
    service.restart()
    opened.clear()
    service.close(10, a=10, b=10)
    assert set(opened) <= {str(DAYS[10]).replace("-", "")}

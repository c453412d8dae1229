"""Files that are read ahead are those that the store reads."""

from pathlib import Path

import pytest

from data.ahead import ReadAhead
from data.errors import StoreError
from data.simulator import SimulatedMarket
from data.store import BarStore

COLUMNS = ("symbol", "bar_end", "close")


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """Three files of bars."""
    market = SimulatedMarket(30)
    store = BarStore(tmp_path, origin="market")
    for session in market.sessions[:3]:
        store.append(market.bars("1d", session), "1d")
    return store


def test_what_was_read_ahead_is_what_is_read(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store.table("1d"), store.table("1d", columns=COLUMNS), store.symbols("1d")
    ahead = ReadAhead(store.files("1d"), COLUMNS)
    through = BarStore(store.root, read=ahead)
    assert through.table("1d").equals(plain[0])  # with columns that were not read ahead
    with monkeypatch.context() as patched:
        patched.setattr("data.ahead.read_file", lambda *_: pytest.fail("read again"))
        assert through.symbols("1d") == plain[2]
        assert through.table("1d", columns=COLUMNS).equals(plain[1])
    assert through.table("1d", columns=COLUMNS).equals(plain[1])
    ahead = ReadAhead(store.files("1d"), COLUMNS)
    ahead.close()
    assert BarStore(store.root, read=ahead).table("1d", columns=COLUMNS).equals(plain[1])


def test_a_file_that_came_later_is_read(store: BarStore) -> None:
    files = store.files("1d")
    through = BarStore(store.root, read=ReadAhead(files[:2], COLUMNS))
    assert through.table("1d", columns=COLUMNS).equals(store.table("1d", columns=COLUMNS))


def test_a_damaged_file_is_named_when_it_is_asked_for(store: BarStore) -> None:
    path = store.files("1d")[1].path
    path.write_bytes(path.read_bytes()[:-50])
    through = BarStore(store.root, read=ReadAhead(store.files("1d"), COLUMNS))
    with pytest.raises(StoreError, match=path.name):
        through.table("1d", columns=COLUMNS)

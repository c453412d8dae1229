"""Whose quotes vendors are asked for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from data.errors import FeedError, SettingsError, StaleDataError
from data.settings import FeedSettings, ScanSettings, Settings
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.universe import read_symbols, watched
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.lists import FakeEastmoneyList, FakeSinaList
from tests.streaming.feeds.fakes.servers import Faults

MARKET = SimulatedMarket(60, seed=3)
DAY = FakeDay(MARKET, minutes=1)
SYMBOLS = sorted(MARKET.symbols)
NOW = 1_790_000_000 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "market", origin="market")


def found(
    store: BarStore, universe: str, feed: str = "sina", banned: str = "", kinds: tuple[str, ...] = ("a_share", "cdr")
) -> tuple[list[str], Any]:
    async def run() -> tuple[list[str], Any]:
        fakes = {
            "sina_list": FakeSinaList(DAY, index={"000300": SYMBOLS[:3]}),
            "eastmoney_list": FakeEastmoneyList(DAY),
        }
        fakes["eastmoney_list"].size = 30
        for name, fake in fakes.items():
            await fake.__aenter__()
            fake.faults = Faults(ban="403" if name in banned else None)
        urls = {name: fake.url for name, fake in fakes.items()}
        settings = Settings(
            feed=FeedSettings(name=feed, universe=universe, urls=urls), scan=ScanSettings(universe=kinds)
        )
        try:
            return await watched(settings, store, now_ns=NOW), {name: len(fake.asked) for name, fake in fakes.items()}
        finally:
            for fake in fakes.values():
                await fake.__aexit__(None, None, None)

    return asyncio.run(run())


def test_the_stored_symbols_of_any_frame_are_watched_without_a_request(store: BarStore) -> None:
    store.append(MARKET.bars("1d", MARKET.sessions[0]), "1d")
    stored = sorted(store.symbols("1d"))
    assert found(store, "auto") == (stored, {"sina_list": 0, "eastmoney_list": 0})
    assert found(store, "list")[0] == SYMBOLS  # those that were not stored yet, too


def test_where_none_are_stored_a_list_is_asked_for_and_its_names_are_kept(store: BarStore) -> None:
    assert found(store, "auto") == (SYMBOLS, {"sina_list": 2, "eastmoney_list": 0})
    assert set(store.names()) == set(SYMBOLS)


@pytest.mark.parametrize(("feed", "banned", "asked"), [("eastmoney,sina", "", (0, 2)), ("sina", "sina_list", (1, 2))])
def test_the_list_of_whom_is_fed_from_comes_first_and_the_other_where_that_fails(
    store: BarStore, feed: str, banned: str, asked: tuple[int, int]
) -> None:
    symbols, requests = found(store, "auto", feed, banned)
    assert symbols == SYMBOLS
    assert tuple(requests.values()) == asked


def test_where_no_list_comes_the_remedy_is_said(store: BarStore) -> None:
    with pytest.raises(FeedError, match=r"sina_list has banned.*eastmoney_list has banned.*Name a file of symbols"):
        found(store, "auto", banned="sina_list eastmoney_list")


def test_an_index_and_kinds(store: BarStore) -> None:
    assert found(store, "index:000300") == (SYMBOLS[:3], {"sina_list": 2, "eastmoney_list": 0})
    with pytest.raises(StaleDataError, match="has no symbols of index"):
        found(store, "index:000300", kinds=("index",))


def test_a_file_of_symbols(store: BarStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('code,name\n# mine\nsh600519,贵州茅台\n000001.SZ\n"920118" 太湖远大\n\n', encoding="utf-8-sig")
    assert found(store, str(file))[0] == ["000001.SZ", "600519.SH", "920118.BJ"]
    file.write_text("600519\n60051\n")
    with pytest.raises(SettingsError, match=r"mine.csv:2: '60051' is no symbol"):
        read_symbols(file)
    with pytest.raises(SettingsError, match=r"must be auto, list, index:CODE .*'lits'"):
        found(store, "lits")

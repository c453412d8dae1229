"""Lists of symbols: pages as public clients read them, and endpoints on this machine that go wrong."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import BannedError, FeedError, UsageError
from data.simulator import SimulatedMarket
from streaming.feeds.listing import LISTS, MARKET, fetch_list, parse_eastmoney, parse_sina
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.lists import FakeEastmoneyList, FakeSinaList
from tests.streaming.feeds.fakes.servers import Faults

DAY = FakeDay(SimulatedMarket(200, seed=3), minutes=1)
FAKES: dict[str, Any] = {"sina_list": FakeSinaList, "eastmoney_list": FakeEastmoneyList}


def test_a_page_of_sina() -> None:
    page = parse_sina('[{"symbol":"bj920118","code":"920118","name":"太湖远大 "},{"symbol":"sh999"},7]'.encode())
    assert page is not None
    assert (dict(page.names), page.n_rows, page.dropped, page.total) == (
        {"920118.BJ": "太湖远大"},
        3,
        {"code": 2},
        None,
    )
    assert [parse_sina(body).total for body in (b'"5417"',)] == [5417]  # type: ignore[union-attr]
    empty = parse_sina(b"null")
    assert empty is not None
    assert empty.n_rows == 0
    assert parse_sina(b"<html>") is None


def test_a_page_of_eastmoney() -> None:
    body = (
        '{"rc":0,"data":{"total":5721,"diff":[{"f12":"600519","f14":"贵州茅台"},{"f12":"920118","f14":"-"},{"f12":1}]}}'
    )
    page = parse_eastmoney(body.encode())
    assert page is not None
    assert (page.names["600519.SH"], set(page.names)) == ("贵州茅台", {"600519.SH", "920118.BJ"})
    assert (page.n_rows, page.total) == (3, 5721)
    behind = parse_eastmoney(b'{"rc":0,"data":null}')
    assert behind is not None
    assert behind.n_rows == 0


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(max_size=3), lambda x: st.lists(x, max_size=3)).map(
        lambda value: repr(value).replace("'", '"').replace("None", "null").encode()
    )
)
def test_no_bytes_make_a_parser_raise(body: bytes) -> None:
    parse_sina(body)
    parse_eastmoney(body)
    parse_eastmoney(b'{"data":{"total":1,"diff":' + body + b"}}")


def fetched(name: str, scope: str = MARKET, faults: Faults | None = None, **about: Any) -> tuple[dict[str, str], Any]:
    async def run() -> tuple[dict[str, str], Any]:
        fake = FAKES[name](DAY, **about.pop("fake", {}))
        fake.total = about.pop("total", None)
        fake.faults = faults or Faults()
        async with fake:
            asking = fetch_list(
                LISTS[name], scope, url=fake.url, timeout_s=1, sleep=lambda s: asyncio.sleep(0), **about
            )
            return await asking, fake

    return asyncio.run(run())


@pytest.mark.parametrize(("name", "n_requests"), [("sina_list", 1 + 3), ("eastmoney_list", 29)])
def test_all_pages_are_read_each_after_the_budget_admits_it(name: str, n_requests: int) -> None:
    admitted = []

    async def admit() -> None:
        admitted.append(1)

    names, fake = fetched(name, admit=admit)
    assert sorted(names) == sorted(DAY.market.symbols)
    assert names == fake.names
    assert len(admitted) == len(fake.asked) == n_requests


def test_an_index_has_a_list_of_its_own_at_sina_alone() -> None:
    members = list(DAY.market.symbols[:90])
    names, _ = fetched("sina_list", "000300", fake={"index": {"000300": members}})
    assert sorted(names) == sorted(members)
    with pytest.raises(UsageError, match="eastmoney_list has no list of the index 000300"):
        fetched("eastmoney_list", "000300")


def test_a_list_that_is_cut_short_is_refused() -> None:
    with pytest.raises(FeedError, match="200 rows of 5500: it is cut short"):
        fetched("sina_list", total=5500)
    with pytest.raises(FeedError, match="cut short"):
        fetched("sina_list", "000905")


@pytest.mark.parametrize("ban", ["403", "page"])
def test_a_ban_is_not_asked_again(ban: str) -> None:
    with pytest.raises(BannedError, match="sina_list has banned"):
        fetched("sina_list", faults=Faults(ban=ban))


@pytest.mark.parametrize("faults", [Faults(status=502), Faults(reset=True), Faults(truncated=True)])
def test_a_page_is_asked_for_three_times(faults: Faults) -> None:
    admitted = []

    async def admit() -> None:
        admitted.append(1)

    with pytest.raises(FeedError, match="sina_list is lost"):
        fetched("sina_list", faults=faults, admit=admit)
    assert len(admitted) == 3

"""What the page asks of the service, and what it is answered."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from data.errors import StaleDataError, UsageError
from data.history import SignalHistory
from data.settings import Settings
from data.signal import Signal
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.overview import Overview
from jobs.page import Page, search
from jobs.simulated import make_history
from streaming.page import FOLDER, TYPES, page_routes

MARKET = SimulatedMarket(12, 7)
STOCKS = {
    "600519.SH": "贵州茅台",
    "000001.SZ": "平安银行",
    "601318.SH": "中国平安",
    "600000.SH": None,
    "300519.SZ": "新光",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("page")
    store = BarStore(root, origin="sim-12-7")
    make_history(store, MARKET, ["1m"], 60)
    history = SignalHistory(root / "signals")
    end = store.last_bar_end("1m")
    assert end is not None
    one = Signal("macd", "v1", MARKET.symbols[0], "1m", end, "BUY", 0.8, 10.5, "talib", end, {"a": 1.5})
    history.append([one, Signal(**{**one.__dict__, "symbol": MARKET.symbols[1]})])
    return Page(Settings(), store, history, Overview("sim", pause_s=1.0), lambda: ("e", 7))


def ask(page: Page, path: str, **query: str) -> Any:
    answer = asyncio.run(page.routes()[path](query))
    assert (answer.status, answer.content_type) == (200, "application/json")
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("600519", ["600519.SH"]),
        ("sh600519", ["600519.SH"]),
        ("6005", ["600519.SH"]),
        ("600", ["600000.SH", "600519.SH"]),
        ("平安银行", ["000001.SZ"]),
        ("平安", ["000001.SZ", "601318.SH"]),
        ("519", []),
        ("没有", []),
    ],
)
def test_stocks_are_found_by_code_and_by_name_the_nearest_first(text: str, found: list[str]) -> None:
    assert search(STOCKS, text) == found


def test_a_search_gives_few_with_their_names(page: Page) -> None:
    symbol = MARKET.symbols[0]
    names = page._store.names()
    assert ask(page, "/api/symbols", q=symbol[:6])["symbols"] == [{"symbol": symbol, "name": names[symbol][0]}]
    assert ask(page, "/api/symbols", q="")["symbols"] == []
    assert len(search({f"{n:06}.SZ": None for n in range(999)}, "0")) == 20


def test_the_history_s_signals_come_with_the_place_from_which_others_follow(page: Page) -> None:
    found = ask(page, "/api/signals")
    assert found["place"] == {"epoch": "e", "seq": 7}
    assert {one["symbol"] for one in found["signals"]} == set(MARKET.symbols[:2])
    assert [one["seq"] for one in ask(page, "/api/signals", symbol=MARKET.symbols[1][:6])["signals"]] == [2]
    assert len(ask(page, "/api/signals", limit="1")["signals"]) == 1


def test_status_says_how_it_is_and_where(page: Page) -> None:
    found = ask(page, "/api/status")
    assert (found["frames"], found["epoch"], found["seq"]) == (["1m", "1d"], "e", 7)
    assert found["market"]["text"] == "simulated market"


def test_a_chart_is_what_bokeh_embeds_and_no_code(page: Page) -> None:
    chart = ask(page, "/api/chart", symbol=MARKET.symbols[0], indicators="SMA(5), MACD, KDJ", theme="dark")
    assert (chart["symbol"], chart["frame"]) == (MARKET.symbols[0], "1m")
    assert MARKET.symbols[0] in chart["title"]
    assert "CustomJS" not in json.dumps(chart["item"])
    assert len(chart["item"]["doc"]["roots"][0]["attributes"]["children"]) == 4


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/api/signals", {"limit": "0"}, r"limit must be a whole number in \[1, 1000\]; got '0'"),
        ("/api/signals", {"limit": "1e3"}, "got '1e3'"),
        ("/api/signals", {"symbol": "<script>"}, "symbol '<script>' is not a code"),
        ("/api/signals", {"q": "1"}, "the query has no 'q'; it has symbol, limit"),
        ("/api/status", {"q": "1"}, "it has nothing"),
        ("/api/chart", {}, "symbol '' is not a code"),
        ("/api/chart", {"symbol": "600519", "frame": "2m"}, "frame must be 1m or 5m .*; got '2m'"),
        ("/api/chart", {"symbol": "600519", "colors": "blue"}, "colors must be cn or western; got 'blue'"),
        ("/api/chart", {"symbol": "600519", "indicators": "NO(3)"}, "'NO"),
    ],
)
def test_what_cannot_be_answered_is_said_by_name(page: Page, path: str, query: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ask(page, path, **query)


def test_a_stock_without_bars_has_no_chart(page: Page) -> None:
    with pytest.raises(StaleDataError, match=r"^the store holds no 1m bars of 600519\.SH"):
        ask(page, "/api/chart", symbol="600519")


def drawer(page: Page) -> int:
    """The process id of who draws."""
    pool = page._drawing._pool
    assert pool is not None
    (process,) = pool._processes
    return process


def test_charts_are_drawn_in_one_process_that_is_not_this_one_and_anew_where_it_was_killed(page: Page) -> None:
    async def crowd() -> None:
        await asyncio.gather(*(page.chart({"symbol": symbol}) for symbol in MARKET.symbols[:4]))

    asyncio.run(crowd())
    first = drawer(page)
    assert first != os.getpid()
    os.kill(first, signal.SIGKILL)
    assert ask(page, "/api/chart", symbol=MARKET.symbols[1])["symbol"] == MARKET.symbols[1]
    assert drawer(page) != first


def test_who_draws_ends_with_a_service_that_was_killed() -> None:
    script = (
        "import time; from pathlib import Path; from data.settings import Settings; from jobs.chart import drawing;"
        "d = drawing.Drawing(Settings(), Path('.')); d.warm(); d._pool.submit(drawing._load).result();"
        "print(*d._pool._processes, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        drawer = psutil.Process(int(service.stdout.readline()))
        service.kill()
        drawer.wait(20)


def test_every_file_of_the_page_is_served_and_names_no_other_host() -> None:
    routes = page_routes()
    files = [path for path in FOLDER.iterdir() if path.suffix in TYPES]
    assert len(files) >= 10
    for path in ("/", *(f"/page/{file.name}" for file in files)):
        answer = asyncio.run(routes[path]({}))
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert answer.status == 200
        assert "://" not in text, path
        assert "innerHTML" not in text, path
    nonces = {asyncio.run(routes["/"]({})).headers["Content-Security-Policy"] for _ in range(3)}
    assert len(nonces) == 3
    bokeh = asyncio.run(routes["/page/bokeh.min.js"]({}))
    assert (bokeh.status, bokeh.content_type) == (200, "text/javascript; charset=utf-8")
    assert len(bokeh.body) > 500_000


def test_a_process_that_only_serves_says_so_and_draws_from_the_store(tmp_path: Path, redis_server: Any) -> None:
    make_history(BarStore(tmp_path, origin="sim-12-7"), MARKET, ["1m"], 60)
    command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--role", "serve", "--port", "0"]
    command += ["--store", str(tmp_path), "--symbols", "12", "--bus", redis_server.url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(line.split()[1] for line in process.stderr if line.startswith("page"))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}api/status", timeout=20) as answer:
            assert json.load(answer)["elsewhere"] is True
        with opener.open(f"{url}api/chart?symbol={MARKET.symbols[0]}", timeout=20) as answer:
            assert json.load(answer)["symbol"] == MARKET.symbols[0]
        with opener.open(url, timeout=20) as answer:
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0

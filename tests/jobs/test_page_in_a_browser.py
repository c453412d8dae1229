"""The page as its reader has it: a real browser, the real server, a real store."""

import asyncio
import shutil
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from data.calendar import MINUTE
from data.history import SignalHistory
from data.settings import Settings
from data.signal import Signal, to_table
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.overview import Overview
from jobs.page import Page as Questions
from jobs.simulated import make_history
from jobs.stages.serving import Serving
from streaming.bus import SIGNALS, EventBus
from streaming.page import page_routes
from streaming.server import SignalServer

T = TypeVar("T")
CHROMIUM = shutil.which("chromium")
MARKET = SimulatedMarket(30, 7)


class Site:
    """The service as far as a browser sees it, on a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.store = BarStore(root, origin="sim-30-7")
        make_history(self.store, MARKET, ["1m"], 120)
        self.symbols = self.store.symbols("1m")
        end = self.store.last_bar_end("1m")
        assert end is not None
        self.end = end
        self.history = SignalHistory(root / "signals")
        self.overview = Overview("sim", pause_s=1.0)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = 0
        self.n = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def start(self) -> None:
        async def begin() -> None:
            self.bus = EventBus()
            page = Questions(
                Settings(), self.store, self.history, self.overview, lambda: (self.server.epoch, self.server.seq)
            )
            self.server = SignalServer(
                "127.0.0.1",
                self.port,
                epoch=self.history.epoch,
                replay=self.history.since,
                routes=page.routes(),
                open_routes=page_routes(),
            )
            self.server.begin(*self.history.place())
            await self.server.start()
            self.port = self.server.port
            self.serving = asyncio.create_task(Serving(self.bus, self.server, history=self.history).run())

        self.do(begin())

    def stop(self) -> None:
        async def end() -> None:
            await self.bus.close()
            await self.serving
            await self.server.stop()

        self.do(end())

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def keep(self, **fields: Any) -> Signal:
        """A signal that is in the history, and was not sent yet."""
        self.n += 1
        one = Signal(
            strategy=f"strategy_{self.n}",
            version="v1",
            symbol=self.symbols[0],
            frame="1m",
            bar_end=self.end,
            action="BUY",
            confidence=0.5,
            price=10.25,
            engine="vector",
            origin=self.end - 100 * MINUTE,
        )
        return self.history.append([replace(one, **fields)])[0]

    def publish(self, **fields: Any) -> Signal:
        """A signal that every subscriber gets."""
        signal = self.keep(**fields)
        self.do(self.bus.publish(SIGNALS, to_table([signal]).combine_chunks().to_batches()[0]))
        return signal


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, site: Site) -> Iterator[Page]:
    """The page, open and live; afterwards, that nothing was wrong on it and nothing came from elsewhere."""
    context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request", lambda request: None if request.url.startswith((site.url, "data:")) else wrong.append(request.url)
    )
    page.goto(site.url)
    expect(page.locator("#link")).to_have_text("live")
    yield page
    context.close()
    assert wrong == []


def row(page: Page, signal: Signal) -> Any:
    return page.locator(f'#rows tr[data-id="{signal.id}"]')


def test_a_signal_published_is_seen(opened: Page, site: Site) -> None:
    signal = site.publish(name="贵州茅台", action="SELL", price=1432.5)
    expect(row(opened, signal)).to_have_count(1)
    expect(row(opened, signal)).to_contain_text("贵州茅台")
    expect(row(opened, signal)).to_contain_text("1432.50")
    first = opened.locator("#rows tr").first
    expect(first).to_have_attribute("data-id", signal.id)

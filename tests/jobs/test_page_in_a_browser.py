"""The page as its reader has it: a real browser, the real server, a real store."""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from data.calendar import MINUTE, SECOND
from data.history import SignalHistory
from data.schema import NAME
from data.settings import Settings
from data.signal import Signal, to_table
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.overview import Overview
from jobs.page import Page as Questions
from jobs.simulated import DAILY_BARS, make_history
from jobs.stages.serving import Serving
from streaming.access import Access
from streaming.bus import SIGNALS, EventBus
from streaming.page import page_routes
from streaming.server import SignalServer
from streaming.status import ProviderStatus, Status
from streaming.tokens import Tokens, add, remove

T = TypeVar("T")
CHROMIUM = shutil.which("chromium")
MARKET = SimulatedMarket(30, 7)
SESSION = MARKET.sessions[DAILY_BARS - 1]
"""The newest that is stored."""
MARKUP = '<img src="https://evil.example/x" onerror="alert(2)">'
"""What one of the stocks is called."""
COLORS = """() => {
  const seen = new Set();
  const look = (root) => {
    for (const part of root.querySelectorAll("*")) {
      if (part.shadowRoot) look(part.shadowRoot);
      if (part.tagName !== "CANVAS" || !part.width || !part.height) continue;
      const { data } = part.getContext("2d").getImageData(0, 0, part.width, part.height);
      for (const pixel of new Uint32Array(data.buffer)) if (pixel) seen.add(pixel);
    }
  };
  look(document.getElementById("figure"));
  return seen.size > 10;
}"""
"""Whether what is drawn has more than a few colours, the smoothing of its lines among them; a blank canvas has none."""
expect.set_options(timeout=20_000)


class Site:
    """The service as far as a browser sees it, on a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.store = BarStore(root, origin="sim-30-7")
        make_history(self.store, MARKET, ["1m"], 120)
        self.symbols = self.store.symbols("1m")
        names = MARKET.names(SESSION) | {self.symbols[4]: MARKUP}
        for file in (root / "names").iterdir():
            file.unlink()
        rows = {"symbol": list(names), "day": [SESSION.astype(object)] * len(names), "name": list(names.values())}
        self.store.append_names(pa.table(rows).cast(NAME))
        end = self.store.last_bar_end("1m")
        assert end is not None
        self.end = end
        self.history = SignalHistory(root / "signals")
        self.late_s = 0
        self.overview = Overview("sim", pause_s=1000.0, clock=lambda: time.time_ns() + self.late_s * SECOND)
        self.questions = Questions(
            Settings(), self.store, self.history, self.overview, lambda: (self.server.epoch, self.server.seq)
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = 0
        self.numbers = count()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def start(self, access: Access | None = None) -> None:
        async def begin() -> None:
            self.bus = EventBus()
            self.server = SignalServer(
                "127.0.0.1",
                self.port,
                epoch=self.history.epoch,
                replay=self.history.since,
                routes=self.questions.routes(),
                open_routes=page_routes(),
                access=access,
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
        async def end() -> None:  # as asyncio.run does: a chart that nobody waits for may still be drawn
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.stop()
        self.do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def keep(self, *fields: dict[str, Any]) -> list[Signal]:
        """Signals that are in the history, and were not sent yet."""
        one = Signal(
            strategy="macd",
            version="v1",
            symbol=self.symbols[0],
            frame="1m",
            bar_end=self.end,
            action="BUY",
            confidence=0.5,
            price=10.25,
            engine="vector",
            origin=self.end - 100 * MINUTE,
            values={"close": 10.25, "RSI(14)": None},
        )
        made = [replace(one, version=f"v{next(self.numbers)}", **changed) for changed in fields]
        return self.history.append(made)

    def publish(self, *fields: dict[str, Any]) -> list[Signal]:
        """Signals that every subscriber gets."""
        signals = self.keep(*fields)
        self.do(self.bus.publish(SIGNALS, to_table(signals).combine_chunks().to_batches()[0]))
        return signals


@dataclass
class Reader:
    """A page, and what went wrong on it."""

    page: Page
    site: Site
    wrong: list[str]

    def row(self, signal: Signal) -> Locator:
        return self.page.locator(f'#rows tr[data-id="{signal.id}"]')

    def ids(self) -> list[str]:
        """From the top."""
        found: list[str] = self.page.locator("#rows tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
        return found

    def overflow(self) -> int:
        """CSS pixels that one would have to scroll sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def drawn(self, symbol: str) -> None:
        """Wait for a stock's chart."""
        expect(self.page.locator(f'#figure[data-symbol="{symbol}"]:not([aria-busy]) .bk-Column')).to_be_visible()
        self.page.wait_for_function(COLORS, polling=100)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@contextmanager
def reading(browser: Browser, site: Site, width: int, height: int) -> Iterator[Reader]:
    """The page, open and live."""
    context = browser.new_context(viewport={"width": width, "height": height})
    reader = Reader(context.new_page(), site, [])
    page, wrong = reader.page, reader.wrong
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda sent: None if sent.url.startswith((site.url, "data:")) else wrong.append(sent.url))
    page.goto(site.url)
    expect(page.locator("#link")).to_have_text("live")
    yield reader
    context.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, site: Site) -> Iterator[Reader]:
    with reading(browser, site, 1280, 800) as one:
        yield one


@pytest.fixture
def reader(opened: Reader) -> Iterator[Reader]:
    """The page; afterwards, that nothing was wrong on it and nothing came from elsewhere."""
    yield opened
    wrong, opened.wrong[:] = list(opened.wrong), []
    assert wrong == []


def test_a_signal_published_is_seen_at_the_top(reader: Reader) -> None:
    _, last = reader.site.publish({}, {"name": "贵州茅台", "action": "SELL", "price": 1432.5, "confidence": 0.85})
    expect(reader.row(last)).to_have_text("15:001m贵州茅台" + last.symbol + "SELL85%1432.50macd")
    assert reader.ids()[0] == last.id


def test_who_opens_the_page_sees_what_was_before_and_marks_say_what_became_of_it(browser: Browser, site: Site) -> None:
    open_, wrong, limit = site.publish({"developing": True}, {}, {"at_limit_up": True})
    (taken,) = site.publish({"revision": 1, "revokes": wrong.id})
    with reading(browser, site, 1280, 800) as reader:
        assert reader.ids()[:4] == [one.id for one in (taken, limit, wrong, open_)]
        expect(reader.row(open_).locator(".tag")).to_have_text("developing")
        expect(reader.row(limit).locator(".tag")).to_have_text("涨停")
        expect(reader.row(taken).locator(".tag")).to_have_text(["revision 1", "takes back"])
        expect(reader.row(wrong)).to_have_class(re.compile("revoked"))
        (late,) = site.publish({"revision": 2, "revokes": limit.id})
        expect(reader.row(late)).to_be_visible()
        expect(reader.row(limit)).to_have_class(re.compile("revoked"))
        assert reader.wrong == []


def test_filters_leave_what_is_wanted_also_of_what_comes_later(reader: Reader) -> None:
    page, site = reader.page, reader.site
    other = {
        "symbol": site.symbols[1],
        "name": "平安银行",
        "strategy": "kdj",
        "action": "SELL",
        "confidence": 0.9,
    }
    plain, special = site.publish({"name": "贵州茅台"}, other)
    expect(reader.row(special)).to_be_visible()
    for control, value in (
        ("#filter-text", site.symbols[1].lower()),
        ("#filter-text", "平安"),
        ("#filter-strategy", "kdj"),
        ("#filter-action", "SELL"),
        ("#filter-confidence", "0.85"),
    ):
        locator = page.locator(control)
        empty = locator.input_value()
        locator.select_option(value) if "text" not in control and "conf" not in control else locator.fill(value)
        expect(reader.row(plain)).to_have_count(0)
        expect(reader.row(special)).to_have_count(1)
        again, none = site.publish(other, {})
        expect(reader.row(again)).to_be_visible()
        expect(reader.row(none)).to_have_count(0)
        locator.select_option(empty) if "text" not in control and "conf" not in control else locator.fill(empty)
        expect(reader.row(none)).to_be_visible()
    page.locator("#filter-text").fill("nobody")
    expect(page.locator("#no-rows")).to_have_text("none of the newest signals passes this filter")
    page.locator("#filter-text").fill("")


def test_however_many_signals_come_the_newest_500_are_rows(reader: Reader) -> None:
    many = reader.site.publish(*({} for _ in range(700)))
    expect(reader.row(many[-1])).to_be_visible()
    assert reader.ids() == [signal.id for signal in reversed(many)][:500]


def test_a_signal_s_chart_is_drawn_by_click_and_by_keyboard_and_any_stock_s_by_its_name(reader: Reader) -> None:
    page, site = reader.page, reader.site
    first, second, third = site.symbols[:3]
    below, above = site.publish({"symbol": second}, {"symbol": first, "values": {"RSI(14)": 28.5}})
    reader.row(above).click()
    reader.drawn(first)
    expect(page.locator("#chosen")).to_contain_text("RSI(14) = 28.5")
    reader.row(above).locator("button").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    reader.drawn(second)
    expect(reader.row(below)).to_have_attribute("aria-current", "true")
    name = site.store.names()[third][0]
    page.locator("#search").fill(name)
    expect(page.locator("#found li").first).to_have_text(f"{name}{third}")
    page.keyboard.press("Enter")
    reader.drawn(third)
    expect(page.locator("#chart-title")).to_contain_text(f"{name} {third}")
    page.locator("#panes").select_option("prices alone")
    expect(page.locator("#figure")).to_have_attribute("aria-busy", "true")
    reader.drawn(third)
    assert reader.overflow() == 0


def test_a_broken_connection_is_shown_and_healed_and_what_was_missed_comes_once(reader: Reader) -> None:
    page, site = reader.page, reader.site
    (before,) = site.publish({})
    expect(reader.row(before)).to_be_visible()
    site.stop()
    expect(page.locator("#link")).to_have_text("connection lost")
    expect(page.locator("#notice")).to_contain_text(re.compile(r"Connection lost since \d\d:\d\d:\d\d"))
    missed = site.keep({}, {}, {})
    site.start()
    expect(page.locator("#link")).to_have_text("live", timeout=15_000)
    expect(page.locator("#notice")).to_be_hidden()
    (after,) = site.publish({})
    expect(reader.row(after)).to_be_visible()
    assert reader.ids()[:5] == [signal.id for signal in (after, *reversed(missed), before)]
    assert len(set(reader.ids())) == len(reader.ids())
    expected = ("WebSocket connection to", "Failed to load resource: net::ERR_CONNECTION_REFUSED")
    reader.wrong[:] = [text for text in reader.wrong if not text.startswith(expected)]


def test_names_that_are_markup_are_words(reader: Reader) -> None:
    page, site = reader.page, reader.site
    bad = "<script>alert(1)</script>", MARKUP, "<b onclick=alert(3)>"
    symbol = site.symbols[4]
    fields = {"symbol": symbol, "name": bad[1], "strategy": bad[2], "values": {bad[1]: 1.0}}
    nobody, somebody = site.publish({"symbol": bad[0], "name": bad[1], "strategy": bad[0]}, fields)

    expect(reader.row(nobody)).to_contain_text(f"{bad[1]}{bad[0]}")
    expect(page.locator("#filter-strategy option").filter(has_text=bad[0])).to_have_count(1)
    reader.row(nobody).click()
    expect(page.locator("#figure")).to_contain_text("symbol '<script>alert(1)</script>' is not a code")
    reader.row(somebody).click()
    reader.drawn(symbol)
    expect(page.locator("#chart-title")).to_contain_text(f"{bad[1]} {symbol}")
    expect(page.locator("#chosen")).to_contain_text(f"{bad[2]}  ·  {bad[1]} = 1")
    box = page.locator("#figure").bounding_box()
    assert box is not None
    for place in range(20, int(box["width"]), 40):  # what hovering says
        page.mouse.move(box["x"] + place, box["y"] + 60)
    page.locator("#search").fill("onerror")
    expect(page.locator("#found li").first).to_have_text(f"{bad[1]}{symbol}")
    assert page.locator("#found img, #rows img, #rows script, #rows b b").count() == 0
    reader.wrong[:] = [text for text in reader.wrong if "the server responded with a status of 400" not in text]


def test_stale_data_are_said_and_so_is_whose_they_are(reader: Reader) -> None:
    page, site = reader.page, reader.site
    expect(page.locator("#notice")).to_be_hidden()
    site.late_s = 10_000
    expect(page.locator("#notice")).to_contain_text("no bars from the feed since")
    site.late_s = 0
    expect(page.locator("#notice")).to_be_hidden()
    site.overview.elsewhere = True
    expect(page.locator("#breadth")).to_contain_text("run in another process")
    expect(page.locator("#scan")).to_contain_text("run in another process")
    expect(page.locator("#feed")).to_contain_text("runs in another process")
    site.overview.elsewhere = False


def test_providers_are_shown_as_they_are(reader: Reader) -> None:
    page, site = reader.page, reader.site
    counts: dict[str, Any] = {"reconnects": {"timeout": 2}, "dropped": {"stale": 7, "other_day": 1200}, "unread": {}}
    numbers = {"connections": 3, "connected": 2, "covers": 30, "symbols": 30, "serves": 28, "frames": 1234, "rows": 9}
    sina = ProviderStatus(
        name="sina",
        state="failed",
        received_bytes=1,
        quote_age_s=75.0,
        symbols_stale=4,
        said="<b>no</b>",
        **counts,
        **numbers,
    )
    status = Status(providers=(sina,), symbols=30, subscribers=1, uncovered=2, served=28)
    watching = site.overview.watching(site.bus, status=lambda: status)
    site.do(watching.__aenter__())
    expected = "sinafailed2/31,23475 s4timeout 2other_day 1,200, stale 7"
    expect(page.locator("#feed tbody")).to_have_text(expected)
    expect(page.locator("#feed")).to_contain_text("28 of 30 symbols served, 2 that no provider has")
    expect(page.locator("#feed")).to_contain_text("sina: <b>no</b>")
    site.do(watching.__aexit__(None, None, None))


def test_on_a_telephone_nothing_is_wider_than_the_screen(browser: Browser, site: Site) -> None:
    (signal,) = site.publish({"strategy": "a_strategy_with_a_name_that_is_far_too_long_for_a_telephone"})
    with reading(browser, site, 360, 740) as reader:
        reader.row(signal).click()
        reader.drawn(signal.symbol)
        assert reader.overflow() == 0
        assert reader.page.evaluate("document.querySelector('.scroll').scrollWidth") <= 360
        assert reader.wrong == []


def test_colours_are_switched_and_remembered(reader: Reader) -> None:
    def color() -> str:
        return str(reader.page.evaluate("getComputedStyle(document.querySelector('#colors')).color"))

    red = color()
    reader.page.locator("#colors").click()
    expect(reader.page.locator("#colors")).to_have_text("green up")
    assert color() != red
    reader.page.reload()
    expect(reader.page.locator("#colors")).to_have_text("green up")


def test_a_token_is_asked_for_once_where_one_is_needed_and_again_when_it_is_revoked(
    reader: Reader, tmp_path: Path
) -> None:
    page, site = reader.page, reader.site
    path = tmp_path / "tokens.json"
    (_, first), (_, second) = add(path, "first"), add(path, "second")
    site.stop()
    site.start(Access(Tokens(path), required=True))
    page.reload()
    token = page.locator("#ask-token")
    token.fill("mss_wrong")
    token.press("Enter")
    expect(page.locator("#ask-why")).to_be_visible()
    token.fill(first)
    token.press("Enter")
    expect(page.locator("#link")).to_have_text("live")
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    expect(token).to_be_hidden()
    (signal,) = site.publish({})
    expect(reader.row(signal)).to_be_visible()
    remove(path, "first")
    expect(token).to_be_visible()
    missed = site.publish({}, {})
    token.fill(second)
    token.press("Enter")
    expect(page.locator("#link")).to_have_text("live")
    expect(reader.row(missed[1])).to_be_visible()
    assert reader.ids()[:3] == [one.id for one in (missed[1], missed[0], signal)]
    site.stop()
    site.start()
    page.reload()
    expect(page.locator("#link")).to_have_text("live")
    expected = ("WebSocket connection to", "Failed to load resource: ")
    reader.wrong[:] = [text for text in reader.wrong if not text.startswith(expected)]


def test_the_policy_lets_in_nothing_from_elsewhere_and_nothing_inline(reader: Reader) -> None:
    answer = reader.page.goto(reader.site.url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    reader.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
        }"""
    )
    assert reader.page.evaluate("window.ran") is None
    assert "violates the following Content Security Policy" in reader.wrong.pop()

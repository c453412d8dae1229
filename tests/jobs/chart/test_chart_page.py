"""Charts as pages: nothing loaded from elsewhere, no code in the data, drawn by a real browser."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bokeh.resources import Resources
from PIL import Image
from playwright.sync_api import sync_playwright

from data.store import BarStore
from jobs.chart.content import Content, Mark
from jobs.chart.look import look
from jobs.chart.making import make
from jobs.chart.page import figure_json, to_html
from jobs.chart.placing import wanted
from scanner.engines.base import Engine

CHROMIUM = shutil.which("chromium")
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"

SEEN = "() => { for (const it of Bokeh.documents[0].all_models) if (it.type == 'Range1d') return it.end - it.start }"
"""How many bars are seen."""


@pytest.fixture
def content(simulated: BarStore, engine: Engine) -> Content:
    drawn = wanted(["SMA(5), SMA(volume, 5), MACD, SAR, close > open"])
    found = make(simulated, simulated.symbols("1d")[0], "1d", drawn, engine, bars=60)
    marks = (
        Mark(50, "BUY", ("mine", EVIL), 0.7, 10.0, 10.0, True),
        Mark(52, "SELL", ("mine",), 0.7, 10.0, 10.0, False),
        Mark(55, "ALERT", ("mine",), 0.7, 10.0, 10.0, True),
    )
    return replace(found, name=EVIL, marks=marks, notes=(EVIL,))


class _Loads(HTMLParser):
    """Whatever a page would load, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_file_needs_no_other(content: Content) -> None:
    text = to_html(content)
    page = _Loads()
    page.feed(text)
    assert page.loads == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 4  # BokehJS, its settings, the data, what draws them
    assert "@import" not in text
    assert EVIL not in text
    assert len(text) < 3_000_000
    assert set(json.loads(re.findall(r'application/json">(.*?)</script>', text)[0])["items"]) == {"light", "dark"}
    one = to_html(content, "western", "dark")
    assert set(json.loads(re.findall(r'application/json">(.*?)</script>', one)[0])["items"]) == {"dark"}


def test_the_document_is_plain_json_without_code(content: Content) -> None:
    text = json.dumps(figure_json(content, look()), allow_nan=False)
    assert "CustomJS" not in text
    assert figure_json(content, look(), "there")["target_id"] == "there"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """A page on which a chart has been drawn, and what its console complains of."""
    page = browser.new_page(**options)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(address) else None)
    page.goto(address)
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    return page, wrong


def pixels(page: Any) -> Any:
    with Image.open(BytesIO(page.screenshot())) as image:
        return np.asarray(image.convert("RGB"))


def share(image: Any, color: str) -> float:
    return float((image == tuple(bytes.fromhex(color[1:]))).all(axis=2).mean())


def test_a_browser_draws_the_file(browser: Any, content: Content, tmp_path: Path) -> None:
    file = tmp_path / "chart.html"
    file.write_text(to_html(content), encoding="utf-8")
    page, wrong = opened(browser, file.as_uri(), viewport={"width": 1000, "height": 900}, color_scheme="light")
    light = pixels(page)
    assert share(light, look().up) > 0.001
    assert share(light, look().down) > 0.001
    assert share(light, look().paper) > 0.5
    page.mouse.move(500, 250)
    page.locator(".bk-Tooltip:visible").first.wait_for()
    told = page.locator(".bk-tooltip-row-value").all_inner_texts()
    assert len(told) == 7 + content.adjusted  # one bar's
    assert told[0].split()[0] in content.labels
    place = content.labels.index(told[0].split()[0])
    assert told[4].split()[0] == f"{content.prices['close'][place]:.2f}"
    wide = page.evaluate(SEEN)
    page.mouse.move(500, 480)  # over the volume: one axis of time for all
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => ({SEEN})() < {0.9 * wide}")
    zoomed = page.evaluate(SEEN)
    page.mouse.move(300, 300)
    page.mouse.wheel(0, 400)
    page.wait_for_function(f"() => ({SEEN})() > {1.05 * zoomed}")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => Bokeh.documents.length > 0 && Bokeh.documents.at(-1).is_idle")
    page.wait_for_function("() => document.documentElement.style.background.includes('19, 23, 34')")
    assert share(pixels(page), look("cn", "dark").paper) > 0.5
    assert page.title() == f"{EVIL} {content.symbol} 1d"
    assert wrong == []
    page.close()


def test_a_phone_has_all_of_it_beside_nothing(browser: Any, content: Content, tmp_path: Path) -> None:
    file = tmp_path / "chart.html"
    file.write_text(to_html(content, "western", "dark"), encoding="utf-8")
    page, wrong = opened(browser, file.as_uri(), viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert share(pixels(page), look("western", "dark").up) > 0.001
    assert wrong == []
    page.close()


def test_bokeh_js_draws_it_where_eval_is_forbidden(browser: Any, content: Content) -> None:
    files = {
        "/": ("text/html", '<div id=chart></div><script src="bokeh.js"></script><script src="draw.js"></script>'),
        "/bokeh.js": ("text/javascript", Resources(mode="inline", components=["bokeh"]).js_raw[0]),
        "/draw.js": (
            "text/javascript",
            "fetch('item').then(it => it.json()).then(item => Bokeh.embed.embed_item(item, document.all.chart))",
        ),
        "/item": ("application/json", json.dumps(figure_json(content, look()))),
        "/favicon.ico": ("image/x-icon", ""),
    }

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = files[self.path]
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Security-Policy", "default-src 'self'; style-src 'unsafe-inline'; img-src data:")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page, wrong = opened(browser, f"http://127.0.0.1:{server.server_port}/")
        assert share(pixels(page), look().up) > 0.001
        assert wrong == []
        page.close()
        server.shutdown()


def test_a_stock_of_few_bars_is_drawn(
    browser: Any,
    store_of: Callable[..., BarStore],
    daily: Callable[..., pa.Table],
    sessions: list[Any],
    engine: Engine,
    tmp_path: Path,
) -> None:
    bars = daily("301999.SZ", [*sessions[:2], sessions[9]], [(10.0, 11, 10, 11.0)] * 3, flags=[0, 1, 0])
    content = make(store_of(bars), "301999.SZ", "1d", wanted(["SMA(5), MACD"]), engine)
    assert content.halts
    file = tmp_path / "chart.html"
    file.write_text(to_html(content, theme="light"), encoding="utf-8")
    page, wrong = opened(browser, file.as_uri())
    assert share(pixels(page), look().up) > 0.001
    assert wrong == []
    page.close()

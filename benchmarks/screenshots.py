"""The pictures of the documentation, of the simulated market: the page on desk and telephone, dark and light, and the
terminal.

    pip install '.[test]' pyte && python benchmarks/screenshots.py docs/images

Needs Chromium, and fonts with Chinese signs. Runs `mystocks-scan run` in a terminal of its own and looks at it.
"""

import argparse
import html
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyte
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

COLUMNS, LINES = 112, 34
PAGES = {
    "page-dark": (1280, 800, "dark"),
    "page-light": (1280, 800, "light"),
    "page-phone-dark": (390, 844, "dark"),
    "page-phone-light": (390, 844, "light"),
}
"""Picture -> CSS pixels, and colour scheme."""
COLORS = {
    "default": "#dfe3ea", "black": "#131722", "red": "#f0524f", "green": "#2ebd85", "brown": "#e3ae3d",
    "yellow": "#e3ae3d", "blue": "#5b9bff", "magenta": "#f078c8", "cyan": "#38c6d9", "white": "#dfe3ea",
}  # fmt: skip


class Terminal:
    """A program in a terminal; what it shows is kept up to date."""

    def __init__(self, command: list[str]) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.said = ""
        stream = pyte.ByteStream(self.screen)
        ours, its = pty.openpty()
        size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=os.environ | size)
        os.close(its)

        def read() -> None:
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # the program has ended
                    return
                self.said += data.decode(errors="replace")
                stream.feed(data)

        threading.Thread(target=read, daemon=True).start()

    def wait_for(self, words: str) -> str:
        """The first match of a pattern in all that was said. Raises SystemExit where the program ends without it."""
        while (found := re.search(words, self.said)) is None:
            if self.process.poll() is not None:
                raise SystemExit(self.said)
            time.sleep(0.1)
        return found[1]

    def html(self) -> str:
        """The screen as it is."""
        lines = []
        for y in range(LINES):
            row, cells = self.screen.buffer[y], []
            for x in range(COLUMNS):
                cell = row[x]
                if not cell.data:
                    continue  # the right half of a wide sign
                wide = x + 1 < COLUMNS and not row[x + 1].data
                color = COLORS.get(cell.fg, f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else "inherit")
                weight = "bold" if cell.bold else "normal"
                style = f"width:{2 if wide else 1}ch;color:{color};font-weight:{weight}"
                cells.append(f'<i style="{style}">{html.escape(cell.data)}</i>')
            lines.append("".join(cells))
        while lines and not re.sub(r"<[^>]*>|\s", "", lines[-1]):
            lines.pop()
        return (
            "<!doctype html><meta charset=utf-8><style>body{margin:0;background:#131722;width:max-content}"
            "pre{margin:0;padding:14px;font:13px/15px 'DejaVu Sans Mono',monospace;color:#dfe3ea}"
            "i{display:inline-block;font-style:normal;white-space:pre}</style><pre>" + "\n".join(lines) + "</pre>"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--intervals", type=int, default=60, help="that have closed before the first picture")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--store", store]
        command += ["--symbols", str(given.symbols), "--port", "0", "--dashboard-port", "0", "--cluster", "inline"]
        terminal = Terminal(command)
        try:
            url = terminal.wait_for(r"page +(http://\S+)")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
                wait_for_bars(browser, url, given.intervals)
                for name, (width, height, scheme) in PAGES.items():
                    take(browser, url, given.folder / f"{name}.png", width, height, scheme)
                page = browser.new_page(viewport={"width": 1200, "height": 800}, device_scale_factor=1.5)
                page.set_content(terminal.html())
                page.locator("pre").screenshot(path=given.folder / "terminal.png")
                browser.close()
            for name in (*PAGES, "terminal"):
                path = given.folder / f"{name}.png"
                Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
        finally:
            terminal.process.send_signal(signal.SIGINT)
            terminal.process.wait()


def wait_for_bars(browser: Browser, url: str, intervals: int) -> None:
    """Until so many intervals with signals have closed."""
    page = browser.new_page()
    while page.request.get(f"{url}api/status").json()["latency"]["intervals"] < intervals:
        time.sleep(0.5)
    page.close()


def take(browser: Browser, url: str, path: Path, width: int, height: int, scheme: str) -> None:
    """The page as it is now, the chart of a stock that was bought among it; a telephone's in its whole length."""
    phone = width < 600
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1 if not phone else 1.5,
    )
    page = context.new_page()
    page.goto(url)
    row = page.locator("#rows tr.buy").first
    row.evaluate("row => row.click()")  # it moves down all the time
    expect(page.locator("#figure:not([aria-busy]) .bk-Column")).to_be_visible(timeout=30_000)
    page.wait_for_timeout(1500)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=phone)
    context.close()


if __name__ == "__main__":
    main()

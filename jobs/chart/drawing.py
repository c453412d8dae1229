"""Charts for the page, drawn in a process of their own: one takes an interpreter for most of a second, and neither a
scan nor a subscriber is to wait for that."""

import asyncio
import functools
import json
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from data.errors import StaleDataError
from data.settings import Settings
from data.store import BarStore
from jobs.chart.look import Colors, Theme

BARS = 250
_NICE = 5
"""Whoever scans goes first."""


class Drawing:
    """Draws charts of the store at `root`, one at a time. Its process comes with the first one, or with `warm`, and
    ends with the process that has started it, however that ends."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings, self._root = settings, root
        self._pool: ProcessPoolExecutor | None = None

    def warm(self) -> None:
        """Have the process started by the time somebody wants a chart."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _alone)
            self._pool.submit(_load)

    async def draw(self, symbol: str, frame: str, indicators: str, colors: Colors, theme: Theme) -> bytes:
        """The newest bars of a symbol with `indicators`, expressions divided by commas: JSON of what BokehJS embeds as
        `item`, and the chart's title, facts and caveats. Raises as `jobs.chart.making.make`."""
        asked = self._settings, self._root, symbol, frame, indicators, colors, theme
        for last in (False, True):
            self.warm()
            assert self._pool is not None
            try:
                return await asyncio.wrap_future(self._pool.submit(_draw, *asked))
            except BrokenProcessPool:  # somebody has killed it
                self._pool = None
                if last:
                    raise
        raise AssertionError


def _draw(
    settings: Settings, root: Path, symbol: str, frame: str, indicators: str, colors: Colors, theme: Theme
) -> bytes:
    from jobs.chart.look import look
    from jobs.chart.making import make
    from jobs.chart.page import figure_json
    from jobs.chart.placing import wanted
    from jobs.wiring import choose_warm

    store = _opened(root)
    drawn = wanted([indicators])
    engine, _, _ = choose_warm(settings.scan.engine, "inline", [one.term for one in drawn])
    try:
        content = make(store, symbol, frame, drawn, engine, bars=BARS, kinds=settings.scan.universe)
    except StaleDataError as error:  # where the store lies is nobody's business
        raise StaleDataError(str(error).replace(f"the store {root}", "the store")) from None
    item = figure_json(content, look(colors, theme))
    said = {"title": content.heading, "facts": content.facts, "caveats": content.caveats}
    chart = {"symbol": symbol, "frame": frame, **said, "item": item}
    return json.dumps(chart, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@functools.cache
def _opened(root: Path) -> BarStore:
    """What it has read, it keeps."""
    return BarStore(root)


def _load() -> None:
    import jobs.chart.making
    import jobs.chart.page  # noqa: F401


def _alone() -> None:
    """Ctrl-C is for the service; and where the service is gone, so is this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    service = parent_process()
    assert service is not None

    def watch() -> None:
        connection.wait([service.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

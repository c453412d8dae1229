"""What the page asks of the service, as routes: how it is, a stock's chart, stocks by code or name, signals of before.

Everything is derived: signals, counts, charts of stored bars. Quotes themselves are not given away.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from data.errors import UsageError
from data.history import SignalHistory
from data.schema import FRAMES
from data.settings import Settings
from data.signal import from_table
from data.store import BarStore
from data.symbols import canonical, canonical_or_none
from jobs.chart.drawing import Drawing
from jobs.chart.look import COLORS, THEMES, Colors, Theme
from jobs.overview import Overview
from streaming.http import Answer, Route

FOUND = 20
"""Stocks that a search gives at most."""
SIGNALS = 1000
"""Signals of before that are given at most at once."""
REMEMBERED_S = 30.0
"""So long which frames and stocks are stored is not looked up again."""


class Page:
    """Answers what the page asks; reads in threads. `place`: (epoch, seq) of the newest signal that was
    handed to subscribers."""

    def __init__(
        self,
        settings: Settings,
        store: BarStore,
        history: SignalHistory,
        overview: Overview,
        place: Callable[[], tuple[str, int]],
    ) -> None:
        self._store, self._history = store, history
        self._overview, self._place = overview, place
        self._drawing = Drawing(settings, store.root)
        self._frames: tuple[float, list[str]] = (-REMEMBERED_S, [])
        self._stocks: tuple[float, dict[str, str | None]] = (-REMEMBERED_S, {})

    def routes(self) -> dict[str, Route]:
        """Path -> what answers there."""
        return {
            "/api/status": self.status,
            "/api/chart": self.chart,
            "/api/symbols": self.symbols,
            "/api/signals": self.signals,
        }

    async def status(self, query: Mapping[str, str]) -> Answer:
        """How the service is. Who asks that has the page before him, and will want a chart."""
        _only(query)
        self._drawing.warm()
        epoch, seq = self._place()
        return _json(self._overview.to_json() | {"frames": await self._stored_frames(), "epoch": epoch, "seq": seq})

    async def chart(self, query: Mapping[str, str]) -> Answer:
        """The chart of a `symbol`: what BokehJS embeds. `indicators`: expressions, divided by commas."""
        _only(query, "symbol", "frame", "indicators", "colors", "theme")
        symbol = canonical(query.get("symbol", ""))
        frame = _among("frame", query.get("frame") or (await self._stored_frames() or ["1d"])[0], FRAMES)
        colors = cast(Colors, _among("colors", query.get("colors", "cn"), COLORS))
        theme = cast(Theme, _among("theme", query.get("theme", "light"), THEMES))
        drawn = await self._drawing.draw(symbol, frame, query.get("indicators", ""), colors, theme)
        return Answer(200, "application/json", drawn)

    async def symbols(self, query: Mapping[str, str]) -> Answer:
        """Stocks whose code begins with `q`, or whose name has it within; the nearest first."""
        _only(query, "q")
        text = query.get("q", "").strip()
        stocks = await self._stored_stocks() if text else {}
        return _json({"symbols": [{"symbol": one, "name": stocks[one]} for one in search(stocks, text)]})

    async def signals(self, query: Mapping[str, str]) -> Answer:
        """The newest `limit` signals, of all or of one `symbol`; and the place from which on others come."""
        _only(query, "symbol", "limit")
        limit = _whole("limit", query.get("limit", "200"), 1, SIGNALS)
        symbols = [canonical(query["symbol"])] if query.get("symbol") else None
        epoch, seq = self._place()  # before the history is read: what comes between is given twice, and known by its id
        found = await asyncio.to_thread(self._history.query, symbols=symbols, limit=limit)
        return _json({"place": {"epoch": epoch, "seq": seq}, "signals": [one.to_dict() for one in from_table(found)]})

    async def _stored_frames(self) -> list[str]:
        if time.monotonic() - self._frames[0] > REMEMBERED_S:
            self._frames = time.monotonic(), await asyncio.to_thread(self._store.frames)
        return self._frames[1]

    async def _stored_stocks(self) -> Mapping[str, str | None]:
        if time.monotonic() - self._stocks[0] > REMEMBERED_S:
            self._stocks = time.monotonic(), await asyncio.to_thread(self._read_stocks)
        return self._stocks[1]

    def _read_stocks(self) -> dict[str, str | None]:
        """Who has a bar at the newest bar end of any frame, or a name."""
        names = self._store.names()
        found: dict[str, str | None] = {symbol: name for symbol, (name, _) in names.items()}
        for frame in self._store.frames():
            newest = self._store.last_bar_end(frame)
            assert newest is not None
            bars = self._store.table(frame, after=newest - 1, columns=["symbol"])
            for symbol in bars["symbol"].unique().to_pylist():
                found.setdefault(symbol, None)
        return found


def search(stocks: Mapping[str, str | None], text: str) -> list[str]:
    """The symbols that a text may mean, the nearest first: a code in any spelling, the beginning of one, or part of a
    name."""
    wanted = text.casefold()
    whole = canonical_or_none(text)

    def rank(symbol: str) -> int | None:
        name = (stocks[symbol] or "").casefold()
        for number, fits in enumerate(
            (
                symbol == whole,
                name == wanted,
                symbol.casefold().startswith(wanted),
                name.startswith(wanted),
                wanted in name,
            )
        ):
            if fits:
                return number
        return None

    ranked = [(place, symbol) for symbol in stocks if (place := rank(symbol)) is not None]
    return [symbol for _, symbol in sorted(ranked)[:FOUND]]


def _only(query: Mapping[str, str], *names: str) -> None:
    if unknown := set(query) - set(names):
        raise UsageError(f"the query has no {min(unknown)!r}; it has {', '.join(names) or 'nothing'}")


def _among(name: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(f"{name} must be {' or '.join(known)}; got {text[:40]!r}")
    return text


def _whole(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and least <= int(text) <= most:
        return int(text)
    raise UsageError(f"{name} must be a whole number in [{least}, {most}]; got {text[:40]!r}")


def _json(value: Mapping[str, Any]) -> Answer:
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Answer(200, "application/json", body)

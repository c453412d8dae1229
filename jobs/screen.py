"""What `run` shows: a live table on a terminal, else a line an interval, or JSON."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import click
import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from data.signal import Signal, iso
from jobs.options import print_json
from jobs.show import action_style, local_time, tags
from jobs.sources import to_json, to_table
from jobs.stages.scanning import Interval
from streaming.status import Status

INTERVALS = 8
"""Rows of the table of intervals."""
SIGNALS = 15
"""Rows of the table of signals, in which the newest stand first."""


class Screen(Protocol):
    """Where a running service reports."""

    def say(self, text: str) -> None:
        """A line of the log."""

    def open(self, frame: str, url: str, dashboard: str | None) -> None:
        """The service begins."""

    def watch(self, status: Callable[[], Status]) -> None:
        """From now on show what the feed's providers are like, too."""

    def interval(self, interval: Interval) -> None:
        """An interval closed."""

    def close(self) -> None:
        """The service ends; closing twice is closing once."""


def _name(interval: Interval) -> str:
    """Its frame, and whether its bars were still open."""
    return f"{interval.frame} so far" if interval.developing else interval.frame


def _ready(interval: Interval, before: str = "") -> str:
    """On how many symbols every strategy is ready, `3,120/5,500`; nothing where all may look at all."""
    coverage = interval.scanned.coverage
    return "" if coverage is None else f"{before}{coverage.ready:,}/{coverage.symbols:,}"


class LineScreen:
    """A line an interval on stdout, and one a signal."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def open(self, frame: str, url: str, dashboard: str | None) -> None:
        pass

    def watch(self, status: Callable[[], Status]) -> None:
        pass

    def interval(self, interval: Interval) -> None:
        ready = _ready(interval, "  ready ")
        click.echo(
            f"{local_time(interval.bar_end)}  {_name(interval)}  {interval.n_bars} symbols{ready}"
            f"  scan {interval.scan_ms:.0f} ms  latency {interval.latency_ms:.0f} ms  {len(interval.signals)} signals"
        )
        for signal in interval.signals:
            click.echo(_line(signal))

    def fed(self, topic: str, batch: pa.RecordBatch) -> None:
        """Bars were handed to the bus by a process that only feeds."""
        if topic.startswith("market.bar."):
            about = batch.schema.metadata
            frame, bar_end = about[b"frame"].decode(), local_time(int(about[b"bar_end"]))
            click.echo(f"{bar_end}  {frame}  {batch.num_rows} bars{_again(about)}")

    def served(self, signals: Sequence[Signal], clients: int) -> None:
        """Signals were handed to subscribers by a process that only serves."""
        click.echo(f"{local_time(signals[-1].bar_end)}  {len(signals)} signals  {clients} clients")
        for signal in signals:
            click.echo(_line(signal))

    def close(self) -> None:
        pass


class JsonScreen(LineScreen):
    """One JSON object an interval on stdout."""

    def __init__(self) -> None:
        self._status: Callable[[], Status] | None = None

    def watch(self, status: Callable[[], Status]) -> None:
        self._status = status

    def interval(self, interval: Interval) -> None:
        result = interval.scanned.result
        print_json(
            {
                "interval": interval.number,
                "frame": interval.frame,
                "bar_end": iso(interval.bar_end),
                "developing": interval.developing,
                "engine": result.engine,
                "symbols": interval.n_bars,
                "indicators": result.n_indicators,
                "fold_ms": round(interval.fold_ms, 3),
                "scan_ms": round(interval.scan_ms, 3),
                "latency_ms": round(interval.latency_ms, 3),
                "clients": interval.clients,
                "signals": [signal.to_dict() for signal in interval.signals],
                "suppressed": {"cooldown": interval.scanned.silent, "ex_gap": len(result.gapped)},
                "failed": dict(result.failed),
                "ready": None if interval.scanned.coverage is None else asdict(interval.scanned.coverage),
                "feed": None if self._status is None else to_json(self._status()),
            }
        )

    def fed(self, topic: str, batch: pa.RecordBatch) -> None:
        if topic.startswith("market.bar."):
            about = batch.schema.metadata
            print_json(
                {
                    "frame": about[b"frame"].decode(),
                    "bar_end": iso(int(about[b"bar_end"])),
                    "revision": int(about[b"revision"]),
                    "developing": about[b"developing"] == b"1",
                    "bars": batch.num_rows,
                    "feed": None if self._status is None else to_json(self._status()),
                }
            )

    def served(self, signals: Sequence[Signal], clients: int) -> None:
        print_json({"clients": clients, "signals": [signal.to_dict() for signal in signals]})


def _line(signal: Signal) -> str:
    cells = (f"{signal.action:5}", signal.symbol, f"{signal.price:.2f}", signal.strategy, signal.name or "")
    return "  " + "  ".join(cells).rstrip()


def _again(about: Mapping[bytes, bytes]) -> str:
    """What kind of bars these are, where they are not just closed."""
    if about[b"developing"] == b"1":
        return ", still open"
    return "" if about[b"revision"] == b"0" else f", revision {about[b'revision'].decode()}"


class TableScreen:
    """A live table: the last intervals, and below them the newest signals."""

    def __init__(self) -> None:
        self._console = Console()
        self._errors = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._intervals: deque[Interval] = deque(maxlen=INTERVALS)
        self._signals: deque[Signal] = deque(maxlen=SIGNALS)
        self._failed: dict[str, str] = {}
        self._head = ""
        self._status: Callable[[], Status] | None = None
        self._ticking: asyncio.Task[None] | None = None

    def say(self, text: str) -> None:
        self._errors.print(text)

    def open(self, frame: str, url: str, dashboard: str | None) -> None:
        self._head = f"{frame} bars  ·  {url}" + (f"  ·  {dashboard}" if dashboard else "")
        self._live = Live(self._render(), console=self._console, refresh_per_second=8)
        self._live.start()

    def watch(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        """Quotes age also where no interval closes."""
        while True:
            await asyncio.sleep(1)
            self._show()

    def interval(self, interval: Interval) -> None:
        self._intervals.append(interval)
        self._signals.extendleft(interval.signals)
        self._failed |= interval.scanned.result.failed
        self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._render())

    def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        engine = f"  ·  engine {self._intervals[-1].scanned.result.engine}" if self._intervals else ""
        intervals = Table(title=self._head + engine, title_justify="left", expand=False)
        for name in ("interval", "frame", "symbols", "ready", "scan ms", "latency ms", "signals"):
            intervals.add_column(name, justify="right")
        for interval in self._intervals:
            intervals.add_row(
                local_time(interval.bar_end),
                _name(interval),
                str(interval.n_bars),
                _ready(interval),
                f"{interval.scan_ms:.0f}",
                f"{interval.latency_ms:.0f}",
                str(len(interval.signals)),
            )
        signals = Table(title="newest signals", title_justify="left", expand=False)
        columns: tuple[tuple[str, Any], ...] = (
            ("time", "left"),
            ("symbol", "left"),
            ("name", "left"),
            ("action", "left"),
            ("price", "right"),
            ("strategy", "left"),
            ("", "left"),
        )
        for name, side in columns:
            signals.add_column(name, justify=side, no_wrap=True)
        for signal in self._signals:
            style = action_style(signal.action)
            signals.add_row(
                local_time(signal.bar_end)[11:],
                signal.symbol,
                signal.name or "",
                Text(signal.action, style=style),
                Text(f"{signal.price:.2f}", style=style),
                signal.strategy,
                tags(signal),
            )
        failed = [Text(f"{name} was switched off: {why}", style="red") for name, why in self._failed.items()]
        feed = [] if self._status is None else [to_table(self._status())]
        return Group(*feed, intervals, signals, *failed)

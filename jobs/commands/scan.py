"""`mystocks-scan scan`: one full-market scan of the stored bars."""

import re
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from data.ahead import ReadAhead
from data.calendar import TradingCalendar, local_day
from data.errors import MystocksScanError, SettingsError, StaleDataError
from data.history import SignalHistory
from data.schema import FRAMES
from data.settings import Settings, load_settings
from data.signal import Signal, iso
from data.store import ADJUSTMENTS, BarStore
from jobs.cli import uncollected
from jobs.options import (
    config_option,
    json_option,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)
from jobs.scanning import MarketScan, Scanned, origin_of, scannable
from jobs.show import action_style, local_time, tags
from jobs.simulated import is_simulated
from jobs.wiring import Parts, assemble, count_of, scan_flags, scan_options
from scanner.cluster import InlineCluster
from scanner.tasks import COLUMNS


@click.command()
@store_option
@config_option
@click.option("--as-of", metavar="TIME", help="Scan at the newest bar at or before this: 2025-05-23, or with a time.")
@scan_options
@click.option(
    "--indicators",
    "extra",
    multiple=True,
    metavar="all|EXPR",
    help="Compute these besides; `all`: the whole catalogue.",
)
@click.option("--adjusted", type=click.Choice(ADJUSTMENTS), help="Scan an imported series of adjusted prices.")
@click.option("--max-age", metavar="AGE", help="Exit 3 if the newest bar is older: 30m, 26h, 3d.")
@click.option("--fail-on-empty", is_flag=True, help="Exit 3 if nothing fires.")
@click.option("--dry-run", is_flag=True, help="Record nothing, and let no cooldown keep a signal silent.")
@click.option("--limit", default=50, show_default=True, help="Rows of the table; 0: all.")
@json_option
@verbosity_options
def command(**given: Any) -> int:
    """Scan the whole stored market once, at its newest bar.

    Without --frame these are the daily bars, if there are any. Indicators see every stored bar unless --history-bars
    bounds them. The signals go to stdout and, durable, into the store's history, where the same scan done again adds
    nothing.
    """
    started = time.perf_counter()
    settings = load_settings(
        given["config"],
        {"scan": scan_flags(given)},
    )
    max_age = None if given["max_age"] is None else parse_age(given["max_age"])
    as_of = None if given["as_of"] is None else parse_time(given["as_of"])
    store = open_store(given["config"], given["store"])
    with closing(_ahead(settings, store, given["adjusted"], as_of)) as ahead, uncollected():
        parts = assemble(settings, one_off=True, extra=expressions(given["extra"]))
        if parts.cold:
            click.echo(
                f"Note: {count_of(parts.cold)} not compiled on this machine yet, so this scan runs on talib;"
                " 'mystocks-scan warm' compiles what is missing, once.",
                err=True,
            )
        try:
            scanned = _scan(settings, parts, BarStore(store.root, read=ahead), ahead, given, as_of)
        finally:
            parts.close()
    elapsed = time.perf_counter() - started
    warnings = _warnings(settings, store, scanned.result.bar_end)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    if given["as_json"]:
        print_json(to_json(scanned, elapsed))
    else:
        show(scanned, parts, elapsed, given["limit"])
    age_s = (time.time_ns() - scanned.result.bar_end) // 10**9
    if max_age is not None and age_s > max_age:
        when = local_time(scanned.result.bar_end)
        raise StaleDataError(
            f"the newest {scanned.result.frame} bar, {when}, is {timedelta(seconds=age_s)} old;"
            f" --max-age is {given['max_age']}"
        )
    if given["fail_on_empty"] and not scanned.signals:
        raise StaleDataError("nothing fired, and --fail-on-empty was given")
    return 0


def _ahead(settings: Settings, store: BarStore, adjusted: str | None, as_of: int | None) -> ReadAhead:
    """The store's files, read from now on where this process will want all of them."""
    scan = settings.scan
    here = scan.engine in ("auto", "vector") and scan.cluster in ("auto", "inline") and scan.history_bars is None
    files = store.files(scan.frame or default_frame(store, adjusted), adjusted=adjusted) if here else []
    return ReadAhead([file for file in files if as_of is None or file.first <= as_of], COLUMNS)


def _scan(
    settings: Settings, parts: Parts, store: BarStore, ahead: ReadAhead, given: dict[str, Any], as_of: int | None
) -> Scanned:
    adjusted = given["adjusted"]
    frame = settings.scan.frame or default_frame(store, adjusted)
    bar_end = store.last_bar_end(frame, upto=as_of, adjusted=adjusted)
    if bar_end is None:
        bound = "" if as_of is None else f" at or before {local_time(as_of)}"
        raise StaleDataError(
            f"the store {store.root} holds no {frame} bars{bound}; it has {', '.join(store.frames()) or 'none'}"
        )
    symbols = scannable(store, frame, settings.scan.universe, adjusted=adjusted)
    origin = origin_of(store, frame, bar_end, settings.scan.history_bars, adjusted=adjusted)
    scan = MarketScan(
        store,
        frame,
        parts.strategies,
        symbols=symbols,
        engine=parts.engine,
        cluster=parts.cluster
        if parts.engine.name == "cuda" or parts.cluster.name != "inline"
        else InlineCluster(ahead),
        history=None if given["dry_run"] else SignalHistory(store.root / "signals"),
        extra=expressions(given["extra"]),
        adjusted=adjusted,
        deadline_s=settings.scan.deadline_s,
    )
    console = Console(stderr=True)
    if on_terminal():
        with console.status(f"scanning {len(symbols)} symbols at {local_time(bar_end)} ..."):
            return scan.scan(bar_end, origin=origin)
    return scan.scan(bar_end, origin=origin)


def expressions(extra: tuple[str, ...]) -> list[str]:
    """`--indicators` -> expressions; `all` is the catalogue."""
    from scanner.indicators import catalog

    found: list[str] = []
    for text in extra:
        found += [f"{name}()" for name in catalog] if text == "all" else [text]
    return found


def default_frame(store: BarStore, adjusted: str | None = None) -> str:
    """1d if there is one, else the shortest there is."""
    frames = [frame for frame in FRAMES if store.files(frame, adjusted=adjusted)]
    if not frames:
        raise StaleDataError(f"the store {store.root} holds no bars. Import some with 'mystocks-scan import PATH...'")
    return "1d" if "1d" in frames else frames[0]


def to_json(scanned: Scanned, elapsed: float) -> dict[str, Any]:
    """What --json prints."""
    result = scanned.result
    return {
        "frame": result.frame,
        "bar_end": iso(result.bar_end),
        "engine": result.engine,
        "symbols": result.n_symbols,
        "bars": result.n_bars,
        "indicators": result.n_indicators,
        "elapsed_s": round(elapsed, 3),
        "signals": [signal.to_dict() for signal in scanned.signals],
        "suppressed": {
            "cooldown": scanned.silent,
            "ex_gap": [{"strategy": strategy, "symbol": symbol} for strategy, symbol in result.gapped],
        },
        "failed": dict(result.failed),
    }


def show(scanned: Scanned, parts: Parts, elapsed: float, limit: int) -> None:
    """The table and its summary."""
    result = scanned.result
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    table = Table(
        title=f"{len(scanned.signals)} signals at {local_time(result.bar_end)} ({result.frame})", title_justify="left"
    )
    for name, right in (
        ("strategy", False),
        ("action", False),
        ("symbol", False),
        ("name", False),
        ("price", True),
        ("conf", True),
        ("values", False),
        ("", False),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=name not in ("values", ""))
    shown = scanned.signals if limit == 0 else scanned.signals[:limit]
    for signal in shown:
        table.add_row(*row(signal))
    if scanned.signals:
        console.print(table)
    if len(shown) < len(scanned.signals):
        console.print(f"... and {len(scanned.signals) - len(shown)} more (--limit 0 shows all)")
    counts = Counter(signal.strategy for signal in scanned.signals)
    for name, number in counts.items():
        console.print(f"  {number:6d}  {name}")
    if result.gapped:
        console.print(
            f"{len(result.gapped)} kept silent by a gap of price basis (ex-rights or resumption): "
            + ", ".join(sorted({symbol for _, symbol in result.gapped})[:20])
        )
    if scanned.silent:
        console.print(f"{scanned.silent} kept silent by cooldown")
    for name, reason in result.failed.items():
        Console(stderr=True).print(f"[red]strategy {name} was switched off: {reason}")
    console.print(
        f"{result.n_symbols} symbols ({result.n_current} with a bar at {local_time(result.bar_end)}),"
        f" {result.n_bars} bars, {result.n_indicators} indicators, engine {result.engine} ({parts.reason}),"
        f" {elapsed:.2f} s",
    )


def row(signal: Signal) -> tuple[str, ...]:
    """One signal as cells."""
    style = action_style(signal.action)
    values = " ".join(f"{name}={value:.6g}" for name, value in signal.values.items() if value is not None)
    return (
        signal.strategy,
        f"[{style}]{signal.action}[/]" if style else signal.action,
        signal.symbol,
        signal.name or "",
        f"{signal.price:.2f}",
        f"{signal.confidence:.2f}",
        values,
        tags(signal),
    )


def _warnings(settings: Settings, store: BarStore, bar_end: int) -> list[str]:
    """What is wrong with the age of the data; the simulated market has no age."""
    if is_simulated(store):
        return []
    found = []
    try:
        calendar = TradingCalendar(settings.calendar_overlay)
        now = time.time_ns()
        today, newest = (day.astype(date) for day in local_day(np.array([now, bar_end])))
        horizon = calendar.warning(today)
        if horizon:
            found.append(horizon)
        closed = calendar.last_closed(now)
        if newest < closed:
            found.append(f"the newest bar is of {newest}; the last closed session is {closed}: import newer files")
    except MystocksScanError as error:
        found.append(str(error))
    return found


_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(text: str) -> int:
    """`30m`, `26h`, `3d` -> seconds. Raises SettingsError."""
    match = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if match is None:
        raise SettingsError(f"--max-age must be a number with s, m, h or d, such as 26h; got {text!r}")
    return int(match[1]) * _AGES[match[2]]


def parse_time(text: str) -> int:
    """A date (its whole day) or a time in Asia/Shanghai, unless it says its zone -> UTC ns. Raises SettingsError."""
    from zoneinfo import ZoneInfo

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--as-of must be a date or a time, 2025-05-23 or 2025-05-23T14:50; got {text!r}") from None
    if len(text) <= 10:
        when += timedelta(days=1, microseconds=-1)
    when = when.replace(tzinfo=ZoneInfo("Asia/Shanghai")) if when.tzinfo is None else when
    return int(when.astimezone(UTC).timestamp() * 10**6) * 1000

"""`mystocks-scan import`: vendors' files into the store, and a report of every row."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from data.calendar import TradingCalendar
from data.errors import StoreError
from data.importers import ImportReport, Progress, import_files
from data.reading import find_files
from data.settings import load_settings
from data.store import ADJUSTMENTS
from jobs.options import (
    config_option,
    json_option,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="PATH...")
@store_option
@click.option(
    "--adjusted",
    type=click.Choice(ADJUSTMENTS),
    help="The prices are adjusted (forward, backward): keep them as a series of their own.",
)
@click.option("--revise", is_flag=True, help="Store rows that differ from stored ones as their next revision.")
@json_option
@config_option
@verbosity_options
def command(
    paths: tuple[Path, ...],
    store: Path | None,
    adjusted: str | None,
    revise: bool,
    as_json: bool,
    config: Path | None,
) -> int:
    """Import files of bars into the store.

    PATH is a CSV or Parquet file, or a folder of them: one file a symbol (000001.csv, sh600000.csv), one a day
    (20250523.csv), or any with columns for symbol and date. Headers may be Chinese or English, as akshare, tushare,
    baostock and others write them, in UTF-8 or GBK; volumes in shares or in lots, amounts in CNY or in thousands.
    Nothing needs to be configured: each file's shape and units are recognised and checked.

    Every row read is stored, or a duplicate of what is there, or refused. Refused rows are counted by their reason and
    listed in STORE/rejects. Running the same import again stores nothing twice; one that was stopped is completed so.

    Exit code: 0 also with refused rows; 1 where nothing could be read at all; 2 where a path does not exist.
    """
    began = time.perf_counter()
    files = find_files(paths)
    calendar = TradingCalendar(load_settings(config).calendar_overlay)
    try:
        bars = open_store(config, store, origin="market")
    except OSError as error:
        raise StoreError(
            f"no store can be made: {error}. Name a folder that can be written with --store DIR"
        ) from error
    with _progress() as progress:
        report = import_files(
            files,
            bars,
            calendar,
            now=time.time_ns(),
            adjusted=adjusted,
            revise=revise,
            progress=progress,
        )
    elapsed_s = time.perf_counter() - began
    if as_json:
        print_json(_facts(report) | {"elapsed_s": round(elapsed_s, 3)})
    else:
        _show(report, elapsed_s, bars.root)
    return 1 if report.read and report.refused.get("unreadable") == report.read else 0


def _facts(report: ImportReport) -> dict[str, Any]:
    """The report as JSON takes it."""
    files = {name: None if (path := getattr(report, name)) is None else str(path) for name in ("rejects", "gaps")}
    return asdict(report) | files


def _show(report: ImportReport, elapsed_s: float, store: Path) -> None:
    """The report for a person: a table on a terminal, else a line a fact."""
    lines: list[tuple[str, int]] = [
        ("files", report.files),
        ("read", report.read),
        ("stored", report.stored),
        ("duplicates", report.duplicates),
        ("refused", sum(report.refused.values())),
        *((f"  {reason}", n) for reason, n in report.refused.items()),
        ("symbols", report.symbols),
    ]
    if report.ex_gap:
        lines.append(("ex_gap", report.ex_gap))
    notes = [f"store: {store}", f"elapsed: {elapsed_s:.1f} s"]
    if report.rejects:
        notes.append(f"refused rows: {report.rejects}")
    if report.gaps:
        notes.append(f"gaps of price basis, silent until they leave a rule's window: {report.gaps}")
    if report.unverified:
        notes.append(f"{report.unverified:,} rows are in files that do not tell their units: taken for shares and CNY")
    if not on_terminal(sys.stdout):
        click.echo("\n".join([*(f"{name}: {n}" for name, n in lines), *notes]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, n in lines:
        table.add_row(name, f"{n:,}")
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr where a person watches it."""
    if not on_terminal():
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        yield show

"""`mystocks-scan benchmark`: every engine side by side on the same work."""

import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from data.settings import load_settings
from data.store import BarStore
from jobs.benchmark.cases import Row
from jobs.benchmark.report import markdown, milliseconds
from jobs.benchmark.suite import CASES, Asked, Report, run
from jobs.options import config_option, json_option, on_terminal, print_json, verbosity_options
from jobs.simulated import is_simulated

QUICK = Asked(symbols=64, bars=80, runs=1, indicators=12, rules=10)


@click.command()
@click.option("--cases", metavar="A,B", help=f"Some of the cases only: {', '.join(CASES)}.")
@click.option("--symbols", type=click.IntRange(2), default=5000, show_default=True, help="Symbols of made-up bars.")
@click.option("--bars", type=click.IntRange(80), default=250, show_default=True, help="Bars; `history` has five times.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs whose median counts.")
@click.option("--quick", is_flag=True, help="A tiny size, to see that everything works; the figures mean nothing.")
@click.option(
    "--market",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="A store, or a Parquet file of daily bars, whose halts count; by default the store of the settings.",
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the figures as Markdown."
)
@config_option
@json_option
@verbosity_options
def command(
    cases: str | None,
    symbols: int,
    bars: int,
    runs: int,
    quick: bool,
    market: Path | None,
    report: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Measure every engine on the same work, side by side.

    What each computes is compared with TA-Lib's values first; exit 1 where an engine's are others. Takes minutes at the
    usual size. Nothing is measured well on a machine that does other things.
    """
    asked = QUICK if quick else Asked(symbols=symbols, bars=bars, runs=runs)
    if cases is not None:
        asked = replace(asked, cases=tuple(name.strip() for name in cases.split(",")))
    found = run(replace(asked, market=market or _stored_market(config)), lambda line: click.echo(line, err=True))
    if report is not None:
        report.write_text(markdown(found), encoding="utf-8")
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)


def _stored_market(config: Path | None) -> Path | None:
    """The settings' store, where it holds daily bars of a real market."""
    path = load_settings(config).store.path
    if not (path / "store.json").exists():
        return None
    store = BarStore(path)
    return path if store.files("1d") and not is_simulated(store) else None


def _show(found: Report) -> None:
    console = Console(width=None if on_terminal(sys.stdout) else 1000, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("case")
    table.add_column("way")
    for name in ("symbols", "bars", "indicators", "threads", "median", "least", "most", "ratio"):
        table.add_column(name, justify="right")
    for row in found.rows:
        if "/" not in row.case:
            table.add_row(*_cells(row))
    console.print(table)
    for engine, why in found.missing.items():
        console.print(f"not measured: {engine}: {why}")


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (row.symbols, row.bars, row.indicators, row.threads)
    seconds = (row.median_s, row.min_s, row.max_s)
    return row.case, row.engine, *map(str, numbers), *map(milliseconds, seconds), f"{row.ratio_to_talib_loop:.2f}"

"""`mystocks-scan signals`: what the history of signals holds."""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

import click
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.files import write_atomically, write_parquet
from data.history import SignalHistory
from data.schema import SIGNAL
from data.signal import ACTIONS, Signal, from_table
from data.symbols import canonical
from jobs.options import (
    DAY,
    config_option,
    is_verbose,
    json_option,
    midnight,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)
from jobs.show import action_style, local_time, tags

TABLE_ROWS = 50
CHUNK_ROWS = 10_000


@click.command("signals")
@store_option
@click.option("--since", type=DAY, metavar="DATE", help="Of bars from this day on (2025-05-23).")
@click.option("--until", type=DAY, metavar="DATE", help="Of bars up to the end of this day.")
@click.option(
    "--symbol", "symbols", multiple=True, metavar="CODE", help="Only this symbol, in any spelling; repeatable."
)
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="Only this strategy; repeatable.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(ACTIONS, case_sensitive=False), help="Repeatable."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"The newest N; by default {TABLE_ROWS} in a table, all in other formats.",
)
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv", "parquet"]), help="By default table.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write there, not to stdout.",
)
@json_option
@config_option
@verbosity_options
def command(
    store: Path | None,
    since: datetime | None,
    until: datetime | None,
    symbols: tuple[str, ...],
    strategies: tuple[str, ...],
    actions: tuple[str, ...],
    limit: int | None,
    format_: str | None,
    output: Path | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Query the history of signals, newest first.

    The table shows times in Shanghai, and with -v the values that made each signal fire; JSON (one object a line, as
    /ws/signals sends them), CSV and Parquet have UTC and every field. Days are Shanghai's.
    """
    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} contradict each other")
    if since is not None and until is not None and until < since:
        raise click.UsageError(f"--until {until:%Y-%m-%d} lies before --since {since:%Y-%m-%d}")
    form = "json" if as_json else format_ or "table"
    if form == "parquet" and output is None:
        raise click.UsageError("--format parquet is not for reading on a terminal: name a file with --output FILE")
    most = limit or (TABLE_ROWS if form == "table" else None)
    table = SignalHistory(open_store(config, store).root / "signals").query(
        after=None if since is None else midnight(since) - 1,
        upto=None if until is None else midnight(until + timedelta(days=1)) - 1,
        symbols=[canonical(symbol) for symbol in symbols] or None,
        strategies=strategies or None,
        actions=actions or None,
        limit=None if most is None else most + 1,
    )
    more, table = most is not None and table.num_rows > most, table.slice(0, most)
    if form == "parquet":
        assert output is not None
        write_parquet(output, table)
    elif output is not None:
        write_atomically(output, lambda aside: _write_file(form, table, aside))
    else:
        _write(form, table, sys.stdout)
    if output is not None:
        click.echo(f"{table.num_rows} signals written to {output}", err=True)
    elif table.num_rows == 0:
        click.echo("No signals.", err=True)
    elif more and limit is None:
        click.echo(f"The newest {most} of more; --limit N shows more of them.", err=True)


def _signals(table: pa.Table) -> Iterator[Signal]:
    """Some thousands at a time in memory."""
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield from from_table(table.slice(start, CHUNK_ROWS))


def _write_file(form: str, table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        _write(form, table, stream)


def _write(form: str, table: pa.Table, stream: TextIO) -> None:
    if form == "json":
        for signal in _signals(table):
            print_json(signal.to_dict(), stream)
    elif form == "csv":
        writer = csv.DictWriter(stream, SIGNAL.names, lineterminator="\n")
        writer.writeheader()
        for signal in _signals(table):
            row = signal.to_dict()
            writer.writerow(row | {"values": json.dumps(row["values"], ensure_ascii=False)})
    elif table.num_rows:
        width = None if on_terminal(stream) else 1000  # a file or a pipe has no edge
        Console(file=stream, width=width, highlight=False).print(_for_people(_signals(table), is_verbose()))


def _for_people(signals: Iterator[Signal], with_values: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("time", "symbol", "name", "action"):
        table.add_column(title, no_wrap=True)
    table.add_column("strategy", overflow="fold")
    table.add_column("frame", no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True)
    table.add_column("conf", justify="right", no_wrap=True)
    table.add_column("")
    if with_values:
        table.add_column("values", overflow="fold")
    for signal in signals:
        values = ", ".join(f"{name} = {_number(value)}" for name, value in signal.values.items())
        cells = [
            local_time(signal.bar_end),
            signal.symbol,
            signal.name or "",
            signal.action,
            signal.strategy,
            signal.frame,
            f"{signal.price:.2f}",
            f"{signal.confidence:.2f}",
            tags(signal),
            *([values] if with_values else []),
        ]
        table.add_row(*(Text(cell) for cell in cells), style=action_style(signal.action))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"

"""`mystocks-scan signals`: what the history of signals holds."""

import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click
import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from data.errors import StaleDataError, StoreError
from data.files import write_atomically, write_parquet
from data.history import SignalHistory
from data.schema import FRAMES, SIGNAL
from data.signal import ACTIONS, Signal, from_table
from data.signal_query import SignalReader
from data.store import BarStore
from jobs.moments import Moment, Place, moment, moment_or_place
from jobs.options import (
    config_option,
    is_verbose,
    json_option,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)
from jobs.signal_lines import Columns, below
from jobs.symbols import symbols_of

TABLE_ROWS = 50
CHUNK_ROWS = 10_000
SHOWN = (
    "epoch",
    "seq",
    "strategy",
    "symbol",
    "name",
    "frame",
    "bar_end",
    "developing",
    "action",
    "confidence",
    "price",
)
"""What a table shows, and with it `MARKS`; ids and values, most of a file's bytes, are not read for it."""
MARKS = ("at_limit_up", "at_limit_down", "revision", "revokes")


@click.command("signals")
@store_option
@click.option(
    "--since",
    callback=moment_or_place,
    metavar="TIME",
    help="Of bars from then on: 2026-06-30, 2026-06-30T10:15, 10:15, today or -2h, in Shanghai. Or a place, EPOCH:SEQ: "
    "what was published after it.",
)
@click.option("--until", callback=moment, metavar="TIME", help="Of bars up to then; a day counts to its end.")
@click.option(
    "--symbol", "symbols", multiple=True, metavar="CODE", help="Only this symbol, a code or a name; repeatable."
)
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="Only this strategy; repeatable.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(ACTIONS, case_sensitive=False), help="Repeatable."
)
@click.option("--frame", "frames", multiple=True, type=click.Choice(FRAMES), help="Only these bars; repeatable.")
@click.option("--min-confidence", type=click.FloatRange(0, 1), metavar="X", help="Only with at least this confidence.")
@click.option("--epoch", "epochs", multiple=True, metavar="EPOCH", help="Only of this run of the service; repeatable.")
@click.option("--developing/--closed", default=None, help="Only of bars that were still open, or of closed ones.")
@click.option(
    "--revoked/--standing", "revoked", default=None, help="Only what was taken back and what takes it back, or neither."
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
def command(**given: Any) -> int:
    """Query the history of signals, newest first.

    The table shows times in Shanghai, and with -v below each signal the values that made it fire, the time that each
    stage took, its place and its id; JSON (one object a line, as /ws/signals sends them), CSV and Parquet have UTC and
    every field. 'today' and what is said without a day are the clock's; of a simulated or replayed market, whose days
    are past, those of its newest signal. A damaged file is reported and the others answer, with exit code 1.
    """
    form = _form(given["as_json"], given["format_"], given["output"])
    output, limit = given["output"], given["limit"]
    store = open_store(given["config"], given["store"])
    most = limit or (TABLE_ROWS if form == "table" else None)
    table, damaged = _asked(store, given, form, None if most is None else most + 1)
    more, table = most is not None and table.num_rows > most, table.slice(0, most)
    if form == "parquet":
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
    return 1 if damaged else 0


def _form(as_json: bool, format_: str | None, output: Path | None) -> str:
    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} contradict each other")
    if format_ == "parquet" and output is None:
        raise click.UsageError("--format parquet is not for reading on a terminal: name a file with --output FILE")
    return "json" if as_json else format_ or "table"


def _asked(store: BarStore, given: dict[str, Any], form: str, limit: int | None) -> tuple[pa.Table, bool]:
    """The signals that the options ask for, newest first, and whether files of the history are damaged."""
    reader = SignalReader(store.root / "signals")
    damaged: list[StoreError] = []

    def on_damage(error: StoreError) -> None:
        damaged.append(error)
        click.echo(f"Left out, because it is damaged: {error}", err=True)

    since, until = given["since"], given["until"]
    place = since if isinstance(since, Place) else None
    if place is not None and SignalHistory(reader.root).since(place.epoch, place.seq, 0) is None:
        raise StaleDataError(f"the history {reader.root} does not hold all that followed {place}")
    now = _now(store, reader) if isinstance(since, Moment) or until is not None else 0
    after = since.span(now)[0] - 1 if isinstance(since, Moment) else None
    upto = None if until is None else until.span(now)[1]
    if after is not None and upto is not None and upto <= after:
        raise click.UsageError(f"--until {until.text} lies before --since {since.text}")
    revoked = given["revoked"]
    table = reader.query(
        after=after,
        upto=upto,
        behind=None if place is None else (place.epoch, place.seq),
        symbols=symbols_of(given["symbols"], lambda: store) or None,
        strategies=given["strategies"] or None,
        actions=given["actions"] or None,
        frames=given["frames"] or None,
        epochs=given["epochs"] or None,
        min_confidence=given["min_confidence"],
        developing=given["developing"],
        standing=None if revoked is None else not revoked,
        columns=(*SHOWN, *MARKS) if form == "table" and not is_verbose() else None,
        limit=limit,
        on_damage=on_damage,
    )
    return table, bool(damaged)


def _now(store: BarStore, reader: SignalReader) -> int:
    """What time it is in the store's market, UTC ns."""
    if store.origin != "market":
        newest = reader.query(limit=1, columns=["bar_end"], on_damage=lambda error: None)["bar_end"]
        if len(newest):
            return int(newest[0].value)
    return time.time_ns()


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
        console = Console(file=stream, highlight=False, soft_wrap=True)
        longest = max(map(cell_len, table["strategy"].unique().to_pylist()))
        width = console.width if on_terminal(stream) else None  # a file or a pipe has no edge
        columns = Columns(width, longest=longest)
        console.print(columns.head())
        for signal in _signals(table):
            for line in (columns.row(signal), *(map(Text, below(signal)) if is_verbose() else ())):
                console.print(line)

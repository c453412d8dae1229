"""`mystocks-scan factors`: the factor table, which puts prices of before a corporate action on today's basis."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from data.factors import FactorStore, read_factors
from data.symbols import canonical
from jobs.options import config_option, json_option, open_store, print_json, store_option, verbosity_options


@click.group("factors")
def command() -> None:
    """List the factors of corporate actions, or import them.

    The live service keeps those that quotes tell: the exchange's previous close of a session / the last stored close.
    Files of bars mostly lack that previous close; where their prices are raw, imported factors take its place.
    """


@command.command("list")
@click.option("--symbol", "symbols", multiple=True, metavar="CODE", help="Only this symbol, in any spelling.")
@store_option
@config_option
@json_option
@verbosity_options
def list_(symbols: tuple[str, ...], store: Path | None, config: Path | None, as_json: bool) -> None:
    """List the factors that count: of a symbol and day the imported one, else the quoted one."""
    wanted = {canonical(symbol) for symbol in symbols}
    rows = [
        row | {"day": str(row["day"])}
        for row in FactorStore(open_store(config, store).root).table().to_pylist()
        if not wanted or row["symbol"] in wanted
    ]
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        click.echo("No factors.", err=True)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("day", "symbol", "factor", "origin"):
        table.add_column(name, justify="right" if name == "factor" else "left", no_wrap=True)
    for row in rows:
        table.add_row(row["day"], row["symbol"], f"{row['factor']:.6f}", row["origin"])
    Console(highlight=False).print(table)


@command.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="FILE...")
@store_option
@config_option
@json_option
@verbosity_options
def import_(paths: Sequence[Path], store: Path | None, config: Path | None, as_json: bool) -> int:
    """Import CSV or Parquet files with the columns symbol, day (2024-06-19) and factor.

    A day's factor is what prices before that day are multiplied by: the ex-rights reference / the close before. They
    count from the next scan on, also in a running service. Exit code 1 where no row could be taken.
    """
    table = FactorStore(open_store(config, store, origin="market").root)
    n_read = n_refused = 0
    for path in paths:
        factors, refused = read_factors(path)
        table.append(factors)
        n_read, n_refused = n_read + factors.num_rows, n_refused + len(refused)
        for reason in refused:
            click.echo(f"{path}: {reason}", err=True)
    if as_json:
        print_json({"files": len(paths), "factors": n_read, "refused": n_refused})
    else:
        click.echo(f"{n_read} factors from {len(paths)} files; {n_refused} rows refused")
    return 1 if n_refused and not n_read else 0

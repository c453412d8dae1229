"""`mystocks-scan latency`: where the time went between quotes and signals."""

from datetime import datetime, timedelta
from pathlib import Path

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from data.calendar import day_ns, local_day
from data.history import SignalHistory
from data.schema import FRAMES
from jobs.latency import PERCENTILES, Stage, stages
from jobs.options import (
    DAY,
    config_option,
    json_option,
    midnight,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)


@click.command("latency")
@store_option
@click.option("--since", type=DAY, metavar="DATE", help="Of bars from this day on; by default the newest session's.")
@click.option("--until", type=DAY, metavar="DATE", help="Of bars up to the end of this day.")
@click.option("--frame", "frames", multiple=True, type=click.Choice(FRAMES), help="Only these bars; repeatable.")
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="Only this strategy; repeatable.")
@json_option
@config_option
@verbosity_options
def command(
    store: Path | None,
    since: datetime | None,
    until: datetime | None,
    frames: tuple[str, ...],
    strategies: tuple[str, ...],
    as_json: bool,
    config: Path | None,
) -> int:
    """Show the stages between quotes and signals, as percentiles over the intervals that had signals.

    The stages: how long a bar waited, after its end, for the quote (or the clock) that closed it; how old that quote
    was when it arrived, where the market is live; folding; the scan; storing and publishing; and from the receipt of
    the quotes to the signals, which is what is promised. Exit code 3 where there are no signals.
    """
    history = SignalHistory(open_store(config, store).root / "signals")
    after = None if since is None else midnight(since) - 1
    if since is None and until is None:
        newest = history.query(strategies=strategies or None, frames=frames or None, limit=1)
        if newest.num_rows:
            after = int(day_ns(local_day(np.array([newest["bar_end"][0].value])))[0]) - 1
    signals = history.query(
        after=after,
        upto=None if until is None else midnight(until + timedelta(days=1)) - 1,
        strategies=strategies or None,
        frames=frames or None,
    )
    found = stages(signals)
    if as_json:
        for stage in found:
            print_json(stage.as_dict())
    elif any(stage.n for stage in found):
        Console(highlight=False).print(_for_people(found))
    if not any(stage.n for stage in found):
        click.echo("No signals that a live feed made.", err=True)
        return 3
    return 0


def _for_people(found: list[Stage]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for title in ("intervals", *(f"p{p} ms" for p in PERCENTILES), "most ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in found:
        numbers = [*stage.percentiles_ms.values(), stage.max_ms]
        table.add_row(stage.name, str(stage.n), *(f"{ms:,.1f}" if stage.n else "-" for ms in numbers))
    return table

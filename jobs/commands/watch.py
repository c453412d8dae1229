"""`mystocks-scan watch`: signals as they are published."""

import asyncio
import sys
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path

import click
from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from data.settings import load_settings
from data.signal import ACTIONS, Signal
from jobs.options import config_option, json_option, print_json, verbosity_options
from jobs.show import action_style, local_time, tags
from streaming.client import signals
from streaming.filter import Filter

BACKOFF_S = (0.5, 5.0)  # a person waits
WIDTHS = {"time": 16, "symbol": 9, "name": 8, "action": 6, "strategy": 22, "frame": 5, "price": 10, "conf": 4, "": 0}
"""Column -> cells; what is wider is cut, and a Chinese character is two cells."""


@click.command("watch")
@click.option(
    "--url", metavar="URL", help="The server; by default the one of the settings, ws://127.0.0.1:8765/ws/signals."
)
@click.option(
    "--symbol", "symbols", multiple=True, metavar="CODE", help="Only this symbol, in any spelling; repeatable."
)
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="Only this strategy; repeatable.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(ACTIONS, case_sensitive=False), help="Repeatable."
)
@click.option("--min-confidence", type=click.FloatRange(0, 1), metavar="X", help="Only with at least this confidence.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N signals.")
@json_option
@config_option
@verbosity_options
def command(
    url: str | None,
    symbols: tuple[str, ...],
    strategies: tuple[str, ...],
    actions: tuple[str, ...],
    min_confidence: float | None,
    count: int | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Watch signals live, as a subscriber of /ws/signals.

    Start the service with 'mystocks-scan run'. A lost connection is made again by itself, and what was published
    meanwhile comes first. Times are Shanghai's; BUY is red and SELL is green. Ctrl-C ends it.
    """
    serve = load_settings(config).serve
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    wanted = Filter.of(
        symbols=symbols or None, strategies=strategies or None, actions=actions or None, min_confidence=min_confidence
    )
    asyncio.run(_watch(url or f"ws://{host}:{serve.port}/ws/signals", wanted, count, as_json))


async def _watch(url: str, wanted: Filter, count: int | None, as_json: bool) -> None:
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    if not as_json:
        console.print(Text(_line(WIDTHS), style="bold"))
    async with aclosing(
        signals(url, filters=wanted, backoff_s=BACKOFF_S, notice=lambda text: click.echo(text, err=True))
    ) as stream:
        shown = 0
        async for signal in stream:
            if as_json:
                print_json(signal)
            else:
                console.print(_row(Signal.from_dict(signal)))
            sys.stdout.flush()
            shown += 1
            if shown == count:
                return


def _row(signal: Signal) -> Text:
    """A signal as one line, in the colour of its action."""
    cells = (
        local_time(signal.bar_end),
        signal.symbol,
        signal.name or "",
        signal.action,
        signal.strategy,
        signal.frame,
        f"{signal.price:.2f}".rjust(WIDTHS["price"]),
        f"{signal.confidence:.2f}",
    )
    return Text(_line((*cells, tags(signal))), style=action_style(signal.action))


def _line(cells: Iterable[str]) -> str:
    sized = [set_cell_size(cell, size) if size else cell for cell, size in zip(cells, WIDTHS.values(), strict=True)]
    return "  ".join(sized).rstrip()

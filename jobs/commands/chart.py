"""`mystocks-scan chart`: a symbol's K-lines with indicators and the marks of its signals."""

import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from data.errors import UsageError
from data.files import write_atomically
from data.schema import FRAMES
from data.settings import Settings, load_settings
from jobs.chart.asking import BARS, INDICATORS, chart
from jobs.chart.content import Content
from jobs.chart.look import COLORS, THEMES, Colors, Theme, look, terminal_look
from jobs.chart.making import MOST_BARS
from jobs.chart.terminal import bars_that_fit, to_terminal
from jobs.options import (
    DAY,
    config_option,
    json_option,
    midnight,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)

HTML, PNG, TERMINAL, JSON = "HTML", "PNG", "terminal", "JSON"
FORMS = {".html": HTML, ".htm": HTML, ".png": PNG}
USUAL = {HTML: 250, PNG: BARS, JSON: 250}
"""Bars of each form, where nothing else is said; a terminal shows what fits."""


@click.command("chart")
@click.argument("symbol")
@store_option
@click.option("--frame", type=click.Choice(FRAMES), help="The bars to draw; by default daily ones, if there are any.")
@click.option("--bars", type=click.IntRange(min=1), metavar="N", help="The newest N bars.")
@click.option("--since", type=DAY, metavar="DATE", help="From this day on.")
@click.option("--until", type=DAY, metavar="DATE", help="Up to the end of this day.")
@click.option(
    "--indicators",
    metavar="LIST",
    help=f"Expressions, divided by commas; by default {INDICATORS}, and where a strategy is named what it looks at.",
)
@click.option("--strategy", metavar="NAME", help="Draw what it looks at, and mark its signals alone.")
@click.option(
    "--strategies",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A file or folder in which the strategy stands; by default the built-in ones. May be repeated.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="FILE.html or FILE.png."
)
@click.option("--terminal", is_flag=True, help="Draw on the terminal, as without -o where stdout is one.")
@click.option("--open", "open_", is_flag=True, help="Show the file; without -o a page in the browser.")
@click.option(
    "--colors", type=click.Choice(COLORS), help="cn: red is up; western: green is. By default the setting chart.colors."
)
@click.option("--theme", type=click.Choice(THEMES), help="By default light, and HTML as its reader's screen is.")
@json_option
@config_option
@verbosity_options
def command(**given: Any) -> None:
    """Draw the K-lines of SYMBOL, a code in any spelling or a name, with indicators and its signals.

    Prices stand on the newest bar's basis (forward-adjusted), as indicators see them; signals stand at what they were
    traded at, on that basis. Without -o the terminal shows the chart.
    """
    settings = load_settings(given["config"], {"chart": {"colors": given["colors"]}})
    form = form_of(given)
    width = Console().width
    content = content_of(settings, given, bars_that_fit(width) if form == TERMINAL else USUAL[form])
    colors = settings.chart.colors
    if form == JSON:
        print_json(content.to_dict())
    elif form == TERMINAL:
        to_terminal(content, terminal_look(colors), Console(highlight=False, width=width))
    else:
        path = given["output"] or Path(tempfile.mkdtemp(prefix="mystocks-scan-")) / f"{content.symbol}.html"
        write(content, path, colors, given["theme"])
        click.echo(f"{len(content)} bars of {content.heading} drawn in {path}", err=True)
        if given["open_"] and not webbrowser.open(path.resolve().as_uri()):
            click.echo(f"There is nothing here to show {path} with", err=True)


def form_of(given: Mapping[str, Any]) -> str:
    """What is made of the chart. Raises UsageError where options contradict each other or say too little."""
    output = given["output"]
    asked = [
        name for name, on in (("-o", output), ("--terminal", given["terminal"]), ("--json", given["as_json"])) if on
    ]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} contradict each other")
    if given["as_json"]:
        return JSON
    if output is not None:
        if output.suffix.lower() not in FORMS:
            raise UsageError(f"-o must end in {', '.join(FORMS)}; got {str(output)!r}")
        return FORMS[output.suffix.lower()]
    if given["terminal"] or (on_terminal(sys.stdout) and not given["open_"]):
        return TERMINAL
    if given["open_"]:
        return HTML
    raise UsageError(
        "stdout is no terminal: name a file with -o FILE.html or -o FILE.png, or give --terminal or --json"
    )


def write(content: Content, path: Path, colors: Colors, theme: Theme | None) -> None:
    """A file of either form; what draws it is loaded for it."""
    if FORMS[path.suffix.lower()] == HTML:
        from jobs.chart.page import to_html

        data = to_html(content, colors, theme).encode()
    else:
        from jobs.chart.picture import to_png

        data = to_png(content, look(colors, theme or "light"))

    def fill(aside: Path) -> None:
        aside.write_bytes(data)

    try:
        write_atomically(path, fill)
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror or error}") from error


def content_of(settings: Settings, given: Mapping[str, Any], usual: int) -> Content:
    """What the options ask for; `usual`: how many bars where they do not say."""
    since, until = given["since"], given["until"]
    if since is not None and until is not None and until < since:
        raise UsageError(f"--until {until:%Y-%m-%d} lies before --since {since:%Y-%m-%d}")
    return chart(
        given["symbol"],
        open_store(given["config"], given["store"]),
        frame=given["frame"],
        indicators=given["indicators"],
        strategy=given["strategy"],
        strategies=given["strategies"],
        bars=given["bars"] or (usual if since is None or given["terminal"] else MOST_BARS),
        since=None if since is None else midnight(since),
        until=None if until is None else midnight(until + timedelta(days=1)) - 1,
        settings=settings,
    )

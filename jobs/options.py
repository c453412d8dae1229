"""Options that several commands share, and how they print."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

config_option = click.option(
    "-c",
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file, in place of the usual ones.",
)
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The store's folder; by default in the user's data folder.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def verbosity_options(command: F) -> F:
    """-q and -v, which set the level of the log on stderr."""

    def set_level(ctx: click.Context, param: click.Parameter, value: int) -> None:
        if value:
            level = logging.ERROR if param.name == "quiet" else logging.DEBUG if value > 1 else logging.INFO
            logging.getLogger().setLevel(level)

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    quiet = click.option("-q", "--quiet", count=True, expose_value=False, callback=set_level, help="Errors alone.")
    verbose = click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=set_level, help="More; -vv: all."
    )
    return verbose(quiet(command))


def print_json(value: Any) -> None:
    """One object on one line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": ")))


def on_terminal(stream: Any = None) -> bool:
    """Whether a person watches the stream (stderr by default)."""
    return bool((stream or sys.stderr).isatty()) and os.environ.get("TERM") != "dumb"

"""Options that several commands share, and how they print."""

import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from data.calendar import day_ns
from data.settings import Settings, load_settings
from data.store import BarStore

F = TypeVar("F", bound=Callable[..., Any])

DAY = click.DateTime(["%Y-%m-%d", "%Y%m%d"])
"""The type of an option that names a session."""

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
_VERBOSITY = f"{__name__}.verbosity"
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def verbosity_options(command: F) -> F:
    """-q and -v, which set the level of the log on stderr."""

    def set_level(ctx: click.Context, param: click.Parameter, value: int) -> None:
        if value:
            ctx.meta[_VERBOSITY] = -value if param.name == "quiet" else value
            level = logging.ERROR if param.name == "quiet" else logging.DEBUG if value > 1 else logging.INFO
            logging.getLogger().setLevel(level)

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    quiet = click.option("-q", "--quiet", count=True, expose_value=False, callback=set_level, help="Errors alone.")
    verbose = click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=set_level, help="More; -vv: all."
    )
    return verbose(quiet(command))


def is_verbose() -> bool:
    """Whether the command that runs was given -v."""
    return bool(click.get_current_context().meta.get(_VERBOSITY, 0) > 0)


def midnight(day: datetime) -> int:
    """The start of a day in Shanghai, UTC ns."""
    return int(day_ns(np.array([day.date()], "datetime64[D]"))[0])


def open_store(config: Path | None, store: Path | None, *, origin: str | None = None) -> BarStore:
    """The store a command works on: `store`, else the settings'.

    `origin` ("market" or "sim") is for commands that write: that market's store, made where there is none. Without it
    the store must exist; where nobody chose one and there is no market yet, the simulated market's serves, and stderr
    says so. Raises StoreOriginError naming the remedy, SettingsError.
    """
    settings = load_settings(config).store
    if store is not None:
        return BarStore(store, origin=origin)
    if origin is not None:
        return BarStore(settings.sim_path if origin == "sim" else settings.path, origin=origin)
    usual = settings.path == Settings.model_fields["store"].default.path
    if usual and not (settings.path / "store.json").exists() and (settings.sim_path / "store.json").exists():
        click.echo(
            f"There is no market at {settings.path} yet; this is the simulated one, {settings.sim_path}", err=True
        )
        return BarStore(settings.sim_path)
    return BarStore(settings.path)


def print_json(value: Any, stream: Any = None) -> None:
    """One object on one line of the stream (stdout by default)."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": ")), file=stream)


def on_terminal(stream: Any = None) -> bool:
    """Whether a person watches the stream (stderr by default)."""
    return bool((stream or sys.stderr).isatty()) and os.environ.get("TERM") != "dumb"

"""The command `mystocks-scan`. A command's module is loaded when the command is called, so that --help is instant."""

import gc
import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from data.errors import MystocksScanError

COMMANDS = {
    "run": ("jobs.commands.run", "Run the live service: feed, bars, scans, signals."),
    "scan": ("jobs.commands.scan", "Scan the whole stored market once."),
    "import": ("jobs.commands.import_", "Import CSV and Parquet files into the store."),
    "factors": ("jobs.commands.factors", "List or import the factors of corporate actions."),
    "indicators": ("jobs.commands.indicators", "List the indicators, or describe one."),
    "strategies": ("jobs.commands.strategies", "List the strategies, or check files of them."),
    "signals": ("jobs.commands.signals", "Query the history of signals."),
    "chart": ("jobs.commands.chart", "Draw a symbol's K-lines with indicators and its signals."),
    "latency": ("jobs.commands.latency", "Show where the time went from quotes to signals."),
    "replay": ("jobs.commands.replay", "Run a recorded session through the live path again, and compare."),
    "watch": ("jobs.commands.watch", "Watch signals live, as a subscriber of /ws/signals."),
    "alerts": ("jobs.commands.alerts", "List, test or retry what tells people of signals."),
    "token": ("jobs.commands.token", "Make, list and revoke the tokens of subscribers from elsewhere."),
    "warm": ("jobs.commands.warm", "Compile the kernels of all indicators for this machine, once."),
    "doctor": ("jobs.commands.doctor", "Check this machine, and say what to do about what it lacks."),
    "benchmark": ("jobs.commands.benchmark", "Measure every engine on the same work, side by side."),
}
"""Name -> (module whose `command` it is, one line of help)."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage, which takes a sixth of what makes much and soon ends: imports, one scan."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class LazyGroup(click.Group):
    """Commands by name, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "run":
            importlib.import_module("jobs.memory").keep_level()
        with uncollected():
            command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="mystocks-scan", prog_name="mystocks-scan")
def cli() -> None:
    """Watch a whole stock market: which of 5,000 stocks fired which rule, a moment after the bar closed.

    Data go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failed, 2 usage or configuration,
    3 data stale or missing, 130 Ctrl-C.
    """


def main(args: list[str] | None = None) -> Any:
    """The console script: errors raised on purpose become one line on stderr and their exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A Chinese name on a terminal of another encoding shows as \u5e73, which in JSON is that very character.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args=args, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MystocksScanError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)

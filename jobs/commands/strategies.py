"""`mystocks-scan strategies`: what a scan would run, read off the strategies themselves."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.settings import load_settings
from jobs.options import config_option, json_option, on_terminal, print_json, verbosity_options
from jobs.show import action_style
from scanner.loading import StrategyRegistry, load
from scanner.scan import make_plan
from scanner.strategy import PythonStrategy, Rule, Universe
from scanner.terms import order


@click.group()
def command() -> None:
    """List the strategies that a scan would run, or check files of them."""


@command.command("list")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--strategies",
    "more",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="As PATH; spelled as `run` and `scan` spell it. May be repeated.",
)
@config_option
@json_option
@verbosity_options
def list_(paths: Sequence[Path], more: Sequence[Path], config: Path | None, as_json: bool) -> None:
    """List strategies: of files and folders, or the usual ones.

    Without PATH: those that the settings name, else the built-in ones.
    """
    registry = load([*paths, *more] or load_settings(config).scan.strategies)
    if as_json:
        _print_json(registry)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("name", "action", "frames", "cooldown", "looks back", "title"):
        table.add_column(
            name, justify="right" if name in ("cooldown", "looks back") else "left", no_wrap=name == "name"
        )
    for about in map(as_dict, registry.values()):
        action = about["action"] or "python"
        style = action_style(action)
        table.add_row(
            f"[bold]{escape(about['name'])}",
            f"[{style}]{action}[/]" if style else action,
            ", ".join(about["frames"]) or "any",
            _bars(about["cooldown"]),
            _bars(about["window_bars"]),
            escape(about["title"]),
        )
    _console().print(table)


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@json_option
@verbosity_options
def check(files: Sequence[Path], as_json: bool) -> None:
    """Check files of strategies, and say what each would do.

    FILE is a YAML or Python file, or a folder of them. The first thing that is wrong ends it with exit code 2, as
    `file:line:column: what, and what to do`.
    """
    registry = load(files)
    if as_json:
        _print_json(registry)
        return
    console = _console()
    for about in map(as_dict, registry.values()):
        console.print(_details(about))
        console.print()
    console.print(f"{len(registry)} {'strategy' if len(registry) == 1 else 'strategies'}: nothing is wrong")


def as_dict(strategy: Rule | PythonStrategy) -> dict[str, Any]:
    """What a strategy is and needs, as JSON has it.

    `window_bars`: how many of a symbol's newest bars decide whether it fires, null where all do. `rule`: in its
    canonical spelling; null for a Python strategy, which has no action of its own either.
    """
    plan = make_plan(strategy.frames[0] if strategy.frames else "1d", [strategy])
    (candidate,) = [candidate for _, candidate in plan.rules] or plan.candidates
    rule = strategy if isinstance(strategy, Rule) else None
    return {
        "name": strategy.name,
        "title": strategy.title,
        "place": strategy.place,
        "version": strategy.version,
        "frames": list(strategy.frames),
        "action": rule and rule.action,
        "confidence": rule and rule.confidence,
        "cooldown": strategy.cooldown,
        "window_bars": candidate.window,
        "universe": _universe(strategy.universe),
        "rule": rule and str(rule.when),
        "indicators": [str(term) for term in order(plan.terms) if term.op == "indicator"],
    }


def _universe(universe: Universe) -> dict[str, Any]:
    """What narrows the universe."""
    return {key: value for key, value in vars(universe).items() if value}


def _details(about: dict[str, Any]) -> Table:
    narrowed = [
        f"{key} {', '.join(value) if isinstance(value, tuple) else f'{value:,.0f}'}"
        for key, value in about["universe"].items()
    ]
    strength = "" if about["confidence"] is None else f", confidence {about['confidence']:g}"
    lines = {
        "name": f"[bold]{escape(about['name'])}[/]  {escape(about['title'])}",
        "place": escape(about["place"]),
        "frames": ", ".join(about["frames"]) or "any",
        "action": f"{about['action'] or 'decided by the class'}{strength}",
        "cooldown": _bars(about["cooldown"]),
        "looks back": _bars(about["window_bars"]),
        "universe": escape("; ".join(narrowed)) or "every symbol that is scanned",
        "rule": escape(about["rule"] or "decided by the class"),
        "indicators": escape(", ".join(about["indicators"])) or "none",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    return table


def _bars(n: int | None) -> str:
    return "every bar" if n is None else "none" if n == 0 else f"{n} bar{'s' if n > 1 else ''}"


def _print_json(registry: StrategyRegistry) -> None:
    for strategy in registry.values():
        print_json(as_dict(strategy))


def _console() -> Console:
    # A file or a pipe has no edge.
    return Console(width=None if on_terminal(sys.stdout) else 1000, highlight=False)

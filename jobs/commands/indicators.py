"""`mystocks-scan indicators`: what can be computed, read off the declarations."""

import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.options import json_option, on_terminal, print_json, verbosity_options
from scanner.indicators import catalog, find
from scanner.indicators.spec import FAMILIES, Indicator, Param


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="TA-Lib's other functions too; any can stand in a rule.")
@json_option
@verbosity_options
def command(name: str | None, everything: bool, as_json: bool) -> None:
    """List the indicators, or describe the one called NAME.

    Inputs are those that a rule may leave out: RSI(14) is RSI(close, 14). The lookback is the number of bars without a
    value at the defaults. Bars are a symbol's own: a suspended day is none.
    """
    if name is not None:
        indicators = [find(name)]
    else:
        indicators = list(catalog.values())
        if everything:
            from scanner.engines.talib import functions

            others = [find(other) for other in functions() if other not in catalog]
            indicators += sorted(others, key=lambda other: FAMILIES.index(other.family))
    if as_json:
        for indicator in indicators:
            print_json(as_dict(indicator))
        return
    # A file or a pipe has no edge.
    console = Console(width=None if on_terminal(sys.stdout) else 1000, highlight=False)
    if name is not None:
        console.print(_details(indicators[0]))
    else:
        console.print(_table(indicators))


def as_dict(indicator: Indicator) -> dict[str, Any]:
    """The declaration as JSON has it; the lookback is the one at the defaults."""
    return {
        "name": indicator.name,
        "title": indicator.title,
        "title_zh": indicator.title_zh,
        "family": indicator.family,
        "dialect": indicator.dialect,
        "doc": indicator.doc,
        "inputs": indicator.inputs,
        "params": [
            {"name": p.name, "type": p.kind.__name__, "default": p.default, "min": p.lo, "max": p.hi}
            for p in indicator.params
        ],
        "outputs": indicator.outputs,
        "aliases": dict(indicator.aliases),
        "lookback": indicator.lookback(**indicator.bind()),
        "recursive": indicator.recursive,
        "pane": indicator.pane,
        "reference_lines": indicator.reference_lines,
        "talib": indicator.talib,
    }


def _table(indicators: Iterable[Indicator]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("name", no_wrap=True)
    table.add_column("title 中文", overflow="fold")
    table.add_column("inputs")
    table.add_column("parameters", overflow="fold")
    table.add_column("outputs", overflow="fold")
    table.add_column("lookback", justify="right")
    table.add_column("dialect")
    family = None
    for indicator in indicators:
        if indicator.family != family and family is not None:
            table.add_section()
        family = indicator.family
        table.add_row(
            f"[bold]{indicator.name}",
            escape(f"{indicator.title} {indicator.title_zh}"),
            ", ".join(indicator.inputs),
            "\n".join(map(_param, indicator.params)),
            ", ".join(indicator.outputs),
            str(indicator.lookback(**indicator.bind())),
            indicator.dialect,
        )
    return table


def _details(indicator: Indicator) -> Table:
    defaults = indicator.bind()
    aliases = {output: alias for alias, output in indicator.aliases.items()}
    outputs = [f"{o} (also {aliases[o]})" if o in aliases else o for o in indicator.outputs]
    memory = "; it remembers every bar since a symbol's first" if indicator.recursive else ""
    lines = {
        "name": f"[bold]{indicator.name}[/]  {escape(indicator.title)}  {indicator.title_zh}",
        "what": escape(indicator.doc),
        "call": indicator.key(defaults).replace(",", ", "),
        "inputs": ", ".join(indicator.inputs),
        "parameters": "\n".join(map(_param, indicator.params)),
        "outputs": ", ".join(outputs),
        "lookback": f"{indicator.lookback(**defaults)} bars at the defaults{memory}",
        "family": f"{indicator.family}, dialect {indicator.dialect}",
        "chart": indicator.pane + "".join(f" {line:g}" for line in indicator.reference_lines),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text or "none")
    return table


def _param(param: Param) -> str:
    return escape(f"{param.name} {param.default} {param.bounds}")

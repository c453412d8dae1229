"""`mystocks-scan doctor`: what this machine can do, and what to do about what it lacks."""

import sys
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.settings import APP, load_settings
from jobs.doctor import examine
from jobs.findings import Finding, Status
from jobs.options import config_option, json_option, on_terminal, print_json, store_option, verbosity_options

STYLES: dict[Status, str] = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


@click.command()
@click.option(
    "--full",
    is_flag=True,
    help="Compute too: golden bits, a whole market on each engine, the GPU if there is one, a Dask cluster.",
)
@store_option
@config_option
@json_option
@verbosity_options
def command(full: bool, store: Path | None, config: Path | None, as_json: bool) -> None:
    """Check this machine, and say what to do about what it lacks.

    Exit 1 where a check fails; a warning is none. Nothing on the machine is changed.
    """
    settings = load_settings(config, {"store": {"path": store}})
    findings = []
    # A file or a pipe has no edge.
    console = Console(width=None if on_terminal(sys.stdout) else 1000, highlight=False)
    for finding in examine(settings, config=config, full=full):
        findings.append(finding)
        if not as_json:
            console.print(_lines(finding))
    failed = sum(finding.status == "FAIL" for finding in findings)
    warned = sum(finding.status == "WARN" for finding in findings)
    if as_json:
        print_json(
            {
                "version": version(APP),
                "status": "FAIL" if failed else "WARN" if warned else "OK",
                "checks": [
                    {"check": f.check, "status": f.status, "text": f.text, "remedy": f.remedy} for f in findings
                ],
            }
        )
    else:
        told = [f"{n} {word}" for n, word in ((failed, "failed"), (warned, "to look at")) if n]
        console.print(f"{len(findings)} checks: {', '.join(told) or 'all is well'}")
    sys.exit(1 if failed else 0)


def _lines(finding: Finding) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=4, no_wrap=True)
    table.add_column(width=10, no_wrap=True)
    table.add_column(overflow="fold")
    style = STYLES[finding.status]
    table.add_row(f"[{style}]{finding.status}[/]", finding.check, escape(finding.text))
    if finding.remedy:
        table.add_row("", "", f"[bold]->[/] {escape(finding.remedy)}")
    return table

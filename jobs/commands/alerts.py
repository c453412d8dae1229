"""`mystocks-scan alerts`: the channels that tell people of signals."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from data.errors import UsageError
from data.settings import AlertChannel, AlertSettings, load_settings
from jobs.alert_text import SENDER
from jobs.options import config_option, json_option, open_store, print_json, store_option, verbosity_options
from jobs.roles import in_turn
from jobs.show import local_time
from jobs.sinks import ALERTS, make_rules, open_channels
from streaming.alerts.delivery import ChannelError, Sender
from streaming.alerts.letters import DeadLetters
from streaming.alerts.outbox import cut

if TYPE_CHECKING:
    from streaming.alerts.channels import AppriseChannel

channel_option = click.option(
    "--channel", "names", multiple=True, metavar="NAME", help="Only this channel. May be repeated."
)


@click.group("alerts")
def command() -> None:
    """List, test or retry the channels that tell people of signals.

    Channels and rules stand in the settings (docs/alerts.md); `run` sends. Addresses hold secrets and are never shown
    whole.
    """


@command.command("list")
@config_option
@json_option
@verbosity_options
def list_(config: Path | None, as_json: bool) -> None:
    """List the channels, and the rules that say which signals go to which."""
    alerts, channels = _open(config, ())
    rows = [
        {"channel": name, "service": one.service, "address": one.masked, "per_minute": alerts.channels[name].per_minute}
        for name, one in channels.items()
    ]
    rules = [
        {"rule": number, "channels": list(rule.channels), **rule.wants.to_dict(), "cooldown_s": rule.cooldown_s}
        for number, rule in enumerate(make_rules(alerts), 1)
    ]
    if as_json:
        for row in (*rows, *rules):
            print_json(row)
        return
    _print(rows, ("channel", "service", "address", "per_minute"))
    _print(rules, ("rule", "channels", "strategies", "symbols", "actions", "min_confidence", "cooldown_s"))


@command.command("test")
@channel_option
@config_option
@json_option
@verbosity_options
def test(names: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Send a message to every channel, and say what became of it.

    Exit code 0 where all took it, 1 where one did not, 2 where there is none.
    """
    alerts, channels = _open(config, names)
    rows = asyncio.run(_test(alerts.channels, channels))
    if as_json:
        for row in rows:
            print_json(row)
    else:
        _print(rows, ("channel", "service", "seconds", "result"))
    return 0 if all(row["ok"] for row in rows) else 1


@command.command("retry")
@channel_option
@click.option("--dry-run", is_flag=True, help="Show the dead letters and send nothing.")
@store_option
@config_option
@json_option
@verbosity_options
def retry(names: tuple[str, ...], dry_run: bool, store: Path | None, config: Path | None, as_json: bool) -> int:
    """Send dead letters again: messages that a channel had not taken, oldest first.

    Of each channel no more than its cap a minute, and none after one that fails again; the rest stay. Exit code 0
    where none is left, else 1.
    """
    folder = open_store(config, store).root / ALERTS
    letters = DeadLetters(folder)
    if dry_run:
        _print_letters([one for one in letters if not names or one["channel"] in names], as_json)
        return 0
    if not any(True for _ in letters):
        click.echo("No dead letters.", err=True)
        return 0
    alerts, channels = _open(config, names)
    with in_turn(folder / "retry.lock"):
        taken = letters.take()
        left = asyncio.run(_resend(taken, alerts.channels, channels))
        letters.done(left)
    report = {"sent": len(taken) - len(left), "left": len(left)}
    if as_json:
        print_json(report)
    else:
        click.echo(f"{report['sent']} dead letters sent, {report['left']} left")
        _print_letters(left[:10], as_json)
    return 1 if left else 0


def _open(config: Path | None, names: Sequence[str]) -> "tuple[AlertSettings, Mapping[str, AppriseChannel]]":
    """The settings and the channels that are meant. Raises UsageError where there is none."""
    alerts = load_settings(config).alerts
    if not alerts.channels:
        raise UsageError("no channel is set: docs/alerts.md shows how, under alerts.channels in mystocks-scan.yaml")
    if unknown := [name for name in names if name not in alerts.channels]:
        raise UsageError(f"no channel {unknown[0]!r}; there are {', '.join(alerts.channels)}")
    channels = open_channels(alerts)
    return alerts, {name: one for name, one in channels.items() if not names or name in names}


async def _test(settings: Mapping[str, AlertChannel], channels: "Mapping[str, AppriseChannel]") -> list[dict[str, Any]]:
    async def one(name: str, channel: "AppriseChannel") -> dict[str, Any]:
        start, error = time.perf_counter(), ""
        body = f"a test of the channel {name}, {local_time(time.time_ns())} in Shanghai"
        try:
            await Sender(channel, settings[name].timeout_s).send(f"{SENDER}: test", body)
        except ChannelError as raised:
            error = str(raised)
        return {
            "channel": name,
            "service": channel.service,
            "address": channel.masked,
            "seconds": round(time.perf_counter() - start, 2),
            "ok": not error,
            "result": error or "sent",
        }

    return list(await asyncio.gather(*(one(name, channel) for name, channel in channels.items())))


async def _resend(
    letters: Sequence[dict[str, Any]],
    settings: Mapping[str, AlertChannel],
    channels: "Mapping[str, AppriseChannel]",
) -> list[dict[str, Any]]:
    """Send letters, every channel's in their order and all channels at once; returns what is left, in that order."""

    async def of(name: str) -> list[dict[str, Any]]:
        own = [letter for letter in letters if letter["channel"] == name]
        sender = Sender(channels[name], settings[name].timeout_s)
        for n, letter in enumerate(own):
            if n == settings[name].per_minute:
                return own[n:]
            title = f"{letter['title']} (late: it is of {letter['at']})"
            try:
                await sender.send(title, cut(channels[name].fits, title, letter["body"]))
            except ChannelError as error:
                return [letter | {"why": str(error), "attempts": letter["attempts"] + 1}, *own[n + 1 :]]
        return []

    left = [letter for letter in letters if letter["channel"] not in channels]
    for rest in await asyncio.gather(*map(of, channels)):
        left += rest
    return sorted(left, key=lambda letter: str(letter["at"]))


def _print_letters(letters: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        for letter in letters:
            print_json(letter)
    elif letters:
        _print(letters, ("at", "channel", "attempts", "title", "why"))


def _print(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.removesuffix("_s").replace("min_", "").replace("_", " "), overflow="fold")
    for row in rows:
        cells = [row.get(name, "") for name in columns]
        table.add_row(*("\n".join(cell) if isinstance(cell, list) else str(cell) for cell in cells))
    Console(highlight=False, markup=False).print(table)

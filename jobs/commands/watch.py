"""`mystocks-scan watch`: signals as they are published."""

import asyncio
import json
import ssl
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.text import Text

from data.errors import UsageError
from data.files import write_text
from data.settings import Settings, load_settings
from data.signal import ACTIONS, Signal
from jobs.moments import Place, place
from jobs.options import (
    config_option,
    is_verbose,
    json_option,
    on_terminal,
    open_store,
    print_json,
    store_option,
    verbosity_options,
)
from jobs.signal_lines import Columns
from jobs.symbols import symbols_of
from streaming.access import is_loopback
from streaming.client import signals
from streaming.filter import Filter

BACKOFF_S = (0.5, 5.0)  # a person waits
TOKEN_VARIABLE = "MYSTOCKS_SCAN__WATCH__TOKEN"


@click.command("watch")
@click.option(
    "--url", metavar="URL", help="The server; by default the one of the settings, ws://127.0.0.1:8765/ws/signals."
)
@click.option(
    "--symbol", "symbols", multiple=True, metavar="CODE", help="Only this symbol, a code or a name; repeatable."
)
@click.option("--strategy", "strategies", multiple=True, metavar="NAME", help="Only this strategy; repeatable.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(ACTIONS, case_sensitive=False), help="Repeatable."
)
@click.option("--min-confidence", type=click.FloatRange(0, 1), metavar="X", help="Only with at least this confidence.")
@click.option("--since", callback=place, metavar="EPOCH:SEQ", help="Begin with what was published after this place.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the place there, and go on from it at the next start.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N signals.")
@click.option("--token", metavar="TOKEN", help=f"Who asks; better told by {TOKEN_VARIABLE} or the setting watch.token.")
@click.option(
    "--cafile",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="PEM",
    help="Whom to believe, for wss://; by default the system's authorities.",
)
@json_option
@store_option
@config_option
@verbosity_options
def command(**given: Any) -> int:
    """Watch signals live, as a subscriber of /ws/signals.

    Start the service with 'mystocks-scan run'. A lost connection is made again by itself, and what was published
    meanwhile comes first; what could not be had again is told. Times are Shanghai's; BUY is red and SELL is green;
    behind a signal stands whether its bar was still open (developing) or revised, and whether it takes one back
    (revoked). With -v also how long it was on its way, from the quotes to this screen. Names of symbols are those of
    the store here. Ctrl-C ends it.
    """
    settings = load_settings(given["config"])
    url = given["url"] or _own(settings)
    token = given["token"] or (settings.watch.token.get_secret_value() if settings.watch.token is not None else None)
    if given["since"] and given["resume"]:
        raise UsageError("--since and --resume both say where to begin: give one of them")
    wanted = Filter.of(
        symbols=symbols_of(given["symbols"], lambda: open_store(given["config"], given["store"])) or None,
        strategies=given["strategies"] or None,
        actions=given["actions"] or None,
        min_confidence=given["min_confidence"],
    )
    start = given["since"] or (_kept(given["resume"]) if given["resume"] else None)
    watching = _Watching(url, given["as_json"], given["resume"], given["count"], _tls(url, given["cafile"]))
    if token and not url.startswith("wss:") and not is_loopback(urlsplit(url).hostname or ""):
        _say(f"{url} is not encrypted: who listens on the way has the token. Use wss://", "yellow")
    try:
        asyncio.run(watching.run(wanted, start, token))
    finally:
        watching.keep()
    return 0


class _Watching:
    """Shows signals, and keeps how far it has shown them."""

    def __init__(
        self, url: str, as_json: bool, file: Path | None, count: int | None, tls: ssl.SSLContext | None
    ) -> None:
        self._url, self._tls, self._count, self._file = url, tls, count, file
        self._place: Place | None = None
        self._kept: Place | None = None
        self._as_json, self._shows_lag = as_json, is_verbose()
        self._console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._columns = Columns(
            self._console.width if on_terminal(sys.stdout) else None, lag=self._shows_lag, of_today=True
        )

    async def run(self, wanted: Filter, start: Place | None, token: str | None) -> None:
        """Until so many were shown; else without end."""
        if not self._as_json:
            self._console.print(self._columns.head())
            sys.stdout.flush()
        stream = signals(
            self._url,
            filters=wanted,
            since=None if start is None else (start.epoch, start.seq),
            token=token,
            ssl=self._tls,
            on_place=self._reached,
            backoff_s=BACKOFF_S,
            notice=lambda text: _say(text, "yellow"),
        )
        async with aclosing(stream):
            shown = 0
            async for signal in stream:
                self._show(signal)
                shown += 1
                if shown == self._count:
                    return

    def keep(self) -> None:
        """Make the place durable, where that is asked for."""
        if self._file is not None and self._place is not None and self._place != self._kept:
            write_text(self._file, json.dumps({"epoch": self._place.epoch, "seq": self._place.seq}) + "\n")
            self._kept = self._place

    def _reached(self, epoch: str, seq: int) -> None:
        self._place = Place(epoch, seq)
        self.keep()

    def _show(self, row: dict[str, Any]) -> None:
        if self._as_json:
            print_json(row)
        else:
            signal = Signal.from_dict(row)
            lag = time.time_ns() - signal.received_ns if self._shows_lag and signal.received_ns else None
            self._console.print(self._columns.row(signal, lag))
        sys.stdout.flush()
        self._place = Place(row["epoch"], row["seq"])


def _own(settings: Settings) -> str:
    """Where the service of these settings serves."""
    serve = settings.serve
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    return f"{'wss' if serve.certificate else 'ws'}://{host}:{serve.port}/ws/signals"


def _kept(file: Path) -> Place | None:
    """The place that a file keeps, None where there is no file yet."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found["epoch"], str) and isinstance(found["seq"], int):
            return Place(found["epoch"], found["seq"])
        raise ValueError(f"got {found!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--resume {file} is no place of signals that was kept: {error}. Remove it to begin anew"
        ) from error


def _tls(url: str, cafile: Path | None) -> ssl.SSLContext | None:
    if cafile is None:
        return None
    if not url.startswith("wss:"):
        raise UsageError(f"--cafile is for wss://; the URL is {url}")
    try:
        return ssl.create_default_context(cafile=cafile)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"--cafile {cafile} is no PEM file of certificates: {error}") from error


def _say(text: str, style: str = "") -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, style=style))

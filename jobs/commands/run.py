"""`mystocks-scan run`: the live service."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from data.errors import UsageError
from data.settings import Settings, load_settings
from data.store import BarStore
from jobs import serving
from jobs.options import config_option, json_option, open_store, store_option, verbosity_options
from jobs.processes import feed, scan, serve
from jobs.roles import ROLES, check_role, only_one
from jobs.screen import JsonScreen, LineScreen, Screen, TableScreen
from jobs.simulated import open_simulated
from jobs.wiring import assemble, scan_flags, scan_options, split_list
from scanner.engines.warm import Warming
from streaming.feeds import find_feed, replay

_SERVE = ("host", "port", "metrics_port", "dashboard_port", "certificate", "key")
"""Options that are settings of serve."""


@click.command()
@store_option
@config_option
@click.option(
    "--feed",
    metavar="NAME",
    help="Where quotes come from: sim, the simulated market, by default; sina,tencent: vendors in order of "
    "priority; replay:PATH, a tape, a store or a CSV file.",
)
@click.option(
    "--symbols-from",
    metavar="WHAT",
    help="Whose quotes vendors are asked for: list, all that a vendor lists; index:000300; a file. By default the "
    "stored symbols, and the list where none are stored.",
)
@click.option("--symbols", type=int, metavar="N", help="Size of the simulated market; 5000 by default.")
@click.option("--seed", type=int, metavar="N", help="Which simulated market.")
@click.option(
    "--speed",
    type=float,
    metavar="X",
    help="How many times faster than the clock sim and replay run; 60 by default, 0: as fast as it goes.",
)
@scan_options
@click.option(
    "--host",
    metavar="ADDRESS",
    help="Where /ws/signals is served; 127.0.0.1 by default. One that others can reach needs a token: 'token new'.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Serve over TLS, wss:// and https://, with this chain in PEM.",
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, if not in the same file.")
@click.option(
    "--port", type=int, metavar="N", help="Port of /ws/signals and the page; 8765 by default, 0: any free one."
)
@click.option(
    "--metrics-port",
    type=int,
    metavar="N",
    help="Port of /metrics, /healthz and /readyz with --role feed and --role scan; none by default, 0: any free one.",
)
@click.option(
    "--dashboard-port", type=int, metavar="N", help="Port of the Dask dashboard; 8787 by default, 0: any free one."
)
@click.option(
    "--developing",
    multiple=True,
    metavar="HH:MM",
    help="Time of day in Shanghai at which the daily bar is scanned before it closes. May be repeated.",
)
@click.option("--intervals", type=click.IntRange(min=1), metavar="N", help="End after N closed intervals.")
@click.option("--once", is_flag=True, help="Scan the newest stored bar and end.")
@click.option("--bus", metavar="URL", help="Where stages in several processes meet: redis://localhost:6379/0.")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="What this process does: feed, scan and serve are three processes on one --bus; all, in one, by default.",
)
@json_option
@verbosity_options
def command(**given: Any) -> int:
    """Run the live service: feed, bars, scans, signals on a WebSocket.

    With nothing configured: the simulated market of 5,000 symbols, sped up so that a one-minute bar closes each
    second, and its first scan sees 250 bars of history. Ctrl-C drains and ends; the next run goes on from the store.

    Besides the base frame, every frame that a strategy names is folded and scanned. SIGUSR1 scans the daily bar as it
    is now, if daily bars are scanned.
    """
    speed = given["speed"]
    if speed is not None and speed < 0:
        raise UsageError(f"--speed must be 0 or more; got {speed}")
    settings = load_settings(
        given["config"],
        {
            "scan": scan_flags(given) | {"developing": split_list(given["developing"])},
            "feed": {
                "name": given["feed"],
                "universe": given["symbols_from"],
                "symbols": given["symbols"],
                "seed": given["seed"],
                "interval_s": None if speed is None else 60 / speed if speed else 0,
            },
            "serve": {name: given[name] for name in _SERVE},
            "bus": {"url": given["bus"]},
            "run": {"role": given["role"]},
        },
    )
    role = settings.run.role
    check_role(role, settings.bus.url, given)
    find_feed(settings.feed.name)
    if role != "serve":
        replay.check(settings)
    if role in ("all", "serve") and not given["once"]:
        serving.check(settings.serve)
    store = _open_store(settings, given["config"], given["store"])
    lines = JsonScreen() if given["as_json"] else LineScreen()
    with only_one(store, role):
        if role in ("feed", "serve"):
            return 130 if asyncio.run((feed if role == "feed" else serve)(settings, store, lines)) else 0
        screen: Screen = TableScreen() if sys.stdout.isatty() and not given["as_json"] else lines
        parts = assemble(settings)
        warming = Warming(parts.cold) if parts.cold and not given["once"] else None
        try:
            interrupted = asyncio.run(
                scan(settings, store, parts, warming, screen, given["intervals"], once=given["once"])
            )
        finally:
            screen.close()
            screen.say("stopping the cluster ...")
            if warming is not None:
                warming.close()
            parts.close()
    return 130 if interrupted else 0


def _open_store(settings: Settings, config: Path | None, path: Path | None) -> BarStore:
    """The store that goes with the feed; a replay takes any store that is named, and else has one of its own."""
    if settings.feed.name == "sim":
        return open_simulated(settings, path)
    if settings.feed.name.partition(":")[0] != "replay":
        return open_store(config, path, origin="market")
    path = path or settings.store.replay_path
    return BarStore(path, origin=None if (path / "store.json").exists() else "replay")

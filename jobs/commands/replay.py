"""`mystocks-scan replay`: a recorded session through the live path once more."""

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np

from data.errors import StaleDataError
from data.settings import Settings, load_settings
from data.store import BarStore
from jobs.options import DAY, config_option, json_option, open_store, print_json, store_option, verbosity_options
from jobs.replaying import Difference, Session, compare, replay, to_json
from jobs.scanning import scannable
from jobs.screen import JsonScreen, LineScreen
from jobs.show import local_time
from jobs.stages.scanning import Interval
from jobs.wiring import assemble, fold_of, live_frames, scan_flags, scan_options
from scanner.engines.base import Engine, load
from scanner.loading import load as load_strategies
from streaming.segment import segments


@click.command()
@store_option
@config_option
@click.option("--date", "day", type=DAY, metavar="DATE", help="The session; by default the newest on the tape.")
@click.option("--verify", is_flag=True, help="Compare every bar and signal with what is stored; exit 1 if any differs.")
@scan_options
@json_option
@verbosity_options
def command(**given: Any) -> int:
    """Run a recorded session through the live path once more, in a store of its own that is thrown away.

    What the tape holds of a session is folded, scanned and kept silent about as it was live. Without --verify the
    intervals and their signals are printed. With it every bar and signal, to the bit, is compared with those stored;
    unless --engine says otherwise each bar is scanned by the engine that its stored signals name.

    Exit codes: 0 done or all equal, 1 something differs, 3 nothing is recorded of that session.
    """
    settings = load_settings(given["config"], {"scan": scan_flags(given)})
    store = open_store(given["config"], given["store"])
    registry = load_strategies(settings.scan.strategies)
    session = Session(store, _day(store, given["day"]), *live_frames(settings, registry))
    segment = session.segment
    engines = {} if given["engine"] else _engines(session)
    flags = scan_flags(given) | {"cluster": given["cluster"] or "inline"}
    if engines:
        flags["engine"] = next(iter(engines.values())).name
    parts = assemble(load_settings(given["config"], {"scan": flags}), one_off=True)
    screen = JsonScreen() if given["as_json"] else LineScreen()
    try:
        with tempfile.TemporaryDirectory(prefix="mystocks-scan-replay-") as folder:
            again, n_batches = replay(
                session,
                Path(folder) / "store",
                parts.strategies,
                symbols=scannable(store, session.frames[0], settings.scan.universe),
                engine=engines or parts.engine,
                cluster=parts.cluster,
                history_bars=_history_bars(settings),
                on_interval=_silent if given["verify"] else screen.interval,
                fold=fold_of(settings),
                deadline_s=settings.scan.deadline_s,
            )
            for _ in segment.frames():
                pass
            said = f"{session.day}: {n_batches} batches of {segment.path}"
            if segment.missing or segment.damaged:
                said += f", which lacks {segment.missing} and is damaged at {segment.damaged} places"
            click.echo(said, err=True)
            if not given["verify"]:
                return 0
            differences, counts = compare(session, again, parts.strategies.values())
    finally:
        parts.close()
    about = {"batches": n_batches, "batches missing": segment.missing, "places damaged": segment.damaged, **counts}
    if given["as_json"]:
        shown = {name.replace(" ", "_"): number for name, number in about.items()}
        listed = [to_json(difference) for difference in differences]
        print_json({"day": str(session.day), "frames": list(session.frames), **shown, "differences": listed})
    else:
        for name, number in about.items():
            click.echo(f"{number:9d}  {name}")
        for difference in differences:
            click.echo(_line(difference))
        click.echo(f"{len(differences)} differences" if differences else "all equal")
    return 1 if differences else 0


def _day(store: BarStore, given: datetime | None) -> np.datetime64:
    if given is not None:
        return np.datetime64(given.date(), "D")
    recorded = segments(store.root / "tape")
    if not recorded:
        raise StaleDataError(
            f"the store {store.root} has no tape; 'mystocks-scan run' makes one of live quotes, and of others where"
            " the setting feed.tape is true"
        )
    return max(recorded)


def _engines(session: Session) -> dict[int, Engine]:
    """By bar end, the engine that the stored signals say computed them."""
    names = {signal.bar_end: signal.engine.partition("+")[0] for signal in session.signals()}
    known = {name: load(name) for name in set(names.values())}
    return {end: known[name] for end, name in names.items()}


def _history_bars(settings: Settings) -> int:
    """As `run` takes it."""
    return settings.scan.history_bars or settings.feed.history_bars


def _silent(interval: Interval) -> None:
    pass


def _line(difference: Difference) -> str:
    d = difference
    head = f"{d.what} {d.strategy} " if d.strategy else f"{d.what} "
    head += f"{d.symbol} {d.frame} {local_time(d.bar_end)}"
    if d.name:
        return f"{head}: {d.name} was {d.stored!r}, is {d.replayed!r}"
    return f"{head}: only in the {'replay' if d.stored is None else 'store'}"

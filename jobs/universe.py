"""Whose quotes vendors are asked for: the stored symbols, a vendor's list of the market or of an index, or a file."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.calendar import local_day
from data.errors import FeedError, SettingsError, StaleDataError
from data.schema import NAME
from data.settings import Settings
from data.store import BarStore
from data.symbols import canonical_or_none, kind
from streaming.budget import TokenBucket
from streaming.feeds.listing import LISTS, MARKET, ListSource, fetch_list

_INDEX = re.compile(r"index:([0-9]{6})")


async def watched(
    settings: Settings, store: BarStore, *, now_ns: int, say: Callable[[str], None] = lambda text: None
) -> list[str]:
    """The symbols that `feed.universe` stands for and whose kind is among `scan.universe`, sorted.

    Names that a list brings are stored, as of the day of `now_ns` (UTC). Raises SettingsError for what is no universe,
    FeedError where no list comes whole, StaleDataError where nothing is left.
    """
    wanted = settings.feed.universe
    stored = sorted({symbol for frame in store.frames() for symbol in store.symbols(frame)})
    if wanted == "auto" and stored:
        found = stored
    elif wanted in ("auto", "list"):
        found = sorted({*stored, *await _listed(settings, store, MARKET, now_ns, say)})
    elif (index := _INDEX.fullmatch(wanted)) is not None:
        found = await _listed(settings, store, index[1], now_ns, say)
    else:
        found = read_symbols(Path(wanted))
    kept = sorted(symbol for symbol in found if kind(symbol) in settings.scan.universe)
    if not kept:
        raise StaleDataError(
            f"feed.universe {wanted!r} has no symbols of {', '.join(settings.scan.universe)}; --universe names others"
        )
    return kept


def read_symbols(path: Path) -> list[str]:
    """The symbols of a file, in any spelling, the first field of each line; `#` begins a comment, a header may be
    there.

    Raises SettingsError, which names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"feed.universe must be auto, list, index:CODE as in index:000300, or a text file of symbols; got"
            f" {str(path)!r}: {error}"
        ) from error
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        field = re.split(r"[,;\t ]", line.partition("#")[0].strip(), maxsplit=1)[0].strip('"')
        symbol = canonical_or_none(field)
        if symbol is not None:
            found.append(symbol)
        elif field and (found or any(char.isdigit() for char in field)):
            raise SettingsError(f"{path}:{number}: {field!r} is no symbol")
    return found


async def _listed(
    settings: Settings, store: BarStore, scope: str, now_ns: int, say: Callable[[str], None]
) -> list[str]:
    """A vendor's list: of those that are fed from first, then of the others."""
    feeds = settings.feed.name.split(",")
    ranked = sorted(LISTS.values(), key=lambda source: (_rank(source, feeds), source.name))
    errors = []
    for source in ranked:
        if source.path(scope, 1) is None:
            continue
        say(f"asking {source.name} which symbols there are ...")
        bucket = TokenBucket(source.budget)
        try:
            names = await fetch_list(source, scope, url=settings.feed.urls.get(source.name), admit=bucket.admit)
        except FeedError as error:
            errors.append(str(error))
            say(str(error))
            continue
        _keep_names(store, names, now_ns)
        return list(names)
    raise FeedError(
        f"no list of symbols came whole ({'; '.join(errors)}). Name a file of symbols by feed.universe, or import bars",
        reason="no_list",
    )


def _rank(source: ListSource, feeds: list[str]) -> int:
    """Where a list's vendor stands among the feeds; behind them all where it is none of them."""
    places = [place for place, name in enumerate(feeds) if source.name.startswith(name.strip().partition("_")[0])]
    return min(places, default=len(feeds))


def _keep_names(store: BarStore, names: Mapping[str, str], now_ns: int) -> None:
    day: Any = local_day(np.array([now_ns]))[0].astype(object)
    known = {symbol: name for symbol, name in names.items() if name}
    store.append_names(
        pa.table({"symbol": list(known), "day": [day] * len(known), "name": list(known.values())}).cast(NAME)
    )

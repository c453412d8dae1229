"""What a chart is asked for, in words: a symbol, a strategy, expressions, days."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from data.errors import StaleDataError, UsageError
from data.settings import Settings, load_settings
from data.store import BarStore
from jobs.chart.content import Content
from jobs.chart.making import make
from jobs.chart.placing import named_by, wanted
from jobs.symbols import NEAREST, find_symbol
from jobs.wiring import choose_warm, use_kernel_cache
from scanner.loading import load
from scanner.strategy import PythonStrategy, Rule

INDICATORS = "SMA(5), SMA(20), SMA(60), SMA(volume,5), MACD, KDJ"
"""What is drawn where nobody says what."""
BARS = 120


def chart(
    symbol: str,
    store: BarStore | Path | str | None = None,
    *,
    frame: str | None = None,
    indicators: str | None = None,
    strategy: str | None = None,
    strategies: Sequence[Path | str] = (),
    bars: int = BARS,
    since: int | None = None,
    until: int | None = None,
    settings: Settings | None = None,
) -> Content:
    """The chart of a symbol, given by a code in any spelling or by its name; a notebook shows it as a picture.

    `store`: by default the settings'. `frame`: by default the strategy's, else 1d if there is one. `indicators`:
    expressions, divided by commas. `strategy`: the name of one of those in the files `strategies`, by default the
    settings'. `since` <= bar_end <= `until`, UTC ns.

    Raises UsageError for what there is not, ExpressionError, StaleDataError where there are no such bars.
    """
    settings = settings or load_settings()
    rule = None if strategy is None else find_strategy(strategy, strategies or settings.scan.strategies)
    drawn = wanted([indicators if indicators is not None else "" if rule else INDICATORS])
    if not isinstance(store, BarStore):
        store = BarStore(settings.store.path if store is None else store)
    use_kernel_cache(settings)
    terms = [one.term for one in (*drawn, *(named_by(rule) if rule else ()))]
    engine, _, _ = choose_warm(settings.scan.engine, "inline", terms)
    return make(
        store,
        find_symbol(store, symbol),
        frame or _frame(store, rule),
        drawn,
        engine,
        strategy=rule,
        bars=bars,
        since=since,
        until=until,
        kinds=settings.scan.universe,
    )


def find_strategy(name: str, paths: Iterable[Path | str]) -> Rule | PythonStrategy:
    """A strategy by its name. Raises UsageError with the nearest there are."""
    strategies = load(paths)
    if name not in strategies:
        near = difflib.get_close_matches(name, strategies, NEAREST) or list(strategies)
        raise UsageError(f"there is no strategy {name!r}; there are {', '.join(near)}. --strategies PATH names others")
    return strategies[name]


def _frame(store: BarStore, strategy: Rule | PythonStrategy | None) -> str:
    """The strategy's own, if there are bars of it; else 1d; else the shortest there is."""
    frames = store.frames()
    if not frames:
        raise StaleDataError(f"the store {store.root} holds no bars. Import some with 'mystocks-scan import PATH...'")
    own = [frame for frame in strategy.frames if frame in frames] if strategy else []
    return (own or ["1d"] if "1d" in frames else own or frames)[0]

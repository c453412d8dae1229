"""Symbols as people say them: codes in any spelling, and Chinese names."""

from collections.abc import Callable, Iterable

from data.store import BarStore
from data.symbols import canonical


def symbols_of(texts: Iterable[str], store: Callable[[], BarStore]) -> list[str]:
    """The canonical symbols of codes, and of names or parts of names that the store knows.

    It is opened for names alone. Raises UnknownSymbolError for a code that is none, UsageError for a name that is of
    none or of several.
    """
    return [canonical(text) if text.isascii() else _named(text, store()) for text in texts]


def _named(text: str, store: BarStore) -> str:
    from jobs.commands.chart import find_symbol  # what a chart needs is not loaded for codes

    return find_symbol(store, text)

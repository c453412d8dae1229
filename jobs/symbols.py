"""Symbols as people say them: codes in any spelling, and Chinese names."""

import difflib
from collections.abc import Callable, Iterable

from data.errors import UsageError
from data.store import BarStore
from data.symbols import canonical, canonical_or_none

NEAREST = 5
"""So many are named where what was asked for is not there."""


def symbols_of(texts: Iterable[str], store: Callable[[], BarStore]) -> list[str]:
    """The canonical symbols of codes, and of names or parts of names that the store knows.

    It is opened for names alone. Raises UnknownSymbolError for a code that is none, UsageError for a name that is of
    none or of several.
    """
    return [canonical(text) if text.isascii() else find_symbol(store(), text) for text in texts]


def find_symbol(store: BarStore, text: str) -> str:
    """The canonical symbol of a code in any spelling, or of a stock's name or a part of it that no other has.

    Raises UsageError with the nearest there are.
    """
    symbol = canonical_or_none(text)
    if symbol is not None:
        return symbol
    names = {symbol: name for symbol, (name, _) in store.names().items()}
    plain = text.strip()
    for found in (
        [symbol for symbol, name in names.items() if name == plain],
        [symbol for symbol, name in names.items() if plain and plain.lower() in name.lower()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{symbol} {names[symbol]}" for symbol in sorted(found)[:NEAREST])
            raise UsageError(f"{text!r} is the name of {len(found)} symbols: {several}. Name one of them by its code")
    known = {symbol[:6]: symbol for frame in store.frames() for symbol in store.symbols(frame)}
    known |= {symbol: symbol for symbol in known.values()} | {name: symbol for symbol, name in names.items()}
    begins = [key for key in sorted(known) if plain and key.startswith(plain.upper())]
    alike = difflib.get_close_matches(plain.upper(), known, NEAREST, 0.5)
    near = list(dict.fromkeys(known[key] for key in [*begins, *alike]))[:NEAREST]
    hint = ", ".join(f"{symbol} {names.get(symbol, '')}".strip() for symbol in near)
    raise UsageError(
        f"{text!r} is no symbol and no name of one"
        + (f"; the nearest are {hint}" if near else ". Write 600519.SH, sh600519 or 600519")
    )

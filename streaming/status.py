"""What there is to see of a stream and its providers: the registry of data sources, true at every moment."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """One provider, as it is now."""

    name: str
    state: str
    """`idle`: not asked. `connecting`: no connection has given a frame yet. `live`. `failed`: quotes are old or the
    connections are down, for some of its symbols at least. `banned`."""
    connections: int
    """That it is asked over."""
    connected: int
    """Of these, those that have given a frame since they were opened."""
    covers: int
    """Symbols that are wanted of which it has quotes, as far as is known."""
    symbols: int
    """That it is asked for."""
    serves: int
    """Of these, those whose quotes are counted on: it is well, and no provider before it serves them."""
    frames: int
    rows: int
    received_bytes: int
    quote_age_s: float | None
    """Of its newest quote, in seconds of trading; None before the first."""
    symbols_stale: int
    """Symbols that it is asked for whose quote is old, or that have none."""
    reconnects: Mapping[str, int]
    """Connections lost, by reason."""
    dropped: Mapping[str, int]
    """Quotes, lines and requests that came to nothing, by reason."""
    unread: Mapping[str, int]
    """Of these, lines, frames and requests of which no quote could be read."""
    said: str
    """What went wrong last; empty where nothing has."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """All there is to see, as it is now."""

    providers: tuple[ProviderStatus, ...]
    symbols: int
    subscribers: int
    uncovered: int
    """Symbols of which no provider has quotes."""
    served: int
    """Symbols that a provider that is well is asked for."""

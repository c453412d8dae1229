"""What is shown of a feed's providers: as JSON, and as a table."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from streaming.status import ProviderStatus, Status

_STYLES = {"live": "green", "connecting": "yellow", "failed": "red", "banned": "red", "idle": "dim"}
_COLUMNS = ("provider", "state", "connected", "symbols", "serves", "frames", "quote age s", "stale")


def to_json(status: Status) -> dict[str, Any]:
    """Everything there is to see, providers in order of priority."""
    return asdict(status)


def to_table(status: Status) -> Table:
    """A row a provider, in order of priority."""
    title = f"{status.served:,}/{status.symbols:,} symbols served"
    if status.uncovered:
        title += f", {status.uncovered:,} that no provider has"
    table = Table(title=title, title_justify="left", expand=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("provider", "state") else "right", no_wrap=True)
    for name in ("reconnects", "dropped"):
        table.add_column(name)
    for provider in status.providers:
        table.add_row(*_row(provider))
    return table


def _row(provider: ProviderStatus) -> tuple[str | Text, ...]:
    age = "" if provider.quote_age_s is None else f"{provider.quote_age_s:.0f}"
    return (
        provider.name,
        Text(provider.state, style=_STYLES[provider.state]),
        f"{provider.connected}/{provider.connections}",
        f"{provider.symbols:,}",
        f"{provider.serves:,}",
        f"{provider.frames:,}",
        age,
        f"{provider.symbols_stale:,}",
        _counts(provider.reconnects),
        _counts(provider.dropped),
    )


def _counts(counts: Mapping[str, int]) -> str:
    """`timeout 3, stale 1`, the most first."""
    return ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))

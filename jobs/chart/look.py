"""The colours of charts: red up and green down as in China, or the other way round, on light or on dark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Colors = Literal["cn", "western"]
Theme = Literal["light", "dark"]
COLORS: tuple[Colors, ...] = get_args(Colors)
THEMES: tuple[Theme, ...] = get_args(Theme)
RED, GREEN = {"light": "#d92d2d", "dark": "#f0524f"}, {"light": "#0f8f5f", "dark": "#2ebd85"}


@dataclass(frozen=True)
class Look:
    """Colours as #rrggbb, or as a terminal calls them."""

    up: str
    down: str
    paper: str
    ink: str
    faint: str
    """Words beside the axes."""
    grid: str
    even: str
    """Bars that went neither way."""
    lines: tuple[str, ...]
    alert: str

    def of(self, direction: int) -> str:
        """The colour of 1 up, -1 down, 0 neither."""
        return {1: self.up, -1: self.down}.get(direction, self.even)

    def of_action(self, action: str) -> str:
        """A BUY looks up, a SELL down."""
        return {"BUY": self.up, "SELL": self.down}.get(action, self.alert)


_GROUND: Mapping[Theme, dict[str, str]] = {
    "light": {"paper": "#ffffff", "ink": "#1f2328", "faint": "#656d76", "grid": "#eaedf0", "even": "#7d8590"},
    "dark": {"paper": "#131722", "ink": "#dfe3ea", "faint": "#9097a3", "grid": "#242936", "even": "#868d98"},
}
_LINES: Mapping[Theme, tuple[str, ...]] = {
    "light": ("#d98a00", "#2563eb", "#9333ea", "#0891b2", "#c026d3", "#64748b"),
    "dark": ("#f5b041", "#5b9bff", "#b98cff", "#38c6d9", "#f078c8", "#a8b3c4"),
}
"""None of them red or green."""


def terminal_look(colors: Colors = "cn") -> Look:
    """The sixteen colours of a terminal, whatever that makes of them."""
    up, down = ("red", "green") if colors == "cn" else ("green", "red")
    lines = ("yellow", "blue", "magenta", "cyan", "bright_yellow", "bright_blue")
    return Look(up, down, "default", "default", "bright_black", "bright_black", "bright_black", lines, "yellow")


def look(colors: Colors = "cn", theme: Theme = "light") -> Look:
    """`cn`: red is up. `western`: green is."""
    red, green = RED[theme], GREEN[theme]
    up, down = (red, green) if colors == "cn" else (green, red)
    return Look(up, down, **_GROUND[theme], lines=_LINES[theme], alert=_LINES[theme][0])

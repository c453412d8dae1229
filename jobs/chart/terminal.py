"""A chart on a terminal: candles to half a character, volume below, signals over and under the bars."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from jobs.chart.content import Content, Line, legend
from jobs.chart.look import Look
from jobs.chart.numbers import large

SCALE = 10
"""Columns for the numbers at the right."""
VOLUME_ROWS = 4
ROWS = range(8, 25)
"""Of the prices."""
WIDEST = 3
"""Columns a bar, where there are few."""
SIGNALS = 4
"""So many of the newest are told."""
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_SHAPES = {"BUY": "▲", "SELL": "▼"}
_OTHER = "◆"
# By what stands in the upper and in the lower half of a character: nothing, a wick, a body.
_CANDLE = {
    (0, 0): " ", (0, 1): "╷", (0, 2): "╻", (1, 0): "╵", (1, 1): "│", (1, 2): "╽", (2, 0): "╹", (2, 1): "╿", (2, 2): "┃",
}  # fmt: skip
_ASCII = str.maketrans("╷╵│┆╻╽╹╿┃▄▅▆▇█▁▂▃·▒▲▼◆", "||||##########....=^v*")
_MONOCHROME = str.maketrans("╻╽╹╿┃", "▒▒▒▒▒")


class Cell(NamedTuple):
    """A character and its colour."""

    char: str = " "
    color: str = ""


Grid = list[list[Cell]]
"""Rows from the top, each of columns from the left."""


def bars_that_fit(width: int) -> int:
    """How many bars a terminal of so many columns shows."""
    return max(1, width - SCALE)


def to_terminal(content: Content, look: Look, console: Console) -> None:
    """Draw the chart on a console: as wide as it is, and as high as it leaves room for."""
    told = content.marks[-SIGNALS:]
    others = 7 + VOLUME_ROWS + bool(content.overlays) + len(content.panes) + len(told) + 2 * bool(told)
    rows = max(ROWS.start, min(ROWS.stop - 1, console.height - others))
    step = max(1, min(WIDEST, (console.width - SCALE) // len(content)))
    plain = console.options.ascii_only or console.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")

    def show(*lines: Text) -> None:
        for line in lines:
            if plain:
                line.plain = line.plain.translate(_ASCII)
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    show(Text(content.heading, style="bold"), Text(content.subtitle, style="dim"))
    if content.overlays:
        show(_newest("", content.overlays, look))
    show(*_prices(content, look, rows, step, colored=console.color_system is not None and not console.no_color))
    show(Text(), *_volume(content, look, step), Text(_times(content, step), style="dim"))
    for pane in content.panes:
        show(_newest(pane.title, pane.lines, look))
    for mark in told:
        where = content.labels[mark.place]
        show(Text(f"{_SHAPES.get(mark.action, _OTHER)} {where} {mark}", style=look.of_action(mark.action)))


def _prices(content: Content, look: Look, rows: int, step: int, *, colored: bool) -> list[Text]:
    p = content.prices
    high, low = float(p["high"].max()), float(p["low"].min())
    span = (high - low) or high * 0.01 or 1.0
    halves = {name: np.rint((values - low) / span * (2 * rows - 1)).astype(int) for name, values in p.items()}
    grid: Grid = [[Cell()] * (len(content) * step) for _ in range(rows)]
    for place in content.breaks:
        for line in grid:
            line[max(place * step - 1, 0)] = Cell("┆", look.even)
    for place, overlay in enumerate(content.overlays):
        at = (overlay.values - low) / span * (rows - 1)
        for k in np.flatnonzero((at > -0.5) & (at < rows - 0.5)).tolist():
            grid[rows - 1 - round(at[k])][k * step] = Cell("·", look.lines[place % len(look.lines)])
    directions = content.direction.tolist()
    for k, direction in enumerate(directions):
        body = sorted((int(halves["open"][k]), int(halves["close"][k])))
        for row in range(int(halves["low"][k]) // 2, int(halves["high"][k]) // 2 + 1):
            upper, lower = (_part(2 * row + half, body, halves["low"][k], halves["high"][k]) for half in (1, 0))
            char = _CANDLE[upper, lower]
            # Without colours a body that fell is full, and one that rose is not.
            char = char if colored or direction < 0 else char.translate(_MONOCHROME)
            grid[rows - 1 - row][k * step] = Cell(char, look.of(direction))
    if content.marks:
        grid = [[Cell()] * len(grid[0]), *grid, [Cell()] * len(grid[0])]
        for mark in content.marks:
            cell = Cell(_SHAPES.get(mark.action, _OTHER), look.of_action(mark.action))
            grid[-1 if mark.action == "BUY" else 0][mark.place * step] = cell
    first = int(bool(content.marks))
    scale = {first + round(part * (rows - 1)): f"{high - part * span:.2f}" for part in (0, 0.25, 0.5, 0.75, 1)}
    return _texts(grid, scale, look)


def _part(half: int, body: list[int], low: int, high: int) -> int:
    """What a candle has in one half of a row: 0 nothing, 1 a wick, 2 its body."""
    return 2 if body[0] <= half <= body[1] else int(low <= half <= high)


def _volume(content: Content, look: Look, step: int) -> list[Text]:
    top = float(np.nanmax(content.volume)) or 1.0
    eighths = np.ceil(np.nan_to_num(content.volume) / top * 8 * VOLUME_ROWS).astype(int).tolist()
    grid: Grid = [[Cell()] * (len(content) * step) for _ in range(VOLUME_ROWS)]
    for k, (n, direction) in enumerate(zip(eighths, content.direction.tolist(), strict=True)):
        for row in range(VOLUME_ROWS):
            char = _EIGHTHS[min(8, max(0, n - 8 * row))]
            grid[VOLUME_ROWS - 1 - row][k * step] = Cell(char, look.of(direction))
    return _texts(grid, {0: large(top)}, look)


def _texts(grid: Grid, scale: dict[int, str], look: Look) -> list[Text]:
    """Rows as lines, some with a number behind them."""
    lines = []
    for number, row in enumerate(grid):
        line = Text()
        for cell in row:
            line.append(cell.char, cell.color)
        line.append(f" {scale.get(number, '')}", "dim")
        lines.append(line)
    return lines


def _newest(title: str, lines: Sequence[Line], look: Look) -> Text:
    """The newest values of some lines, each in its colour."""
    line = Text()
    for place, (name, one) in enumerate(zip(legend(lines, title), lines, strict=True)):
        value = one.values[-1]
        number = "-" if value != value else f"{value:.4g}" if abs(value) < 1000 else f"{value:.2f}"
        line.append(f"{'  ' if place else ''}{name} {number}", look.lines[place % len(look.lines)])
    return line


def _times(content: Content, step: int) -> str:
    """The first bar's time, the last one's, and some between."""
    labels, width = content.labels, len(content) * step
    size = len(labels[0])
    row = [" "] * max(width, size)
    n = max(1, width // (size + 6))
    for part in range(n):
        at = 0 if n == 1 else round(part * (width - size) / (n - 1))
        bar = min((at + (size if part == n - 1 and n > 1 else 0)) // step, len(labels) - 1)
        row[at : at + size] = labels[bar]
    return "".join(row)

"""A chart as a PNG picture."""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from jobs.chart.content import LEAST_SHOWN, Content, Line, legend
from jobs.chart.look import Look
from jobs.chart.numbers import large

DPI = 120
WIDTH = 10.0
HEIGHTS = {"head": 0.55, "prices": 3.6, "volume": 0.95, "pane": 1.15, "foot": 0.35}
"""Inches."""
SHAPES = {"BUY": "^", "SELL": "v"}
LATIN = "DejaVu Sans"
"""Comes with matplotlib."""
CHINESE = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Hiragino Sans GB",
    "Heiti SC", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Serif CJK SC", "SimSun", "AR PL UMing CN", "Arial Unicode MS",
)  # fmt: skip
"""Fonts that have Chinese, those made for a screen first."""


def to_png(content: Content, look: Look) -> bytes:
    """The picture, 1200 pixels wide. A name whose characters no font of this machine has is left out."""
    fonts = fonts_for(content.heading)
    heading = content.heading if drawable(content.heading, fonts) else content.symbol
    with rc_context({"font.family": fonts, "axes.unicode_minus": False, "font.size": 8, "text.parse_math": False}):
        figure = _figure(content, look, heading, fonts)
        out = BytesIO()
        figure.savefig(out, format="png", dpi=DPI, facecolor=look.paper)
    return out.getvalue()


def _figure(content: Content, look: Look, heading: str, fonts: list[str]) -> Figure:
    heights = [HEIGHTS["prices"], HEIGHTS["volume"], *[HEIGHTS["pane"]] * len(content.panes)]
    total = sum(heights) + HEIGHTS["head"] + HEIGHTS["foot"]
    figure = Figure((WIDTH, total))
    grid = {"left": 0.012, "right": 0.93, "top": 1 - HEIGHTS["head"] / total, "bottom": HEIGHTS["foot"] / total}
    axes: list[Axes] = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, height_ratios=heights, gridspec_kw={**grid, "hspace": 0.06}
    )[:, 0].tolist()
    for ax in axes:
        _dress(ax, look)
    top: dict[str, Any] = {"x": grid["left"], "ha": "left", "va": "top"}
    figure.text(y=1 - 0.09 / total, s=heading, color=look.ink, size=13, weight="bold", **top)
    subtitle = "".join(char if drawable(char, fonts) else "?" for char in content.subtitle)
    figure.text(y=1 - 0.35 / total, s=subtitle, color=look.faint, size=8, **top)

    prices, volume, *panes = axes
    _candles(prices, content, look)
    _lines(prices, content.overlays, look)
    _marks(prices, content, look)
    colors = [look.of(direction) for direction in content.direction.tolist()]
    volume.bar(np.arange(len(content)), content.volume, 0.7, color=colors)
    for ax in (volume, *(ax for ax, pane in zip(panes, content.panes, strict=True) if pane.large)):
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: large(value)))
    _lines(volume, content.volume_lines, look)
    volume.set_ylim(bottom=0)
    for ax, pane in zip(panes, content.panes, strict=True):
        for level in pane.levels:
            ax.axhline(level, color=look.even, linewidth=0.6, linestyle=(0, (4, 3)), alpha=0.7)
        _lines(ax, pane.lines, look, pane.title)
    _times(axes[-1], content)
    return figure


def _candles(ax: Axes, content: Content, look: Look) -> None:
    p, x = content.prices, np.arange(len(content))
    colors = np.array([look.of(direction) for direction in content.direction.tolist()])
    ax.vlines(x, p["low"], p["high"], colors=colors.tolist(), linewidth=0.8)
    bottom, height = np.minimum(p["open"], p["close"]), np.abs(p["close"] - p["open"])
    ax.use_sticky_edges = False  # bodies need room below
    ax.bar(x, height, 0.7, bottom=bottom, color=colors.tolist(), edgecolor=colors.tolist(), linewidth=0.7)
    for place in content.breaks:
        ax.axvline(place - 0.5, color=look.even, linewidth=0.7, linestyle=(0, (4, 3)), alpha=0.8)


def _marks(ax: Axes, content: Content, look: Look) -> None:
    for mark in content.marks:
        below = mark.action == "BUY"
        y = content.prices["low" if below else "high"][mark.place] + (-content.gap if below else content.gap)
        color = look.of_action(mark.action)
        ax.plot(
            mark.place, y, SHAPES.get(mark.action, "D"), markersize=6 if mark.action in SHAPES else 5, zorder=5,
            markeredgecolor=color, markerfacecolor=color if mark.recorded else look.paper,
        )  # fmt: skip


def _lines(ax: Axes, lines: Sequence[Line], look: Look, title: str = "") -> None:
    """Lines, and their names above them."""
    drawn: list[Any] = []
    for place, line in enumerate(lines):
        color, x = look.lines[place % len(look.lines)], np.arange(len(line.values))
        if line.style == "bars":
            signs = np.nan_to_num(np.sign(line.values)).astype(int).tolist()
            drawn.append(ax.bar(x, np.nan_to_num(line.values), 0.5, color=[look.of(sign) for sign in signs]))
        elif line.style == "dots":
            drawn += ax.plot(x, line.values, ".", color=color, markersize=2.5)
        else:
            drawn += ax.plot(x, line.values, color=color, linewidth=1)
    if drawn:
        names = legend(lines, title)
        ax.legend(
            drawn, names, loc="upper left", ncols=len(names), fontsize=7, labelcolor=look.ink, facecolor=look.paper,
            edgecolor="none", framealpha=0.6, borderaxespad=0.1, borderpad=0.2, handlelength=1.1, handletextpad=0.4,
            columnspacing=1,
        )  # fmt: skip


def _dress(ax: Axes, look: Look) -> None:
    ax.set_facecolor(look.paper)
    ax.set_axisbelow(True)
    ax.grid(color=look.grid, linewidth=0.7)
    ax.yaxis.tick_right()
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(colors=look.faint, length=0, labelsize=7.5, labelbottom=False)
    for spine in ax.spines.values():
        spine.set_color(look.grid)


def _times(ax: Axes, content: Content) -> None:
    """Some bars' times below the last part: bars stand beside each other, whatever time lies between."""
    n = len(content)
    step = -(-max(n, LEAST_SHOWN) // 7)
    places = list(range(n - 1, -1, -step))[::-1]
    labels = content.labels
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: labels[int(x)][2:] if 0 <= x < n else ""))
    ax.tick_params(axis="x", labelbottom=True, pad=4)
    ax.set_xlim(-0.8, max(n, LEAST_SHOWN) - 0.2)


def fonts_for(text: str) -> list[str]:
    """The families to draw a text with: matplotlib's own, and if that lacks characters one that has them all."""
    lacking = {char for char in text if not _has(LATIN, char)}
    if not lacking:
        return [LATIN]
    known = {entry.name for entry in _all_fonts()}
    others = sorted(name for name in known if any(word in name for word in ("CJK", "Hei", "Song", "Ming", "Kai")))
    for name in dict.fromkeys([*(name for name in CHINESE if name in known), *others]):
        if all(_has(name, char) for char in lacking):
            return [LATIN, name]
    return [LATIN]


def drawable(text: str, fonts: Iterable[str]) -> bool:
    """Whether one of the fonts has each character."""
    return all(any(_has(font, char) for font in fonts) for char in text)


def _has(family: str, char: str) -> bool:
    face = _face(family)
    return face is not None and face.get_char_index(ord(char)) != 0


@lru_cache(maxsize=16)
def _face(family: str) -> FT2Font | None:
    found = [entry for entry in _all_fonts() if entry.name == family and entry.style == "normal"]
    return FT2Font(min(found, key=lambda entry: abs(int(entry.weight) - 400)).fname) if found else None


def _all_fonts() -> list[Any]:
    fonts: list[Any] = font_manager.fontManager.ttflist
    return fonts


logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a bold Chinese face is often not there

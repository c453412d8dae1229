"""Charts as pictures, looked at pixel by pixel, and on a terminal, character by character."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from matplotlib import font_manager
from PIL import Image
from rich.console import Console

from data.store import BarStore
from jobs.chart import picture
from jobs.chart.content import Content, Mark
from jobs.chart.look import COLORS, THEMES, look, terminal_look
from jobs.chart.making import make
from jobs.chart.placing import wanted
from jobs.chart.terminal import bars_that_fit, to_terminal
from scanner.engines.base import Engine

UP, DOWN, STILL = (10.0, 13, 9, 12.0), (12.0, 13, 9, 10.0), (10.0, 10, 10, 10.0)
Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def three(
    store_of: Callable[..., BarStore], daily: Callable[..., pa.Table], sessions: list[Any], engine: Engine
) -> Content:
    """A bar up, one down, one without a trade."""
    store = store_of(daily("600519.SH", sessions[:3], [UP, DOWN, STILL], flags=[0, 0, 1]))
    return make(store, "600519.SH", "1d", wanted(["MACD(12,26,9)"]), engine)


def pixels(content: Content, **options: Any) -> Pixels:
    with Image.open(io.BytesIO(picture.to_png(content, look(**options)))) as image:
        return np.asarray(image.convert("RGB"))


def rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def columns_of(image: Pixels, color: str) -> npt.NDArray[np.intp]:
    """Where along the picture a colour is, left to right."""
    return np.flatnonzero((image == rgb(color)).all(axis=2).any(axis=0))


@pytest.mark.parametrize("colors", COLORS)
@pytest.mark.parametrize("theme", THEMES)
def test_red_is_up_in_china_and_green_elsewhere(three: Content, colors: Any, theme: Any) -> None:
    image = pixels(three, colors=colors, theme=theme)
    assert image.shape[1] == 1200
    assert image.shape[0] == round(picture.DPI * (0.55 + 3.6 + 0.95 + 1.15 + 0.35))
    drawn = look(colors, theme)
    red, green = ((drawn.up, drawn.down), (drawn.down, drawn.up))[colors == "western"]
    assert rgb(red)[0] > rgb(red)[1]
    assert rgb(green)[1] > rgb(green)[0]
    up, down = columns_of(image, drawn.up), columns_of(image, drawn.down)
    assert 0 < up.min() < up.max() < down.min() < down.max() < 100  # the first bar rose, the second fell
    still = columns_of(image, drawn.even)
    assert still[still > down.max()].size  # and the third is a dash
    assert (image[2, 2] == rgb(drawn.paper)).all()


def test_a_signal_stands_under_the_bar_that_it_is_of(three: Content) -> None:
    mark = Mark(1, "BUY", ("mine",), 0.7, 10.0, 10.0, True)
    before, after = pixels(three), pixels(replace(three, marks=(mark,)))
    fell = columns_of(before, look().down)
    red = rgb(look().up)

    def reds(image: Pixels) -> int:
        return int((image[:500, fell.min() : fell.max()] == red).all(axis=2).sum())

    assert reds(before) == 0
    assert reds(after) > 20
    hollow = pixels(replace(three, marks=(replace(mark, recorded=False),)))
    assert 0 < reds(hollow) < reds(after)


def test_a_chinese_name_is_drawn_where_a_font_has_it_and_left_out_elsewhere(
    three: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = replace(three, name="贵州茅台")
    plain = pixels(three)
    if picture.fonts_for("贵州茅台") != [picture.LATIN]:  # else this machine has no Chinese font
        assert (pixels(named) != plain).any()
    latin = [entry for entry in font_manager.fontManager.ttflist if entry.name == picture.LATIN]
    monkeypatch.setattr(picture, "_all_fonts", lambda: latin)
    picture._face.cache_clear()
    assert (pixels(named) == plain).all()
    # A note with such a name has question marks, not boxes.
    assert (pixels(replace(three, notes=("策略",))) == pixels(replace(three, notes=("??",)))).all()
    picture._face.cache_clear()


def test_words_of_a_market_are_no_formulas(three: Content) -> None:
    assert pixels(replace(three, name="$\\frac{$ <script>")).shape[1] == 1200


def shown(content: Content, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=40, highlight=False, **options)
    to_terminal(content, terminal_look(), console)
    return stream.getvalue()


def test_eighty_columns_hold_what_fits(simulated: BarStore, engine: Engine) -> None:
    symbol = simulated.symbols("1d")[0]
    content = make(simulated, symbol, "1d", wanted(["SMA(20), KDJ"]), engine, bars=bars_that_fit(80))
    lines = shown(content).splitlines()
    assert len(content) == 70
    assert len(lines) <= 40
    assert all(len(line.rstrip()) <= 80 for line in lines[3:])
    assert symbol in lines[0]
    assert f"{content.prices['high'].max():.2f}" in lines[3]
    assert lines[-2].split()[0] == content.labels[0]
    assert lines[-2].split()[-1] == content.labels[-1]
    assert lines[-1].startswith("KDJ(9,3,3) k ")
    assert set("┃│╷╵") & set("".join(lines))


def test_candles_have_their_colours_and_without_colours_their_shapes(three: Content) -> None:
    colored = shown(three, force_terminal=True, color_system="standard")
    rows = [line for line in colored.splitlines() if "┃" in line]
    assert rows
    assert all("\x1b[31m┃" in row and "\x1b[32m┃" in row for row in rows)
    assert all(row.index("\x1b[31m") < row.index("\x1b[32m") for row in rows)
    plain = shown(three)
    assert "\x1b" not in plain
    body = next(line for line in plain.splitlines() if "┃" in line)
    assert body.index("▒") < body.index("┃")


def test_signals_are_told_under_the_bars(three: Content) -> None:
    marks = (Mark(1, "BUY", ("mine",), 0.7, 10.0, 10.0, False), Mark(2, "ALERT", ("other",), 1.0, 10.0, 10.0, True))
    text = shown(replace(three, marks=marks))
    assert f"▲ {three.labels[1]} BUY mine (0.70) at 10.00, computed anew" in text
    lines = text.splitlines()
    assert sum("▲" in line for line in lines) == 2
    assert sum("◆" in line for line in lines) == 2


def test_a_terminal_that_knows_ascii_alone(three: Content) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    to_terminal(three, terminal_look(), Console(file=stream, width=80, height=40))
    stream.seek(0)
    row = next(line for line in stream.read().splitlines() if "#" in line)
    assert row.index("=") < row.index("#")  # rising, falling

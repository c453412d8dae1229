"""A chart as a Bokeh document: a file that needs no other, or JSON for a page that has BokehJS.

Nothing in it is code, so that BokehJS draws it where a page forbids `eval`; words of the market are text, never HTML.
"""

import html
import json
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.layouts import column
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CrosshairTool,
    DataRange1d,
    HoverTool,
    Legend,
    LegendItem,
    NoOverlap,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    Span,
    Title,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from jobs.chart.content import Content, Line, Pane
from jobs.chart.look import Colors, Look, Theme, look

FIRST_SEEN = 120
"""So many bars are seen before anybody zooms."""
HEIGHTS = {"prices": 380, "volume": 110, "pane": 130}
"""CSS pixels."""
_BODY = 0.7
_SHAPES = {"BUY": "triangle", "SELL": "inverted_triangle"}


def figure_json(content: Content, look: Look, target: str | None = None) -> dict[str, Any]:
    """What `Bokeh.embed.embed_item` takes; `target`: the id of the element it is drawn in."""
    found: dict[str, Any] = json_item(layout(content, look), target)
    return found


def write_html(content: Content, colors: Colors = "cn", theme: Theme | None = None) -> str:
    """One file with everything in it; without a `theme` it is dark where its reader's screen is."""
    script = Resources(mode="inline", components=["bokeh"]).render_js()
    looks = {name: look(colors, name) for name in (("light", "dark") if theme is None else (theme,))}
    items = {name: figure_json(content, one) for name, one in looks.items()}
    papers = {name: one.paper for name, one in looks.items()}
    # In a script element only "</" and "<!--" mean anything, and JSON can spell "<" otherwise.
    data = json.dumps({"items": items, "papers": papers}, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.format(title=html.escape(f"{content.heading} {content.frame}"), script=script, data=data)


def layout(content: Content, look: Look) -> Any:
    """Prices, volume and panes below each other, with one axis of time."""
    n = len(content)
    shared = Range1d(max(-1, n - FIRST_SEEN) - 0.5, n - 0.5 + max(1, n // 100), bounds=(-2, n + 5))
    cross = Span(dimension="height", line_color=look.faint, line_width=1, line_dash="dotted")
    source = _source(content, look)
    parts = [_prices(content, look, source, shared), _volume(content, look, source, shared)]
    parts += [_pane(pane, look, source, shared, number) for number, pane in enumerate(content.panes)]
    for part in parts:
        part.add_tools(CrosshairTool(overlay=cross))
    _label(parts[-1], content)
    for part in parts[:-1]:
        part.xaxis.visible = False
    return column(*parts, sizing_mode="stretch_width", spacing=0)


def _source(content: Content, look: Look) -> ColumnDataSource:
    """One row a bar; what hovering shows is text already."""
    prices, volume = content.prices, content.volume
    directions = content.direction
    said = np.where(content.idle, "no trade", np.where(content.incomplete, "incomplete", ""))
    said = np.where(content.at_limit > 0, "limit up", np.where(content.at_limit < 0, "limit down", said))
    data: dict[str, Any] = {
        "x": np.arange(len(content)),
        "time": content.labels,
        **prices,
        "volume": volume,
        "color": [look.of(d) for d in directions.tolist()],
        "change": [_percent(v) for v in content.change.tolist()],
        "shares": [large(v) for v in volume.tolist()],
        "cny": [large(v) for v in content.amount.tolist()],
        "traded": [f"{v:.2f}" for v in content.raw_close.tolist()],
        "said": said.tolist(),
    }
    return ColumnDataSource(data)


def _prices(content: Content, look: Look, source: ColumnDataSource, shared: Range1d) -> Any:
    plot = _figure(look, shared, HEIGHTS["prices"])
    plot.add_layout(
        Title(text=content.heading, text_color=look.ink, text_font_size="15px", text_font_style="bold", offset=4),
        "above",
    )
    for halt in content.halts:
        plot.add_layout(
            Span(
                location=halt.place - 0.5, dimension="height", line_color=look.even, line_dash="dashed", line_alpha=0.7
            )
        )
    wicks = plot.segment("x", "high", "x", "low", source=source, color="color", line_width=1)
    bodies = plot.vbar("x", _BODY, "open", "close", source=source, color="color", line_width=1)
    _lines(plot, content.overlays, look, source, "overlay")
    rows = [
        ("", "@time @said"),
        ("open", "@open{0.00}"),
        ("high", "@high{0.00}"),
        ("low", "@low{0.00}"),
        ("close", "@close{0.00} (@change)"),
        *([("traded at", "@traded")] if content.adjusted else []),
        ("volume", "@shares"),
        ("amount", "@cny"),
    ]
    plot.add_tools(_hover([bodies], rows, "vline"))
    del wicks
    _marks(plot, content, look)
    return plot


def _marks(plot: Any, content: Content, look: Look) -> None:
    """Below the bar what says buy, above it the rest: half a usual bar away."""
    high, low = content.prices["high"], content.prices["low"]
    gap = 0.6 * float(np.nanmean(high - low)) or 0.005 * float(np.nanmean(high))
    for action in ("BUY", "SELL", "ALERT"):
        marks = [mark for mark in content.marks if mark.action == action]
        if not marks:
            continue
        places = [mark.place for mark in marks]
        at = low[places] - gap if action == "BUY" else high[places] + gap
        data = {"x": places, "y": at, "said": [str(mark) for mark in marks]}
        data |= {"time": [content.labels[place] for place in places], "fill": [0.95 * mark.recorded for mark in marks]}
        color = look.of_action(action)
        glyph = plot.scatter(
            "x",
            "y",
            source=ColumnDataSource(data),
            marker=_SHAPES.get(action, "diamond"),
            size=11,
            fill_color=color,
            line_color=color,
            fill_alpha="fill",
        )
        plot.add_tools(_hover([glyph], [("", "@time"), ("", "@said")], "mouse"))


def _volume(content: Content, look: Look, source: ColumnDataSource, shared: Range1d) -> Any:
    plot = _figure(look, shared, HEIGHTS["volume"])
    plot.y_range.start = 0
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    bars = plot.vbar("x", _BODY, "volume", 0, source=source, color="color", line_width=1)
    _lines(plot, content.volume_lines, look, source, "of_volume")
    plot.add_tools(_hover([bars], [("", "@time"), ("volume", "@shares"), ("amount", "@cny")], "vline"))
    return plot


def _pane(pane: Pane, look: Look, source: ColumnDataSource, shared: Range1d, number: int) -> Any:
    plot = _figure(look, shared, HEIGHTS["pane"])
    for level in pane.levels:
        plot.add_layout(
            Span(location=level, dimension="width", line_color=look.even, line_dash="dashed", line_alpha=0.6)
        )
    _lines(plot, pane.lines, look, source, f"pane{number}", pane.title)
    return plot


def _lines(
    plot: Any, lines: tuple[Line, ...], look: Look, source: ColumnDataSource, prefix: str, title: str = ""
) -> None:
    """Lines with a legend above them; a click on it hides one."""
    items, rows, glyphs = [], [("", "@time")], []
    for number, line in enumerate(lines):
        name, color = f"{prefix}_{number}", look.lines[number % len(look.lines)]
        source.data[name] = line.values
        rows.append((line.label, f"@{name}{{0.0000}}" if title else f"@{name}{{0.00}}"))
        if line.style == "bars":
            signs = [look.of(int(np.sign(v))) if v == v else look.even for v in line.values.tolist()]
            source.data[f"{name}_color"] = signs
            glyph = plot.vbar("x", 0.5, name, 0, source=source, color=f"{name}_color", line_width=0)
        elif line.style == "dots":
            glyph = plot.scatter("x", name, source=source, size=4, color=color)
        else:
            glyph = plot.line("x", name, source=source, color=color, line_width=1.4)
        glyphs.append(glyph)
        items.append(LegendItem(label=line.label, renderers=[glyph]))
    if not items:
        return
    legend = Legend(
        items=items,
        title=title if title and [line.label for line in lines] != [title] else None,
        orientation="horizontal",
        location="top_left",
        click_policy="hide",
        label_text_color=look.ink,
        label_text_font_size="11px",
        title_text_color=look.faint,
        title_text_font_size="11px",
        title_text_font_style="normal",
        background_fill_color=look.paper,
        background_fill_alpha=0.6,
        border_line_width=0,
        padding=2,
        margin=2,
        spacing=8,
        glyph_height=10,
        glyph_width=14,
        label_height=10,
        label_standoff=3,
    )
    plot.add_layout(legend)
    if title:
        plot.add_tools(_hover(glyphs[:1], rows, "vline"))


def _figure(look: Look, shared: Range1d, height: int) -> Any:
    """A part of the chart: its own scale on the right, which follows what is seen."""
    pan, wheel = PanTool(dimensions="width"), WheelZoomTool(dimensions="width", maintain_focus=False)
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=shared,
        y_range=DataRange1d(range_padding=0.08),
        y_axis_location="right",
        tools=[pan, wheel, ResetTool(), SaveTool()],
        active_drag=pan,
        active_scroll=wheel,
        toolbar_location=None,
        window_axis="x",
        min_border_right=58,
        min_border_left=6,
        min_border_top=4,
        min_border_bottom=4,
        background_fill_color=look.paper,
        border_fill_color=look.paper,
        outline_line_color=look.grid,
    )
    plot.grid.grid_line_color = look.grid
    plot.axis.axis_line_color = look.grid
    plot.axis.major_tick_line_color = look.grid
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = look.faint
    plot.axis.major_label_text_font_size = "11px"
    plot.yaxis.ticker.desired_num_ticks = 5
    plot.xaxis.ticker = BasicTicker(desired_num_ticks=6, mantissas=[1, 2, 5], min_interval=1, num_minor_ticks=0)
    return plot


def _label(plot: Any, content: Content) -> None:
    """Times where bars are: no night, no lunch and no holiday has a place on the axis."""
    labels = content.labels
    plot.xaxis.major_label_overrides = {place: label[2:] for place, label in enumerate(labels)}
    plot.xaxis.bounds = (0, len(labels) - 1)
    plot.xaxis.major_label_policy = NoOverlap()


def _hover(renderers: list[Any], rows: list[tuple[str, str]], mode: str) -> HoverTool:
    return HoverTool(renderers=renderers, tooltips=rows, mode=mode, point_policy="follow_mouse", visible=False)


def large(value: float) -> str:
    """1.23M, 4.56G; a dash for what is unknown."""
    if not np.isfinite(value):
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.0f}"


def _percent(value: float) -> str:
    return f"{value:+.2f}%" if np.isfinite(value) else "-"


_PAGE = """<!doctype html>
<html lang="zh">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>html {{ color-scheme: light dark }} body {{ margin: 0 }}</style>
{script}
</head>
<body>
<div id="chart"></div>
<script id="data" type="application/json">{data}</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
async function draw() {{
  const wanted = dark.matches ? "dark" : "light";
  const theme = wanted in data.items ? wanted : Object.keys(data.items)[0];
  document.body.style.background = data.papers[theme];
  const chart = document.getElementById("chart");
  chart.replaceChildren();
  await Bokeh.embed.embed_item(structuredClone(data.items[theme]), chart);
}}
draw();
dark.addEventListener("change", draw);
</script>
</body>
</html>
"""

"""A chart as a Bokeh document: a file that needs no other, or JSON for a page that has BokehJS.

Nothing in it is code, so that BokehJS draws it where a page forbids `eval`; inline styles it needs. Words of the market
are text, never HTML.
"""

import html
import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from bokeh import __version__
from bokeh.document import Document
from bokeh.models import (
    AllIndices,
    AllLabels,
    BasicTicker,
    BasicTickFormatter,
    CDSView,
    Column,
    ColumnDataSource,
    CrosshairTool,
    DataRange1d,
    Glyph,
    GlyphRenderer,
    Grid,
    HoverTool,
    Legend,
    LegendItem,
    LinearAxis,
    LinearScale,
    NoOverlap,
    NumeralTickFormatter,
    PanTool,
    Plot,
    Range1d,
    Rect,
    ResetTool,
    SaveTool,
    Scatter,
    Segment,
    Span,
    Title,
    Toolbar,
    VStrip,
    WheelZoomTool,
)
from bokeh.models import Line as LineGlyph
from bokeh.resources import Resources

from jobs.chart.content import LEAST_SHOWN, Content, Line, legend
from jobs.chart.look import Colors, Look, Theme, look
from jobs.chart.numbers import large

FIRST_SEEN = 120
"""So many bars are seen before anybody zooms."""
HEIGHTS = {"prices": 400, "volume": 110, "pane": 135}
"""CSS pixels."""
BODY = 0.7
"""Of a bar's place on the axis."""
_SHAPES = {"BUY": "triangle", "SELL": "inverted_triangle"}


def figure_json(content: Content, look: Look, target: str | None = None) -> dict[str, Any]:
    """What `Bokeh.embed.embed_item` takes; `target`: the id of the element it is drawn in."""
    # As bokeh.embed.json_item gives it, which looks three times for callbacks in Python: there are none.
    document = Document()
    root = _Drawing(content, look).layout()
    document.add_root(root)
    return {"target_id": target, "root_id": root.id, "doc": document.to_json(deferred=False), "version": __version__}


def to_html(content: Content, colors: Colors = "cn", theme: Theme | None = None) -> str:
    """One file with everything in it; without a `theme` it is dark where its reader's screen is."""
    looks = {name: look(colors, name) for name in (("light", "dark") if theme is None else (theme,))}
    items = {name: figure_json(content, one) for name, one in looks.items()}
    papers = {name: one.paper for name, one in looks.items()}
    data = json.dumps({"items": items, "papers": papers}, separators=(",", ":"), allow_nan=False)
    return Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{content.heading} {content.frame}"),
        script=Resources(mode="inline", components=["bokeh"]).render_js(),
        data=data.replace("<", "\\u003c"),  # nothing that is within a script element can end it
    )


class _Drawing:
    """Holds the rows, one a bar, that all parts of a chart draw from."""

    def __init__(self, content: Content, look: Look) -> None:
        self.content, self.look = content, look
        end = max(len(content), LEAST_SHOWN)
        self.across = Range1d(max(0, end - FIRST_SEEN) - 0.5, end + 0.5, bounds=(-2, end + 5))
        self.rows, self.source = _rows(content, look), ColumnDataSource()
        # What has no state of its own is the same in all parts: what Bokeh takes its time for is the number of models.
        self.view, self.scale = CDSView(filter=AllIndices()), LinearScale()
        self.formatter, self.policy = BasicTickFormatter(), AllLabels()
        self.times = BasicTicker(desired_num_ticks=6, mantissas=[1, 2, 5], min_interval=1, num_minor_ticks=0)
        self.values = BasicTicker(desired_num_ticks=5, num_minor_ticks=0)
        self.pan = PanTool(dimensions="width")
        self.wheel = WheelZoomTool(dimensions="width", maintain_focus=False)
        cross = Span(dimension="height", line_color=look.faint, line_dash="dotted")
        self.cross = CrosshairTool(overlay=cross)

    def layout(self) -> Column:
        """Prices, volume and panes below each other, with one axis of time below the last."""
        parts = [self.prices(), self.volume(), *map(self.pane, range(len(self.content.panes)))]
        labels = self.content.labels
        parts[-1].add_layout(
            LinearAxis(
                # Where bars are: no night, no lunch and no holiday has a place on the axis.
                major_label_overrides={place: label[2:] for place, label in enumerate(labels)},
                bounds=(0, len(labels) - 1),
                major_label_policy=NoOverlap(),
                formatter=self.formatter,
                ticker=self.times,
                **self.axis(),
            ),
            "below",
        )
        parts[-1].height += 24
        for part in parts:
            # BokehJS takes every rectangle for as high as the highest, and clips bars of other kinds not quite.
            part.y_range.renderers = [one for one in part.renderers if not isinstance(one.glyph, Rect | VStrip)]
        self.source.data = self.rows
        return Column(children=parts, sizing_mode="stretch_width", spacing=0)

    def prices(self) -> Plot:
        content, look = self.content, self.look
        plot = self.plot(HEIGHTS["prices"], toolbar="above")
        for words in (content.caveats, content.facts):  # from the bars upward
            if words:
                text = "  ·  ".join(words)
                plot.add_layout(Title(text=text, text_color=look.faint, text_font_size="11px", **_PLAIN), "above")
        plot.add_layout(Title(text=content.heading, text_color=look.ink, text_font_size="16px"), "above")
        for place in content.breaks:
            plot.add_layout(Span(location=place - 0.5, dimension="height", line_dash="dashed", **self.edge()))
        self.add(plot, Segment(x0="x", y0="high", x1="x", y1="low", line_color="color"))
        # A body without height is a dash.
        self.add(plot, Segment(x0="left", y0="close", x1="right", y1="close", line_color="color"))
        self.add(plot, Rect(x="x", y="middle", width=BODY, height="body", **_BY_COLOR))
        self.lines(plot, content.overlays, "prices")
        traded = [("traded at", "@traded")] if content.adjusted else []
        names = ("open", "high", "low")
        rows = [
            *((name, f"@{name}{{0.00}}") for name in names),
            ("close", "@close{0.00} @change"),
            *traded,
            ("volume", "@shares"),
            ("amount", "@cny"),
        ]
        self.tell(plot, rows)
        self.marks(plot)
        return plot

    def marks(self, plot: Plot) -> None:
        """Below the bar what says buy, above it the rest; hollow what was computed anew."""
        content, gap = self.content, self.content.gap
        for action in dict.fromkeys(mark.action for mark in content.marks):
            marks = [mark for mark in content.marks if mark.action == action]
            places = [mark.place for mark in marks]
            at = content.prices["low"][places] - gap if action == "BUY" else content.prices["high"][places] + gap
            data = {
                "x": places,
                "y": at,
                "time": [content.labels[place] for place in places],
                "said": [str(mark) for mark in marks],
                "fill": [float(mark.recorded) for mark in marks],
            }
            color = self.look.of_action(action)
            glyph = Scatter(
                x="x", y="y", size=11, marker=_SHAPES.get(action, "diamond"),
                fill_color=color, line_color=color, fill_alpha="fill",
            )  # fmt: skip
            drawn = GlyphRenderer(data_source=ColumnDataSource(data), glyph=glyph)
            plot.renderers.append(drawn)
            plot.add_tools(HoverTool(renderers=[drawn], tooltips=[("", "@time"), ("", "@said")]))

    def volume(self) -> Plot:
        plot = self.plot(HEIGHTS["volume"], NumeralTickFormatter(format="0.[0]a"))
        self.add(plot, _reach("volume"))
        self.add(plot, Rect(x="x", y="half_volume", width=BODY, height="volume", **_BY_COLOR))
        self.lines(plot, self.content.volume_lines, "volume")
        self.tell(plot, [("volume", "@shares"), ("amount", "@cny")])
        return plot

    def pane(self, number: int) -> Plot:
        pane = self.content.panes[number]
        plot = self.plot(HEIGHTS["pane"], NumeralTickFormatter(format="0.[00]a") if pane.large else None)
        for level in pane.levels:
            plot.add_layout(Span(location=level, dimension="width", line_dash="dashed", **self.edge()))
        self.lines(plot, pane.lines, f"pane{number}", pane.title)
        if not any(np.isfinite(line.values).any() for line in pane.lines):
            plot.y_range.update(start=0, end=1)  # of a new listing nothing may be known yet
        self.tell(plot, [(line.label, f"@pane{number}_{place}{{0.0000}}") for place, line in enumerate(pane.lines)])
        return plot

    def lines(self, plot: Plot, lines: tuple[Line, ...], prefix: str, title: str = "") -> None:
        """Lines and their legend; a click on a line's name hides it."""
        items, names = [], legend(lines, title)
        for place, line in enumerate(lines):
            name, color = f"{prefix}_{place}", self.look.lines[place % len(self.look.lines)]
            self.rows[name] = line.values
            glyph: Glyph
            if line.style == "bars":
                signs = np.nan_to_num(np.sign(line.values)).astype(int).tolist()
                self.rows[f"{name}_color"] = [self.look.of(sign) for sign in signs]
                self.rows |= {f"{name}_half": line.values / 2, f"{name}_size": np.abs(line.values)}
                self.add(plot, _reach(name))
                edges = {"fill_color": f"{name}_color", "line_color": None}
                glyph = Rect(x="x", y=f"{name}_half", width=0.5, height=f"{name}_size", **edges)
            elif line.style == "dots":
                glyph = Scatter(x="x", y=name, size=4, fill_color=color, line_color=color)
            else:
                glyph = LineGlyph(x="x", y=name, line_color=color, line_width=1.4)
            drawn = self.add(plot, glyph)
            items.append(LegendItem(label=names[place], renderers=[drawn]))
        if items:
            plot.add_layout(
                Legend(
                    items=items,
                    orientation="horizontal",
                    location="top_left",
                    click_policy="hide",
                    label_text_color=self.look.ink,
                    background_fill_color=self.look.paper,
                    **_SMALL,
                )
            )

    def tell(self, plot: Plot, rows: list[tuple[str, str]]) -> None:
        """What stands beside the pointer, wherever it is above or below a bar."""
        place = self.add(plot, VStrip(x0="from", x1="to", fill_color=None, line_color=None))
        rows = [("", "@time @said"), *rows]
        plot.add_tools(HoverTool(renderers=[place], tooltips=rows, mode="mouse", point_policy="follow_mouse"))

    def plot(self, height: int, formatter: Any = None, toolbar: str | None = None) -> Plot:
        """A part of the chart: its own scale on the right, which follows what is seen."""
        look = self.look
        tools = [self.pan, self.wheel, *([ResetTool(), SaveTool()] if toolbar else []), self.cross]
        edges = {f"min_border_{side}": 5 for side in ("left", "top", "bottom")}
        plot = Plot(
            height=height, sizing_mode="stretch_width", x_range=self.across, y_range=DataRange1d(range_padding=0.08),
            x_scale=self.scale, y_scale=self.scale,
            window_axis="x", toolbar=Toolbar(tools=tools, active_drag=self.pan, active_scroll=self.wheel, logo=None),
            toolbar_location=toolbar, toolbar_sticky=False, min_border_right=58, background_fill_color=look.paper,
            border_fill_color=look.paper, outline_line_color=look.grid, title=None, **edges,
        )  # fmt: skip
        plot.add_layout(Grid(dimension=0, ticker=self.times, grid_line_color=look.grid))
        plot.add_layout(Grid(dimension=1, ticker=self.values, grid_line_color=look.grid))
        words = {"formatter": formatter or self.formatter, "major_label_policy": self.policy}
        plot.add_layout(LinearAxis(ticker=self.values, **words, **self.axis()), "right")
        return plot

    def add(self, plot: Plot, glyph: Glyph) -> GlyphRenderer:
        drawn = GlyphRenderer(data_source=self.source, glyph=glyph, view=self.view)
        plot.renderers.append(drawn)
        return drawn

    def axis(self) -> dict[str, Any]:
        look = self.look
        lines = {"axis_line_color": look.grid, "major_tick_line_color": look.grid, "minor_tick_line_color": None}
        return {**lines, "major_label_text_color": look.faint, "major_label_text_font_size": "11px"}

    def edge(self) -> dict[str, Any]:
        return {"line_color": self.look.even, "line_alpha": 0.6}


_BY_COLOR = {"fill_color": "color", "line_color": None}
_PLAIN = {"text_font_style": "normal"}
_SMALL = {
    "label_text_font_size": "11px", "label_height": 10, "label_standoff": 3, "glyph_height": 10, "glyph_width": 14,
    "spacing": 8, "padding": 2, "margin": 2, "background_fill_alpha": 0.6, "border_line_width": 0,
}  # fmt: skip
"""A legend in one line above the bars."""


def _rows(content: Content, look: Look) -> dict[str, Any]:
    """A row a bar; what hovering shows is text already."""
    x, prices = np.arange(len(content)), content.prices
    return {
        "x": x,
        "from": x - 0.5,
        "to": x + 0.5,
        "left": x - BODY / 2,
        "right": x + BODY / 2,
        "time": content.labels,
        **prices,
        "middle": (prices["open"] + prices["close"]) / 2,
        "body": np.abs(prices["open"] - prices["close"]),
        "volume": content.volume,
        "half_volume": content.volume / 2,
        "color": [look.of(direction) for direction in content.direction.tolist()],
        "change": [f"({value:+.2f}%)" if value == value else "" for value in content.change.tolist()],
        "shares": [large(value) for value in content.volume.tolist()],
        "cny": [large(value) for value in content.amount.tolist()],
        "traded": [f"{value:.2f}" for value in content.raw_close.tolist()],
        "said": content.remarks,
    }


def _reach(name: str) -> Segment:
    """What nobody sees, and scales go by: from 0 to a value."""
    return Segment(x0="x", y0=0, x1="x", y1=name, line_color=None)

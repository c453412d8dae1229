"""What a scan costs against the number of symbols and of indicators, on the engine `vector`, as a plot.

    python benchmarks/scaling.py [--svg docs/reports/scaling.svg] [--symbols 1000,2000] [--indicators 1,2] [--json]

Two works over 250 daily bars: all bars anew, of which the last two rows are kept, and one new bar through a stream.
Medians of the runs, in one process. The numbers of symbols are measured with 20 indicators, those of indicators on
5,000 symbols.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.panel import Floats
from jobs.benchmark.bars import FIELDS, rectangle
from jobs.benchmark.cases import TWENTY
from jobs.benchmark.loop import Call
from jobs.benchmark.scans import indicators
from jobs.benchmark.share import computed
from scanner.engines.vector import VectorEngine
from scanner.stream import Stream

SYMBOLS, INDICATORS = (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000), (1, 2, 5, 10, 20, 40, 55)
N_SYMBOLS, N_BARS = 5000, 250
WORKS = {"all 250 bars": "#0072b2", "one new bar": "#d55e00"}
"""Work -> colour, two that everybody tells apart."""
Points = dict[str, list[tuple[int, float]]]
"""Work -> (how many, seconds)."""


def costs(n_symbols: int, expressions: Sequence[str], runs: int) -> dict[str, float]:
    """Seconds of each work; raises AssertionError where both, at the same bar, give other values."""
    bars = rectangle(n_symbols, N_BARS + 2 + 10 * runs)
    before, engine = bars.first(N_BARS), VectorEngine()
    whole = _median(lambda: computed(expressions, before, engine, 2), runs)
    terms = [term for text in expressions for term in Call.of(text).terms]
    stream = Stream(terms, before.panel, "vector")
    news = iter(range(N_BARS, bars.length))

    def step() -> Mapping[str, Floats]:
        t = next(news)
        return stream.advance(int(bars.panel.times[t]), {name: bars.panel[name][t] for name in FIELDS})

    newest = step()
    for term, values in zip(terms, computed(expressions, bars.first(N_BARS + 1), engine, 2), strict=True):
        np.testing.assert_array_equal(newest[term], values[-1], err_msg=term)
    del newest  # what nobody holds is not gathered at the next bar
    return dict(zip(WORKS, (whole, _median(step, 10 * runs)), strict=True))


def _median(call: Callable[[], object], runs: int) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def svg(panels: Sequence[tuple[str, Points]]) -> str:
    """Panels side by side, both axes logarithmic, milliseconds upwards."""
    width, height, left, top = 400, 300, 60, 40
    shapes = []
    every = [1e3 * s for _, points in panels for line in points.values() for _, s in line]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high += high == low
    for number, (title, points) in enumerate(panels):
        x0, counts = left + number * (width + 80), sorted({n for line in points.values() for n, _ in line})
        span = math.log10(counts[-1] / counts[0]) or 1.0

        def x(n: float, x0: int = x0, first: int = counts[0], span: float = span) -> float:
            return x0 + width * math.log10(n / first) / span

        def y(ms: float) -> float:
            return top + height * (high - math.log10(ms)) / (high - low)

        shapes.append(f'<text x="{x0}" y="{top - 15}" font-weight="bold">{title}</text>')
        for power in range(low, high + 1):
            level = y(10.0**power)
            shapes.append(
                f'<line x1="{x0}" x2="{x0 + width}" y1="{level:.1f}" y2="{level:.1f}" stroke="#888" opacity=".3"/>'
            )
            shapes.append(f'<text x="{x0 - 6}" y="{level + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
        shapes += [f'<text x="{x(n):.1f}" y="{top + height + 18}" text-anchor="middle">{n:,}</text>' for n in counts]
        for name, line in points.items():
            path = " ".join(f"{x(n):.1f},{y(1e3 * s):.1f}" for n, s in line)
            shapes.append(f'<polyline points="{path}" fill="none" stroke="{WORKS[name]}" stroke-width="2"/>')
            for n, s in line:
                place = f'cx="{x(n):.1f}" cy="{y(1e3 * s):.1f}"'
                told = f"<title>{n:,}: {1e3 * s:.3g} ms</title>"
                shapes.append(f'<circle {place} r="3" fill="{WORKS[name]}">{told}</circle>')
    for number, (name, colour) in enumerate(WORKS.items()):
        shapes.append(
            f'<text x="{left + 140 * number}" y="{top + height + 45}" fill="{colour}" font-weight="bold">{name}</text>'
        )
    total = left + len(panels) * (width + 80) - 60, top + height + 60
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]} {total[1]}" font-family="sans-serif"'
    back = f'<rect width="{total[0]}" height="{total[1]}" fill="#fff"/>'
    return "\n".join([f'{head} font-size="11" fill="#222">', back, *shapes, "</svg>"]) + "\n"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    parser.add_argument("--svg", type=Path, help="write the plot to this file")
    parser.add_argument("--symbols", type=_numbers, default=list(SYMBOLS))
    parser.add_argument("--indicators", type=_numbers, default=list(INDICATORS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    by_symbols: Points = {name: [] for name in WORKS}
    by_indicators: Points = {name: [] for name in WORKS}
    works: list[tuple[Points, int, int, Sequence[str]]] = [(by_symbols, n, n, TWENTY) for n in given.symbols]
    works += [(by_indicators, n, N_SYMBOLS, tuple(indicators(n))) for n in given.indicators]
    for points, n, n_symbols, expressions in works:
        for name, seconds in costs(n_symbols, expressions, given.runs).items():
            points[name].append((n, seconds))
            if not given.json:
                print(f"{n:7,} {name:14} {1e3 * seconds:10.3f} ms", flush=True)
    if given.svg:
        panels = (("symbols, with 20 indicators", by_symbols), ("indicators, with 5,000 symbols", by_indicators))
        given.svg.write_text(svg(panels), encoding="utf-8")
    if given.json:
        print(json.dumps({"symbols": by_symbols, "indicators": by_indicators}))


if __name__ == "__main__":
    main()

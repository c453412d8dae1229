"""What a chart takes: reading and computing, the page's document, a file of HTML, a picture, a terminal.

    python benchmarks/charts.py [--store DIR] [--symbol 600519] [--runs 20]

Without a store it makes one of 500 simulated symbols. Prints the least and the median of the runs, in ms by the clock
and of one core.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from data.simulator import SimulatedMarket
from data.store import BarStore
from data.symbols import canonical
from jobs.chart.look import look, terminal_look
from jobs.chart.making import make
from jobs.chart.page import figure_json, to_html
from jobs.chart.picture import to_png
from jobs.chart.placing import wanted
from jobs.chart.terminal import to_terminal
from jobs.simulated import make_history
from scanner.engines.base import load

INDICATORS = "SMA(5), SMA(20), SMA(60), SMA(volume,5), MACD, KDJ, RSI(14)"


def measure(name: str, work: Callable[[], object], runs: int) -> None:
    work()
    took = []
    for _ in range(runs):
        clock, core = time.perf_counter(), time.process_time()
        work()
        took.append((time.perf_counter() - clock, time.process_time() - core))
    columns = [[1000 * value for value in column] for column in zip(*took, strict=True)]
    text = "   ".join(f"{min(column):8.1f} {statistics.median(column):8.1f}" for column in columns)
    print(f"{name:28} {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--symbol")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.store is None:
            store = BarStore(Path(folder) / "sim", origin="sim-500-7")
            make_history(store, SimulatedMarket(500, seed=7), ["1d"], 250)
        else:
            store = BarStore(args.store)
        symbol = canonical(args.symbol) if args.symbol else store.symbols("1d")[0]
        engine, drawn = load("talib"), wanted([INDICATORS])
        content = make(store, symbol, "1d", drawn, engine)
        console = Console(file=io.StringIO(), width=80, force_terminal=True)
        print(f"{len(content)} daily bars of {symbol}, {len(content.panes)} panes, {args.runs} runs")
        print(f"{'ms':28} {'clock: least, median':>17}   {'core: least, median':>17}")
        measure("read and compute", lambda: make(store, symbol, "1d", drawn, engine), args.runs)
        measure("document for the page", lambda: figure_json(content, look()), args.runs)
        measure("HTML, light and dark", lambda: to_html(content), args.runs)
        measure("PNG", lambda: to_png(content, look()), args.runs)
        measure("terminal", lambda: to_terminal(content, terminal_look(), console), args.runs)


if __name__ == "__main__":
    main()

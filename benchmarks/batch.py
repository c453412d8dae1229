"""5,000 symbols x 20 indicators x 250 bars: a plain TA-Lib loop, and every engine in this process and on Dask.

    python benchmarks/batch.py [--symbols 5000] [--bars 250] [--runs 5] [--json]

Every way computes the same 20 indicators from the same bars, and what it returns is compared with the loop's before
anything is timed: that of the talib engine bit by bit, that of kernels to 1e-9 of an output's largest value. KAMA and
AROON have no kernel and are TA-Lib's in every engine. The loop and `compute` keep all rows; `evaluate` and the shards
on Dask, which hold their bars, return the last two as a scan does. Medians of the runs; the ratio is to the loop of
the same run.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import talib

from data.panel import Panel
from data.simulator import SimulatedMarket
from data.store import BarStore
from scanner import compute
from scanner.cluster import make_cluster
from scanner.engines.base import Engine, choose
from scanner.engines.vector import VectorEngine
from scanner.evaluate import evaluate
from scanner.fields import Source
from scanner.language import parse
from scanner.resident import ShardTask, split
from scanner.scan import Plan

INDICATORS: dict[str, Callable[..., Any]] = {
    "SMA(20)": lambda o, h, lo, c, v: talib.SMA(c, 20),
    "EMA(12)": lambda o, h, lo, c, v: talib.EMA(c, 12),
    "WMA(10)": lambda o, h, lo, c, v: talib.WMA(c, 10),
    "DEMA(20)": lambda o, h, lo, c, v: talib.DEMA(c, 20),
    "TEMA(20)": lambda o, h, lo, c, v: talib.TEMA(c, 20),
    "KAMA(10)": lambda o, h, lo, c, v: talib.KAMA(c, 10),
    "BBANDS(20,2,2)": lambda o, h, lo, c, v: talib.BBANDS(c, 20, 2, 2, 0),
    "MACD(12,26,9)": lambda o, h, lo, c, v: talib.MACD(c, 12, 26, 9),
    "RSI(14)": lambda o, h, lo, c, v: talib.RSI(c, 14),
    "STOCH(9,3,3)": lambda o, h, lo, c, v: talib.STOCH(h, lo, c, 9, 3, 0, 3, 0),
    "CCI(14)": lambda o, h, lo, c, v: talib.CCI(h, lo, c, 14),
    "WILLR(14)": lambda o, h, lo, c, v: talib.WILLR(h, lo, c, 14),
    "ROC(10)": lambda o, h, lo, c, v: talib.ROC(c, 10),
    "ATR(14)": lambda o, h, lo, c, v: talib.ATR(h, lo, c, 14),
    "ADX(14)": lambda o, h, lo, c, v: talib.ADX(h, lo, c, 14),
    "OBV()": lambda o, h, lo, c, v: talib.OBV(c, v),
    "MFI(14)": lambda o, h, lo, c, v: talib.MFI(h, lo, c, v, 14),
    "SAR(0.02,0.2)": lambda o, h, lo, c, v: talib.SAR(h, lo, 0.02, 0.2),
    "AROON(14)": lambda o, h, lo, c, v: talib.AROON(h, lo, 14),
    "AD()": lambda o, h, lo, c, v: talib.AD(h, lo, c, v),
}
N_OUTPUTS = 26


def loop(series: list[np.ndarray], out: np.ndarray) -> None:
    """The plain program: every function for every symbol, all rows stored in `out` (symbols, outputs, bars)."""
    for j in range(len(out)):
        bars = [matrix[j] for matrix in series]
        k = 0
        for call in INDICATORS.values():
            result = call(*bars)
            for values in result if isinstance(result, tuple) else (result,):
                out[j, k] = values
                k += 1


def outputs_of(expression: str) -> list[str]:
    """An indicator's outputs, each as an expression of its own."""
    term = parse(expression)
    names = term.indicator.outputs
    return [expression] if len(names) == 1 else [f"{expression}.{name}" for name in names]


def timed(call: Callable[[], Any], runs: int) -> list[float]:
    """Seconds of each run, after one that is not counted."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def check(what: str, got: np.ndarray, wanted: np.ndarray, *, exact: bool) -> None:
    """Raise AssertionError where values differ."""
    scale = 0.0 if exact else 1e-9 * np.nanmax(np.abs(wanted))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=scale, err_msg=what)


def measure(n_symbols: int, n_bars: int, runs: int) -> dict[str, Any]:
    """Check that all ways agree, then time them."""
    market = SimulatedMarket(n_symbols * 5 // 4, seed=11)
    table = market.bars("1d", *market.sessions[: n_bars + 20])
    panel = Panel.from_table(table, "1d").upto(2**62)
    packed = panel.pack()
    whole = [s for s, n in zip(packed.symbols, packed.lengths, strict=True) if n >= n_bars][:n_symbols]
    panel = panel.select(whole)
    packed = panel.pack()
    series = [np.ascontiguousarray(packed.fields[n][-n_bars:].T) for n in ("open", "high", "low", "close", "volume")]
    ends = packed.bar_ends[-n_bars:]
    times = np.unique(ends)
    # Every symbol is given the same bar ends, so that all ways see one full rectangle.
    stamp = times[-n_bars:]
    names = ("open", "high", "low", "close", "volume")
    panel = Panel("1d", stamp, tuple(whole), {n: m.T.copy() for n, m in zip(names, series, strict=True)})
    expressions = [text for expression in INDICATORS for text in outputs_of(expression)]
    assert len(expressions) == N_OUTPUTS
    stored = np.empty((len(whole), N_OUTPUTS, n_bars))
    loop(series, stored)
    in_process: dict[str, Engine] = {
        "talib": choose("talib")[0],
        "vector, 1 thread": VectorEngine(1),
        f"vector, {os.cpu_count()} threads": VectorEngine(),
    }
    for name, engine in in_process.items():
        values = compute(expressions, panel, engine)
        for k, expression in enumerate(expressions):
            check(f"{name}: {expression}", values[expression], stored[:, k].T, exact=name == "talib")

    ways: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = BarStore(folder, origin="benchmark")
        store.append(as_bars(panel), "1d")
        plan = Plan("1d", wanted=tuple((parse(text), 2) for text in expressions))
        cluster = make_cluster("local", dashboard_port=0)
        source = Source(packed := panel.pack(), adjust=False)
        terms = dict.fromkeys(map(parse, expressions), 2)
        assert packed.length == n_bars
        try:
            ways["TA-Lib loop, all rows stored"] = timed(lambda: loop(series, stored), runs)
            for name, engine in in_process.items():
                ways[f"compute, {name}, all rows"] = timed(partial(compute, expressions, panel, engine), runs)
                ways[f"evaluate, {name}, last 2 rows"] = timed(partial(evaluate, terms, source, engine), runs)
            for name in ("talib", "vector"):
                tasks = [
                    ShardTask(folder, "1d", None, shard, int(stamp[0]), int(stamp[-1]), name, plan)
                    for shard in split(whole, cluster.workers)
                ]
                for answer in cluster.run(tasks, deadline_s=300):
                    rows = [whole.index(symbol) for symbol in answer.symbols]
                    for k, got in enumerate(answer.wanted):
                        check(f"{name} on Dask: {expressions[k]}", got, stored[rows, k, -2:].T, exact=name == "talib")
                ways[f"{name} on Dask, {cluster.workers} workers, last 2 rows"] = timed(
                    partial(cluster.run, tasks, deadline_s=300), runs
                )
        finally:
            cluster.close()
    base = statistics.median(next(iter(ways.values())))
    return {
        "symbols": len(whole),
        "bars": n_bars,
        "indicators": len(INDICATORS),
        "outputs": N_OUTPUTS,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("TA-Lib", "numba", "numpy", "dask", "distributed", "pyarrow")},
        "ways": [
            {
                "way": name,
                "median_s": round(statistics.median(seconds), 4),
                "min_s": round(min(seconds), 4),
                "max_s": round(max(seconds), 4),
                "ratio_to_loop": round(base / statistics.median(seconds), 2),
            }
            for name, seconds in ways.items()
        ],
    }


def as_bars(panel: Panel) -> Any:
    """A full panel as rows of `data.schema.BAR`."""
    import pyarrow as pa

    from data.schema import BAR

    n_bars, n_symbols = panel["close"].shape
    n = n_bars * n_symbols
    codes = np.tile(np.arange(n_symbols, dtype=np.int32), n_bars)
    ends = np.repeat(panel.times, n_symbols)
    columns: dict[str, Any] = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(panel.symbols)),
        "bar_start": pa.array(ends - 1, pa.int64()),
        "bar_end": pa.array(ends, pa.int64()),
        **{name: panel[name].ravel() for name in ("open", "high", "low", "close", "volume")},
        "amount": pa.nulls(n, pa.float64()),
        "prev_close": pa.nulls(n, pa.float64()),
        "flags": pa.array(np.zeros(n, dtype=np.uint8)),
        "revision": pa.array(np.zeros(n, dtype=np.int32)),
    }
    return pa.table({name: columns[name] for name in BAR.names}).cast(BAR)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--bars", type=int, default=250)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = measure(given.symbols, given.bars, given.runs)
    if given.json:
        print(json.dumps(report))
        return
    print(
        f"{report['symbols']} symbols x {report['indicators']} indicators ({report['outputs']} outputs)"
        f" x {report['bars']} bars, {report['cores']} cores, Python {report['python']}, "
        + ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    )
    print(f"{'way':55} {'median s':>9} {'min s':>8} {'max s':>8} {'x loop':>7}")
    for way in report["ways"]:
        figures = f"{way['median_s']:9.3f} {way['min_s']:8.3f} {way['max_s']:8.3f} {way['ratio_to_loop']:7.2f}"
        print(f"{way['way']:55} {figures}")


if __name__ == "__main__":
    main()

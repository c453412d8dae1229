"""The cases, and how one is measured."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from jobs.benchmark.bars import Bars
from jobs.benchmark.checking import check, equal_bits, warmed_up
from jobs.benchmark.engines import Field, Way, Work, ways
from jobs.benchmark.loop import Call
from scanner.indicators import catalog

TWENTY = (
    "SMA(20)",
    "EMA(12)",
    "WMA(10)",
    "DEMA(20)",
    "TEMA(20)",
    "KAMA(10)",
    "BBANDS(20,2,2)",
    "MACD(12,26,9)",
    "RSI(14)",
    "STOCH(9,3,3)",
    "CCI(14)",
    "WILLR(14)",
    "ROC(10)",
    "ATR(14)",
    "ADX(14)",
    "OBV()",
    "MFI(14)",
    "SAR(0.02,0.2)",
    "AROON(14)",
    "AD()",
)
"""The twenty indicators, 26 outputs, of every case but `one-indicator` and `scan`."""


@dataclass(frozen=True)
class Row:
    """One engine in one case; seconds, and how many times as fast as the case's baseline it is."""

    case: str
    engine: str
    symbols: int
    bars: int
    indicators: int
    threads: int
    median_s: float
    min_s: float
    max_s: float
    ratio_to_talib_loop: float

    def as_dict(self) -> dict[str, str | int | float]:
        """With five digits of what was measured."""
        return {name: float(f"{v:.5g}") if isinstance(v, float) else v for name, v in asdict(self).items()}


def timed(ways: Sequence[tuple[Way, Callable[[], object]]], runs: int) -> list[list[float]]:
    """Seconds of each run of each way; the ways take turns, so that a noisy machine is so to all."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(runs):
        for (_, call), found in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return seconds


def rows_of(case: str, bars: Bars, indicators: int, ways: Sequence[Way], seconds: Sequence[list[float]]) -> list[Row]:
    """Medians, spread and ratio to the first way."""
    base = statistics.median(seconds[0])
    return [
        Row(
            case,
            way.engine,
            bars.n_symbols,
            bars.length,
            indicators,
            way.threads,
            (median := statistics.median(each)),
            min(each),
            max(each),
            base / median,
        )
        for way, each in zip(ways, seconds, strict=True)
    ]


def measure(
    case: str, work: Work, field: Field, runs: int, extra: Iterable[Way] = (), *, shared: bool = True
) -> list[Row]:
    """Check that all ways agree, then time them; raises UnequalError."""
    every = [*ways(work, field, shared=shared), *extra]
    wanted = warmed_up(work, every[0].outputs())
    for way in every[1:]:
        check(work, wanted, way)
    _same_bits(every)
    seconds = timed([(way, way.run) for way in every], runs)
    return rows_of(case, work.bars, len(work.calls), every, seconds)


def _same_bits(every: Sequence[Way]) -> None:
    """A GPU's values are the CPU's, bit for bit."""
    gpus = [way for way in every if way.engine.startswith("cuda")]
    vector = next((way for way in every if way.engine == "vector"), None)
    if gpus and vector is not None:
        values = vector.outputs()
        for way in gpus:
            equal_bits(f"{way.engine} against vector", way.outputs(), values)


def one_indicator(bars: Bars, field: Field, runs: int) -> Iterator[Row]:
    """Each indicator of the catalogue that TA-Lib has, alone; then the median over them as `one-indicator`."""
    found: list[Row] = []
    for name, indicator in catalog.items():
        if indicator.talib:
            call = Call.of(indicator.key(indicator.bind()))
            found += measure(f"one-indicator/{name}", Work((call,), bars), field, runs, shared=False)
    yield from summary(found)
    yield from found


def summary(found: Sequence[Row]) -> Iterator[Row]:
    """Of the rows of single indicators: the median over them, with the shortest and the longest."""
    for engine, threads in dict.fromkeys((row.engine, row.threads) for row in found):
        rows = [row for row in found if (row.engine, row.threads) == (engine, threads)]
        medians = [row.median_s for row in rows]
        ratio = statistics.median(row.ratio_to_talib_loop for row in rows)
        first = rows[0]
        median = statistics.median(medians)
        yield Row(
            "one-indicator", engine, first.symbols, first.bars, 1, threads, median, min(medians), max(medians), ratio
        )

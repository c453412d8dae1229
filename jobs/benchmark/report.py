"""A benchmark as Markdown: what was measured, on what, and how far it is from what was promised."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.benchmark.cases import Row
from jobs.benchmark.suite import Report

WHAT = {
    "one-indicator": "each indicator of the catalogue that TA-Lib has, alone; medians over them",
    "batch": "20 indicators, 26 outputs, all rows stored",
    "batch-market": "the same on a real market's last sessions; `vector-compute`: packing included",
    "last": "the same 20, the last two rows stored",
    "history": "the same 20, all rows of five times as many bars stored",
    "history-market": "the same on a real market's last sessions; `vector-compute`: packing included",
    "bar": "one new bar of every symbol, 20 indicators; seconds of one bar. TA-Lib: its stream handles",
    "bar-halts": "the same with listings and halts",
    "scan": "one new bar: 55 indicators, 50 rules, the hits. TA-Lib: its loop over all bars, then the same rules",
}
ENGINES = {
    "talib-loop": "TA-Lib's public functions, one symbol after the other, one thread: what ratios are to",
    "talib-bare": "the same without TA-Lib's wrapper, which looks at each call whether it was given pandas",
    "talib-processes": "the loop in as many processes as there are cores",
    "talib-dask": "engine `talib`, Dask workers that hold their bars",
    "talib-stream": "TA-Lib's stream handles, one a symbol and function: what ratios are to in `bar`",
    "vector": "engine `vector` in this process",
    "vector-compute": "`scanner.compute` of a panel, packing included",
    "vector-cold": "the first bar after the other side's turn, whose data fill the caches",
    "vector-dask": "engine `vector`, Dask workers that hold their bars",
    "cuda": "engine `cuda` in its process: bars, state and outputs stay on the card",
    "cuda-copies": "the same, bars copied in and every output copied out",
    "cuda-dask": "engine `cuda`, one Dask worker a card",
}


@dataclass(frozen=True)
class Goal:
    """What was promised for 5,000 symbols."""

    text: str
    case: str
    engine: str
    reached: Callable[[Row], bool]
    measured: Callable[[Row], str]


def _times(case: str, engine: str, ratio: float, text: str) -> Goal:
    return Goal(
        text, case, engine, lambda row: row.ratio_to_talib_loop >= ratio, lambda row: f"{row.ratio_to_talib_loop:.1f}x"
    )


def _within(case: str, engine: str, ms: float, text: str) -> Goal:
    return Goal(text, case, engine, lambda row: row.median_s * 1e3 <= ms, lambda row: milliseconds(row.median_s))


GOALS = (
    _times("one-indicator", "vector", 20, "one indicator, median over the catalogue: 20x the loop"),
    _times("batch", "vector", 20, "20 indicators, all rows: 20x"),
    _times("last", "vector", 30, "20 indicators, last rows: 30x"),
    _times("history", "vector", 8, "20 indicators, 1,250 bars: 8x"),
    _within("bar", "vector", 0.2, "one new bar, 20 indicators: 0.2 ms"),
    _times("bar", "vector", 150, "one new bar: 150x TA-Lib's stream handles"),
    _within("bar-halts", "vector", 0.6, "one new bar with halts: 0.6 ms"),
    _within("scan", "vector", 3, "one new bar, 55 indicators and 50 rules, in this process: 3 ms"),
    _within("scan", "vector-dask", 25, "the same through a local Dask cluster: 25 ms"),
    _within("batch", "cuda", 10, "on a GPU, 20 indicators resident: 10 ms"),
    _times("one-indicator", "cuda", 50, "on a GPU, one indicator: 50x the loop"),
    _times("batch", "cuda", 50, "on a GPU, 20 indicators: 50x"),
    _within("scan", "cuda-dask", 1000, "on a GPU through LocalCUDACluster: a scan"),
)

CARD = ("on a GPU, bits equal to `vector`", "on a GPU, flat memory over 1,000 scans")
"""What `jobs.benchmark.suite.look_at` finds."""


def markdown(report: Report) -> str:
    """The whole page."""
    machine = report.machine
    gpu = machine["gpu"] if "cuda" not in report.missing else None
    told = f"Measured on one {gpu}." if gpu else f"**No card was measured:** {report.missing.get('cuda', 'none')}."
    if gpu is None:
        told += " What is said of a GPU below is unverified."
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    lines = [
        "# GPU acceleration: the benchmark",
        "",
        told,
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['system']}. {versions}.",
        "",
        "Made by `mystocks-scan benchmark --report FILE`. All ways of a case compute the same from the same bars, in"
        " float64, and store it. What they computed was compared with TA-Lib's values before anything was timed:"
        " `talib`'s to the bit, kernels' to their declared tolerance, a card's with the CPU's to the bit. The ways take"
        " turns, run by run; ratios are to the first line of a case.",
        "",
        "## What was promised",
        "",
        "| for 5,000 symbols | here | |",
        "|---|---|---|",
        *(_goal(goal, report) for goal in GOALS),
        *_on_a_card(report),
    ]
    for case in dict.fromkeys(row.case for row in report.rows if "/" not in row.case):
        rows = [row for row in report.rows if row.case == case]
        lines += ["", f"## {case}", "", _heading(case, rows[0], report), "", *_table(rows)]
        if case == "one-indicator":
            lines += ["", *_single([row for row in report.rows if row.case.startswith("one-indicator/")])]
    used = dict.fromkeys(row.engine for row in report.rows)
    lines += ["", "## The ways", "", *(f"- `{name}`: {ENGINES[name]}" for name in used)]
    lines += [f"- not here: `{name}`: {why}" for name, why in report.missing.items()]
    return "\n".join(lines) + "\n"


def milliseconds(seconds: float) -> str:
    """As many digits as are worth reading."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds * 1e3:.0f} ms"


def _goal(goal: Goal, report: Report) -> str:
    # With all cores where an engine was measured with several numbers of threads.
    found = [row for row in report.rows if (row.case, row.engine) == (goal.case, goal.engine)]
    if not found:
        return f"| {goal.text} | | {'unverified' if goal.engine.startswith('cuda') else 'not measured'} |"
    row = max(found, key=lambda row: row.threads)
    if row.symbols < 4000:
        return f"| {goal.text} | {goal.measured(row)} | with {row.symbols:,} symbols |"
    return f"| {goal.text} | {goal.measured(row)} | {'reached' if goal.reached(row) else '**not reached**'} |"


def _on_a_card(report: Report) -> list[str]:
    if not report.gpu:
        return [f"| {text} | | unverified |" for text in CARD]
    return [
        f"| {text} | {finding.text} | {'reached' if finding.status == 'OK' else '**not reached**'} |"
        for text, finding in zip(CARD, report.gpu, strict=True)
    ]


def _heading(case: str, row: Row, report: Report) -> str:
    on = f" ({report.market})" if case == "bar-halts" else ""
    return f"{WHAT[case][0].upper()}{WHAT[case][1:]}{on}. {row.symbols:,} symbols, {row.bars:,} bars."


def _table(rows: Sequence[Row]) -> list[str]:
    return [
        "| way | threads | median | least | most | ratio |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| `{row.engine}` | {row.threads} | {milliseconds(row.median_s)} | {milliseconds(row.min_s)} |"
            f" {milliseconds(row.max_s)} | {row.ratio_to_talib_loop:.2f} |"
            for row in rows
        ),
    ]


def _single(rows: Sequence[Row]) -> list[str]:
    """Each indicator's ratio on each engine; the worst and the best are named."""
    ways = list(dict.fromkeys((row.engine, row.threads) for row in rows))
    names = list(dict.fromkeys(row.case.partition("/")[2] for row in rows))
    ratio = {(row.case.partition("/")[2], row.engine, row.threads): row.ratio_to_talib_loop for row in rows}
    lines = []
    for engine, threads in ways[1:]:
        found = sorted(names, key=lambda name: ratio[name, engine, threads])
        worst, best = found[0], found[-1]
        median = statistics.median(ratio[name, engine, threads] for name in names)
        lines.append(
            f"- `{engine}` on {threads}: median {median:.1f}x; worst {worst} {ratio[worst, engine, threads]:.1f}x,"
            f" best {best} {ratio[best, engine, threads]:.1f}x"
        )
    head = " | ".join(f"`{engine}` on {threads}" for engine, threads in ways[1:])
    lines += ["", f"| ratio to the loop | {head} |", f"|---|{'--:|' * len(ways[1:])}"]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(f"{ratio[name, *way]:.1f}" for way in ways[1:]) + " |")
    return lines

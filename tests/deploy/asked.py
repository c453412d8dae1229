"""What /metrics can show, and PromQL as far as it must be read to be held against it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from data import metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OWN = {"instance", "job"}
"""Labels that Prometheus gives to whatever it scrapes."""
ENDS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",), "unknown": ("",)}
NAME = r"\b(?:mystocks|process)_\w+"


def declared() -> dict[str, MetricWrapperBase]:
    """Family -> the metric of ours that is declared under it."""
    found = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    return {one.describe()[0].name: one for one in found}


def families() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(name as it is asked for, type, what it says, labels) of all that is registered, in the order of declaration."""
    ours = declared()
    for family in metrics.registry.collect():
        end = "_total" if family.type == "counter" else ""
        labels = ours[family.name]._labelnames if family.name in ours else ()
        yield family.name + end, family.type, family.documentation, tuple(labels)


def check(expr: str, series: Mapping[str, set[str]]) -> set[str]:
    """The labels that the result has, where an expression names only series and labels that there are."""
    named = re.findall(NAME, expr)
    assert set(named) <= series.keys(), expr
    assert named or expr.startswith("up{"), expr
    for name, inside in re.findall(rf"({NAME})\{{([^}}]*)\}}", expr):
        matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside))
        assert matched <= series[name], (name, matched, expr)
    kept: set[str] | None = None
    for by in re.finditer(r"\b(?:sum|min|max|avg|count) by \(([^)]*)\) \(", expr):
        labels = {label.strip() for label in by[1].split(",")}
        for name in re.findall(NAME, expr[by.end() : closing(expr, by.end())]):
            assert labels <= series[name], (name, labels, expr)
        kept = labels if kept is None else kept & labels
    if kept is not None:
        return kept - {"le"} if "histogram_quantile" in expr else kept
    if re.match(r"(sum|min|max)\(", expr):
        return set()
    return set.intersection(*(series[name] for name in named)) if named else OWN


def closing(text: str, start: int) -> int:
    """Where the parenthesis that was opened before `start` is closed."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise AssertionError(text)

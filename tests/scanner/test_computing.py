"""`compute` over a cluster gives what it gives in this process, to the bit; what makes no sense is refused."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import bar_ends
from data.errors import EngineError, ScanError, UsageError
from data.panel import Panel
from scanner import compute
from scanner.cluster import DaskCluster, InlineCluster
from scanner.engines.base import Engine

EXPRESSIONS = (
    "close",
    "RSI(14)",
    "KDJ(9, 3, 3).j",
    "MACD(12, 26, 9).hist > 0 and volume > 1.5 * SMA(volume, 20)",
    "cross_over(close, BBANDS(20, 2, 2).upperband)",
    "rank(ROC(5)) > 0.9",
    "SMA(rank(close), 3) + RSI(14)",
    'rank(highest(high, 20)) > 0.5 and board == "main"',
    "pct_change + bars_listed",
    "at_limit_up",
    "1 + 1",
)


class Seven(InlineCluster):
    """Seven workers, all of them this process."""

    workers = 7


@pytest.fixture(scope="module")
def panel(daily: pa.Table) -> Panel:
    return Panel.from_table(daily, "1d")


def assert_same(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    for expression in one:
        np.testing.assert_array_equal(one[expression], other[expression], err_msg=expression)


@pytest.mark.parametrize("engine", ["talib", "vector"])
def test_a_cluster_computes_the_same_bits(dask: DaskCluster, panel: Panel, engine: str) -> None:
    dask._client.wait_for_workers(2, timeout=60)
    expected = compute(EXPRESSIONS, panel, engine)
    for cluster in (dask, Seven(), "inline"):
        found = compute(EXPRESSIONS, panel, engine, cluster=cluster)
        assert_same(found, expected)
        assert found.engine == engine
    assert compute("close", panel, engine, cluster=dask).engine == engine


@pytest.mark.parametrize(
    "expression", ["close", "VWAP()", "pct_change + bars_listed", "at_limit_up", "rank(volume)", "is_st"]
)
def test_only_fields_that_are_needed_are_put_together(
    expression: str, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = compute([*EXPRESSIONS, expression], panel)  # limits need all fields
    asked: list[list[str]] = []
    pack = Panel.pack

    def packed(self: Panel, names: list[str]) -> Any:
        asked.append(names)
        return pack(self, names)

    monkeypatch.setattr(Panel, "pack", packed)
    np.testing.assert_array_equal(compute(expression, panel)[expression], every[expression])
    simple = {"close": ["close"], "rank(volume)": ["volume"], "is_st": []}
    assert asked == [simple.get(expression, asked[0])]


def test_symbols_are_computed_by_the_workers(dask: DaskCluster, panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    dask._client.wait_for_workers(2, timeout=60)
    expected = compute("RSI(14)", panel, "talib")
    monkeypatch.setattr("scanner.engines.talib.TalibEngine.run", lambda *_, **__: pytest.fail("computed here"))
    assert_same(compute("RSI(14)", panel, "talib", cluster=dask), expected)


def test_a_listing_is_told_by_the_first_bar_of_all_symbols() -> None:
    ends = np.array([bar_ends(np.datetime64("2025-03-03") + day, "1d")[0] for day in range(12)])
    close = np.full((12, 2), 10.0)
    close[:6, 1] = np.nan  # listed on the seventh day, and doubled on its second: there is no limit yet
    close[7:, 1] = 20.0
    fields = dict.fromkeys(("open", "high", "low", "close", "volume"), close)
    panel = Panel("1d", ends, ("600519.SH", "600000.SH"), fields)
    expected = compute("pct_change > 99", panel, "talib")
    assert expected["pct_change > 99"][7, 1] == 1.0
    assert_same(compute("pct_change > 99", panel, "talib", cluster=Seven()), expected)


def test_a_panel_without_symbols_or_bars(panel: Panel) -> None:
    for empty in (panel.select([]), panel.upto(0)):
        found = compute(["RSI(14)", "rank(close)"], empty, "talib", cluster=Seven())
        assert_same(found, compute(["RSI(14)", "rank(close)"], empty, "talib"))


def test_what_makes_no_sense_is_refused(dask: DaskCluster, panel: Panel, engine: Engine) -> None:
    def refused(match: str, error: type[Exception] = UsageError, **given: Any) -> None:
        with pytest.raises(error, match=match):
            compute("RSI(14)", panel, **{"engine": "talib", "cluster": "inline", **given})

    refused("cluster must be local, cuda, inline or tcp://host:port; got 'auto'. Leave it out", cluster="auto")
    refused("cluster must be auto, local, cuda, inline or tcp://host:port; got 'lokal'", cluster="lokal")
    refused(r"or what scanner.cluster.make_cluster gives; got 4. Leave it out", cluster=4)
    refused("deadline_s must be above 0 seconds; got 0. Leave it out for 600", deadline_s=0)
    refused("deadline_s must be above 0 seconds; got nan", deadline_s=float("nan"))
    refused("engine must be a name with cluster 'local'.*auto, cuda, vector, talib; got", engine=engine, cluster=dask)
    refused("engine 'cuda' needs workers with a GPU", EngineError, engine="cuda", cluster=dask)
    refused("within deadline_s=1e-09. Give it more, or more workers", ScanError, cluster=dask, deadline_s=1e-9)


def test_a_cluster_that_breaks_says_so(panel: Panel) -> None:
    class Broken(InlineCluster):
        def map(self, *_: Any, **__: Any) -> Any:
            raise OSError("gone")

    with pytest.raises(ScanError, match=r"cluster 'inline' failed: OSError: gone\. Try again, or leave"):
        compute("RSI(14)", panel, "talib", cluster=Broken())


def test_values_share_no_memory(panel: Panel) -> None:
    """Neither with the panel nor those of one term with those of another."""
    before = {name: matrix.copy() for name, matrix in panel.fields.items()}
    names = ["close", "SMA(close, 3)", "SMA(close, 3) + 0", "MACD.macd", "MACD.dea", "5"]
    once = {name: compute(name, panel, "vector")[name] for name in names}
    values = compute(names, panel, "vector")
    for name in names:
        np.testing.assert_array_equal(values[name], once[name], err_msg=name)
        values[name][:] = -1.0
    for name, matrix in before.items():
        np.testing.assert_array_equal(panel[name], matrix)


@pytest.mark.parametrize("cluster", [None, Seven()])
def test_float32_is_float64_rounded_once(panel: Panel, cluster: Any) -> None:
    exact = compute(EXPRESSIONS, panel, "vector")
    stored = compute(EXPRESSIONS, panel, "vector", cluster=cluster, precision="float32")
    for expression in EXPRESSIONS:
        assert exact[expression].dtype == np.float64
        assert stored[expression].dtype == np.float32
        np.testing.assert_array_equal(stored[expression], exact[expression].astype(np.float32), err_msg=expression)


@pytest.mark.parametrize("precision", ["float16", "double", 32])
def test_another_precision_is_refused(panel: Panel, precision: Any) -> None:
    with pytest.raises(UsageError, match=f"precision must be float64 or float32; got {precision!r}. Leave it out"):
        compute("close", panel, precision=precision)

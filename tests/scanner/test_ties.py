"""Hits that differ between engines: only where compared values lie within the declared tolerance of a tie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.panel import Floats, Panel
from scanner.engines.base import Engine, Series, choose
from scanner.engines.ties import compare_engines, rules_of
from scanner.fields import Source
from scanner.indicators import catalog
from scanner.indicators.spec import Indicator


class Noisy:
    """An engine whose values are off by a share of themselves."""

    name = "noisy"

    def __init__(self, engine: Engine, share: float) -> None:
        self.engine, self.share = engine, share

    def run(
        self, indicator: Indicator, params: Mapping[str, float], inputs: Sequence[Series], *, keep: int | None = None
    ) -> tuple[Floats, ...]:
        sign = np.random.default_rng(3)
        outputs = self.engine.run(indicator, params, inputs, keep=keep)
        return tuple(o * (1 + self.share * sign.choice([-1.0, 1.0], o.shape)) for o in outputs)


@pytest.fixture(scope="module")
def source() -> Source:
    """Prices in ticks, which stand still for long."""
    rng = np.random.default_rng(5)
    still = (np.arange(240) // 40) % 2 == 1
    steps = np.where(still[:, None], rng.random((240, 12)) < 0.05, rng.integers(-15, 16, (240, 12)))
    close = np.round(30 + 0.01 * np.cumsum(steps, axis=0), 2)
    spread = np.where(still[:, None], 0, rng.integers(0, 5, (240, 12))) * 0.01
    fields = {
        "open": close,
        "high": np.round(close + spread, 2),
        "low": np.round(close - spread, 2),
        "close": close,
        "volume": rng.integers(0, 5, (240, 12)) * 100.0,
        "amount": close * 100.0,
    }
    symbols = tuple(f"{600000 + j}.SH" for j in range(12))
    return Source(Panel("1d", np.arange(240), symbols, fields).pack(), adjust=False)


def test_kernels_differ_from_talib_in_ties_alone(source: Source) -> None:
    found = list(compare_engines(rules_of(catalog), source, choose("talib")[0], choose("vector")[0]))
    assert sum(compared.hits for compared in found) > 1000
    assert [d for compared in found for d in compared.differences if not d.tie] == []


def test_an_engine_that_is_wrong_is_found_out(source: Source) -> None:
    rules = {"over": "cross_over(close, SMA(5))", "many": "count(RSI(6) > 50, 3) == 2"}
    talib = choose("talib")[0]
    wrong = list(compare_engines(rules, source, talib, Noisy(talib, 1e-3)))
    assert all(compared.differences for compared in wrong)
    assert any(not d.tie for d in wrong[0].differences)
    noise = list(compare_engines(rules, source, talib, Noisy(talib, 1e-16 * 3)))
    assert all(d.tie for compared in noise for d in compared.differences)


def test_rules_come_from_declarations() -> None:
    rules = rules_of(catalog)
    assert rules["RSI(14) over 70"] == "cross_over(RSI(14), 70)"
    assert rules["close over SMA(20)"] == "cross_over(close, SMA(20))"
    assert "MACD(12,26,9).macd over MACD(12,26,9).signal" in rules
    for name in catalog:
        assert any(name in text for text in rules.values())


def test_on_the_real_market(market: Path) -> None:
    import pyarrow.parquet as pq

    table: Any = pq.read_table(
        market / "ashare_daily_2020_2025.parquet", filters=[("symbol", "in", ["600519.SH", "600617.SH", "603160.SH"])]
    )
    real = Source(Panel.from_table(table, "1d").pack())
    found = list(compare_engines(rules_of(catalog), real, choose("talib")[0], choose("vector")[0]))
    differing = [d for compared in found for d in compared.differences]
    assert differing, "600617.SH has ties"
    assert all(d.tie for d in differing)

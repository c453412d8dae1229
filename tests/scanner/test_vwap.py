"""VWAP by sessions, which TA-Lib lacks: against numbers worked by hand, a slow program in fractions, and real times."""

import csv
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data.panel import Panel
from scanner import compute
from scanner.engines.base import Engine, by_symbol
from scanner.indicators import catalog

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "vwap.csv"
INPUTS = ("high", "low", "close", "volume", "session")
VWAP = catalog["VWAP"]


def slow(bars: Sequence[Sequence[Fraction]]) -> list[Fraction]:
    """Each bar from all bars of its session anew."""
    means = []
    for t, (high, low, close, _, session) in enumerate(bars):
        so_far = [bar for bar in bars[: t + 1] if bar[4] == session]
        volume = sum(bar[3] for bar in so_far)
        money = sum((bar[0] + bar[1] + bar[2]) / 3 * bar[3] for bar in so_far)
        means.append(money / volume if volume else (high + low + close) / 3)
    return means


def run(engine: Engine, bars: Sequence[Sequence[float]]) -> Any:
    inputs = [np.array([column], dtype=np.float64) for column in zip(*bars, strict=True)]
    return by_symbol(engine, VWAP, {}, inputs, np.array([len(bars)]))[0][0]


def test_it_equals_the_numbers_worked_by_hand(engine: Engine) -> None:
    with GOLDEN.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    wanted = [Fraction(row["vwap"]) for row in rows]
    assert slow([[Fraction(row[name]) for name in INPUTS] for row in rows]) == wanted
    got = run(engine, [[float(row[name]) for name in INPUTS] for row in rows])
    np.testing.assert_allclose(got, [float(value) for value in wanted], rtol=1e-14)


def test_it_equals_the_slow_program(engine: Engine) -> None:
    rng = np.random.default_rng(6)
    lengths = rng.integers(1, 60, 12)
    bars = []
    for session, n in enumerate(lengths.tolist(), 20_000):
        for _ in range(n):
            low, close, high = sorted(rng.integers(900, 1100, 3).tolist())
            bars.append((high / 100, low / 100, close / 100, float(rng.integers(0, 4) * 100), float(session)))
    wanted = slow([[Fraction(value) for value in bar] for bar in bars])
    np.testing.assert_allclose(run(engine, bars), [float(value) for value in wanted], rtol=1e-13)


def test_a_session_ends_with_the_day_in_shanghai(engine: Engine) -> None:
    """Bars ending from 09:31 to 15:00 there, 01:31 to 07:00 UTC, lunch between; the next day begins anew."""
    minutes = [(1, 31), (3, 30), (5, 1), (7, 0)]
    days = [(np.datetime64(date(2025, 3, 4)) - np.datetime64("1970-01-01")).astype(int) + k for k in (0, 1)]
    ends = np.array([((day * 24 + h) * 60 + m) * 60 * 10**9 for day in days for h, m in minutes], dtype=np.int64)
    price = np.array([10.0, 11.0, 12.0, 13.0, 20.0, 22.0, 24.0, 26.0])[:, None]
    fields = dict.fromkeys(("open", "high", "low", "close"), price)
    panel = Panel("1m", ends, ("600519.SH",), {**fields, "volume": np.full((8, 1), 100.0)})
    values = compute(["VWAP()", "session", "VWAP(high, low, close, volume, session - session)"], panel, engine)
    assert values["VWAP()"].ravel().tolist() == [10.0, 10.5, 11.0, 11.5, 20.0, 21.0, 22.0, 23.0]
    assert values["session"].ravel().tolist() == [20151.0] * 4 + [20152.0] * 4
    assert values["VWAP(high, low, close, volume, session - session)"][-1, 0] == 17.25

"""KDJ against numbers worked by hand, which TA-Lib cannot check."""

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from scanner.engines.base import ON_CPU, by_symbol, choose
from scanner.indicators import catalog

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "kdj.csv"


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize("stock", ["moving", "flat"])
def test_kdj_equals_the_numbers_worked_by_hand(stock: str, engine: str) -> None:
    with GOLDEN.open(newline="") as lines:
        bars = [row for row in csv.DictReader(lines) if row["stock"] == stock]
    inputs = [np.array([[float(bar[name]) for bar in bars]]) for name in ("high", "low", "close")]
    kdj = catalog["KDJ"]
    got = by_symbol(choose(engine)[0], kdj, kdj.bind(9, 3, 3), inputs, np.array([len(bars)]))
    for name, values in zip(("k", "d", "j"), got, strict=True):
        wanted = [float(Fraction(bar[name])) if bar[name] else np.nan for bar in bars]
        np.testing.assert_allclose(values[0], wanted, rtol=1e-13)

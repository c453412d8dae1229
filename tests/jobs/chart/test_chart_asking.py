"""Charts from Python: what the command gives, and a picture in a notebook."""

from typing import Any

import pytest

from data.errors import StaleDataError, UsageError
from data.store import BarStore
from jobs.chart.asking import chart


def test_a_chart_from_python_is_a_picture_in_a_notebook(simulated: BarStore) -> None:
    symbol = simulated.symbols("1d")[2]
    found = chart(simulated.names()[symbol][0], simulated.root, strategy="macd_golden_cross", bars=80)
    assert (found.symbol, found.frame, len(found)) == (symbol, "1d", 80)
    assert [pane.title for pane in found.panes] == ["MACD(12,26,9)"]
    assert found._repr_png_().startswith(b"\x89PNG")


def test_what_there_is_not(simulated: BarStore, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="there is no strategy 'nobody'"):
        chart("000001", simulated, strategy="nobody")
    with pytest.raises(StaleDataError, match="holds no bars"):
        chart("000001", BarStore(tmp_path / "empty", origin="market"))

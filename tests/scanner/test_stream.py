"""A stream's own words: what it takes, refuses, writes and reads. That its values are `compute`'s is a law."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ExpressionError, MarketDataError
from data.panel import Panel
from scanner import Stream, compute

DAY_NS = 86_400 * 10**9
EXPRESSIONS = ["EMA(close, 3)", "count(close > open, 4)", "MACD(2, 3, 2).hist"]


def market(bars: int = 30, n: int = 5) -> Panel:
    rng = np.random.default_rng(4)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, (bars, n)), axis=0)), 2)
    fields = {"open": close[::-1].copy(), "high": close + 1, "low": close - 1, "close": close, "volume": close * 1000}
    symbols = tuple(f"{600000 + j}.SH" for j in range(n))
    return Panel("1d", np.arange(1, bars + 1) * DAY_NS, symbols, fields)


def rows(panel: Panel, first: int, stop: int) -> Panel:
    return Panel(
        panel.frame, panel.times[first:stop], panel.symbols, {n: m[first:stop] for n, m in panel.fields.items()}
    )


def table(panel: Panel) -> pa.Table:
    """Its bars, the symbols in no order."""
    bars, n = panel["close"].shape
    order = np.random.default_rng(1).permutation(bars * n)
    columns = {name: matrix.ravel()[order] for name, matrix in panel.fields.items()}
    symbols = np.tile(np.array(panel.symbols, dtype=object), bars)[order]
    ends = pa.array(np.repeat(panel.times, n)[order]).cast(pa.timestamp("ns"))
    return pa.table({"symbol": pa.array(symbols, pa.string()), "bar_end": ends, **columns})


def assert_same(values: object, panel: Panel) -> None:
    whole = compute(EXPRESSIONS, panel, "vector")
    for expression in EXPRESSIONS:
        np.testing.assert_array_equal(values[expression], whole[expression][-1])  # type: ignore[index]


def test_bars_come_as_panels_tables_batches_or_rows() -> None:
    panel = market()
    stream = Stream(EXPRESSIONS, rows(panel, 0, 10), "vector")
    assert stream.symbols == panel.symbols
    assert_same(stream.values(), rows(panel, 0, 10))
    assert_same(stream.update(rows(panel, 10, 13)), rows(panel, 0, 13))
    assert_same(stream.update(table(rows(panel, 13, 14))), rows(panel, 0, 14))
    assert_same(stream.update(table(rows(panel, 14, 15)).to_batches()[0]), rows(panel, 0, 15))
    fields = {name: matrix[15] for name, matrix in panel.fields.items()}
    values = stream.advance(int(panel.times[15]), fields)
    assert_same(values, rows(panel, 0, 16))
    assert list(values) == EXPRESSIONS
    assert len(values) == 3
    assert values.engine == "vector"
    np.testing.assert_array_equal(stream.lengths, [16] * 5)


def test_values_stay_those_of_their_bar() -> None:
    panel = market()
    stream = Stream(EXPRESSIONS, rows(panel, 0, 10), "vector")
    first = stream.update(rows(panel, 10, 11))
    looked_at = stream.preview(rows(panel, 11, 12))
    stream.update(rows(panel, 11, 12))
    assert_same(first, rows(panel, 0, 11))
    assert_same(looked_at, rows(panel, 0, 12))


def test_what_is_no_bar_of_the_stream_is_refused() -> None:
    panel = market()
    stream = Stream(EXPRESSIONS, rows(panel, 0, 10), "vector")
    other = Panel("1d", panel.times[10:11], ("000001.SZ",), {n: m[10:11, :1] for n, m in panel.fields.items()})
    with pytest.raises(MarketDataError, match=r"no symbol '000001\.SZ': open it with a panel"):
        stream.update(other)
    with pytest.raises(MarketDataError, match="at least one bar"):
        stream.update(rows(panel, 10, 10))
    with pytest.raises(MarketDataError, match="one bar end; got 2"):
        stream.preview(rows(panel, 10, 12))
    with pytest.raises(MarketDataError, match="no bar older than its symbol's newest"):
        stream.preview(rows(panel, 8, 9))
    with pytest.raises(ExpressionError, match="is a text"):
        Stream("board", panel)
    assert_same(stream.update(rows(panel, 10, 11)), rows(panel, 0, 11))


def test_a_long_stream_packs_what_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner.history.MOST", 4)
    panel = market()
    panel["close"][15:20, 2] = np.nan
    stream = Stream(EXPRESSIONS, rows(panel, 0, 10), "vector")
    stream.update(rows(panel, 10, 30))
    revised = rows(panel, 12, 13)
    panel["close"][12, :2] = revised["close"][0, :2] = 21.5
    stream.update(revised)
    assert_same(stream.values(), panel)


def test_a_saved_stream_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    panel = market()
    panel["close"][12:14, 1] = np.nan
    stream = Stream(EXPRESSIONS, rows(panel, 0, 10), "vector")
    stream.update(rows(panel, 10, 20))
    stream.save(tmp_path / "stream.npz")
    loaded = Stream.load(tmp_path / "stream.npz")
    assert (loaded.symbols, loaded.frame, list(loaded.terms)) == (stream.symbols, "1d", EXPRESSIONS)
    assert loaded.engine is stream.engine
    for row in range(20, 30):
        assert_same(loaded.update(rows(panel, row, row + 1)), rows(panel, 0, row + 1))
    assert Stream.load(tmp_path / "stream.npz", "talib").engine.name == "talib"
    assert [path.name for path in tmp_path.iterdir()] == ["stream.npz"]


def test_a_file_that_is_no_stream_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    np.savez(tmp_path / "pickled.npz", told=np.array([{}], dtype=object))
    for name in ("text", "other.npz", "pickled.npz"):
        with pytest.raises(MarketDataError, match="is no saved stream"):
            Stream.load(tmp_path / name)
    stream = Stream(EXPRESSIONS, market(), "vector")
    monkeypatch.setattr("scanner.stream.FORMAT", 2)
    stream.save(tmp_path / "newer.npz")
    monkeypatch.undo()
    with pytest.raises(MarketDataError, match="format 2; this version reads 1"):
        Stream.load(tmp_path / "newer.npz")


def test_a_kernel_feeds_on_an_indicator_that_has_none() -> None:
    """Each output of it by its own."""
    panel = market(bars=90)
    expressions = ["SMA(HT_PHASOR().inphase, 3)", "SMA(HT_PHASOR().quadrature, 3)"]
    stream = Stream(expressions, rows(panel, 0, 85), "vector")
    for t in range(85, 90):
        values = stream.update(rows(panel, t, t + 1))
    whole = compute(expressions, panel, "vector")
    for expression in expressions:
        np.testing.assert_array_equal(values[expression], whole[expression][-1])

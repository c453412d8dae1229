"""What a chart holds."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.calendar import TradingCalendar
from data.errors import ExpressionError, StaleDataError, UsageError
from data.factors import FactorStore, read_factors
from data.history import SignalHistory
from data.importers import import_files
from data.signal import Signal
from data.store import BarStore
from jobs.chart.content import legend
from jobs.chart.making import make
from jobs.chart.memory import memory
from jobs.chart.placing import MOST_PANES, named_by, wanted, where
from scanner.computing import compute
from scanner.engines.base import Engine
from scanner.language import parse
from scanner.loading import load
from scanner.strategy import PythonStrategy, Rule

MakeStore = Callable[..., BarStore]
Daily = Callable[..., pa.Table]
FLAT = (10.0, 10.0, 10.0, 10.0)


def strategy(tmp_path: Path, when: str, more: str = "") -> Rule:
    """A rule called `mine`."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"strategies:\n  - {{name: mine, when: '{when}', action: BUY, confidence: 0.7{more}}}\n")
    found = load([path])["mine"]
    assert isinstance(found, Rule)
    return found


def test_the_newest_bars_with_what_was_asked_for_in_its_place(simulated: BarStore, engine: Engine) -> None:
    symbol = simulated.symbols("1d")[0]
    drawn = wanted(["SMA(5), BOLL, SMA(volume, 5)", "MACD(12, 26, 9), KDJ, close > open"])
    content = make(simulated, symbol, "1d", drawn, engine, bars=100)
    assert len(content) == 100
    assert content.times[-1] == simulated.last_bar_end("1d")
    bands = [f"TDX_BOLL(20,2) {output}" for output in ("mid", "upper", "lower")]
    assert [line.label for line in content.overlays] == ["SMA(5)", *bands]
    assert [line.label for line in content.volume_lines] == ["SMA(volume,5)"]
    assert [pane.title for pane in content.panes] == ["MACD(12,26,9)", "KDJ(9,3,3)", "close > open"]
    assert [line.style for line in content.panes[0].lines] == ["line", "line", "bars"]
    assert content.panes[1].levels == (20.0, 80.0)
    assert content.name == simulated.names()[symbol][0]
    close = content.prices["close"]
    np.testing.assert_allclose(content.overlays[0].values[4:], np.convolve(close, np.ones(5) / 5, "valid"))
    assert set(content.panes[2].lines[0].values) <= {0.0, 1.0}


def test_an_indicator_s_name_stands_once(simulated: BarStore, engine: Engine) -> None:
    drawn = wanted(
        ["BOLL, BBANDS, 1.1 * close, 1.1 * open, KDJ", "RSI(14)", "close > 1.05 * prev(highest(SMA(close, 10), 20), 2)"]
    )
    content = make(simulated, simulated.symbols("1d")[0], "1d", drawn, engine, bars=5)
    assert legend(content.overlays) == [
        *("TDX_BOLL(20,2) mid", "upper", "lower"),
        *("BBANDS(20,2,2) upperband", "middleband", "lowerband"),
        *("1.1 * close", "1.1 * open"),
    ]
    assert [pane.large for pane in make(simulated, content.symbol, "1d", wanted(["OBV, RSI"]), engine).panes] == [
        True,
        False,
    ]
    kdj, rsi, long = (legend(pane.lines, pane.title) for pane in content.panes)
    assert kdj == ["KDJ(9,3,3) k", "d", "j"]
    assert rsi == ["RSI(14)"]
    assert long == ["close > (1.05 * prev(highest(SMA(10),20…"]


def test_values_are_those_of_the_whole_history(simulated: BarStore, engine: Engine) -> None:
    symbol = simulated.symbols("1m")[3]
    expressions = ["EMA(60)", "RSI(14)", "TDX_MACD.dif", "OBV", "VWAP", "KDJ.j"]
    content = make(simulated, symbol, "1m", wanted([", ".join(expressions)]), engine, bars=20)
    panel = simulated.panel("1m", symbols=[symbol])
    whole = compute(expressions, panel, engine)
    drawn = [*content.overlays, *(pane.lines[0] for pane in content.panes)]
    by_label = {line.label: line.values for line in drawn}
    assert len(by_label) == len(expressions)
    for expression in expressions:
        np.testing.assert_allclose(by_label[str(parse(expression))], whole[expression][-20:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ("SMA(20)", "prices"),
        ("EMA(RSI(14), 5)", "pane"),
        ("EMA(SMA(5), 5)", "prices"),
        ("SMA(high - low, 10)", "pane"),
        ("(high + low) / 2", "prices"),
        ("1.1 * close", "prices"),
        ("high - low", "pane"),
        ("close / open", "pane"),
        ("close * volume", "pane"),
        ("prev(highest(high, 20))", "prices"),
        ("limit_up", "prices"),
        ("limit_up - close", "pane"),
        ("volume", "volume"),
        ("highest(volume, 5)", "volume"),
        ("VWAP", "prices"),
        ("SUPERTREND", "prices"),
        ("BBANDS.upperband", "prices"),
        ("ATR", "pane"),
        ("CDLDOJI", "pane"),
        ("rank(close)", "pane"),
        ("close > open", "pane"),
        ("3", "pane"),
    ],
)
def test_where_an_expression_belongs(expression: str, place: str) -> None:
    assert where(parse(expression)) == place


def test_how_far_expressions_reach_back() -> None:
    def bars(expression: str) -> int | None:
        reach = memory([parse(expression)], "1m")
        return None if reach is None else reach - 240

    assert bars("close") == 0
    assert bars("SMA(20)") == 19
    assert bars("prev(SMA(20), 3)") == 22
    assert bars("EMA(20)") == 800
    assert bars("VWAP") == 240
    assert bars("OBV") is None
    assert bars("bars_since(close > open)") is None


def test_prices_stand_on_the_newest_basis_over_an_ex_date(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine
) -> None:
    # Ten for twenty: the reference of the ex-rights day is 10, the close before it was 20.
    bars = daily(
        "600000.SH",
        sessions[:6],
        [(20.0, 21, 19, 20.0)] * 3 + [(10.0, 10.5, 9.5, 10.2)] * 3,
        prev_close=[20.0, 20.0, 20.0, 10.0, 10.2, 10.2],
    )
    store = store_of(bars)
    history = SignalHistory(store.root / "signals")
    ends = bars["bar_end"].cast("int64").to_numpy()
    history.append([Signal("s", "v", "600000.SH", "1d", int(ends[1]), "BUY", 0.7, 20.0, "talib", 0)])
    content = make(store, "600000.SH", "1d", wanted(["prev_close, SMA(2)"]), engine, bars=10)
    assert content.adjusted
    np.testing.assert_allclose(content.prices["close"], [10, 10, 10, 10.2, 10.2, 10.2])
    np.testing.assert_allclose(content.raw_close, [20, 20, 20, 10.2, 10.2, 10.2])
    np.testing.assert_allclose(content.overlays[0].values, [10, 10, 10, 10, 10.2, 10.2])
    (mark,) = content.marks
    assert (mark.place, mark.price, mark.level, mark.recorded) == (1, 20.0, 10.0, True)
    assert content.change[3] == pytest.approx(2.0)
    # As of the day before, nothing is adjusted.
    before = make(store, "600000.SH", "1d", [], engine, bars=10, until=int(ends[2]))
    assert not before.adjusted
    assert before.prices["close"][-1] == 20.0


def test_a_gap_that_no_factor_explains_is_told_and_one_that_a_factor_does_is_mended(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine, tmp_path: Path
) -> None:
    prices = [(20.0, 21, 19, 20.0)] * 3 + [(10.0, 10.5, 9.5, 10.2)] * 3
    store = store_of(daily("600000.SH", sessions[:6], prices))
    content = make(store, "600000.SH", "1d", [], engine)
    assert (content.gaps, content.breaks, content.adjusted) == ((3,), [3], False)
    assert "on another price basis" in content.remarks[3]
    assert "no factor is known" in content.subtitle
    assert make(store, "600000.SH", "1d", [], engine, bars=3).gaps == ()  # before what is shown
    factors = tmp_path / "factors.csv"
    factors.write_text(f"symbol,day,factor\n600000,{sessions[3]},0.5\n")
    FactorStore(store.root).append(read_factors(factors)[0])
    content = make(store, "600000.SH", "1d", [], engine)
    assert (content.gaps, content.adjusted) == ((), True)
    np.testing.assert_allclose(content.prices["close"], [10, 10, 10, 10.2, 10.2, 10.2])


def test_an_ex_date_of_a_real_market(market: Path, tmp_path: Path, engine: Engine) -> None:
    rows = pq.read_table(market / "ashare_daily_2020_2025.parquet", filters=[("symbol", "==", "001380.SZ")])
    pq.write_table(rows, tmp_path / "bars.parquet")
    store = BarStore(tmp_path / "market", origin="market")
    import_files([tmp_path / "bars.parquet"], store, TradingCalendar(), now=time.time_ns())
    content = make(store, "001380.SZ", "1d", wanted(["SMA(5)"]), engine, bars=30)
    (gap,) = content.gaps
    assert content.labels[gap] == "2025-05-20"
    factors = tmp_path / "factors.csv"
    factors.write_text("symbol,day,factor\n001380,2025-05-20,0.6739\n")
    FactorStore(store.root).append(read_factors(factors)[0])
    mended = make(store, "001380.SZ", "1d", wanted(["SMA(5)"]), engine, bars=30)
    assert mended.gaps == ()
    np.testing.assert_allclose(mended.prices["close"][:gap], 0.6739 * content.raw_close[:gap])
    np.testing.assert_allclose(mended.prices["close"][gap:], content.raw_close[gap:])
    average = np.convolve(mended.prices["close"], np.ones(5) / 5, "valid")
    np.testing.assert_allclose(mended.overlays[0].values[4:], average)


def test_a_stock_that_trades_no_more_says_so(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine
) -> None:
    store = store_of(daily("600000.SH", sessions[:3], [FLAT] * 3), daily("600001.SH", sessions[:9], [FLAT] * 9))
    assert f"no bar since, up to {sessions[8]}" in make(store, "600000.SH", "1d", [], engine).subtitle
    assert "no bar since" not in make(store, "600001.SH", "1d", [], engine).subtitle


def test_a_suspended_stock_has_no_bar_and_its_halt_is_told(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine
) -> None:
    traded = [*sessions[:3], *sessions[8:10]]
    store = store_of(
        daily("600000.SH", traded, [(10.0, 11, 9, 10.5)] * 5, flags=[0, 0, 0, 1, 2]),
        daily("600001.SH", sessions[:10], [(5.0, 5, 5, 5.0)] * 10),
    )
    content = make(store, "600000.SH", "1d", wanted(["SMA(4)"]), engine)
    assert len(content) == 5
    assert [(halt.place, halt.sessions) for halt in content.halts] == [(3, 5)]
    assert content.remarks[2:] == ["", "no trade · after 5 sessions without trade", "incomplete"]
    assert content.overlays[0].values[3] == pytest.approx(10.5)  # of its own four bars, the halt being none
    # Weekends and holidays are no halts.
    assert make(store, "600001.SH", "1d", [], engine).halts == ()


def test_a_bar_of_one_price_goes_the_way_of_its_gap(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine
) -> None:
    up, down = (11.0, 11, 11, 11.0), (9.9, 9.9, 9.9, 9.9)
    store = store_of(daily("600000.SH", sessions[:6], [FLAT, FLAT, up, down, (9.0, 9.5, 9, 9.4), (9.4, 9.5, 9, 9.1)]))
    assert make(store, "600000.SH", "1d", [], engine).direction.tolist() == [0, 0, 1, -1, 1, -1]
    assert make(store, "600000.SH", "1d", [], engine, bars=4).direction.tolist() == [1, -1, 1, -1]


def test_a_stock_of_three_bars(store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine) -> None:
    bars = [(10.0, 14.4, 10, 14.4), (15.0, 16, 14, 15.5), (15.0, 15.5, 14, 14.2)]
    store = store_of(daily("301999.SZ", sessions[20:23], bars), daily("600001.SH", sessions[:30], [FLAT] * 30))
    content = make(store, "301999.SZ", "1d", wanted(["SMA(5), MACD(12,26,9), TDX_MACD"]), engine)
    assert len(content) == 3
    assert np.isnan(content.overlays[0].values).all()
    assert all(np.isnan(line.values).all() for line in content.panes[0].lines)
    assert np.isfinite(content.panes[1].lines[0].values).all()
    assert content.at_limit.tolist() == [0, 0, 0]  # it has no limit in its first days
    json.dumps(content.to_dict(), allow_nan=False)


def test_where_a_rule_fired_and_what_the_history_has_of_it(
    store_of: MakeStore, daily: Daily, sessions: list[Any], engine: Engine, tmp_path: Path
) -> None:
    closes = [10.0, 10.1, 10.0, 10.1, 10.2, 10.1, 10.2, 10.1]
    bars = daily("600000.SH", sessions[:8], [(c, c, c, c) for c in closes])
    store = store_of(bars)
    ends = bars["bar_end"].cast(pa.int64()).to_numpy()
    mine = strategy(tmp_path, "close > prev(close)")
    history = SignalHistory(store.root / "signals")
    kept = Signal("mine", mine.version, "600000.SH", "1d", int(ends[3]), "BUY", 0.9, 10.1, "talib", 0)
    gone = replace(kept, bar_end=int(ends[2]))
    other = replace(kept, strategy="other", bar_end=int(ends[3]), confidence=0.4)
    open_ = replace(kept, bar_end=int(ends[5]), developing=True)
    history.append([kept, gone, other, open_, replace(gone, revokes=gone.id, revision=1)])

    def marks(**options: Any) -> list[tuple[int, tuple[str, ...], bool, float]]:
        content = make(store, "600000.SH", "1d", [], engine, **options)
        return [(m.place, m.strategies, m.recorded, m.confidence) for m in content.marks]

    assert marks() == [(3, ("mine", "other"), True, 0.9)]
    anew = [(place, ("mine",), place == 3, 0.9 if place == 3 else 0.7) for place in (1, 3, 4, 6)]
    assert marks(strategy=mine) == anew
    assert marks(strategy=mine, bars=3) == [(1, ("mine",), False, 0.7)]
    quiet = strategy(tmp_path, "close > prev(close)", ", cooldown: 2")
    assert [place for place, *_ in marks(strategy=quiet)] == [1, 3, 6]
    grown = strategy(tmp_path, "close > prev(close)", ", universe: {min_bars_listed: 5}")
    assert [place for place, *_ in marks(strategy=grown)] == [3, 4, 6]
    elsewhere = strategy(tmp_path, "close > prev(close)", ", universe: {boards: [star]}")
    assert [place for place, *_ in marks(strategy=elsewhere)] == [3]


def test_signals_computed_anew_are_those_that_scans_give(simulated: BarStore, engine: Engine, tmp_path: Path) -> None:
    from jobs.scanning import MarketScan, origin_of
    from scanner.cluster import InlineCluster
    from scanner.loading import StrategyRegistry

    mine = strategy(tmp_path, "cross_over(close, SMA(5)) and rank(close) > 0.3", ", cooldown: 4")
    plain = replace(strategy(tmp_path, "cross_under(close, SMA(5))", ", cooldown: 3"), name="plain")
    symbols = simulated.symbols("1d")
    history = SignalHistory(tmp_path / "signals")
    ends = simulated.bar_ends("1d")
    scan = MarketScan(
        simulated, "1d", StrategyRegistry([mine, plain]), symbols=symbols, engine=engine, cluster=InlineCluster(),
        history=history,
    )  # fmt: skip
    for end in ends[-30:]:
        scan.scan(end, origin=origin_of(simulated, "1d", end, None))
    for rule in (mine, plain):
        given = history.query(strategies=[rule.name], symbols=symbols[:4]).to_pylist()
        fired = {(row["symbol"], row["bar_end"].value) for row in given}
        assert len(fired) > 5
        found = set()
        for symbol in symbols[:4]:
            content = make(
                simulated, symbol, "1d", [], engine, strategy=rule, since=ends[-20], kinds=("a_share", "cdr")
            )
            found |= {(symbol, int(content.times[mark.place])) for mark in content.marks}
        assert found == {(symbol, end) for symbol, end in fired if end >= ends[-20]}


def test_a_strategy_of_another_frame_is_drawn_and_said(simulated: BarStore, engine: Engine, tmp_path: Path) -> None:
    daily_only = strategy(tmp_path, "close > prev(close)", ", frame: 1d")
    symbol = simulated.symbols("1d")[0]
    assert "mine runs on 1d alone" in make(simulated, symbol, "1m", [], engine, strategy=daily_only).subtitle
    assert "alone" not in make(simulated, symbol, "1d", [], engine, strategy=daily_only).subtitle


def test_what_a_strategy_names_is_drawn(tmp_path: Path) -> None:
    rule = strategy(
        tmp_path,
        "cross_over(MACD.macd, MACD.signal) and volume > 2 * prev(SMA(volume, 20)) and close > prev(highest(high, 20))",
    )
    assert [(str(one.term), one.where) for one in named_by(rule)] == [
        ("MACD(12,26,9)", "pane"),
        ("SMA(volume,20)", "volume"),
        ("prev(highest(high,20),1)", "prices"),
    ]


def test_a_python_strategy_is_marked_by_the_history_alone(simulated: BarStore, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from scanner import BaseStrategy\n"
        "class Own(BaseStrategy):\n"
        "    name = 'own'\n"
        "    indicators = ['RSI(14)']\n"
        "    def evaluate(self, context):\n"
        "        return context.signal('BUY')\n"
    )
    own: Rule | PythonStrategy = load([path])["own"]
    content = make(simulated, simulated.symbols("1d")[0], "1d", [], engine, strategy=own)
    assert [pane.title for pane in content.panes] == ["RSI(14)"]
    assert content.marks == ()
    assert "own is written in Python" in content.subtitle


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SMA(5), MACDX(3)", "column 9: unknown name 'MACDX'; did you mean 'MACD'"),
        ("SMA(5, RSI(3", "bracket"),
        ("SMA(1, 2, 3)", "column 1: SMA takes at most 1"),
        ("close, board", "column 8: 'board' is a text"),
        ("RSI(0)", "timeperiod must be an integer in \\[2"),
    ],
)
def test_a_bad_expression_is_told_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=words):
        wanted([text])


def test_too_many_panes(tmp_path: Path) -> None:
    many = [f"RSI({n})" for n in range(2, MOST_PANES + 3)]
    assert len(wanted([", ".join(many[:MOST_PANES]), "SMA(5)"])) == MOST_PANES + 1
    with pytest.raises(UsageError, match="at most 20 expressions; got 40"):
        wanted([", ".join(f"SMA({n})" for n in range(2, 42))])
    with pytest.raises(UsageError, match=f"at most {MOST_PANES} panes"):
        wanted([", ".join(many)])


def test_bars_that_there_are_not(simulated: BarStore, engine: Engine) -> None:
    symbol = simulated.symbols("1d")[0]
    with pytest.raises(StaleDataError, match=f"no 5m bars of {symbol}; it has 1m, 1d"):
        make(simulated, symbol, "5m", [], engine)
    with pytest.raises(StaleDataError, match="it has none of any frame"):
        make(simulated, "688999.SH", "1d", [], engine)
    with pytest.raises(StaleDataError, match="no 1d bars from 2199"):
        make(simulated, symbol, "1d", [], engine, since=7_230_000_000 * 10**9)
    with pytest.raises(UsageError, match="bars must be in"):
        make(simulated, symbol, "1d", [], engine, bars=0)

"""Choosing an engine, and from where to where each symbol's indicator runs."""

import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from data.errors import EngineError, ExpressionError
from scanner.engines import base
from scanner.engines.talib import describe
from scanner.indicators import catalog, find


def test_auto_takes_the_first_that_runs_and_says_why() -> None:
    engine, reason = base.choose("auto")
    for name in base.ENGINES:
        if name == engine.name:
            break
        with pytest.raises(EngineError):
            base.load(name)
        assert f"engine '{name}' needs" in reason
    assert "first of" in reason


@pytest.mark.parametrize("name", base.ON_CPU)
def test_an_engine_asked_for_is_the_one_that_runs(name: str) -> None:
    engine, reason = base.choose(name)
    assert (engine.name, reason) == (name, "asked for")


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    known = ", ".join(["auto", *base.ENGINES])
    with pytest.raises(EngineError) as refusal:
        base.choose("telib")
    assert str(refusal.value) == f"unknown engine 'telib'; did you mean 'talib'? One of {known}"
    with pytest.raises(EngineError) as refusal:
        base.choose("abacus")
    assert str(refusal.value) == f"unknown engine 'abacus'; one of {known}"


def test_auto_goes_on_past_an_engine_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = sys.modules["broken_engine"] = type(sys)("broken_engine")

    def refuse(name: str) -> None:
        raise EngineError("engine 'broken' needs a GPU")

    broken.__getattr__ = refuse  # type: ignore[method-assign]
    try:
        usual = base.choose("auto")[0]
        monkeypatch.setattr(base, "ENGINES", {"broken": "broken_engine", **base.ENGINES})
        engine, reason = base.choose("auto")
        assert engine is usual
        assert reason.startswith("engine 'broken' needs a GPU; ")
        monkeypatch.setattr(base, "ENGINES", {"broken": "broken_engine"})
        with pytest.raises(EngineError, match="no engine runs here: engine 'broken' needs a GPU"):
            base.choose("auto")
    finally:
        del sys.modules["broken_engine"]


@pytest.mark.parametrize(("engine", "module", "name"), [("talib", "talib", "TA-Lib"), ("vector", "numba", "numba")])
def test_without_its_package_an_engine_says_how_to_get_it(engine: str, module: str, name: str) -> None:
    code = f"""
import sys
sys.modules[{module!r}] = None
from data.errors import EngineError
from scanner.engines.base import choose
try:
    choose({engine!r})
except EngineError as error:
    print(error)
print(choose()[0].name)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith(f"engine {engine!r} needs {name}: ")
    assert said[0].endswith(f"pip install {name}")
    assert said[1] == ("vector" if engine == "talib" else "talib")


def test_the_catalogue_imports_no_engine_s_packages() -> None:
    code = (
        "import scanner.indicators, scanner.engines.base, sys;"
        "print({'talib', 'pandas', 'dask', 'numba'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("RSJ", "unknown indicator 'RSJ'; did you mean 'RSI'?"),
        ("rsi", "unknown indicator 'rsi'; did you mean 'RSI'?"),
        ("STDEV", "unknown indicator 'STDEV'; did you mean 'STDDEV'?"),
        ("", "unknown indicator ''; see `mystocks-scan indicators --all`"),
        ("XQZW", "unknown indicator 'XQZW'; see `mystocks-scan indicators --all`"),
    ],
)
def test_an_unknown_indicator_is_refused_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(ExpressionError) as refusal:
        find(name)
    assert str(refusal.value) == told


def test_outputs_by_name_and_alias() -> None:
    macd = catalog["MACD"]
    assert [macd.output(name) for name in ("macd", "signal", "hist", "diff", "dea")] == [0, 1, 2, 0, 1]
    with pytest.raises(ExpressionError, match=r"MACD has no output 'sgnal'; did you mean 'signal'\?"):
        macd.output("sgnal")
    with pytest.raises(ExpressionError, match="RSI has no output 'x'; it has rsi"):
        catalog["RSI"].output("x")


def test_a_key_is_canonical() -> None:
    bbands = catalog["BBANDS"]
    assert bbands.key(bbands.bind(np.int64(20), 2, nbdevdn=2.5)) == "BBANDS(20,2,2.5)"
    assert catalog["OBV"].key(catalog["OBV"].bind()) == "OBV()"


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(Exception, match="RSI timeperiod is given twice: 14 and 15"):
        catalog["RSI"].bind(14, timeperiod=15)


@pytest.mark.parametrize("engine", base.ON_CPU)
@pytest.mark.parametrize("name", ["RSI", "KDJ"])
def test_a_market_of_any_size(engine: str, name: str) -> None:
    indicator = catalog[name]
    rng = np.random.default_rng(3)
    few = [np.cumsum(rng.normal(0, 1, (3, 40)), axis=1) + 100 for _ in indicator.inputs]
    run = functools.partial(base.by_symbol, base.choose(engine)[0])
    alone = run(indicator, indicator.bind(), few, np.full(3, 40))
    market = run(indicator, indicator.bind(), [np.tile(matrix, (1200, 1)) for matrix in few], np.full(3600, 40))
    for values, own in zip(market, alone, strict=True):
        np.testing.assert_array_equal(values, np.tile(own, (1200, 1)))
    for values in run(indicator, indicator.bind(), [matrix[:0] for matrix in few], np.zeros(0, dtype=np.int64)):
        assert values.shape == (0, 40)


@pytest.mark.parametrize("engine", base.ON_CPU)
def test_a_wrong_number_of_inputs_is_refused(engine: str) -> None:
    atr = catalog["ATR"]
    with pytest.raises(ValueError, match=r"ATR takes 3 inputs \(high, low, close\); got 1"):
        base.by_symbol(base.choose(engine)[0], atr, atr.bind(), [np.ones((2, 30))], np.array([30, 30]))


def test_what_the_catalogue_does_not_have_is_not_pickled_as_its_namesake() -> None:
    with pytest.raises(pickle.PicklingError, match="SMA is pickled by its name"):
        pickle.dumps(describe("SMA"))


nan, inf = np.nan, np.inf


@pytest.mark.parametrize(
    ("rows", "length", "first", "stop"),
    [
        ([[1, 2, 3]], 3, 0, 3),
        ([[nan, 2, 3]], 2, 1, 3),
        ([[nan, nan, nan]], 0, 3, 3),
        ([[nan, 1, 2], [nan, nan, 2]], 2, 2, 3),  # the first column at which both are finite
        ([[1, nan, 3]], 3, 0, 1),
        ([[1, inf, 3]], 3, 0, 1),
        ([[inf, 2, 3]], 3, 1, 3),
        ([[1, 2, 3], [1, 2, nan]], 3, 0, 2),
        ([[9, 2, 3]], 2, 1, 3),  # a value before the symbol's first bar is none
        ([[9, nan, 3]], 2, 2, 3),
        ([[9, 2, nan]], 2, 1, 2),
        ([[9, 9, 9]], 0, 3, 3),
    ],
)
def test_spans(rows: list[list[float]], length: int, first: int, stop: int) -> None:
    inputs = [np.array([row, [1.0, 2.0, 3.0]]).T for row in rows]
    begin, end = base.spans(inputs, np.array([length, 3]))
    assert (begin.tolist(), end.tolist()) == ([first, 0], [stop, 3])

"""Strategies from Python files: checked as rules are, refused with file, line, column and what to do."""

import os
from pathlib import Path
from typing import Any

import pytest

from data.errors import StrategyError
from scanner.loading import load
from scanner.strategy import Universe

HEAD = "from scanner import *\n"
BODY = "    def evaluate(self, market): ...\n"


def test_python_strategies_are_checked_as_rules_are(strategies: Any) -> None:
    registry = strategies(
        '''
from scanner import BaseStrategy, Strategy, Universe

class _Shared(Strategy):
    frame = ["1d", "60m"]
    def evaluate(self, market): ...

class Cross(_Shared):
    """Golden cross.

    More of it.
    """
    name = "cross"
    universe = Universe(boards=["star"], min_amount_cny=1e7)
    cooldown = 3
    bars = 4
    indicators = {"macd": "MACD(12, 26, 9)", "volume": "volume / SMA(volume, 20.0)"}

class Old(BaseStrategy):
    indicators = ["MACD", "RSI(6)"]
    def evaluate(self, context): ...

Again = Old
''',
        "mine.py",
    )
    assert list(registry) == ["cross", "Old"]
    cross, old = registry.values()
    assert (cross.frames, cross.cooldown, cross.bars, cross.title) == (("1d", "60m"), 3, 4, "Golden cross.")
    assert cross.universe == Universe(boards=("star",), min_amount_cny=1e7)
    assert {name: str(term) for name, term in cross.terms.items()} == {
        "macd": "MACD(12,26,9)",
        "volume": "volume / SMA(volume,20)",
    }
    assert (old.frames, old.title) == ((), "")
    assert {name: str(term) for name, term in old.terms.items()} == {"MACD": "MACD(12,26,9)", "RSI(6)": "RSI(6)"}
    assert cross.place.endswith("mine.py:8")


def test_the_version_of_a_python_strategy_follows_its_file(strategies: Any) -> None:
    text = HEAD + "LEVEL = 30\nclass A(Strategy):\n" + BODY
    assert strategies(text, "a.py")["A"].version == strategies(text, "b.py")["A"].version
    assert strategies(text, "a.py")["A"].version != strategies(text.replace("30", "31"), "c.py")["A"].version


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("class A(:", 1, 9, "invalid syntax"),
        ("import no_such_module", 1, 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        (HEAD + "\ndef f():\n    raise ValueError('so')\nf()", 4, 1, "ValueError: so"),
        (HEAD + "import sys\nsys.exit(0)", 3, 1, "SystemExit: 0"),
        (HEAD, 1, 1, "it defines no subclass of scanner.Strategy or scanner.BaseStrategy"),
        (
            HEAD + "class _Mine(Strategy):\n" + BODY,
            1,
            1,
            "it defines no subclass of scanner.Strategy or scanner.BaseStrategy",
        ),
        (HEAD + "class A(Strategy): ...", 2, 1, "A: it must define evaluate(self, market)"),
        (HEAD + "class A(BaseStrategy): ...", 2, 1, "A: it must define evaluate(self, context)"),
        (
            HEAD + "class A(Strategy):\n    frame = '2m'\n" + BODY,
            3,
            13,
            "A: frame must be of 1m, 5m, 15m, 30m, 60m, 1d; got '2m'",
        ),
        (
            HEAD + "class A(Strategy):\n    cooldown: int = -1\n" + BODY,
            3,
            21,
            "A: cooldown must be an integer of 0 or more; got -1",
        ),
        (HEAD + "class A(Strategy):\n    bars = 0\n" + BODY, 3, 12, "A: bars must be an integer of 1 or more; got 0"),
        (
            HEAD + "class A(Strategy):\n    universe = {'boards': ['star']}\n" + BODY,
            3,
            16,
            "A: universe must be a Universe, such as Universe(boards=('star',))",
        ),
        (
            HEAD + "class A(Strategy):\n    universe = Universe(boards=['str'])\n" + BODY,
            3,
            1,
            "boards must be of main, chinext, star, bse, b_share, preferred, etf, index; got 'str'",
        ),
        (
            HEAD + "class A(Strategy):\n    indicators = 'MACD'\n" + BODY,
            3,
            18,
            'A: indicators must be like {{"macd": "MACD(12, 26, 9)"}} or ["MACD"]',
        ),
        (
            HEAD
            + "class A(Strategy):\n    indicators = {\n        'm': 'MACD',\n        'x': 'close > clsoe',\n    }\n"
            + BODY,
            5,
            23,
            "A: indicators['x']: unknown name 'clsoe'; did you mean 'close'?",
        ),
        (
            HEAD + "class A(BaseStrategy):\n    indicators = ['MACD', 'MCAD']\n" + BODY,
            3,
            28,
            "A: indicators['MCAD']: unknown name 'MCAD'; did you mean 'MACD'?",
        ),
        (
            HEAD + "class A(Strategy):\n    indicators = {'x': 'rank(close)'}\n" + BODY,
            3,
            24,
            "A: indicators['x']: rank looks"
            " across the market: hand over what it ranks, and use scanner.rank in evaluate",
        ),
        (
            HEAD + "class A(Strategy):\n    def __init__(self):\n        1 / 0\n" + BODY,
            2,
            1,
            "A: A() raised ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_python_file_that_is_wrong(
    strategies: Any, tmp_path: Path, text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(StrategyError) as refusal:
        strategies(text, "mine.py")
    assert str(refusal.value) == f"{tmp_path / 'mine.py'}:{line}:{column}: {message.format()}"


def test_a_file_named_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("\n1 / 0\n")
    with pytest.raises(StrategyError, match=r"^mine\.py:2:1: ZeroDivisionError: division by zero$"):
        load(["mine.py"])
    assert os.fspath(tmp_path) == os.getcwd()

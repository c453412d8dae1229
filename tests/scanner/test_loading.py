"""Files and folders of strategies become one registry."""

from pathlib import Path
from typing import Any

import pytest

from data.errors import StrategyError
from scanner.indicators import catalog
from scanner.loading import StrategyRegistry, load
from scanner.scan import make_plan
from scanner.strategy import Rule


def test_a_strategy_runs_on_the_frames_that_it_names(strategies: Any) -> None:
    registry = strategies(
        "strategies:\n  - {name: any, when: close > open, action: BUY}\n"
        "  - {name: minutes, when: close > open, action: BUY, frame: [1m, 60m]}"
    )
    assert [strategy.name for strategy in registry.for_frame("1d")] == ["any"]
    assert [strategy.name for strategy in registry.for_frame("60m")] == ["any", "minutes"]


def test_the_built_in_strategies() -> None:
    registry = load()
    assert list(registry) == [
        "macd_golden_cross", "macd_death_cross", "rsi_leaves_oversold", "rsi_leaves_overbought", "bollinger_break_up",
        "bollinger_break_down", "kdj_golden_cross", "volume_breakout", "high_60",
    ]  # fmt: skip
    assert all(isinstance(rule, Rule) and not rule.frames and rule.title for rule in registry.values())
    used = {term.data[0] for term in make_plan("1d", registry.values()).terms if term.op == "indicator"}
    assert used <= set(catalog)


def test_folders_and_files_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "_part.yaml", ".hidden.yaml", "notes.txt"):
        rule = f"strategies: [{{name: {name[0]}, when: close > open, action: BUY}}]"
        (tmp_path / name).write_text(rule)
    (tmp_path / "c.py").write_text(
        "from scanner import BaseStrategy\nclass C(BaseStrategy):\n    def evaluate(self, context): ..."
    )
    registry = load([tmp_path])
    assert list(registry) == ["a", "b", "C"]
    assert list(load([tmp_path / "b.yaml", str(tmp_path / "c.py")])) == ["b", "C"]
    with pytest.raises(StrategyError, match=r"c\.py:2: the name 'C' is taken by .*c\.py:2: rename one"):
        load([tmp_path, tmp_path / "c.py"])
    assert len(StrategyRegistry()) == 0


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "the folder holds no strategies"),
        (tmp_path / "none.yaml", "there is no such file"),
        (Path(__file__).parents[2] / "README.md", r"strategies stand in \*.yaml, \*.yml or \*.py"),
    ):
        with pytest.raises(StrategyError, match=message):
            load([path])
    (tmp_path / "gbk.yaml").write_bytes("strategies: 均线".encode("gbk"))
    with pytest.raises(StrategyError, match=r"gbk.yaml:1:1: not readable as text in UTF-8"):
        load([tmp_path])

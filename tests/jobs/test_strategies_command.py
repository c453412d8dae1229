"""`mystocks-scan strategies`, as a user sees it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from data.errors import StrategyError
from jobs.cli import cli
from scanner.loading import load

RULE = """\
strategies:
  - name: golden
    title: MACD turns up in a rising market
    frame: [1d, 60m]
    universe: {boards: [main, star], exclude: [st], min_amount_cny: 20_000_000}
    let: {macd: "MACD(12, 26, 9)"}
    when: cross_over(macd.macd, macd.signal) and rank(SMA(volume, 20)) > 0.9
    action: BUY
    confidence: 0.8
    cooldown: 5
"""
PYTHON = '''\
from scanner import BaseStrategy, Strategy


class Whole(Strategy):
    """Looks at the whole market."""

    indicators = {"macd": "MACD(12, 26, 9)"}

    def evaluate(self, market):
        return market.hits(market.indicators["macd"].hist > 0, action="BUY")


class Single(BaseStrategy):
    """Looks at one symbol."""

    frame = "1d"
    cooldown = 3
    bars = 4
    indicators = ["SMA(20)", "close"]

    def evaluate(self, context):
        return None
'''


@pytest.fixture
def rule(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RULE)
    return path


def strategies(*args: str | Path) -> Result:
    result = CliRunner().invoke(cli, ["strategies", *map(str, args)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(*args: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in strategies(*args, "--json").stdout.splitlines()]


def test_list_names_the_built_in_ones_where_none_are_given() -> None:
    assert [row["name"] for row in rows("list")] == list(load())
    lines = strategies("list").stdout.splitlines()
    for strategy in load().values():
        assert any(strategy.name in line.split() and strategy.title in line for line in lines)


def test_list_takes_paths_either_way_and_the_settings_otherwise(rule: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(f"scan: {{strategies: [{rule}]}}")
    for args in ([rule], ["--strategies", rule], ["-c", config]):
        assert [row["name"] for row in rows("list", *args)] == ["golden"]


def test_check_says_what_a_rule_would_do(rule: Path) -> None:
    (row,) = rows("check", rule)
    assert len(row.pop("version")) == 12
    assert row == {
        "name": "golden",
        "title": "MACD turns up in a rising market",
        "place": f"{rule}:2",
        "frames": ["1d", "60m"],
        "action": "BUY",
        "confidence": 0.8,
        "cooldown": 5,
        "window_bars": 172,  # 5 * (33 + 1) + 1 of MACD, and one more to cross
        "universe": {"boards": ["main", "star"], "exclude": ["st"], "min_amount_cny": 20_000_000},
        "rule": "cross_over(MACD(12,26,9).macd,MACD(12,26,9).signal) and (rank(SMA(volume,20)) > 0.9)",
        "indicators": ["MACD(12,26,9)", "SMA(volume,20)"],
    }
    told = strategies("check", rule).stdout
    for text in (
        row["rule"],
        "1d, 60m",
        "BUY, confidence 0.8",
        "5 bars",
        "172 bars",
        "boards main, star",
        "20,000,000",
    ):
        assert text in told
    assert told.endswith("1 strategy: nothing is wrong\n")


def test_check_says_what_a_class_would_need(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PYTHON)
    whole, single = rows("check", path)
    assert (whole["name"], whole["title"], whole["frames"]) == ("Whole", "Looks at the whole market.", [])
    assert (whole["rule"], whole["action"], whole["indicators"]) == (None, None, ["MACD(12,26,9)"])
    assert (single["frames"], single["cooldown"], single["indicators"]) == (["1d"], 3, ["SMA(20)"])
    assert single["window_bars"] == 4 + 19
    assert "decided by the class" in strategies("check", path).stdout


def test_a_rule_that_feeds_on_every_bar_says_so(rule: Path) -> None:
    rule.write_text("strategies: [{name: x, when: bars_since(close > open) > 3, action: ALERT}]")
    assert rows("check", rule)[0]["window_bars"] is None
    assert "every bar" in strategies("check", rule).stdout


def test_check_refuses_with_file_line_column_and_remedy(rule: Path) -> None:
    rule.write_text(RULE.replace("macd.signal)", "macd.sgnal)"))
    with pytest.raises(StrategyError, match=rf"{rule}:7:33: golden: when: .*'sgnal'; did you mean 'signal'"):
        strategies("check", rule)


def test_check_wants_a_file() -> None:
    assert strategies("check").exit_code == 2

"""docs/strategies.md is true and complete: read off the declarations, and every example runs."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import scanner
from data.panel import Packed
from data.symbols import BOARDS, KINDS
from scanner.engines.base import Engine
from scanner.fields import FIELDS
from scanner.functions import FUNCTIONS
from scanner.language import parse
from scanner.loading import load
from scanner.market import merge
from scanner.scan import make_plan, scan_shard
from scanner.strategy import EXCLUDABLE, Rule
from scanner.yaml_rules import RULE_KEYS, UNIVERSE_KEYS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|python)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; code without its marks."""
    below = TEXT.split(f"{heading}\n", 1)[1]
    rows = below[below.index("|--") :].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" |")] for row in rows]


def test_every_field_stands_in_it() -> None:
    assert table("### Fields") == [[field.name, field.kind, field.doc] for field in FIELDS.values()]


def test_every_function_stands_in_it() -> None:
    assert table("### Functions") == [[f.usage, f.result, f.doc] for f in FUNCTIONS.values()]
    for name, function in FUNCTIONS.items():
        if name != "abs":
            assert f"`{name}`" in TEXT.split("## Python strategies")[1], name
            assert callable(getattr(scanner, name))
        assert function.usage.startswith(f"{name}(")


def test_every_key_stands_in_it() -> None:
    assert {row[0] for row in table("## A first strategy")} == set(RULE_KEYS)
    universe = table("## Universe")
    assert [row[0] for row in universe] == list(UNIVERSE_KEYS)
    assert ", ".join(BOARDS) in universe[0][1]
    assert ", ".join(KINDS) in universe[1][1]
    assert set(EXCLUDABLE) == {"st", *BOARDS, *KINDS}


def test_every_built_in_strategy_stands_in_it() -> None:
    rules = [rule for rule in load().values() if isinstance(rule, Rule)]
    expected = [[rule.name, rule.action, str(rule.cooldown), rule.title] for rule in rules]
    assert table("## Built-in strategies") == expected


@pytest.mark.parametrize("rule", [row[0] for row in table("### Examples")])
def test_every_example_is_a_condition(rule: str) -> None:
    assert parse(rule).kind == "condition"


def test_every_expression_in_the_text_parses() -> None:
    section = TEXT.split("### Indicators\n")[1].split("### Functions\n")[0]
    expressions = re.findall(r"`([A-Z]+(?:[(.][^`]*)?)`", section)
    assert len(expressions) > 8
    for expression in expressions:
        parse(expression)


def test_every_block_loads_and_runs(strategies: Any, daily: pa.Table, engine: Engine) -> None:
    assert [kind for kind, _ in BLOCKS].count("yaml") == 3
    loaded = []
    for number, (kind, block) in enumerate(BLOCKS):
        registry = strategies(block, f"block{number}.{'py' if kind == 'python' else 'yaml'}")
        assert len(registry) == 1
        loaded += list(registry.values())
    plan = make_plan("1d", loaded)
    packed = Packed.from_table(daily, "1d", sorted(set(daily["symbol"].to_pylist())))
    end = int(packed.bar_ends.max())
    result = merge(plan, loaded, [scan_shard(plan, packed, end, engine)], end, engine)
    assert not result.failed

"""Mistakes planted in the shipped PTX, one instruction at a time: each must show in the bits."""

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

from data.errors import EngineError
from scanner import ptx
from scanner.engines.base import load
from scanner.engines.golden import compare
from scanner.indicators import kernels
from scanner.indicators.spec import Indicator
from scanner.ptx.on_cpu import compiled, run
from scanner.ptx.sources import entry_name

OPPOSITE = {
    "lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "ltu": "geu", "leu": "gtu", "gtu": "leu", "geu": "ltu",
    "eq": "neu", "neu": "eq",
}  # fmt: skip
Change = Callable[["re.Match[str]"], str]


def doubled(match: "re.Match[str]") -> str:
    """A number twice as large, 2 for zero and for NaN."""
    bits = int(match[1], 16)
    return f"0d{bits + (1 << 52):016X}" if bits and not match[1].startswith("7FF8") else "0d4000000000000000"


CHANGES: dict[str, tuple[str, Change]] = {
    "operands swapped": (
        r"^((?:sub|div)\.rn\.f64 %\w+), ([^,\n]+), ([^,\n;]+);$",
        lambda m: f"{m[1]}, {m[3]}, {m[2]};",
    ),
    "comparison reversed": (rf"^setp\.({'|'.join(OPPOSITE)})\.f64", lambda m: f"setp.{OPPOSITE[m[1]]}.f64"),
    "select dropped": (r"^selp\.f64 (%\w+, [^,\n]+), .*$", lambda m: f"mov.f64 {m[1]};"),
    "constant changed": (r"0d([0-9A-F]{16})", doubled),
    "sum for difference": (r"^add\.rn\.f64", lambda _: "sub.rn.f64"),
}
WHOLE = ("MACD", "SAR")
"""Kernels whose PTX has no instruction twice: every mistake in it has to show."""


def mutants(text: str) -> dict[str, str]:
    """What was changed, with the line -> the PTX."""
    made = {}
    for name, (pattern, change) in CHANGES.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            made[f"{name} in line {line}: {match[0]}"] = text[: match.start()] + change(match) + text[match.end() :]
    return {name: mutant for name, mutant in made.items() if mutant != text}


@pytest.fixture(scope="module", params=[i for i in kernels() if i.name in WHOLE], ids=lambda i: i.name)
def indicator(request: pytest.FixtureRequest) -> Indicator:
    made: Indicator = request.param
    return made


def test_each_mistake_shows(gcc: None, proof: Any, indicator: Indicator) -> None:
    texts = mutants(ptx.text(indicator.name))
    assert {name.partition(" in ")[0] for name in texts} == set(CHANGES)
    entry = entry_name(indicator)
    functions = compiled([text.replace(f"{entry}(", f"{entry}_{i}(") for i, text in enumerate(texts.values())])
    inputs, survivors = proof.market(indicator), []
    wanted = [
        (args, load("vector").run(indicator, indicator.bind(*args), inputs)) for args in proof.settings(indicator)
    ]
    for i, name in enumerate(texts):
        machine = proof.machine(functools.partial(run, functions[f"{entry}_{i}"]))
        try:
            got = [compare(proof.run(machine, indicator, args, inputs), expected) for args, expected in wanted]
        except (RuntimeError, EngineError):  # it went outside its arrays; its golden bits differ
            continue
        if not any(bits.n_differing for bits in got):
            survivors.append(name)
    assert survivors == []

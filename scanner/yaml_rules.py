"""Rules from YAML files, errors with file:line:column."""

import functools
import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data.errors import ExpressionError, StrategyError
from scanner.fields import FIELDS
from scanner.functions import FUNCTIONS
from scanner.indicators import catalog
from scanner.indicators.spec import suggestion
from scanner.language import parse
from scanner.strategy import (
    Rule,
    Universe,
    check_action,
    check_confidence,
    check_cooldown,
    check_frames,
    version_of,
)
from scanner.terms import Term, order

T = TypeVar("T")

RULE_KEYS = ("name", "title", "frame", "universe", "let", "when", "action", "confidence", "cooldown")
UNIVERSE_KEYS = ("boards", "exclude", "min_bars_listed", "min_amount_cny")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""What YAML 1.1 takes for a text and everybody else for a number."""


@dataclass(frozen=True)
class _At:
    """A YAML node with its place, for errors that say where."""

    file: Path
    source: str
    node: yaml.Node

    def on(self, node: yaml.Node) -> "_At":
        return _At(self.file, self.source, node)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.node.start_mark.line + 1}"

    def error(self, message: str, column: int | None = None) -> StrategyError:
        """`column`: 1-based within the scalar's value, where the fault lies there."""
        index = self.node.start_mark.index if column is None else self._index(column)
        before = self.source[:index]
        line, at = before.count("\n") + 1, index - before.rfind("\n")
        return StrategyError(f"{self.file}:{line}:{at}: {message}")

    def _index(self, column: int) -> int:
        """Where a character of a scalar's value stands in the file: YAML changes white space alone."""
        node: Any = self.node
        index: int
        index, stop, style = node.start_mark.index, node.end_mark.index, node.style
        if style in ("|", ">"):
            index = self.source.index("\n", index) + 1
        elif style:
            index += 1
        escape = {"'": "'", '"': "\\"}.get(style)
        before, after = node.value[: column - 1], node.value[column - 1 :]
        for _ in range(sum(map(len, before.split()))):
            while self.source[index].isspace():
                index += 1
            index += 2 if self.source[index] == escape else 1
        while after.strip() and index < stop and self.source[index].isspace():
            index += 1
        return index

    def mapping(self, what: str, known: tuple[str, ...] = ()) -> dict[str, "_At"]:
        """The values by key; `known`: the keys there are, any by default."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{what} must be a mapping")
        found: dict[str, _At] = {}
        for key, value in self.node.value:
            name = str(key.value)
            if self.node.flow_style and value.start_mark.index == value.end_mark.index:
                raise self.on(key).error(
                    f"{what}: {name!r} has no value: inside {{ }} a text with a comma needs quotes"
                )
            if known and name not in known:
                hint = suggestion(name, known) or f"it takes {', '.join(known)}"
                raise self.on(key).error(f"{what} has no key {name!r}; {hint}")
            if name in found:
                raise self.on(key).error(f"{what} has the key {name!r} twice")
            found[name] = self.on(value)
        return found

    def items(self, what: str) -> list["_At"]:
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise self.error(f"{what} must be a list that is not empty")
        return [self.on(node) for node in self.node.value]

    def value(self) -> Any:
        if isinstance(self.node, yaml.ScalarNode) and self.node.style is None and _NUMBER.fullmatch(self.node.value):
            return float(self.node.value)
        try:
            return yaml.SafeLoader("").construct_object(self.node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self.error(f"not a value that YAML can make: {error}") from None

    def text(self, what: str) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise self.error(f"{what} must be a text that is not empty")
        return str(self.node.value)

    def checked(self, rule: str, check: Callable[[Any], T]) -> T:
        """`check` of the value; what it refuses is said here, of a list at the item that is wrong."""
        items = self.node.value if isinstance(self.node, yaml.SequenceNode) else []
        for at in (*map(self.on, items), self):
            value = at.value()
            try:
                result = check(value if at is self else [value])
            except StrategyError as error:
                raise at.error(f"{rule}: {error}") from None
        return result


def read_yaml(file: Path, source: str) -> list[Rule]:
    """The rules of one YAML file, whose text is `source`; raises StrategyError as `scanner.loading.load` does."""
    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise StrategyError(f"{file}:{line + 1}:{column + 1}: not readable as YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StrategyError(f"{file}:1:1: not readable as YAML: {error}") from None
    if root is None:
        raise StrategyError(f"{file}:1:1: the file is empty; it begins with `strategies:`")
    top = _At(file, source, root).mapping("the file", ("strategies",))
    if "strategies" not in top:
        raise StrategyError(f"{file}:1:1: the file must have the key `strategies`, a list")
    return [_rule(at) for at in top["strategies"].items("strategies")]


def _rule(at: _At) -> Rule:
    keys = at.mapping("a strategy", RULE_KEYS)
    for key in ("name", "when", "action"):
        if key not in keys:
            raise at.error(f"a strategy must have the key {key!r}")
    name = keys["name"].text("name")
    lets = _Lets(name, keys["let"].mapping(f"{name}: let") if "let" in keys else {})
    checked: dict[str, Any] = {}
    for key, to, check in (
        ("frame", "frames", check_frames),
        ("action", "action", check_action),
        ("confidence", "confidence", check_confidence),
        ("cooldown", "cooldown", check_cooldown),
    ):
        if key in keys:
            checked[to] = keys[key].checked(name, check)
    if "universe" in keys:
        checked["universe"] = _universe(keys["universe"], name)
    if "title" in keys:
        checked["title"] = keys["title"].text("title")
    return Rule(name, _condition(keys["when"], name, lets), version=version_of(at.value()), place=at.place, **checked)


class _Lets(Mapping[str, Term]):
    """The names that `let` gives, each read when it is first asked for."""

    def __init__(self, rule: str, nodes: Mapping[str, _At]) -> None:
        self._rule, self._nodes = rule, nodes
        self._terms: dict[str, Term] = {}
        self._open: list[str] = []
        for name, node in nodes.items():
            if not name.isidentifier() or keyword.iskeyword(name):
                raise node.error(f"{rule}: let {name!r}: a name is made of letters, digits and _")
            if name in FIELDS or name in FUNCTIONS or name in catalog:
                raise node.error(f"{rule}: let {name}: the language has that name already; take another")
        for name in nodes:
            self[name]

    def __getitem__(self, name: str) -> Term:
        if name in self._open:
            circle = " -> ".join([*self._open[self._open.index(name) :], name])
            raise ExpressionError(f"the names of let go in a circle: {circle}")
        if name not in self._terms:
            node = self._nodes[name]
            self._open.append(name)
            try:
                self._terms[name] = parse(node.text(f"{self._rule}: let {name}"), self)
            except ExpressionError as error:
                raise node.error(f"{self._rule}: let {name}: {error}", error.column) from None
            finally:
                self._open.pop()
        return self._terms[name]

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _condition(at: _At, name: str, lets: Mapping[str, Term]) -> Term:
    try:
        term = parse(at.text(f"{name}: when"), lets)
    except ExpressionError as error:
        raise at.error(f"{name}: when: {error}", error.column) from None
    if term.kind != "condition":
        raise at.error(f"{name}: when must be a condition, such as {term} > 0; got the {term.kind} {term}")
    for node in order([term]):
        looks_back = node.op == "indicator" or (node.op == "function" and FUNCTIONS[node.data[0]].reach(2) != 0)
        if looks_back and any(arg.across for arg in node.args):
            raise at.error(
                f"{name}: rank looks across the market at the scanned bar alone, so {node} cannot look back over it:"
                " rank what looks back instead, as in rank(prev(x, 1))"
            )
    return term


def _universe(at: _At, name: str) -> Universe:
    keys = at.mapping(f"{name}: universe", UNIVERSE_KEYS)
    values = {key: node.value() for key, node in keys.items()}
    for key, node in keys.items():
        node.checked(name, functools.partial(_narrowed, key))
    return Universe(**values)


def _narrowed(key: str, value: Any) -> Universe:
    return Universe(**{key: value})

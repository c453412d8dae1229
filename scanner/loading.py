"""Reading strategies: YAML and Python files into one registry, errors with file:line:column."""

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from data.errors import ExpressionError, StrategyError
from data.schema import FRAMES
from data.symbols import BOARDS, KINDS
from scanner.functions import FUNCTIONS
from scanner.strategy import (
    BUILTIN,
    BaseStrategy,
    PythonStrategy,
    Rule,
    Strategy,
    Universe,
    check_word,
    version_of,
)
from scanner.terms import Term, order, parse, parse_value

RULE_KEYS = ("name", "title", "frame", "universe", "let", "when", "action", "confidence", "cooldown")
UNIVERSE_KEYS = ("boards", "exclude", "min_bars_listed", "min_amount_cny")


class StrategyRegistry(Mapping[str, "Rule | PythonStrategy"]):
    """Strategies by name, in the order in which they were read; a name stands once."""

    def __init__(self, strategies: Iterable["Rule | PythonStrategy"] = ()) -> None:
        self._strategies: dict[str, Rule | PythonStrategy] = {}
        for strategy in strategies:
            self.add(strategy)

    def add(self, strategy: "Rule | PythonStrategy") -> None:
        """Raises StrategyError if the name is taken."""
        if strategy.name in self._strategies:
            first = self._strategies[strategy.name].place
            raise StrategyError(f"{strategy.place}: the name {strategy.name!r} is taken by {first}: rename one")
        self._strategies[strategy.name] = strategy

    def for_frame(self, frame: str) -> "list[Rule | PythonStrategy]":
        """Those that run on `frame`."""
        return [strategy for strategy in self.values() if not strategy.frames or frame in strategy.frames]

    def __getitem__(self, name: str) -> "Rule | PythonStrategy":
        return self._strategies[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._strategies)

    def __len__(self) -> int:
        return len(self._strategies)


def load(paths: Iterable[Path | str] = ()) -> StrategyRegistry:
    """Strategies of the files and folders `paths` (*.yaml, *.yml, *.py), or the built-in ones where there are none.

    Raises StrategyError: the first thing that is wrong, as `file:line:column: what, and what to do`.
    """
    registry = StrategyRegistry()
    for path in [Path(p) for p in paths] or [BUILTIN]:
        for file in _files(path):
            for strategy in read_python(file) if file.suffix == ".py" else read_yaml(file):
                registry.add(strategy)
    return registry


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".py") and p.name[0] not in "._")
        if not found:
            raise StrategyError(f"{path}: the folder holds no strategies (*.yaml, *.yml, *.py)")
        return found
    if not path.is_file():
        raise StrategyError(f"{path}: there is no such file")
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise StrategyError(f"{path}: strategies stand in *.yaml, *.yml or *.py")
    return [path]


class _At:
    """A YAML node with its place, for errors that say where."""

    def __init__(self, file: Path, node: yaml.Node) -> None:
        self.file, self.node = file, node

    @property
    def place(self) -> str:
        return f"{self.file}:{self.node.start_mark.line + 1}"

    def error(self, message: str, column: int | None = None) -> StrategyError:
        mark = self.node.start_mark
        quoted = isinstance(self.node, yaml.ScalarNode) and self.node.style in ("'", '"')
        block = isinstance(self.node, yaml.ScalarNode) and self.node.style in ("|", ">")
        line, at = mark.line + 1, mark.column + 1
        if column is not None and not block:
            at += column - 1 + quoted
        if block:
            line, at = line + 1, column or 1
        return StrategyError(f"{self.file}:{line}:{at}: {message}")

    def mapping(self, known: tuple[str, ...], what: str) -> dict[str, "_At"]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{what} must be a mapping")
        found: dict[str, _At] = {}
        for key, value in self.node.value:
            name = str(key.value)
            if known and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(known)}"
                raise _At(self.file, key).error(f"{what} has no key {name!r}{hint}")
            if name in found:
                raise _At(self.file, key).error(f"{what} has the key {name!r} twice")
            found[name] = _At(self.file, value)
        return found

    def items(self, what: str) -> list["_At"]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"{what} must be a list")
        return [_At(self.file, node) for node in self.node.value]

    def value(self) -> Any:
        return yaml.SafeLoader("").construct_object(self.node, deep=True)

    def text(self, what: str) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise self.error(f"{what} must be a text that is not empty")
        return str(self.node.value)

    def whole(self, what: str, least: int) -> int:
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(f"{what} must be an integer of {least} or more; got {value!r}")
        return value

    def texts(self, what: str, known: tuple[str, ...]) -> tuple[str, ...]:
        nodes = self.items(what) if isinstance(self.node, yaml.SequenceNode) else [self]
        for at in nodes:
            if at.text(what) not in known:
                raise at.error(f"{what} must be of {', '.join(known)}; got {at.text(what)!r}")
        return tuple(at.text(what) for at in nodes)


def read_yaml(file: Path) -> list[Rule]:
    """The rules of one YAML file."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise StrategyError(f"{file}{where}: not readable as YAML: {error.problem}") from None
    except (UnicodeDecodeError, yaml.YAMLError, OSError) as error:
        raise StrategyError(f"{file}: not readable as YAML in UTF-8: {error}") from None
    if root is None:
        raise StrategyError(f"{file}:1:1: the file is empty; it begins with `strategies:`")
    top = _At(file, root).mapping(("strategies",), "the file")
    if "strategies" not in top:
        raise StrategyError(f"{file}:1:1: the file must have the key `strategies`, a list")
    return [_rule(at) for at in top["strategies"].items("strategies")]


def _rule(at: _At) -> Rule:
    keys = at.mapping(RULE_KEYS, "a strategy")
    for name in ("name", "when", "action"):
        if name not in keys:
            raise at.error(f"a strategy must have the key {name!r}")
    name = keys["name"].text("name")
    lets = {n: node.text(f"let {n}") for n, node in keys["let"].mapping((), "let").items()} if "let" in keys else {}
    nodes = keys["let"].mapping((), "let") if "let" in keys else {}
    for let, node in nodes.items():
        try:
            parse(lets[let], {other: text for other, text in lets.items()})
        except ExpressionError as error:
            raise node.error(f"{name}: let {let}: {error}", error.column) from None
    when = _condition(keys["when"], name, lets)
    action = keys["action"].text("action")
    confidence = keys["confidence"].value() if "confidence" in keys else 1.0
    try:
        check_word(action, confidence)
    except StrategyError as error:
        raise keys["confidence" if "confidence" in str(error) else "action"].error(f"{name}: {error}") from None
    frames = keys["frame"].texts(f"{name}: frame", FRAMES) if "frame" in keys else ()
    return Rule(
        name=name,
        when=when,
        action=action,
        confidence=float(confidence),
        version=version_of(at.value()),
        frames=frames,
        universe=_universe(keys["universe"], name) if "universe" in keys else Universe(),
        cooldown=keys["cooldown"].whole(f"{name}: cooldown", 0) if "cooldown" in keys else 0,
        title=keys["title"].text("title") if "title" in keys else "",
        place=at.place,
    )


def _condition(at: _At, name: str, lets: Mapping[str, str]) -> Term:
    try:
        term = parse(at.text(f"{name}: when"), lets)
    except ExpressionError as error:
        raise at.error(f"{name}: when: {error}", error.column) from None
    if term.kind != "condition":
        raise at.error(f"{name}: when must be a condition, such as {term} > 0; got the {term.kind} {term}")
    for node in order([term]):
        looks_back = node.op == "indicator" or (node.op == "function" and FUNCTIONS[node.data[0]].reach(2) != 0)
        if looks_back and any(_across(inner) for arg in node.args for inner in order([arg])):
            raise at.error(
                f"{name}: rank looks across the market at the scanned bar alone, so {node} cannot look back over it:"
                " rank what looks back instead, as in rank(prev(x, 1))"
            )
    return term


def _across(term: Term) -> bool:
    return term.op == "function" and FUNCTIONS[term.data[0]].across


def _universe(at: _At, name: str) -> Universe:
    keys = at.mapping(UNIVERSE_KEYS, f"{name}: universe")
    amount = keys["min_amount_cny"].value() if "min_amount_cny" in keys else 0
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        raise keys["min_amount_cny"].error(f"{name}: min_amount_cny must be a number of 0 or more; got {amount!r}")
    excludable = tuple(dict.fromkeys(("st", *BOARDS, *KINDS)))
    return Universe(
        boards=keys["boards"].texts(f"{name}: boards", BOARDS) if "boards" in keys else (),
        exclude=keys["exclude"].texts(f"{name}: exclude", excludable) if "exclude" in keys else (),
        min_bars_listed=keys["min_bars_listed"].whole(f"{name}: min_bars_listed", 0)
        if "min_bars_listed" in keys
        else 0,
        min_amount_cny=float(amount),
    )


def read_python(file: Path) -> list[PythonStrategy]:
    """The strategies that one Python file defines: subclasses of `Strategy` and `BaseStrategy`."""
    name = f"mystocks_scan_strategies_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{file}: not readable as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise StrategyError(f"{file}:{error.lineno}:{error.offset}: {error.msg}") from None
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        where = f":{lines[-1]}" if lines else ""
        raise StrategyError(f"{file}{where}: {type(error).__name__}: {error}") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Strategy | BaseStrategy) and value.__module__ == name
    ]
    if not found:
        raise StrategyError(f"{file}: it defines no subclass of scanner.Strategy or scanner.BaseStrategy")
    return [check_python(cls, f"{file}:{inspect.getsourcelines(cls)[1]}") for cls in found]


def check_python(cls: type[Strategy] | type[BaseStrategy], place: str) -> PythonStrategy:
    """An instance of a Python strategy whose declarations have been checked as a rule's are."""
    given = cls.indicators
    indicators = dict(given) if isinstance(given, Mapping) else {expression: expression for expression in given}
    for name, expression in indicators.items():
        try:
            parse_value(expression) if "." in expression else parse(expression)
        except ExpressionError as error:
            raise StrategyError(f"{place}: {cls.__name__}: indicators[{name!r}]: {error}") from None
    frames = (cls.frame,) if isinstance(cls.frame, str) else tuple(cls.frame or ())
    for frame in frames:
        if frame not in FRAMES:
            raise StrategyError(f"{place}: {cls.__name__}: frame must be one of {', '.join(FRAMES)}; got {frame!r}")
    for what, value, least in (("cooldown", cls.cooldown, 0), ("bars", cls.bars, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise StrategyError(f"{place}: {cls.__name__}: {what} must be an integer of {least} or more; got {value!r}")
    try:
        strategy: Any = cls()
    except Exception as error:
        raise StrategyError(f"{place}: {cls.__name__}() raised {type(error).__name__}: {error}") from error
    strategy.name = cls.name or cls.__name__
    strategy.frames = frames
    strategy.indicators = indicators
    strategy.version = version_of(inspect.getsource(cls))
    strategy.place = place
    strategy.title = (inspect.getdoc(cls) or "").split("\n")[0]
    checked: PythonStrategy = strategy
    return checked

"""Strategies from Python files, checked as rules are, errors with file:line:column."""

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data.errors import ExpressionError, StrategyError
from scanner.language import parse
from scanner.strategy import (
    BaseStrategy,
    PythonStrategy,
    Strategy,
    Universe,
    check_bars,
    check_cooldown,
    check_frames,
    version_of,
)
from scanner.terms import Term

T = TypeVar("T")


@dataclass(frozen=True)
class _PythonFile:
    """A Python file with its syntax tree, for errors that say where."""

    file: Path
    tree: ast.Module

    def error(
        self, cls: type, message: str, attribute: str = "", key: str | None = None, column: int | None = None
    ) -> StrategyError:
        """At the class, at an attribute of it, or at one of its entries; `column`: 1-based within that text."""
        node = self._find(cls, attribute, key)
        line, at = (node.lineno, node.col_offset + 1) if node else (1, 1)
        if isinstance(node, ast.Constant) and column is not None:
            at += column
        return StrategyError(f"{self.file}:{line}:{at}: {cls.__name__}: {message}")

    def _find(self, cls: type, attribute: str, key: str | None) -> ast.stmt | ast.expr | None:
        found: ast.stmt | ast.expr | None = None
        for statement in self.tree.body:
            if isinstance(statement, ast.ClassDef) and statement.name == cls.__name__:
                found = statement
        for inner in found.body if isinstance(found, ast.ClassDef) else ():
            targets = inner.targets if isinstance(inner, ast.Assign) else [getattr(inner, "target", None)]
            value = getattr(inner, "value", None)
            if value is None or not any(isinstance(t, ast.Name) and t.id == attribute for t in targets):
                continue
            found = value
            pairs: Iterable[tuple[Any, ast.expr]] = ()
            if isinstance(value, ast.Dict):
                pairs = zip(value.keys, value.values, strict=True)
            elif isinstance(value, ast.List | ast.Tuple):
                pairs = ((item, item) for item in value.elts)
            for name, item in pairs:
                if isinstance(name, ast.Constant) and name.value == key:
                    found = item
        return found


def read_python(file: Path, text: str) -> list[PythonStrategy]:
    """The strategies of one Python file, whose text is `text`; raises StrategyError as `scanner.loading.load` does.

    They are its subclasses of `Strategy` and `BaseStrategy`, but those whose name begins with an underscore.
    """
    name = f"mystocks_scan_strategies_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        tree = ast.parse(text, str(file))
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise StrategyError(f"{file}:{error.lineno or 1}:{error.offset or 1}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        what = "" if isinstance(error, StrategyError) else f"{type(error).__name__}: "
        raise StrategyError(f"{file}:{lines[-1] if lines else 1}:1: {what}{error}") from error
    found = {
        value: None
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Strategy | BaseStrategy) and value.__module__ == name
    }
    classes = [cls for cls in found if not cls.__name__.startswith("_")]
    if not classes:
        raise StrategyError(f"{file}:1:1: it defines no subclass of scanner.Strategy or scanner.BaseStrategy")
    source = _PythonFile(file, tree)
    return [_python(cls, source, version_of(text)) for cls in classes]


def _python(cls: type[Strategy] | type[BaseStrategy], source: _PythonFile, version: str) -> PythonStrategy:
    """An instance of a Python strategy whose declarations have been checked as a rule's are."""

    def checked(attribute: str, check: Callable[[Any], T]) -> T:
        try:
            return check(getattr(cls, attribute))
        except StrategyError as error:
            raise source.error(cls, str(error), attribute) from None

    if cls.evaluate in (Strategy.evaluate, BaseStrategy.evaluate):
        argument = "market" if issubclass(cls, Strategy) else "context"
        raise source.error(cls, f"it must define evaluate(self, {argument})")
    frames = checked("frame", check_frames)
    cooldown, bars = checked("cooldown", check_cooldown), checked("bars", check_bars)
    if not isinstance(cls.universe, Universe):
        raise source.error(cls, "universe must be a Universe, such as Universe(boards=('star',))", "universe")
    terms = _terms(cls, source)
    try:
        strategy: Any = cls()
    except Exception as error:
        raise source.error(cls, f"{cls.__name__}() raised {type(error).__name__}: {error}") from error
    strategy.name = cls.name or cls.__name__
    strategy.frames, strategy.cooldown, strategy.bars, strategy.terms = frames, cooldown, bars, terms
    strategy.version = version
    strategy.place = f"{source.file}:{inspect.getsourcelines(cls)[1]}"
    strategy.title = inspect.cleandoc(cls.__doc__ or "").split("\n")[0]
    result: PythonStrategy = strategy
    return result


def _terms(cls: type[Strategy] | type[BaseStrategy], source: _PythonFile) -> dict[str, Term]:
    given = cls.indicators
    if isinstance(given, str) or not isinstance(given, Mapping | list | tuple):
        raise source.error(cls, 'indicators must be like {"macd": "MACD(12, 26, 9)"} or ["MACD"]', "indicators")
    terms = {}
    for name, expression in given.items() if isinstance(given, Mapping) else zip(given, given, strict=True):
        try:
            terms[name] = parse(expression)
        except ExpressionError as error:
            message = f"indicators[{name!r}]: {error}"
            raise source.error(cls, message, "indicators", name, error.column) from None
        if terms[name].across:
            remedy = "hand over what it ranks, and use scanner.rank in evaluate"
            raise source.error(cls, f"indicators[{name!r}]: rank looks across the market: {remedy}", "indicators", name)
    return terms

"""Reading strategies: files of both kinds into one registry."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from data.errors import StrategyError
from scanner.python_strategies import read_python
from scanner.strategy import BUILTIN, PythonStrategy, Rule
from scanner.yaml_rules import read_yaml

SUFFIXES = (".yaml", ".yml", ".py")


class StrategyRegistry(Mapping[str, Rule | PythonStrategy]):
    """Strategies by name, in the order in which they were read; a name stands once."""

    def __init__(self, strategies: Iterable[Rule | PythonStrategy] = ()) -> None:
        self._strategies: dict[str, Rule | PythonStrategy] = {}
        for strategy in strategies:
            self.add(strategy)

    def add(self, strategy: Rule | PythonStrategy) -> None:
        """Raises StrategyError if the name is taken."""
        if strategy.name in self._strategies:
            first = self._strategies[strategy.name].place
            raise StrategyError(f"{strategy.place}: the name {strategy.name!r} is taken by {first}: rename one")
        self._strategies[strategy.name] = strategy

    def for_frame(self, frame: str) -> list[Rule | PythonStrategy]:
        """Those that run on `frame`."""
        return [strategy for strategy in self.values() if not strategy.frames or frame in strategy.frames]

    def __getitem__(self, name: str) -> Rule | PythonStrategy:
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
            read = read_python if file.suffix == ".py" else read_yaml
            for strategy in read(file, read_text(file)):
                registry.add(strategy)
    return registry


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.name[0] not in "._")
        if not found:
            raise StrategyError(f"{path}: the folder holds no strategies (*.yaml, *.yml, *.py)")
        return found
    if not path.is_file():
        raise StrategyError(f"{path}: there is no such file")
    if path.suffix not in SUFFIXES:
        raise StrategyError(f"{path}: strategies stand in *.yaml, *.yml or *.py")
    return [path]


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise StrategyError(f"{file}:1:1: not readable as text in UTF-8: {error}") from None

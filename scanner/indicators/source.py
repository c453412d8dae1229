"""The source of a kernel together with everything of ours that it names: what is compiled, and what is hashed."""

import inspect
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any


def pieces(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """(name, source) of the functions and constants that a kernel needs, in the order of need, the kernel last.

    Modules (`math`) are left out: whoever compiles the source imports them.
    """
    yield from _pieces(function, set())


def _pieces(function: Callable[..., Any], seen: set[str]) -> Iterator[tuple[str, str]]:
    assert isinstance(function, FunctionType)
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if name in seen or isinstance(value, ModuleType):
            continue
        seen.add(name)
        if isinstance(value, FunctionType):
            yield from _pieces(value, seen)
        elif isinstance(value, int | float):
            yield name, f"{name} = {value!r}\n"
    yield function.__name__, inspect.getsource(function)

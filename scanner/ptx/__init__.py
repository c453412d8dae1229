"""The row kernels as PTX, the text that a GPU's driver or nvJitLink takes: one entry an indicator, shipped.

Made by `python -m scanner.ptx.build`, where numba-cuda is; read here without it. What the tests run on a CPU is, byte
for byte, what a GPU loads.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from data.errors import EngineError

KERNELS = files(__name__) / "kernels"
"""Where the PTX and its manifest lie."""


@dataclass(frozen=True)
class Entry:
    """One entry: its name in the PTX, its file with that file's SHA-256, its arguments (see `scanner.ptx.arguments`).

    `words`: how many 8-byte parameters these are; `source`: SHA-256 of the Python that it was made of.
    """

    name: str
    file: str
    sha256: str
    arguments: tuple[str, ...]
    words: int
    source: str


@functools.cache
def manifest() -> dict[str, Any]:
    """What was made, for which target, by which versions."""
    made: dict[str, Any] = json.loads((KERNELS / "manifest.json").read_text(encoding="utf-8"))
    return made


@functools.cache
def entries() -> dict[str, Entry]:
    """Indicator -> its entry."""
    return {
        name: Entry(**{**entry, "arguments": tuple(entry["arguments"])})
        for name, entry in manifest()["entries"].items()
    }


def text(name: str) -> str:
    """The PTX of an indicator; raises EngineError where there is none, or not what the manifest says."""
    entry = entries().get(name)
    if entry is None:
        raise EngineError(f"{name} has no PTX. Make it with: python -m scanner.ptx.build")
    content = (KERNELS / entry.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise EngineError(f"{entry.file} is not what its manifest says. Install the package anew")
    return content.decode()

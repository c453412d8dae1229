"""Makes the PTX of every row kernel, and its manifest: `python -m scanner.ptx.build [--check]`.

Needs numba-cuda and no GPU. The only module that imports numba-cuda. No product of two numbers is fused with a sum
(NVVM's option fma=0), so that a GPU rounds as a CPU does. One target serves all: the PTX of a compute capability is
taken by every later one.
"""

import argparse
import hashlib
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.cudadrv import nvvm

from scanner.indicators import kernels
from scanner.indicators.spec import Indicator
from scanner.ptx import KERNELS, arguments
from scanner.ptx.sources import digest, entry_name, source

TARGET = (7, 5)
"""Turing, the least that CUDA 13 knows."""
PTX_VERSION = "6.3"
"""The first with that target: an older assembler or driver than that of the compiler can take the text too."""

_TYPES = {
    "i64[]": numba.types.Array(numba.int64, 1, "C"),
    "f64[,]": numba.types.Array(numba.float64, 2, "C"),
    "i64": numba.int64,
    "f64": numba.float64,
}
_FORBIDDEN = re.compile(
    r"\b(fma\.\S*|(?:add|sub|mul|div|sqrt)\.(?!rn\.)(?:\w+\.)*f64"  # rounded once, and to nearest
    r"|\S*\.(?:f32|f16x?2?|approx|ftz)\b|call\S*|atom\S*|red\.\S*|bar\.\S*|barrier\S*|shfl\S*)"
    r"|(\.(?:local|shared|const|func|extern|weak)\b)"
)


def main() -> None:
    """Make the files, or say with --check which of them are not what would be made; exit code 1 if any."""
    parser = argparse.ArgumentParser(prog="python -m scanner.ptx.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    folder = Path(str(KERNELS))
    made = build()
    if parser.parse_args().check:
        stale = differing(made, folder)
        print(*(stale or ["the PTX is up to date"]), sep="\n")  # noqa: T201  # its answer
        sys.exit(bool(stale))
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")


def build() -> dict[str, str]:
    """File name -> content, the manifest's too."""
    made: dict[str, str] = {}
    entries = {}
    for indicator, text in zip(kernels(), _texts(), strict=True):
        name = f"{indicator.name.lower()}.ptx"
        made[name] = text
        kinds = arguments.layout(indicator)
        entries[indicator.name] = {
            "name": entry_name(indicator),
            "file": name,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "arguments": kinds,
            "words": sum(arguments.WORDS[kind] for kind in kinds),
            "source": digest(indicator),
        }
    about = {"target": f"compute_{TARGET[0]}{TARGET[1]}", "made_with": made_with()}
    lines = ",\n".join(f'"{name}": {json.dumps(entry)}' for name, entry in entries.items())
    return {**made, "manifest.json": f'{json.dumps(about)[:-1]}, "entries": {{\n{lines}\n}}}}\n'}


def _texts() -> list[str]:
    """The PTX of every kernel, made by as many processes as there are cores."""
    # Spawned: numba's compiler does not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_text, range(len(kernels())), chunksize=4))


def _text(place: int) -> str:
    return ptx(kernels()[place])


def made_with() -> dict[str, str]:
    """The versions that the text of the PTX hangs on."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numba-cuda": version("numba-cuda"),
        "nvvm": version("nvidia-cuda-nvcc-cu12"),
    }


def differing(made: dict[str, str], folder: Path) -> list[str]:
    """What in the folder is not what was made, a line each."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} if folder.is_dir() else {}
    return [
        f"{name} {'is missing' if name not in there else 'is left over' if name not in made else 'differs'}"
        for name in sorted({*made, *there})
        if made.get(name) != there.get(name)
    ]


def ptx(indicator: Indicator, capability: tuple[int, int] = TARGET) -> str:
    """The PTX of an indicator's entry, always the same text; raises ValueError where a GPU could round otherwise."""
    entry = entry_name(indicator)
    signature = tuple(_TYPES[kind] for kind in arguments.layout(indicator))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entry.py"
        path.write_text(source(indicator), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(entry, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with _without_a_device(capability):
            text, _ = cuda.compile_ptx(getattr(module, entry), signature, cc=capability)
    text = normalised(text, entry)
    refuse(text)
    return text


def refuse(text: str) -> None:
    """Raise ValueError for PTX that a GPU could round in its own way, or in which threads meet or call."""
    if found := _FORBIDDEN.search(text):
        entry = re.search(r"\.entry (\w+)", text)
        raise ValueError(f"the PTX of {entry and entry[1]} has {found[0]!r}, which a kernel must not lead to")


def normalised(text: str, entry: str) -> str:
    """PTX without comments, and without numba's names, which are long and differ from one process to the next."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"^\.common \.global \.align 8 \.u64 _ZN08NumbaEnv\w+;$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\.version .*$", f".version {PTX_VERSION}", text, flags=re.MULTILINE)
    (mangled,) = re.findall(r"^\.visible \.entry (\w+)\($", text, flags=re.MULTILINE)
    text = text.replace(f"{mangled}_param_", "p").replace(mangled, entry)
    lines = (re.sub(r"[ \t]+", " ", line.strip()) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


@contextmanager
def _without_a_device(capability: tuple[int, int]) -> Iterator[None]:
    """Lets numba-cuda compile what calls device functions, for which it asks a GPU; and keeps NVVM from fusing."""
    compile_ir, current = nvvm.compile_ir, dispatcher.get_current_device

    def unfused(ir: Any, **options: Any) -> Any:
        return compile_ir(ir, **{**options, "fma": False})

    nvvm.compile_ir = unfused
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        nvvm.compile_ir, dispatcher.get_current_device = compile_ir, current


if __name__ == "__main__":
    main()

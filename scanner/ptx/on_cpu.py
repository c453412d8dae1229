"""The shipped PTX run on a CPU, thread by thread, where there is no GPU: for tests and for `mystocks-scan doctor`.

Needs gcc. Slow, and exact: not one bit of a result may differ from the compiled kernels'.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import EngineError
from scanner.ptx import entries, text
from scanner.ptx.arguments import THREADS, Launch, address
from scanner.ptx.sources import entry_name
from scanner.ptx.to_c import translate

# The compiler must not fuse what the PTX keeps apart; -O1 keeps the compilation of big functions short.
_GCC = ("gcc", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-w")
_PROCESSES = 2


class PtxMachine:
    """Runs launches over numpy's arrays by the PTX that is shipped, or by that of `texts` (indicator -> its PTX).

    `scanner.engines.pretend.HostDevice` makes of it a device for the engine `cuda`.
    """

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._functions = compiled([text(name) for name in entries()] if texts is None else list(texts.values()))

    def launch(self, call: Launch) -> None:
        """Runs an entry; raises RuntimeError where it reads or writes outside its arrays, or writes to an input."""
        run(self._functions[entry_name(call.indicator)], call)


def run(function: Any, call: Launch) -> None:
    """Runs one of the functions of `compiled`, as `PtxMachine.launch`."""
    arrays = [value for value in call.arguments if isinstance(value, np.ndarray)]
    read_only = 2 + len(call.indicator.inputs)
    ranges = np.array(
        [(address(a), address(a) + a.nbytes, i >= read_only) for i, a in enumerate(arrays)], dtype=np.uint64
    )
    words = call.words
    wild = function(words.ctypes.data, len(words), call.blocks, THREADS, ranges.ctypes.data, len(ranges))
    if wild < 0:
        raise RuntimeError(f"{call.indicator.name}: its PTX does not take {len(words)} words")
    if wild:
        raise RuntimeError(f"{call.indicator.name}: its PTX went outside its arrays {wild} times")


def compiled(texts: Sequence[str]) -> dict[str, Any]:
    """Entry -> the C function that `to_c.translate` makes of it, for every entry of these texts."""
    if not shutil.which(_GCC[0]):
        raise EngineError("running PTX on a CPU needs a C compiler: gcc not found. Install gcc")
    functions: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        # Large texts first, dealt out in turn: the processes end at about the same time.
        ordered = sorted(texts, key=len, reverse=True)
        parts = [part for part in (ordered[k::_PROCESSES] for k in range(_PROCESSES)) if part]
        runs = []
        for k, part in enumerate(parts):
            file = Path(folder) / f"part{k}.c"
            file.write_text(translate(part), encoding="utf-8")
            command = [*_GCC, str(file), "-o", str(file.with_suffix(".so")), "-lm"]
            runs.append((part, file, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
        words = [run.communicate()[1] for _, _, run in runs]
        if any(run.returncode for _, _, run in runs):
            raise EngineError(f"gcc refuses the C of the PTX: {''.join(words)[:1000]}")
        for part, file, _ in runs:
            library = ctypes.CDLL(str(file.with_suffix(".so")))
            for name in _names(part):
                function = library[name]
                function.restype = ctypes.c_int64
                pointer, number = ctypes.c_void_p, ctypes.c_uint64
                function.argtypes = [pointer, number, ctypes.c_uint32, ctypes.c_uint32, pointer, number]
                functions[name] = function
    return functions


def _names(texts: Sequence[str]) -> list[str]:
    return [
        line.split()[2].rstrip("(")
        for text in texts
        for line in text.splitlines()
        if line.startswith(".visible .entry")
    ]

"""Kernels are compiled once for all processes, anew when one is edited, and in a folder that can be written."""

import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import pytest

from scanner.engines import buffers, compiling, folders, vector
from scanner.engines.base import Call, Series
from scanner.engines.compiling import compiled
from scanner.engines.golden import market
from scanner.engines.vector import VectorEngine
from scanner.indicators import kernels
from scanner.indicators.spec import Indicator

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json
import numpy as np
from scanner.engines import compiling, verdict
from scanner.engines.base import by_symbol, choose
from scanner.indicators import catalog

compared = []
golden = verdict.golden
verdict.golden = lambda *given: compared.append(golden(*given)) or compared[-1]
sma = catalog["SMA"]
(out,) = by_symbol(choose("vector")[0], sma, sma.bind(3), [np.arange(6.0)[None]], np.array([6]))
kernel = compiling.compiled(sma).function
print(json.dumps({
    "last": out[0, -1],
    "compiled": 1 - kernel.cache_hits,
    "from cache": kernel.cache_hits,
    "golden bits": [(bits.n_values > 0, bits.n_differing) for bits in compared],
    "file": kernel.__wrapped__.__code__.co_filename,
}))
"""


def run(tree: Path, **environment: str) -> dict[str, object]:
    """The program in a process of its own, on the source in `tree`."""
    given = {name: value for name, value in os.environ.items() if name != folders.SETTING}
    given |= {"PYTHONPATH": str(tree), **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tree, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_second_process_compiles_nothing_and_an_edited_kernel_counts(tmp_path: Path) -> None:
    tree, cache = tmp_path / "tree", str(tmp_path / "cache")
    for package in ("data", "scanner"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    first = run(tree, MYSTOCKS_SCAN__KERNEL_CACHE=cache)
    assert (first["last"], first["compiled"], first["from cache"]) == (4.0, 1, 0)
    second = run(tree, MYSTOCKS_SCAN__KERNEL_CACHE=cache)
    assert first["golden bits"] == [[True, 0]]
    assert second == {**first, "compiled": 0, "from cache": 1, "golden bits": []}
    trend = tree / "scanner" / "indicators" / "averages.py"
    text = trend.read_text(encoding="utf-8")
    assert "s / n if k >= n" in text
    trend.write_text(text.replace("s / n if k >= n", "2.0 * s / n if k >= n"), encoding="utf-8")
    edited = run(tree, MYSTOCKS_SCAN__KERNEL_CACHE=cache)
    assert (edited["last"], edited["compiled"]) == (8.0, 1)


def test_a_home_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()  # nothing can be made below a file, not even by root
    given = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(tmp_path)}
    answer = run(ROOT, **given)
    assert Path(str(answer["file"])).is_relative_to(tmp_path / f"mystocks-scan-kernels-{os.getuid()}")
    assert answer["last"] == 4.0


@pytest.mark.parametrize("indicator", kernels(), ids=lambda i: i.name)
def test_a_kernel_takes_what_its_declaration_lists(indicator: Indicator) -> None:
    assert indicator.kernel
    taken = list(inspect.signature(indicator.kernel.advance).parameters)
    assert taken[:3] == ["t", "j0", "j1"]
    assert taken[3 + len(indicator.inputs)] == "state"
    assert len(taken) == 4 + len(indicator.inputs) + len(indicator.outputs) + len(indicator.params)


FUSED = re.compile(r"\b(vfn?m(add|sub)\w*|fn?m(add|sub)|fml[as])\b")
"""A product and a sum that are rounded once, of x86 and of ARM."""


def assembly_of(function: Any) -> str:
    """What the CPU runs; numba shows it of functions only that it has not found on disk."""
    library = function._library
    text: str = library.codegen._tm.emit_assembly(library._get_module_for_linking())
    return text


@pytest.mark.parametrize("indicator", kernels(), ids=lambda i: i.name)
def test_no_product_is_fused_with_a_sum(indicator: Indicator) -> None:
    """A GPU's bits are to be the same, and so are those of a CPU that has no such operation."""
    assembly = assembly_of(compiled(indicator).function)
    assert re.search(r"\bv?mulpd\b|\bv?addpd\b|\bfadd\b|\bv?cmp\w*pd\b|\bv?mov\w*pd\b", assembly), "no floats in it"
    assert not FUSED.search(assembly)


def test_a_fused_product_would_be_seen() -> None:
    if platform.machine() == "x86_64" and not llvmlite.binding.get_host_cpu_features()["fma"]:
        return  # nor can a kernel have one
    fused = numba.cfunc("float64(float64, float64, float64)", fastmath=True)(lambda a, b, c: a * b + c)
    assert FUSED.search(assembly_of(fused))


@pytest.mark.parametrize("block", [64, 256])
@pytest.mark.parametrize("threads", [1, 3])
def test_bits_know_nothing_of_blocks_and_threads(threads: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listings, gaps and symbols without bars in every block; indicators one by one against all at once."""
    monkeypatch.setattr(vector, "LARGE", 0)
    chosen = [i for i in kernels() if i.name in ("SMA", "KDJ", "MFI", "ADX", "CCI", "BBANDS")]
    calls = []
    for indicator in chosen:
        inputs = [Series(matrix, lengths) for matrix, lengths in market(indicator, n_symbols=300, bars=90)]
        calls.append((indicator, indicator.bind(), inputs))
    engine = VectorEngine(1)
    alone = [engine.by_kernel(*call, keep=keep) for call in calls for keep in (None, 7)]
    monkeypatch.setattr(vector, "BLOCK", block)
    monkeypatch.setattr(vector, "STREAMED_BYTES", 0 if threads > 1 else 1 << 40)
    together = VectorEngine(threads).run_all([Call(*call, keep) for call in calls for keep in (None, 7)])
    for one, other in zip(alone, together, strict=True):
        for got, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_memory_of_results_is_used_again_once_nobody_sees_it() -> None:
    pool = buffers.Buffers()
    size = (1, buffers.LEAST_BYTES // 8)
    first = pool.empty(*size)
    place, view = first.ctypes.data, first[:, 5:]
    del first
    assert pool.empty(*size).ctypes.data != place, "a view is left"
    del view
    assert pool.empty(*size).ctypes.data == place


def test_memory_that_is_not_used_again_is_given_back() -> None:
    pool = buffers.Buffers()
    pool.empty(1, buffers.LEAST_BYTES // 8)
    assert pool.free_bytes == buffers.LEAST_BYTES
    for _ in range(buffers.ROUNDS + 1):
        pool.begin()
    assert pool.free_bytes == 0


def test_two_threads_do_not_come_to_numba_at_once(tmp_path: Path) -> None:
    """They could wait for each other for ever: for numba's lock, and for the interpreter's on a cached property."""
    text = "import time\n\nbegan = time.monotonic()\ntime.sleep(0.05)\nended = time.monotonic()\n"
    folders = [tmp_path / name for name in ("one_0", "two_0")]
    for folder in folders:
        folder.mkdir()
        (folder / "kernel.py").write_text(text)
    with ThreadPoolExecutor(2) as pool:
        one, other, again = pool.map(compiling.module, [*folders, folders[0]])
    assert one is again
    assert one.ended <= other.began or other.ended <= one.began

"""Kernels are compiled once for all processes, anew when one is edited, and in a folder that can be written."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.engines import folders
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
drive = compiling.compiled(sma)
print(json.dumps({
    "last": out[0, -1],
    "compiled": sum(drive.stats.cache_misses.values()),
    "from cache": sum(drive.stats.cache_hits.values()),
    "golden bits": [(bits.n_values > 0, bits.n_differing) for bits in compared],
    "file": drive.py_func.__code__.co_filename,
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

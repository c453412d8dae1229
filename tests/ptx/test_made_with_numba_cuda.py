"""Where numba-cuda is, and no GPU: the PTX is fresh, every card's assembler takes it, and the simulator agrees."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.errors import EngineError
from scanner import ptx
from scanner.indicators import kernels

if not importlib.util.find_spec("numba_cuda"):
    pytest.skip("numba-cuda is not in this environment", allow_module_level=True)

from scanner.ptx import build

ROOT = Path(__file__).resolve().parents[2]
CARDS = (75, 80, 86, 89, 90, 100, 120)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return build.build()


def test_the_shipped_ptx_is_what_is_made_of_the_kernels(made: dict[str, str]) -> None:
    with_now, with_then = build.made_with(), ptx.manifest()["made_with"]
    assert with_now == with_then, "other versions give other text: take those, or make the PTX anew with these"
    assert build.differing(made, Path(str(ptx.KERNELS))) == []


def test_check_names_what_is_out_of_date(made: dict[str, str], tmp_path: Path) -> None:
    for name, text in made.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert build.differing(made, tmp_path) == []
    (tmp_path / "rsi.ptx").write_text("old", encoding="utf-8")
    (tmp_path / "sma.ptx").unlink()
    (tmp_path / "gone.ptx").touch()
    assert build.differing(made, tmp_path) == ["gone.ptx is left over", "rsi.ptx differs", "sma.ptx is missing"]


SOME = ("RSI", "KDJ", "BBANDS", "SAR", "COUNT", "CROSS_OVER", "TDX_RSI", "SUPERTREND")


@pytest.fixture(scope="module")
def some() -> list[Any]:
    return [indicator for indicator in kernels() if indicator.name in SOME]


def test_other_targets_have_the_same_text(some: list[Any]) -> None:
    """Up to compute_90; from compute_100 on NVVM has another code generator, whose PTX is run below."""
    for indicator in some:
        for card in CARDS[1:5]:
            text = build.ptx(indicator, divmod(card, 10))
            assert text.replace(f"sm_{card}", "sm_75", 1) == ptx.text(indicator.name)


def test_bits_of_the_newer_code_generator_are_the_same(gcc: None, proof: Any, some: list[Any]) -> None:
    machine = proof.on_cpu({indicator.name: build.ptx(indicator, (10, 0)) for indicator in some})
    for indicator in some:
        inputs = proof.market(indicator)
        for args in proof.settings(indicator):
            assert proof.differing(machine, indicator, args, inputs) == 0, indicator.name


@pytest.mark.parametrize(
    "line",
    [
        "fma.rn.f64 %fd1, %fd2, %fd3, %fd4;", "add.f64 %fd1, %fd2, %fd3;", "mul.f64 %fd1, %fd2, %fd3;",
        "sub.rz.f64 %fd1, %fd2, %fd3;", "div.full.f32 %f1, %f2, %f3;", "sqrt.approx.f64 %fd1, %fd2;",
        "ld.shared.f64 %fd1, [%rd1];", "atom.global.add.f64 %fd1, [%rd1], %fd2;", "bar.sync 0;",
        "call.uni f, (param0);", ".local .align 8 .b8 __local_depot0[16];", ".extern .func f;",
    ],
)  # fmt: skip
def test_what_must_not_be_in_ptx_is_found(line: str) -> None:
    build.refuse(ptx.text("RSI"))
    with pytest.raises(ValueError, match="must not"):
        build.refuse(ptx.text("RSI").replace("ret;", f"{line}\nret;"))


def assembled(card: int) -> str:
    """What nvJitLink says of every shipped entry, assembled for a card."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(2, [f"-arch=sm_{card}", "-verbose"])
    try:
        for name in ptx.entries():
            text = ptx.text(name).encode()
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), name)
        nvjitlink.complete(handle)
        assert nvjitlink.get_linked_cubin_size(handle) > 0
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        return log.decode()
    finally:
        nvjitlink.destroy(handle)


def test_every_card_s_assembler_takes_it_without_spilling() -> None:
    with ThreadPoolExecutor(2) as pool:
        logs = dict(zip(CARDS, pool.map(assembled, CARDS), strict=True))
    names = {entry.name for entry in ptx.entries().values()}
    for card, log in logs.items():
        assert set(re.findall(rf"Compiling entry function '(\w+)' for 'sm_{card}'", log)) == names
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
        assert frames == [("0", "0", "0")] * len(names)
        registers = dict(
            zip(
                re.findall(r"properties for (\w+)", log),
                map(int, re.findall(r"Used (\d+) registers", log)),
                strict=True,
            )
        )
        most = max(registers, key=lambda name: registers[name])
        print(f"sm_{card}: {min(registers.values())} to {registers[most]} registers ({most})")


def test_the_engine_s_own_assembler_makes_cubins_without_a_driver() -> None:
    from scanner.engines import assembling

    content = assembling.link(ptx.text("RSI"), "sm_90")
    assert content.startswith(b"\x7fELF")
    assert b"mystocks_rsi" in content
    with pytest.raises(EngineError, match="makes no cubin for sm_90"):
        assembling.link("no PTX", "sm_90")


SIMULATED = """
import ast, importlib.util, json, sys, tempfile, warnings
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import Proof
from scanner.engines.base import load
from scanner.engines.golden import compare
from scanner.indicators import kernels
from scanner.ptx.arguments import THREADS
from scanner.ptx.sources import entry_name, source

warnings.simplefilter("ignore")
np.seterr(all="ignore")
proof, found, folder = Proof(), {}, Path(tempfile.mkdtemp())

def launch(call):
    entries[call.indicator.name][call.blocks, THREADS](*call.arguments)

class NumpysNumbers(ast.NodeTransformer):
    "Python's own floats divide by zero with an exception."
    def visit_Constant(self, node):
        return ast.parse(f"np.float64({node.value!r})", mode="eval").body if isinstance(node.value, float) else node

entries = {}
for indicator in kernels():
    name = entry_name(indicator)
    tree = NumpysNumbers().visit(ast.parse(source(indicator).replace(f"def {name}", f"@cuda.jit\\ndef {name}")))
    path = folder / f"{name}.py"
    path.write_text(ast.unparse(tree).replace("import math", "import math\\nimport numpy as np", 1))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entries[indicator.name] = getattr(module, name)
    inputs = proof.market(indicator, 9, 30)
    found[indicator.name] = proof.differing(proof.machine(launch), indicator, (), inputs)
print(json.dumps(found))
"""


def test_the_simulator_gives_the_same_bits() -> None:
    """numba's own interpreter of CUDA kernels, by the engine's launches, a Python thread a symbol."""
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(Path(__file__).parent)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {indicator.name: 0 for indicator in kernels()}

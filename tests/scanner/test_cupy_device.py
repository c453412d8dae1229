"""What is asked of CuPy, of a pretended one: arrays in numpy memory, modules whose kernels are the PTX run by the CPU.

That CuPy takes the same from us on a GPU no test here can show; its names, signatures and errors are those of 14.2.
"""

import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from scanner import ptx
from scanner.engines import assembling, device, folders
from scanner.engines.base import Series, load
from scanner.engines.device import CupyDevice, DeviceFullError, DeviceLostError
from scanner.engines.golden import compare, market
from scanner.engines.on_gpu import CudaEngine
from scanner.indicators import catalog
from scanner.ptx.on_cpu import PtxMachine

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")

EVERYWHERE = np.array([[0, 2**64 - 1, 1]], dtype=np.uint64)


class Array(np.ndarray[Any, Any]):
    """An array of the pretended CuPy."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        def memset_async(value: int, size: int, stream: Any = None) -> None:
            assert size == self.nbytes
            self.view(np.ndarray).reshape(-1).view(np.uint8)[:] = value

        return SimpleNamespace(memset_async=memset_async)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        if out is None:
            return np.array(self)
        out[...] = self
        return out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What was asked of the pretended CuPy, and of nvJitLink."""
    seen = SimpleNamespace(launches=[], modules=[], assembled=[], pinned=0, freed=0, limits=[])
    functions = PtxMachine({name: ptx.text(name) for name in ("RSI", "KDJ")})._functions

    def raw_module(code: Any = None, *, path: str | None = None) -> Any:
        assert code is None
        assert path is not None
        seen.modules.append(Path(path).read_bytes())

        def get_function(name: str) -> Any:
            def kernel(grid: Any, block: Any, args: Any) -> None:
                assert {type(word) for word in args} == {np.uint64}  # which CuPy hands over as 8 bytes
                seen.launches.append((name, grid, block))
                words = np.array(args)
                wild = functions[name](words.ctypes.data, len(words), grid[0], block[0], EVERYWHERE.ctypes.data, 1)
                assert wild == 0

            return kernel

        return SimpleNamespace(get_function=get_function)

    def empty_pinned(shape: Any, dtype: Any) -> Any:
        seen.pinned += 1
        return np.empty(shape, dtype)

    def free() -> None:
        seen.freed += 1

    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    pool = SimpleNamespace(
        used_bytes=lambda: 10,
        total_bytes=lambda: 20,
        free_all_blocks=free,
        set_limit=lambda size: seen.limits.append(size),
    )
    runtime = SimpleNamespace(
        getDeviceProperties=lambda n: {"name": b"Pretend"},
        deviceGetPCIBusId=lambda n: "0000:65:00.0",
        memGetInfo=lambda: (30, 40),
    )
    vars(cupy).update(
        cuda=SimpleNamespace(runtime=runtime, Device=lambda n: SimpleNamespace(compute_capability="90")),
        zeros=lambda shape: np.zeros(shape).view(Array),
        asarray=lambda values: np.array(values).view(Array),
        RawModule=raw_module,
        get_default_memory_pool=lambda: pool,
        get_default_pinned_memory_pool=lambda: SimpleNamespace(free_all_blocks=free),
    )
    vars(cupyx).update(empty_pinned=empty_pinned)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setenv(folders.SETTING, str(tmp_path))
    monkeypatch.setattr(assembling, "linker_version", lambda: "12.9")

    def link(text: str, arch: str) -> bytes:
        seen.assembled.append(arch)
        return text.encode()

    monkeypatch.setattr(assembling, "link", link)
    return seen


@pytest.mark.parametrize("name", ["RSI", "KDJ"])
@pytest.mark.parametrize("keep", [None, 3])
def test_the_engine_through_cupy_gives_the_bits_of_vector(name: str, keep: int | None, asked: Any) -> None:
    indicator = catalog[name]
    inputs = [Series(*each) for each in market(indicator)]
    engine = CudaEngine(CupyDevice)
    with engine.watch() as report:
        for _ in range(2):
            found = engine.run(indicator, indicator.bind(), inputs, keep=keep)
    assert compare(found, load("vector").run(indicator, indicator.bind(), inputs, keep=keep)).n_differing == 0
    assert report.fallbacks == []
    assert asked.launches == [(f"mystocks_{name.lower()}", (1,), (64,))] * 3  # golden bits, and two runs
    assert (asked.modules, asked.assembled) == ([ptx.text(name).encode()], ["sm_90"])
    assert asked.pinned == 3


def test_readings_limits_and_what_is_given_back(asked: Any) -> None:
    made = CupyDevice()
    assert (made.name, made.arch) == ("Pretend", "sm_90")
    assert made.memory() == device.DeviceMemory(40, 30, 10, 20, f"{socket.gethostname()}:0000:65:00.0")
    made.release()
    made.limit(5)
    made.limit(None)
    assert (asked.freed, asked.limits) == (2, [5, 0])


@pytest.mark.parametrize(
    ("error", "status", "ours"),
    [
        (MemoryError("std::bad_alloc"), None, DeviceFullError),  # CuPy's OutOfMemoryError, and RMM's, are such
        (RuntimeError("cudaErrorMemoryAllocation"), 2, DeviceFullError),
        (RuntimeError("cudaErrorIllegalAddress"), 700, DeviceLostError),
        (RuntimeError("cudaErrorECCUncorrectable"), 214, DeviceLostError),
        (RuntimeError("cudaErrorNoKernelImageForDevice"), 209, EngineError),
        (RuntimeError("a library is not found"), None, EngineError),
        (ImportError("no module named cupy"), None, EngineError),
        (ValueError("a fault of ours"), None, ValueError),
    ],
)
def test_errors_of_cuda_are_told_apart(error: Exception, status: int | None, ours: type[Exception]) -> None:
    if status is not None:
        error.status = status  # type: ignore[attr-defined]
    with pytest.raises(ours) as told, device._translated():
        raise error
    assert type(told.value) is ours
    assert str(error) in str(told.value)

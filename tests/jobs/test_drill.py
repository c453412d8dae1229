"""What `mystocks-scan doctor --full` computes, on the CPU's engines and on a pretended GPU, in health and not."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from jobs import drill
from jobs.benchmark import suite
from scanner import ptx
from scanner.engines.base import Series, load
from scanner.engines.on_gpu import CudaEngine
from scanner.engines.pretend import HostDevice
from scanner.engines.report import DeviceMemory
from scanner.indicators import catalog
from scanner.ptx.arguments import Launch
from scanner.ptx.on_cpu import PtxMachine

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")

SOME = ("SMA", "EMA", "WMA", "KDJ")


@pytest.fixture(scope="module")
def launch() -> Callable[[Launch], None]:
    return PtxMachine({name: ptx.text(name) for name in SOME}).launch


@pytest.fixture(scope="module")
def inputs() -> dict[str, Series]:
    return drill.market(60, 80)


@pytest.fixture
def device(launch: Callable[[Launch], None]) -> HostDevice:
    return HostDevice(launch)


def test_a_gpu_in_good_health(device: HostDevice, inputs: dict[str, Series], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "kernels", lambda: [catalog[name] for name in SOME])
    monkeypatch.setattr(drill, "market", lambda: inputs)
    monkeypatch.setattr(drill, "N_INDICATORS", 3)
    found = list(drill.gpu_drill(CudaEngine(lambda: device)))
    assert [finding.status for finding in found] == ["OK"] * 6, found
    texts = [finding.text for finding in found]
    assert "no one has run this on a GPU before" in texts[0]
    assert "golden bits of 4 kernels" in texts[1]
    assert "0 differ" in texts[1]
    assert texts[2].startswith("cuda: 3 indicators, 60 x 80, in ")
    assert texts[3].endswith("every bit the same")
    assert texts[4].endswith("no growth")
    assert "1 retries, then cuda, the same bits; whole again afterwards" in texts[5]


def test_a_gpu_that_does_not_start() -> None:
    def fail() -> Any:
        raise EngineError("the GPU refuses: cudaErrorInitializationError")

    (found,) = drill.gpu_drill(CudaEngine(fail))
    assert (found.status, "cudaErrorInitializationError" in found.text) == ("FAIL", True)


def test_a_gpu_that_rounds_in_another_way(launch: Callable[[Launch], None], inputs: dict[str, Series]) -> None:
    def other(call: Launch) -> None:
        launch(call)
        np.nextafter(call.arguments[-2], np.inf, out=call.arguments[-2])  # the output: one parameter comes after it

    engine = CudaEngine(lambda: HostDevice(other))
    found = drill.golden_bits("cuda", engine.on_gpu, [catalog["SMA"]])
    assert (found.status, " by up to 1 ulp" in found.text) == ("FAIL", True)
    (_, told) = drill.whole_market({"vector": load("vector"), "cuda": engine}, inputs, [catalog["SMA"]])
    assert (told.status, "by vector: " in told.text) == ("FAIL", True)


def test_a_gpu_that_leaks(device: HostDevice, inputs: dict[str, Series]) -> None:
    used = [0]

    def leaking() -> DeviceMemory:
        used[0] += 2 << 20
        return DeviceMemory(1 << 34, 1 << 33, used[0], used[0])

    found = drill.leaks(CudaEngine(lambda: device, read=leaking), inputs, 12)
    assert (found.status, "it grew by" in found.text) == ("FAIL", True)


def test_a_gpu_that_feels_no_shortage(device: HostDevice, inputs: dict[str, Series]) -> None:
    device.limit = lambda n_bytes: None  # type: ignore[method-assign]
    found = drill.out_of_memory(CudaEngine(lambda: device), inputs)
    assert (found.status, "no shortage was felt" in found.text) == ("FAIL", True)


def test_engines_that_differ_are_told_by_indicator(inputs: dict[str, Series]) -> None:
    vector = load("vector")

    class Wrong:
        name = "wrong"

        def run(self, indicator: Any, *args: Any, **kwargs: Any) -> Any:
            found = vector.run(indicator, *args, **kwargs)
            return tuple(output + 1e-9 for output in found) if indicator.name == "WMA" else found

    indicators = [catalog[name] for name in SOME]
    found = list(drill.whole_market({"vector": vector, "talib": load("talib"), "wrong": Wrong()}, inputs, indicators))
    assert [finding.status for finding in found] == ["OK", "OK", "FAIL"]
    assert found[2].text.endswith("; these differ: WMA")


def test_the_benchmark_looks_at_a_card_too(
    device: HostDevice, inputs: dict[str, Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "kernels", lambda: [catalog[name] for name in SOME])
    monkeypatch.setattr(suite, "a_market", lambda: inputs)
    bits, memory = suite.look_at(CudaEngine(lambda: device), scans=6)
    assert bits.text.startswith("cuda: golden bits of 4 kernels")
    assert memory.text.startswith("GPU memory over 6 scans")
    assert (bits.status, memory.status) == ("OK", "OK")

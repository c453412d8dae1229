"""The engine `cuda` on a pretended device, whose kernels are the shipped PTX run by the CPU: bits, and failures."""

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from scanner import ptx
from scanner.engines import assembling, base, folders, golden
from scanner.engines.device import DeviceLostError
from scanner.engines.machine import Advance, CpuMachine
from scanner.engines.on_gpu import CudaEngine, CudaMachine
from scanner.engines.pretend import HostDevice
from scanner.engines.report import DeviceMemory, Report, growth
from scanner.indicators import catalog
from scanner.ptx.arguments import Launch
from scanner.ptx.on_cpu import PtxMachine

SOME = ("RSI", "MACD", "KDJ", "SMA", "OBV", "WILLR")
Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")


@pytest.fixture(scope="module")
def launch() -> Callable[[Launch], None]:
    return PtxMachine({name: ptx.text(name) for name in SOME}).launch


@pytest.fixture
def device(launch: Callable[[Launch], None]) -> HostDevice:
    return HostDevice(launch)


@pytest.fixture
def cuda(device: HostDevice) -> CudaEngine:
    return CudaEngine(lambda: device)


@pytest.fixture(scope="module")
def vector() -> base.Engine:
    return base.load("vector")


@pytest.fixture(scope="module")
def run() -> Run:
    """(engine, indicator, keep) -> its outputs over 70 symbols: listed late, flat, with gaps, without any bar."""
    rng = np.random.default_rng(3)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, (90, 70)), axis=0)), 2)
    lengths = np.full(70, 90)
    lengths[:20] = rng.integers(0, 91, 20)
    lengths[20] = 0
    close[:, 30] = 11.0
    volume = np.round(rng.lognormal(13, 0.5, close.shape))
    matrices = {"high": close * 1.01, "low": close * 0.99, "close": close, "volume": volume}
    for matrix in matrices.values():
        matrix[np.arange(90)[:, None] < 90 - lengths] = np.nan
        matrix[85:, 40] = np.nan
        matrix[50, 41] = np.nan
    market = {name: base.Series(matrix, lengths) for name, matrix in matrices.items()}

    def compute(engine: base.Engine, name: str, keep: int | None = None) -> Any:
        indicator = catalog[name]
        return engine.run(indicator, indicator.bind(), [market[field] for field in indicator.inputs], keep=keep)

    return compute


def same(some: Any, others: Any) -> bool:
    """Whether matrices are equal bit for bit, a NaN as any other."""
    return all(
        a.shape == b.shape
        and np.array_equal(np.isnan(a), np.isnan(b))
        and np.array_equal(a[~np.isnan(a)].view(np.uint64), b[~np.isnan(b)].view(np.uint64))
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("keep", [None, 1, 3, 7, 500])
def test_bits_are_those_of_the_engine_vector(
    name: str, keep: int | None, cuda: CudaEngine, vector: base.Engine, run: Run
) -> None:
    with cuda.watch() as report:
        assert same(run(cuda, name, keep), run(vector, name, keep))
    assert (report.engine, report.fallbacks, report.lost) == ("cuda", [], False)


def test_an_input_is_copied_to_the_device_once_and_leaves_with_its_series(launch: Callable[[Launch], None]) -> None:
    device = HostDevice(launch)
    engine = CudaEngine(lambda: device)
    close = base.Series(np.arange(1.0, 501.0).reshape(50, 10), np.full(10, 50))
    other = base.Series(np.ones((50, 10)), np.full(10, 50))
    for name in ("RSI", "SMA"):  # the first use of a kernel computes its golden bits
        engine.run(catalog[name], catalog[name].bind(), [other])
    del other
    assert device.used_bytes == 0
    device.uploaded_bytes = 0
    for name in ("RSI", "RSI", "SMA"):
        engine.run(catalog[name], catalog[name].bind(), [close], keep=1)
    assert device.uploaded_bytes == 8 * 500 + 3 * (2 * 8 * 10)
    assert device.used_bytes == 8 * 500
    del close
    assert device.used_bytes == 0


def test_no_symbols_and_no_bars(cuda: CudaEngine, device: HostDevice) -> None:
    rsi = catalog["RSI"]
    for shape in ((0, 3), (5, 0)):
        empty = base.Series(np.empty(shape), np.zeros(shape[1], dtype=np.int64))
        (out,) = cuda.run(rsi, rsi.bind(), [empty])
        assert out.shape == shape
    assert device.launches == 1  # the golden bits


def test_what_has_no_kernel_is_computed_by_the_cpu_and_is_no_fallback(cuda: CudaEngine, device: HostDevice) -> None:
    from scanner.engines.talib import describe

    ht = describe("HT_TRENDLINE")
    prices = base.Series(np.linspace(10, 20, 200).reshape(100, 2), np.full(2, 100))
    with cuda.watch() as report:
        assert same(cuda.run(ht, ht.bind(), [prices]), base.load("talib").run(ht, ht.bind(), [prices]))
    assert (report.fallbacks, device.launches) == ([], 0)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("width", [3, 40])
def test_a_machine_on_a_device_advances_as_one_on_the_cpu(name: str, width: int, device: HostDevice) -> None:
    """In a batch, then bar by bar the columns that end with it: listings, halts, outputs that are rings."""
    indicator = catalog[name]
    params = indicator.bind()
    market = golden.market(indicator, bars=64)
    first, stop = base.joint_span(indicator, [base.Series(*each) for each in market])
    rng = np.random.default_rng(1)

    def advance(machine: Any) -> list[Any]:
        inputs = [machine.put(matrix) for matrix, _ in market]
        assert indicator.kernel is not None
        state = machine.zeros(indicator.kernel.rows(params), len(first))
        outputs = [machine.put(np.ones((width, len(first)))) for _ in indicator.outputs]
        machine.batch(indicator, params, first, stop, inputs, state, outputs)
        found = [machine.get(output).copy() for output in outputs]
        step = machine.chain([Advance(indicator, params, inputs, state, outputs)])
        for t in range(64, 70):
            now = np.full(len(first), t) - (np.arange(len(first)) % 2)
            step(now, chosen[t - 64])
        return [*found, *(machine.get(matrix)[:, whole] for matrix in (*outputs, state))]

    whole = (first < 64) & (stop == 64)
    assert 3 <= whole.sum() < len(whole)
    chosen = (rng.random((6, len(first))) < 0.7) & whole
    assert same(advance(CudaMachine(device)), advance(CpuMachine()))


def scanned(engine: CudaEngine, run: Run, *names: str) -> tuple[list[Any], Report]:
    with engine.watch() as report:
        return [run(engine, name, 5) for name in names], report


def test_out_of_memory_halves_the_shard_twice(
    cuda: CudaEngine, device: HostDevice, vector: base.Engine, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [run(vector, name, 5) for name in ("KDJ", "RSI")]
    # KDJ of 70 columns: three inputs of 90 rows, state and outputs. Its halves fit, its quarters too.
    device.room_bytes = 3 * 90 * 70 * 8 * 6 // 10
    with caplog.at_level(logging.WARNING, "scanner.engines.on_gpu"):
        found, report = scanned(cuda, run, "KDJ", "RSI")
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert (report.engine, report.fallbacks, report.retries, device.releases) == ("cuda", [], 1, 1)
    assert "KDJ of 70 columns: the pretended memory of" in caplog.text
    device.room_bytes = device.room_bytes // 2
    found, report = scanned(cuda, run, "KDJ", "RSI")
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert (report.engine, report.retries) == ("cuda", 3)  # RSI's one input needs its halves


def test_out_of_memory_for_good_leaves_the_rest_of_the_scan_to_the_cpu(
    cuda: CudaEngine, device: HostDevice, vector: base.Engine, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    device.room_bytes = 1000
    found, report = scanned(cuda, run, "RSI", "SMA")
    assert same(found[0] + found[1], run(vector, "RSI", 5) + run(vector, "SMA", 5))
    assert (report.engine, report.retries, report.lost, device.launches) == ("vector", 2, False, 0)
    assert report.fallbacks == ["the pretended memory of 1000 bytes is used up"]
    assert "the engine vector takes the rest of this scan" in caplog.text
    # The next scan asks the GPU again.
    device.room_bytes = 1 << 30
    found, report = scanned(cuda, run, "SMA")
    assert (report.engine, report.fallbacks, device.launches) == ("cuda", [], 2)  # golden bits, and these


def test_a_lost_device_is_left_alone_by_this_process(
    cuda: CudaEngine, device: HostDevice, vector: base.Engine, run: Run
) -> None:
    scanned(cuda, run, "RSI")
    device.fault = DeviceLostError("the GPU is lost to this process: cudaErrorIllegalAddress")
    found, report = scanned(cuda, run, "RSI", "SMA")
    assert same(found[0] + found[1], run(vector, "RSI", 5) + run(vector, "SMA", 5))
    assert (report.engine, report.fallbacks, report.lost) == ("vector", [str(device.fault)], True)
    device.fault, device.launches = None, 0
    found, report = scanned(cuda, run, "RSI")
    assert same(found[0], run(vector, "RSI", 5))
    assert (report.engine, report.lost, report.before, device.launches) == ("vector", True, None, 0)


def test_other_bits_than_the_golden_ones_are_refused_for_good(
    launch: Callable[[Launch], None], vector: base.Engine, run: Run
) -> None:
    def fused(call: Launch) -> None:
        launch(call)
        for output in call.arguments[-2:-1]:
            np.nextafter(output, np.inf, out=output)

    device = HostDevice(fused)
    engine = CudaEngine(lambda: device)
    for _ in range(2):
        found, report = scanned(engine, run, "RSI")
        assert same(found[0], run(vector, "RSI", 5))
        assert (report.engine, report.lost, device.launches) == ("vector", False, 1)
        assert "golden values of RSI differ on the GPU, by up to 1 units in the last place" in report.fallbacks[0]
    with pytest.raises(EngineError, match="golden values of RSI differ on the GPU"):
        CudaMachine(device).chain([Advance(catalog["RSI"], {}, [], None, [])])


def test_a_device_that_does_not_start_is_said(vector: base.Engine, run: Run) -> None:
    def fail() -> HostDevice:
        raise EngineError("engine 'cuda' needs nvJitLink")

    engine = CudaEngine(fail)
    found, report = scanned(engine, run, "RSI")
    assert same(found[0], run(vector, "RSI", 5))
    assert (report.engine, report.fallbacks, report.lost) == ("vector", ["engine 'cuda' needs nvJitLink"], False)


def test_errors_that_are_no_gpu_s_are_not_hidden(cuda: CudaEngine) -> None:
    rsi = catalog["RSI"]
    with pytest.raises(ValueError, match=r"RSI takes 1 inputs \(close\); got 0"):
        cuda.run(rsi, rsi.bind(), [])


def test_memory_is_read_before_and_after_each_scan(cuda: CudaEngine, device: HostDevice, run: Run) -> None:
    _, report = scanned(cuda, run, "RSI")
    kept = 90 * 70 * 8
    assert report.before == DeviceMemory(device.room_bytes, device.room_bytes, 0, 0)
    assert report.after == DeviceMemory(device.room_bytes, device.room_bytes - kept, kept, kept)


def test_a_leak_shows_in_the_readings_of_an_injected_reader(device: HostDevice, run: Run) -> None:
    used = [0]

    def leaking() -> DeviceMemory:
        used[0] += 1 << 20
        return DeviceMemory(1 << 34, 0, used[0], used[0])

    def readings(engine: CudaEngine) -> list[int]:
        reports = [scanned(engine, run, "RSI")[1] for _ in range(12)]
        return [report.after.used_bytes for report in reports if report.after]

    assert growth(readings(CudaEngine(lambda: device, read=leaking))) > 4 << 20
    assert growth(readings(CudaEngine(lambda: device))) == 0


@pytest.mark.parametrize(
    ("used", "slack", "grown"),
    [
        ([5, 5, 5, 5, 5, 5], 0, 0),
        ([5, 9, 5, 9, 5, 9], 0, 0),  # comes and goes
        ([1, 2, 3, 4, 5, 6], 0, 3),
        ([1, 2, 3, 4, 5, 6], 3, 0),
        ([9, 8, 7, 6, 5, 4], 0, 0),
        ([1, 9], 0, 0),
    ],
)
def test_growth_is_what_no_reading_takes_back(used: list[int], slack: int, grown: int) -> None:
    assert growth(used, slack) == grown


def test_a_cubin_is_assembled_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.SETTING, str(tmp_path))
    made: list[str] = []

    def assemble(text: str, arch: str) -> bytes:
        made.append(arch)
        return f"{text} for {arch}".encode()

    asked = ("rsi", "PTX", "sm_90", "12.9", assemble)
    assert assembling.cubin(*asked).read_bytes() == b"PTX for sm_90"
    assert assembling.cubin(*asked).parent == tmp_path / "cubin"
    for other in (("rsi", "PTX2", "sm_90", "12.9"), ("rsi", "PTX", "sm_75", "12.9"), ("rsi", "PTX", "sm_90", "13.0")):
        assembling.cubin(*other, assemble)
    assert made == ["sm_90", "sm_90", "sm_75", "sm_90"]
    assert len(list((tmp_path / "cubin").iterdir())) == 4


def test_a_linker_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"needs nvJitLink: .*pip install nvidia-nvjitlink-cu12"):
        assembling.linker_version()

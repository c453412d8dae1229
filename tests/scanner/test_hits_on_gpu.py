"""The hits of every built-in rule are the same on `vector` and on `cuda`, whose PTX runs on the CPU here."""

import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.panel import Packed
from data.simulator import SimulatedMarket
from scanner import ptx
from scanner.computing import compute
from scanner.engines.base import load as engine_named
from scanner.engines.device import DeviceLostError
from scanner.engines.on_gpu import CudaEngine
from scanner.engines.pretend import HostDevice
from scanner.loading import load
from scanner.market import ScanResult, merge, to_signals
from scanner.ptx.on_cpu import PtxMachine
from scanner.scan import Plan, make_plan, scan_shard
from scanner.terms import order

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")

FRAME = "1d"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Every built-in strategy, whatever its frame: the simulated bars serve for all."""
    return make_plan(FRAME, list(load().values()))


@pytest.fixture(scope="module")
def device(plan: Plan) -> HostDevice:
    names = {term.indicator.name for term in order(plan.terms) if term.op == "indicator" and term.indicator.kernel}
    return HostDevice(PtxMachine({name: ptx.text(name) for name in sorted(names)}).launch)


@pytest.fixture(scope="module")
def market(simulated: SimulatedMarket, daily: pa.Table) -> list[tuple[Packed, int]]:
    """The market as packed at three bar ends."""
    ends = daily["bar_end"].cast(pa.int64())
    days = sorted(set(ends.to_pylist()))
    return [
        (Packed.from_table(daily.filter(pc.less_equal(ends, end)), FRAME, simulated.symbols), end)
        for end in (days[80], days[-2], days[-1])
    ]


def scan(plan: Plan, packed: Packed, bar_end: int, engine: object) -> ScanResult:
    answer = scan_shard(plan, packed, bar_end, engine)  # type: ignore[arg-type]
    return merge(plan, list(load().values()), [answer], bar_end, engine_named("vector"))


def test_hits_are_the_same_and_signals_say_which_engine(
    plan: Plan, device: HostDevice, market: list[tuple[Packed, int]]
) -> None:
    vector, cuda = engine_named("vector"), CudaEngine(lambda: device)
    for packed, bar_end in market:
        expected, found = scan(plan, packed, bar_end, vector), scan(plan, packed, bar_end, cuda)
        assert len(expected.hits) > 50
        assert (found.hits, found.gapped, found.failed) == (expected.hits, expected.gapped, {})
        assert (expected.engine, found.engine, found.fallbacks) == ("vector", "cuda", ())
    signals, _ = to_signals(found, list(load().values()), {}, origin=0, names={})
    assert {signal.engine for signal in signals} == {"cuda"}


def test_a_device_lost_in_mid_scan_changes_the_engine_and_no_hit(
    plan: Plan, device: HostDevice, market: list[tuple[Packed, int]]
) -> None:
    packed, bar_end = market[-1]
    expected = scan(plan, packed, bar_end, engine_named("vector"))
    before = device.launches
    scan(plan, packed, bar_end, CudaEngine(lambda: device))
    broken = HostDevice(device._launch)
    engine = CudaEngine(lambda: broken)
    error = DeviceLostError("the GPU is lost to this process: cudaErrorLaunchFailure")

    def fail_half_way(launch: object) -> None:
        device._launch(launch)  # type: ignore[arg-type]
        if broken.launches == (device.launches - before) // 2:
            broken.fault = error

    broken._launch = fail_half_way
    found = scan(plan, packed, bar_end, engine)
    assert (found.hits, found.engine, found.fallbacks) == (expected.hits, "vector", (str(error),))
    assert [report.lost for report in found.reports] == [True]


def test_compute_tells_the_engine_that_computed(device: HostDevice, simulated: SimulatedMarket) -> None:
    from data.panel import Panel

    panel = Panel.from_table(simulated.bars("1d", *simulated.sessions[:40]), "1d", simulated.symbols[:5])
    engine = CudaEngine(lambda: device)
    assert compute("RSI(14)", panel, engine).engine == "cuda"
    engine = CudaEngine(lambda: HostDevice(device._launch, room_bytes=10))
    assert compute("RSI(14)", panel, engine).engine == "vector"

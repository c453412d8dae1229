"""A stream whose state lies on a device gives the bits of one on the CPU; the device's PTX is run by the CPU here."""

import shutil
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.panel import Panel
from data.simulator import SimulatedMarket
from scanner import ptx
from scanner.engines import on_gpu
from scanner.engines.on_gpu import CudaEngine
from scanner.engines.pretend import HostDevice
from scanner.loading import load
from scanner.program import kernel_of
from scanner.ptx.on_cpu import PtxMachine
from scanner.scan import base_terms
from scanner.strategy import Rule
from scanner.stream import Stream
from scanner.terms import order

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")


@pytest.fixture(scope="module")
def expressions() -> list[str]:
    """What every built-in rule is decided by, and shows."""
    rules = [strategy for strategy in load().values() if isinstance(strategy, Rule)]
    terms = base_terms(term for rule in rules for term in (rule.when, *rule.shown))
    return sorted({str(term) for term in terms if term.kind != "text"})


@pytest.fixture
def device(expressions: list[str], monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    from scanner.evaluate import expressions_of

    kernels = {kernel[0].name for term in order(expressions_of(expressions).values()) if (kernel := kernel_of(term))}
    made = HostDevice(PtxMachine({name: ptx.text(name) for name in sorted(kernels | {"PREV"})}).launch)
    module: Any = ModuleType("scanner.engines.cuda")
    module.engine = CudaEngine(lambda: made)
    monkeypatch.setitem(sys.modules, "scanner.engines.cuda", module)
    monkeypatch.setattr(on_gpu, "the_device", lambda: made)
    return made


def test_a_stream_on_a_device_gives_the_bits_of_one_on_the_cpu(
    expressions: list[str], device: HostDevice, simulated: SimulatedMarket, daily: pa.Table
) -> None:
    symbols = simulated.symbols[:60]
    ends = daily["bar_end"].cast(pa.int64())
    days = sorted(set(ends.to_pylist()))
    history = Panel.from_table(daily.filter(pc.less_equal(ends, days[100])), "1d", symbols)
    streams = [Stream(expressions, history, engine) for engine in ("vector", "cuda")]
    assert [stream.engine.name for stream in streams] == ["vector", "cuda"]
    uploaded = device.uploaded_bytes
    for day in days[101:112]:
        bars = daily.filter(
            pc.and_(pc.equal(ends, day), pc.is_in(daily["symbol"].cast(pa.string()), pa.array(symbols)))
        )
        vector, cuda = (stream.update(bars) for stream in streams)
        for expression in expressions:
            a, b = np.asarray(vector[expression]), np.asarray(cuda[expression])
            assert np.array_equal(np.isnan(a), np.isnan(b)), expression
            known = ~np.isnan(a)
            assert np.array_equal(a[known].view(np.uint64), b[known].view(np.uint64)), expression
    assert cuda.engine == "cuda"
    # Only what is new went to the device: rows of the fields and where each column stands, not the history.
    assert (device.uploaded_bytes - uploaded) / 11 < history.fields["close"].nbytes

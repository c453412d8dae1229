"""What scans return, as metrics; readings of GPUs come from an injected reader."""

import logging
from collections.abc import Callable

import pytest

from data import metrics
from data.signal import Signal
from jobs.metering import READINGS, WARM_UP, GpuMemory, meter
from scanner.engines.report import DeviceMemory, Report
from scanner.market import ScanResult

MIB = 1 << 20


def value(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def scans(memory: GpuMemory, used: Callable[[int], int], n: int, device: str) -> float:
    """The growth that is shown after `n` scans, whose readings are `used`."""
    for number in range(n):
        report = Report("cuda")
        report.before = DeviceMemory(1 << 34, 1 << 33, used(number) // 2, used(number), device)
        report.after = DeviceMemory(1 << 34, 1 << 33, used(number), 2 * used(number), device)
        memory.take([Report("vector"), report])
    return value("mystocks_gpu_memory_growth_bytes", device=device)


def test_the_memory_of_a_gpu_is_shown_before_and_after_a_scan() -> None:
    scans(GpuMemory(), lambda _: 10 * MIB, 1, "a:0")
    shown = {
        (when, kind): value("mystocks_gpu_memory_bytes", device="a:0", when=when, kind=kind) / MIB
        for when in ("before", "after")
        for kind in ("used", "held", "free")
    }
    assert shown == {
        ("before", "used"): 5,
        ("before", "held"): 10,
        ("before", "free"): 8192,
        ("after", "used"): 10,
        ("after", "held"): 20,
        ("after", "free"): 8192,
    }


@pytest.mark.parametrize("n", [50, 1000])
def test_a_leak_is_shown_and_said(n: int, caplog: pytest.LogCaptureFixture) -> None:
    device = f"leaks:{n}"
    with caplog.at_level(logging.WARNING):
        grown = scans(GpuMemory(), lambda number: number * MIB, n, device)
    assert grown > n / 4 * MIB
    assert f"the memory of the GPU {device} has grown" in caplog.text
    assert len(caplog.records) < 12, "a line a doubling, not one a scan"


@pytest.mark.parametrize(
    "used",
    [
        lambda number: (number % 7) * 100 * MIB,  # comes and goes
        lambda number: min(number, WARM_UP) * 100 * MIB,  # caches that fill
        lambda number: number * 1000 // (1 + number // 100),  # less than the slack
    ],
)
def test_no_growth(used: Callable[[int], int], caplog: pytest.LogCaptureFixture) -> None:
    assert scans(GpuMemory(), used, 200, "well:0") == 0
    assert not caplog.records


def test_a_slow_leak_is_found_in_a_long_run() -> None:
    """Readings are thinned, not forgotten: 4 KiB a scan is little within the newest few hundred."""
    n = 10 * READINGS
    assert scans(GpuMemory(), lambda number: number << 12, n, "slow:0") > 4 * MIB
    assert scans(GpuMemory(), lambda number: number << 12, 200, "brief:0") == 0


def test_cards_are_told_apart() -> None:
    memory = GpuMemory()
    for number in range(60):
        reports = []
        for device, used in (("two:0", number * MIB), ("two:1", 7 * MIB)):
            report = Report("cuda")
            report.after = DeviceMemory(0, 0, used, used, device)
            reports.append(report)
        memory.take(reports)
    assert value("mystocks_gpu_memory_growth_bytes", device="two:0") > 10 * MIB
    assert value("mystocks_gpu_memory_growth_bytes", device="two:1") == 0


def test_a_scan_and_its_signals_are_counted() -> None:
    signal = Signal("s-metered", "1", "600000.SH", "5m", 0, "BUY", 1.0, 10.0, "vector", 0, received_ns=1_000_000_000)
    published = signal.numbered("e", 1, 1_120_000_000)
    report = Report("talib", fallbacks=["lost"], retries=2)
    result = ScanResult("5m", 0, "talib", 1, 1, 1, 1, (), (), {}, elapsed_s=0.02, reports=(report,))
    before = {name: value(name) for name in ("mystocks_scan_fallbacks_total", "mystocks_gpu_retries_total")}
    scanned = value("mystocks_scan_seconds_count", frame="5m", engine="talib")
    late = value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.15")
    soon = value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.1")
    meter(result, [published])
    assert value("mystocks_signals_total", strategy="s-metered", action="BUY") == 1
    assert value("mystocks_scan_fallbacks_total") == before["mystocks_scan_fallbacks_total"] + 1
    assert value("mystocks_gpu_retries_total") == before["mystocks_gpu_retries_total"] + 2
    assert value("mystocks_scan_seconds_count", frame="5m", engine="talib") == scanned + 1
    assert value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.15") == late + 1
    assert value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.1") == soon

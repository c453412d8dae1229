"""What scans return, as metrics; readings of GPUs come from an injected reader."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from data import metrics
from data.calendar import SECOND
from data.schema import FLAG_INCOMPLETE, FLAG_NO_TRADE
from data.signal import Signal
from jobs.metering import READINGS, WARM_UP, GpuMemory, meter, meter_bars
from jobs.readiness import Coverage
from jobs.revising import Stamps
from jobs.scanning import Scanned
from jobs.stages.scanning import Interval
from scanner.engines.report import DeviceMemory, Report
from scanner.market import ScanResult

MIB = 1 << 20
MS = 1_000_000


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


def an_interval() -> Interval:
    """An interval of the frame 5m, that ended 1 s ago; its quotes came 120 ms before its signal was sent."""
    now = time.time_ns()
    end, received, closed, made = now - SECOND, now - 120 * MS, now - 110 * MS, now - 30 * MS
    signal = Signal("s-metered", "1", "600000.SH", "5m", end, "BUY", 1.0, 10.0, "vector", 0, received_ns=received)
    report = Report("talib", fallbacks=["lost"], retries=2)
    result = ScanResult("5m", end, "talib", 9, 8, 1, 1, (), (("r", "x"),), {}, elapsed_s=0.02, reports=(report,))
    what = Scanned(
        result,
        (signal,),
        (signal.numbered("e", 1, now - 20 * MS),),
        silent=3,
        origin=0,
        coverage=Coverage(7, 9, silent=2),
        stamps=Stamps(received - 50 * MS, received, closed, made),
    )
    return Interval(1, "5m", end, 8, what, 10.0, 20.0, 120.0, 0)


def test_a_scan_and_its_signals_are_counted() -> None:
    before = {name: value(name) for name in ("mystocks_scan_fallbacks_total", "mystocks_gpu_retries_total")}
    scanned = value("mystocks_scan_seconds_count", frame="5m", engine="talib")
    late = value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.15")
    soon = value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.1")
    meter(an_interval())
    assert value("mystocks_signals_total", strategy="s-metered", action="BUY") == 1
    assert value("mystocks_scan_fallbacks_total") == before["mystocks_scan_fallbacks_total"] + 1
    assert value("mystocks_gpu_retries_total") == before["mystocks_gpu_retries_total"] + 2
    assert value("mystocks_scan_seconds_count", frame="5m", engine="talib") == scanned + 1
    assert value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.15") == late + 1
    assert value("mystocks_signal_latency_seconds_bucket", frame="5m", le="0.1") == soon


STAGES = {"watermark_wait": 0.83, "quote_age": 0.05, "fold": 0.01, "scan": 0.08, "publish": 0.01, "send": 0.02}


def stages() -> dict[str, tuple[float, float]]:
    """Stage -> (how often it was observed, seconds in all)."""
    return {
        stage: (
            value("mystocks_stage_seconds_count", stage=stage, frame="5m"),
            value("mystocks_stage_seconds_sum", stage=stage, frame="5m"),
        )
        for stage in STAGES
    }


def test_each_stage_has_its_share() -> None:
    before = stages()
    meter(an_interval())
    after = stages()
    assert {stage: after[stage][0] - before[stage][0] for stage in STAGES} == dict.fromkeys(STAGES, 1)
    assert {stage: pytest.approx(after[stage][1] - before[stage][1], abs=1e-6) for stage in STAGES} == STAGES
    assert value("mystocks_scan_symbols", frame="5m") == 8
    assert value("mystocks_symbols_ready", frame="5m") == 7
    assert value("mystocks_scan_last_timestamp_seconds", frame="5m") == pytest.approx(time.time(), abs=60)


def test_what_was_kept_silent_is_counted_by_reason() -> None:
    before = {reason: value("mystocks_signals_suppressed_total", reason=reason) for reason in ("cooldown", "ex_gap")}
    meter(an_interval())
    assert value("mystocks_signals_suppressed_total", reason="cooldown") == before["cooldown"] + 3
    assert value("mystocks_signals_suppressed_total", reason="ex_gap") == before["ex_gap"] + 1


def test_bars_of_a_killed_service_tell_nothing_of_this_one_s_speed() -> None:
    one = an_interval()
    old = replace(one.scanned, stamps=one.scanned.stamps._replace(received_ns=1))
    before, late = stages(), value("mystocks_signal_latency_seconds_count", frame="5m")
    meter(replace(one, scanned=old))
    meter(replace(one, developing=True))
    meter(replace(one, revision=1))
    assert stages() == before
    assert value("mystocks_signal_latency_seconds_count", frame="5m") == late


def test_the_newest_latency_names_its_signal() -> None:
    one = an_interval()
    meter(one)
    (line,) = (
        line for line in metrics.exposition(exemplars=True).splitlines() if one.signals[0].id[:16].encode() in line
    )
    assert line.startswith(b'mystocks_signal_latency_seconds_bucket{frame="5m",le="0.15"}')


def about(**changed: str) -> dict[bytes, bytes]:
    """The metadata of a batch of bars whose first quote after their end came 4 s after it."""
    end = time.time_ns()
    given = {"frame": "15m", "bar_end": str(end), "revision": "0", "developing": "0", "fold_ms": "500"}
    given |= {"received_ns": str(end + 9 * SECOND), "quote_ns": str(end + 4 * SECOND)} | changed
    return {name.encode(): text.encode() for name, text in given.items()}


def counted() -> dict[str, float]:
    """What the bars of the frame 15m have come to."""
    names = ("bars_total", "bars_incomplete_total", "bars_no_trade_total", "bar_revisions_total")
    names += ("bar_emit_delay_seconds_count", "bar_emit_delay_seconds_sum")
    return {name: value(f"mystocks_{name}", frame="15m") for name in names}


def test_bars_are_counted_and_how_long_their_quotes_were_waited_for() -> None:
    flags = pa.array([0, FLAG_NO_TRADE, FLAG_NO_TRADE | FLAG_INCOMPLETE, FLAG_NO_TRADE], pa.uint8())
    batch = pa.record_batch({"flags": flags})

    def grown(*, live: bool = False, **changed: str) -> list[float]:
        before = counted()
        meter_bars(batch, about(**changed), by_receipt=live)
        return [round(after - before[name], 6) for name, after in counted().items()]

    assert grown() == [4, 1, 3, 0, 1, 4.5]
    assert grown(revision="2") == [0, 0, 0, 4, 0, 0]
    assert grown(developing="1") == [0, 0, 0, 0, 0, 0]
    assert grown(quote_ns="0") == [4, 1, 3, 0, 0, 0], "closed at the end of a session that is long over"
    assert grown(quote_ns="0", live=True) == [4, 1, 3, 0, 1, 9.5], "closed by the clock"
    assert grown(received_ns="5") == [4, 1, 3, 0, 0, 0], "folded again from the tape"

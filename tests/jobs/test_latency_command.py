"""`mystocks-scan latency`: stages told from the stamps of signals."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.history import SignalHistory
from data.signal import Signal
from data.store import BarStore
from jobs.cli import cli

MS = 10**6
END = 1_747_983_600 * 10**9  # 2025-05-23 15:00 in Shanghai
DAY = 86_400 * 10**9


def fired(symbol: str, wait_ms: int, age_ms: int, scan_ms: int, bar_end: int = END, frame: str = "1m") -> Signal:
    quote = bar_end + wait_ms * MS
    received = quote + age_ms * MS
    closed = received + 2 * MS
    return Signal(
        *("s", "1", symbol, frame, bar_end, "BUY", 1.0, 10.0, "vector", bar_end),
        quote_ns=quote,
        received_ns=received,
        bar_closed_ns=closed,
        scanned_ns=closed + scan_ms * MS,
    )


def stored(path: Path, *signals: Signal) -> Path:
    history = SignalHistory(
        BarStore(path, origin="sim").root / "signals", clock=lambda: max(s.scanned_ns for s in signals) + 5 * MS
    )
    history.append(signals)
    return path


def told(path: Path, *flags: str) -> dict[str, dict[str, float]]:
    done = CliRunner().invoke(cli, ["latency", "--store", str(path), "--json", *flags])
    assert done.exit_code == 0, done.output
    return {row.pop("stage"): row for row in map(json.loads, done.stdout.splitlines())}


def test_stages_add_up_and_an_interval_counts_once(tmp_path: Path) -> None:
    one, other = (fired(symbol, 3500, 400, 50) for symbol in ("600519.SH", "000001.SZ"))
    stages = told(stored(tmp_path / "s", one, other))
    assert {name: (stage["n"], stage["p50_ms"]) for name, stage in stages.items()} == {
        "watermark wait": (1, 3500),
        "quote age": (1, 400),
        "fold": (1, 2),
        "scan": (1, 50),
        "publish": (1, 5),
        "quote to signal": (1, 57),
    }


def test_percentiles_are_over_intervals(tmp_path: Path) -> None:
    signals = [fired("600519.SH", 3000, 100, ms, END + ms * MS) for ms in range(1, 101)]
    scan = told(stored(tmp_path / "s", *signals))["scan"]
    assert (scan["n"], scan["p50_ms"], scan["p90_ms"], scan["max_ms"]) == (100, 50.5, 90.1, 100)


def test_a_bar_that_the_clock_closed_waited_for_the_clock(tmp_path: Path) -> None:
    """Quotes stopped at 11:29:50; the clock closed the bar 5 s after its end."""
    quiet = fired("600519.SH", -10_000, 15_000, 50)
    stages = told(stored(tmp_path / "s", quiet))
    assert (stages["watermark wait"]["p50_ms"], stages["quote age"]["p50_ms"]) == (5_000, 15_000)


def test_a_replayed_day_has_no_quote_age(tmp_path: Path) -> None:
    replayed = fired("600519.SH", 3500, 400 * 86_400_000, 50)
    stages = told(stored(tmp_path / "s", replayed))
    assert (stages["quote age"]["n"], stages["quote age"]["p50_ms"]) == (0, None)
    assert stages["watermark wait"]["p50_ms"] == 3500
    assert stages["quote to signal"]["p50_ms"] == 57


def test_the_newest_session_unless_others_are_asked_for(tmp_path: Path) -> None:
    path = stored(
        tmp_path / "s",
        fired("600519.SH", 3000, 100, 10, END - DAY),
        fired("600519.SH", 3000, 100, 30),
        fired("600519.SH", 3000, 100, 70, frame="5m"),
    )
    assert told(path)["scan"]["n"] == 2
    assert told(path, "--since", "2025-05-01")["scan"]["n"] == 3
    assert told(path, "--until", "2025-05-22")["scan"]["p50_ms"] == 10
    assert told(path, "--frame", "5m")["scan"]["p50_ms"] == 70


@pytest.mark.parametrize("live", [True, False])
def test_for_people(tmp_path: Path, live: bool) -> None:
    signal = fired("600519.SH", 3500, 400, 1234)
    if not live:
        signal = Signal("s", "1", "600519.SH", "1m", END, "BUY", 1.0, 10.0, "vector", END, scanned_ns=END)
    path = stored(tmp_path / "s", signal)
    done = CliRunner().invoke(cli, ["latency", "--store", str(path)], standalone_mode=False)
    assert done.return_value == (0 if live else 3)
    assert ("1,234.0" in done.output) is live
    assert ("No signals that a live feed made" in done.output) is not live

"""What makes a process ready, check by check."""

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.calendar import MINUTE, SECOND, bar_ends
from jobs.health import FRESH_S, LATE_S, Check, check_feed, check_scan, check_store, check_strategies
from jobs.stages.feeding import Intake
from jobs.stages.scanning import Kept
from streaming.status import ProviderStatus, Status

LIVE = ProviderStatus(
    name="sina",
    state="live",
    connections=2,
    connected=2,
    covers=100,
    symbols=100,
    serves=100,
    frames=9,
    rows=9,
    received_bytes=9,
    quote_age_s=3.0,
    symbols_stale=0,
    reconnects={},
    dropped={},
    unread={},
    said="",
)
IDLE = replace(LIVE, name="tencent", state="idle", connections=0, connected=0, quote_age_s=None)
DOWN = replace(LIVE, state="failed", connected=0, quote_age_s=700.0)
ENDS = bar_ends(date(2026, 3, 3), "1m")


def status(*providers: ProviderStatus, served: int = 100) -> Status:
    return Status(providers=providers, symbols=100, subscribers=1, uncovered=0, served=served)


def feeding(frames: int = 0) -> Any:
    return SimpleNamespace(feed=SimpleNamespace(name="sim"), intake=Intake(frames=frames))


@pytest.mark.parametrize(
    ("providers", "served", "due", "expected"),
    [
        ((LIVE, IDLE), 100, True, (True, "100 of 100 symbols are served, the newest quote is 3 s old")),
        ((DOWN, IDLE), 0, True, (False, "no vendor is connected: sina failed; tencent idle")),
        ((DOWN, IDLE), 0, False, (True, "the market is closed")),
        ((replace(LIVE, quote_age_s=31.0),), 100, True, (False, "the newest quote is 31 s old, and may be 30")),
        ((replace(LIVE, quote_age_s=None),), 100, True, (False, "the newest quote is inf s old, and may be 30")),
        (
            (replace(LIVE, quote_age_s=400.0), replace(IDLE, connected=1, quote_age_s=1.0)),
            60,
            True,
            (True, "60 of 100"),
        ),
        ((LIVE,), 49, True, (False, "49 of 100 symbols are served")),
    ],
)
def test_a_feed_is_connected_and_fresh_or_the_market_is_closed(
    providers: tuple[ProviderStatus, ...], served: int, due: bool, expected: tuple[bool, str]
) -> None:
    check = check_feed(feeding(), status(*providers, served=served), due=due)
    assert check.ok is expected[0]
    assert check.why.startswith(expected[1])
    assert FRESH_S == 30


def test_a_feed_without_vendors_has_given_a_frame() -> None:
    assert check_feed(feeding(), None, due=True) == Check(False, "no quote has come yet")
    assert check_feed(feeding(3), None, due=True) == Check(True, "sim: 3 frames")


def scan(
    *, last: int | None = None, busy: float | None = None, at_work: bool = True, now: int = 0, since: int = 0
) -> Check:
    stage: Any = SimpleNamespace(busy_since=busy, at_work=at_work, kept=Kept(intervals=5, last_bar_end=last))
    return check_scan(stage, "1m", now_s=1000.0, now_ns=now, since_ns=since, patience_s=3.5)


def test_a_scan_is_not_late() -> None:
    assert scan(at_work=False) == Check(False, "the first scan is not done")
    assert scan() == Check(True, "waits for the first bar")
    assert scan(last=1) == Check(True, "intervals scanned: 5")
    assert scan(busy=1000 - LATE_S + 1).ok
    assert scan(busy=900) == Check(False, "the bars at hand have been scanned for 100 s")


def test_a_bar_that_is_due_by_the_clock_has_been_scanned() -> None:
    begun, due = int(ENDS[0]), int(ENDS[30])
    soon, late = due + 33 * SECOND, due + 34 * SECOND
    assert not scan(last=due - MINUTE, now=late, since=begun).ok
    assert "no 1m bar was scanned" in scan(last=None, now=late, since=begun).why
    assert scan(last=due, now=late, since=begun).ok
    assert scan(last=due - MINUTE, now=soon, since=begun).ok, "its grace is not over"
    assert scan(last=due - MINUTE, now=late, since=due - MINUTE).ok, "the service has only begun"
    assert scan(last=due - MINUTE, now=late).ok, "the feed has a time of its own"


@pytest.mark.parametrize(("left", "ok"), [({"1m": 3, "1d": 1}, True), ({"1m": 0, "1d": 1}, True), ({"1m": 0}, False)])
def test_strategies_run(left: Mapping[str, int], ok: bool) -> None:
    scans: list[Any] = [SimpleNamespace(strategies=["s"] * n) for n in left.values()]
    check = check_strategies(scans, 4)
    assert check.ok is ok
    assert ("switched off" in check.why) is (sum(left.values()) < 4)


def test_the_store_can_be_written(tmp_path: Path) -> None:
    tape: Any = SimpleNamespace(refuses=False)
    assert check_store(tmp_path, tape) == Check(True, "the store can be written")
    assert list(tmp_path.iterdir()) == []
    tape.refuses = True
    assert not check_store(tmp_path, tape).ok
    gone = check_store(tmp_path / "gone", None)
    assert gone == Check(False, "the store cannot be written: No such file or directory")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is missing")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder can still take a file without bytes when the disk is full."""
    monkeypatch.setattr("jobs.health.tempfile.NamedTemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115
    assert check_store(tmp_path, None) == Check(False, "the store cannot be written: No space left on device")

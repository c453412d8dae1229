"""What a process must do to be ready, as checks: functions of what its parts are like now.

A check that fails says why, in a sentence that names neither a path nor an address, for it is told to whoever asks.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.calendar import MINUTE, SECOND, bar_ends, local_day
from jobs.scanning import MarketScan
from jobs.stages.feeding import Feeding
from jobs.stages.scanning import Scanning
from streaming.links import Patience
from streaming.status import Status
from streaming.tape import Tape

FRESH_S = Patience().stall_s
"""In session the newest quote may be this old, in seconds of trading."""
LATE_S = 30.0
"""So long may one batch of bars be worked on, and so long past its grace may a bar's scan be awaited."""
SHARE = 0.5
"""Of the symbols, those that are served by a vendor that is well."""


class Check(NamedTuple):
    """One check: whether it passes, and why."""

    ok: bool
    why: str


def check_feed(feeding: Feeding, status: Status | None, *, due: bool) -> Check:
    """Connected, with fresh quotes in session. `status`: of a feed that has vendors; `due`: whether quotes are due."""
    if status is None:
        frames = feeding.intake.frames
        return Check(frames > 0, f"{feeding.feed.name}: {frames} frames" if frames else "no quote has come yet")
    if not due:
        return Check(True, "the market is closed")
    connected = [provider for provider in status.providers if provider.connected]
    if not connected:
        said = "; ".join(f"{provider.name} {provider.state}" for provider in status.providers)
        return Check(False, f"no vendor is connected: {said}")
    age = min((p.quote_age_s for p in connected if p.quote_age_s is not None), default=math.inf)
    if age > FRESH_S:
        return Check(False, f"the newest quote is {age:.0f} s old, and may be {FRESH_S:.0f}")
    served = f"{status.served} of {status.symbols} symbols are served"
    return Check(status.served >= SHARE * status.symbols, f"{served}, the newest quote is {age:.0f} s old")


def check_scan(scanning: Scanning, frame: str, *, now_s: float, now_ns: int, since_ns: int, patience_s: float) -> Check:
    """The last scan is not late. `frame`: the shortest that is scanned; `now_s`: monotonic; `since_ns`: UTC ns since
    when bars are awaited by the clock, 0 where the feed has a time of its own; `patience_s`: of the bars' own grace."""
    if scanning.busy_since is not None and (busy := now_s - scanning.busy_since) > LATE_S:
        return Check(False, f"the bars at hand have been scanned for {busy:.0f} s")
    if not scanning.at_work:
        return Check(False, "the first scan is not done")
    newest = scanning.kept.last_bar_end
    if since_ns:
        ends = bar_ends(local_day(np.array([now_ns]))[0], frame)
        overdue = ends[ends <= now_ns - round((patience_s + LATE_S) * SECOND)]
        if len(overdue) and overdue[-1] - 2 * MINUTE > since_ns and (newest or 0) < overdue[-1]:
            return Check(False, f"no {frame} bar was scanned since the one that was due {LATE_S:.0f} s ago")
    return Check(True, f"intervals scanned: {scanning.kept.intervals}" if newest else "waits for the first bar")


def check_strategies(scans: Sequence[MarketScan], loaded: int) -> Check:
    """Strategies run. `loaded`: how many there were, one for each of its frames."""
    running = sum(len(scan.strategies) for scan in scans)
    off = f", {loaded - running} switched off because they failed" if running < loaded else ""
    return Check(running > 0, f"{running} run{off}")


def check_store(root: Path, tape: Tape | None) -> Check:
    """The store can be written: a block goes to its disk, and is deleted. Called in a thread."""
    try:
        with tempfile.NamedTemporaryFile(dir=root, prefix=".ready-") as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return Check(False, f"the store cannot be written: {error.strerror}")
    if tape is not None and tape.refuses:
        return Check(False, "the tape cannot be written: quotes are not safe until their bars are")
    return Check(True, "the store can be written")

"""What came of an engine in one scan: which one it was in the end, and what the GPU's memory held before and after."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DeviceMemory:
    """A GPU's memory at one moment. `total`, `free`: of the card, whoever holds it; `used`: by our arrays; `held`: by
    our pool, free blocks included. `device`: which card of which machine."""

    total_bytes: int
    free_bytes: int
    used_bytes: int
    held_bytes: int
    device: str = ""


@dataclass
class Report:
    """What came of the engine in one scan.

    `engine`: the one whose name the signals bear. `fallbacks`: why the CPU did what was asked of the GPU, none where it
    did not. `retries`: how often an indicator was tried again after the GPU's memory had run out. `lost`: this process
    can use the GPU no more.
    """

    engine: str
    fallbacks: list[str] = field(default_factory=list)
    retries: int = 0
    lost: bool = False
    before: DeviceMemory | None = None
    after: DeviceMemory | None = None


@contextmanager
def watched(engine: Any) -> Iterator[Report]:
    """One scan by an engine: its own `watch`, where it has one; the others always do what they are asked."""
    watch = getattr(engine, "watch", None)
    if watch is None:
        yield Report(engine.name)
    else:
        with watch() as report:
            yield report


def growth(used_bytes: Sequence[int], slack_bytes: int = 0) -> int:
    """Bytes by which every reading of the last third lies above every reading of the first; 0 up to `slack_bytes`.

    `used_bytes`: one reading a scan, the first scans left out, since they fill caches. Memory that comes and goes is no
    growth; memory that is never given back is.
    """
    third = len(used_bytes) // 3
    if third == 0:
        return 0
    grown = min(used_bytes[-third:]) - max(used_bytes[:third])
    return grown if grown > slack_bytes else 0

"""What a check of `mystocks-scan doctor` says."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. WARN: something does not work or is about to stop; FAIL: scans will not run."""

    status: Status
    text: str
    remedy: str = ""
    check: str = ""


def mib(n_bytes: int) -> str:
    """Bytes as a person reads few of them."""
    return f"{n_bytes / (1 << 20):.1f} MiB"


def gib(n_bytes: int) -> str:
    """Bytes as a person reads them."""
    return f"{n_bytes / (1 << 30):.1f} GiB"

"""Kernels compiled ahead of their use: by processes of their own, while scans run on another engine.

    python -m scanner.engines.warm RSI MACD     compiles these and ends; every kernel if none is named

A compiler holds the interpreter and all of a core for seconds; here it is another interpreter's, at the lowest
priority. What it makes lies on disk, where every process finds it.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from scanner.indicators import kernels
from scanner.indicators.spec import Indicator
from scanner.indicators.window import WINDOWS
from scanner.program import kernel_of
from scanner.terms import Term, order

log = logging.getLogger(__name__)

MOST_PROCESSES = 4
LOWEST_PRIORITY = 19


def needed(terms: Iterable[Term]) -> list[Indicator]:
    """The indicators and window functions with a kernel that terms are computed by, each once."""
    found = dict.fromkeys(kernel[0] for term in order(terms) if (kernel := kernel_of(term)) is not None)
    return list(found | {WINDOWS["prev"]: None} if found else found)  # that one keeps rows for the others


def cold(indicators: Iterable[Indicator]) -> list[Indicator]:
    """Those that this machine has not compiled yet; raises EngineError where it cannot, and says why."""
    from scanner.engines import verdict  # numba

    return [indicator for indicator in indicators if indicator.kernel and not verdict.settled(indicator)]


def load(terms: Iterable[Term]) -> None:
    """Load the kernels of `terms` that this machine has compiled, so that who computes them need not wait for it."""
    from scanner.engines import compiling, verdict

    for indicator in needed(terms):
        if indicator.kernel and verdict.settled(indicator) and not verdict.why_not(indicator):
            compiling.compiled(indicator)


class Warming:
    """Processes that compile the kernels of `indicators`, from now on; `priority`: 19 is the lowest."""

    def __init__(self, indicators: Sequence[Indicator], *, priority: int = LOWEST_PRIORITY) -> None:
        self.indicators = tuple(indicators)
        self._failed = False
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parts = min(cores, MOST_PROCESSES, len(indicators))
        names = [indicator.name for indicator in indicators]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", __name__]
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        for part in range(parts):
            said = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with its process
            process = subprocess.Popen(
                [*command, f"--priority={priority}", *names[part::parts]],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # Ctrl-C on a terminal is its parent's to hear
            )
            self._processes.append((process, said))

    def done(self) -> bool:
        """Whether every kernel has been compiled, or refused; never if a process failed, which is logged once."""
        if any(process.poll() is None for process, _ in self._processes):
            return False
        for process, said in self._processes:
            if process.returncode and not self._failed:
                self._failed = True
                said.seek(0)
                text = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                log.warning("kernels could not be compiled (exit code %d): %s", process.returncode, text)
        return not self._failed

    def wait(self) -> bool:
        """`done`, once all processes have ended."""
        for process, _ in self._processes:
            process.wait()
        return self.done()

    def close(self) -> None:
        """End what still runs; what has been compiled stays."""
        for process, said in self._processes:
            process.terminate()
            process.wait()
            said.close()


def main(args: Sequence[str]) -> None:
    """Compile the kernels of the indicators named, and compare their golden bits."""
    from scanner.engines import verdict
    from scanner.engines.vector import engine

    if args and args[0].startswith("--priority="):
        os.nice(int(args[0].removeprefix("--priority=")))
        args = args[1:]
    for indicator in kernels():
        if not args or indicator.name in args:
            verdict.forget(indicator)
            verdict.refusal(indicator, engine.by_kernel)


if __name__ == "__main__":
    main(sys.argv[1:])

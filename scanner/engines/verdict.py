"""Whether a kernel may run compiled: it compiles on this machine, and gives its golden bits there.

What was found lies beside the compiled module, so that other processes need not find it again, and know without
compiling anything which kernels are ready.
"""

import functools
import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from data.panel import Floats
from scanner.engines import compiling, plain
from scanner.engines import golden as golden_bits
from scanner.engines.golden import golden
from scanner.indicators.spec import Indicator

log = logging.getLogger(__name__)

refused: dict[str, str] = {}
"""Indicators whose compiled kernel this process does not run -> why."""

_known: dict[Indicator, str] = {}
_lock = threading.Lock()


def refusal(indicator: Indicator, run: Callable[..., tuple[Floats, ...]]) -> str:
    """Why a kernel is not to run compiled, "" if it may. `run` computes an indicator by its compiled kernel, unasked.

    The first call in a process compiles the kernel, or loads it; the first on a machine compares its golden bits. What
    is refused is logged once. Raises EngineError where there is no folder for compiled kernels.
    """
    why = _known.get(indicator)
    if why is None:
        with _lock:
            why = _known.get(indicator)
            if why is None:
                why = _known[indicator] = _judge(indicator, run)
                if why:
                    refused[indicator.name] = why
                    log.warning("the compiled kernel of %s is not used: %s", indicator.name, why)
    return why


def settled(indicator: Indicator) -> bool:
    """Whether a process before this one compiled the kernel, or found that it cannot be; raises as `refusal` does."""
    return _file(indicator).exists()


def why_not(indicator: Indicator) -> str:
    """Why the kernel of a settled indicator is refused, "" if it is not."""
    return _file(indicator).read_text(encoding="utf-8")


def forget(indicator: Indicator) -> None:
    """Find out anew about a kernel that was refused."""
    if settled(indicator) and why_not(indicator):
        _file(indicator).unlink()
        _known.pop(indicator, None)


def _judge(indicator: Indicator, run: Callable[..., tuple[Floats, ...]]) -> str:
    file = _file(indicator)
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        pass
    why = ""
    try:
        compiling.compiled(indicator)
        bits = golden(indicator, run)
        if bits.n_differing:
            why = (
                f"{bits.n_differing} of {bits.n_values} golden values differ, by up to {bits.max_ulp} units in the last"
                " place"
            )
    except (OSError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"  # the next process may fare better
    except Exception as error:  # whatever numba raises: the scan goes on without this kernel
        log.debug("compiling %s", indicator.name, exc_info=True)
        why = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    _write(file, why)
    return why


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.{threading.get_native_id()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        log.debug("%s cannot be written: %s", file, error)


def _file(indicator: Indicator) -> Path:
    return compiling.home_of(indicator) / _mark()


@functools.cache
def _mark() -> str:
    """The name of the file; what compares bits is part of it."""
    sources = b"".join(Path(module.__file__ or "").read_bytes() for module in (golden_bits, plain))
    return f"golden-{hashlib.sha256(sources).hexdigest()[:8]}"

"""A GPU as the engine `cuda` uses it: the few things that are asked of CuPy, all of them here.

Nothing here has run on a GPU: the tests put another `Device` in its place, whose memory is the host's and which runs
the same PTX on the CPU.
"""

import functools
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data.errors import EngineError
from scanner import ptx
from scanner.engines import assembling
from scanner.engines.report import DeviceMemory
from scanner.ptx.arguments import THREADS, Launch

Array = npt.NDArray[Any]

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation, and CUDA_ERROR_OUT_OF_MEMORY of the driver."""
LOST = frozenset({214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719})
"""Errors after which a process can use CUDA no more (driver_types.h): uncorrectable memory, illegal addresses and
instructions, kernels that hang or fail."""
PINNED_BYTES = 16 << 20
"""What is copied back by way of pinned memory at most: it is taken from the whole machine."""


class DeviceFullError(EngineError):
    """The GPU's memory is used up."""


class DeviceLostError(EngineError):
    """The GPU can be used no more by this process; another process may."""


class Device(Protocol):
    """Memory that kernels reach, and the kernels. Arrays are numpy's or CuPy's; each call comes after those before it.

    Every method raises DeviceFullError, DeviceLostError, or EngineError for whatever else the GPU refuses.
    """

    name: str
    xp: Any
    """numpy or CuPy: what computes on its arrays."""

    def zeros(self, rows: int, columns: int) -> Any:
        """A float64 matrix of zeros."""

    def erase(self, matrix: Any, where: Array | None = None) -> None:
        """Put NaN into a matrix, all of it or where a numpy mask says."""

    def upload(self, array: Array) -> Any:
        """A copy of a numpy array."""

    def download(self, array: Any) -> Array:
        """A copy as a numpy array, once what was launched before has run."""

    def launch(self, launch: Launch) -> None:
        """Start a kernel."""

    def memory(self) -> DeviceMemory:
        """A reading."""

    def release(self) -> None:
        """Give back what the pools hold without need."""

    def limit(self, n_bytes: int | None) -> None:
        """Let the pool hold no more than that; None: as much as there is."""


class CupyDevice:
    """CUDA's first device, by way of CuPy. Everything runs on the default stream, one thing after the other."""

    def __init__(self) -> None:
        with _translated():
            import cupy
            import cupyx

            self.xp = cupy
            self._pinned = cupyx.empty_pinned
            self.name: str = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
            self._place = f"{socket.gethostname()}:{cupy.cuda.runtime.deviceGetPCIBusId(0)}"
            self.arch = f"sm_{cupy.cuda.Device(0).compute_capability}"
        self._linker = assembling.linker_version()
        self._entries: dict[str, Any] = {}

    def zeros(self, rows: int, columns: int) -> Any:
        with _translated():
            return self.xp.zeros((rows, columns))

    def erase(self, matrix: Any, where: Array | None = None) -> None:
        with _translated():
            if where is None:
                matrix.data.memset_async(0xFF, matrix.nbytes)  # all bits set is a NaN, and needs no kernel of CuPy's
            else:
                matrix[self.xp.asarray(where)] = np.nan

    def upload(self, array: Array) -> Any:
        with _translated():
            return self.xp.asarray(array)  # by way of pinned memory, says CuPy

    def download(self, array: Any) -> Array:
        with _translated():
            if array.nbytes > PINNED_BYTES:
                return np.asarray(array.get())
            return np.asarray(array.get(out=self._pinned(array.shape, array.dtype)))

    def launch(self, launch: Launch) -> None:
        if launch.columns == 0:
            return
        name = launch.indicator.name
        with _translated():
            if name not in self._entries:
                path = assembling.cubin(name.lower(), ptx.text(name), self.arch, self._linker, assembling.link)
                self._entries[name] = self.xp.RawModule(path=str(path)).get_function(ptx.entries()[name].name)
            self._entries[name]((launch.blocks,), (THREADS,), tuple(launch.words))

    def memory(self) -> DeviceMemory:
        with _translated():
            free, total = self.xp.cuda.runtime.memGetInfo()
            pool = self.xp.get_default_memory_pool()
            used, held = pool.used_bytes(), pool.total_bytes()
            if "rmm" in sys.modules:  # where Dask-CUDA made RMM's pool CuPy's
                from distributed.diagnostics.rmm import real_time

                rmm = real_time()
                used, held = used + rmm["rmm-used"], held + rmm["rmm-total"]
            return DeviceMemory(total, free, used, held, self._place)

    def release(self) -> None:
        with _translated():
            self.xp.get_default_memory_pool().free_all_blocks()
            self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def limit(self, n_bytes: int | None) -> None:
        with _translated():
            self.xp.get_default_memory_pool().set_limit(size=n_bytes or 0)


the_device = functools.cache(CupyDevice)
"""The one of this process, made when it is first asked for."""


@contextmanager
def _translated() -> Iterator[None]:
    """CUDA's errors, and those of the packages around it, as ours."""
    try:
        yield
    except MemoryError as error:  # CuPy's own, and RMM's
        raise DeviceFullError(f"the GPU's memory is used up: {error}") from error
    except ImportError as error:
        raise EngineError(f"engine 'cuda' needs a package: {error}") from error
    except RuntimeError as error:
        status = getattr(error, "status", None)
        if status == OUT_OF_MEMORY:
            raise DeviceFullError(f"the GPU's memory is used up: {error}") from error
        if status in LOST:
            raise DeviceLostError(f"the GPU is lost to this process: {error}") from error
        raise EngineError(f"the GPU refuses: {type(error).__name__}: {error}") from error

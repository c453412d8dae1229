"""A device that is none: the host's memory, as much of it as it is told, and whatever runs the launches.

With the shipped PTX run on a CPU (`scanner.ptx.on_cpu`) the engine `cuda` computes on it what it would on a GPU; it
runs out of memory and gets lost when it should.
"""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import EngineError
from scanner.engines.device import DeviceFullError
from scanner.engines.report import DeviceMemory
from scanner.ptx.arguments import Launch

Array = npt.NDArray[Any]

ROOM = 1 << 40


class HostDevice:
    """A `Device` in numpy's memory. `launch`: runs a kernel; `room_bytes`: of the device's memory.

    `fault`: what the next launches raise. Counts what it was asked for: `launches`, `uploaded_bytes`, `releases`.
    """

    name = "host"
    xp: Any = np

    def __init__(self, launch: Callable[[Launch], None], *, room_bytes: int = ROOM) -> None:
        self._launch = launch
        self.room_bytes = room_bytes
        self.used_bytes = 0
        self.fault: EngineError | None = None
        self.launches = 0
        self.uploaded_bytes = 0
        self.releases = 0

    def zeros(self, rows: int, columns: int) -> Array:
        return self._held(np.zeros((rows, columns)))

    def erase(self, matrix: Array, where: Array | None = None) -> None:
        matrix[slice(None) if where is None else where] = np.nan

    def upload(self, array: Array) -> Array:
        self.uploaded_bytes += array.nbytes
        return self._held(array.copy())

    def download(self, array: Array) -> Array:
        return array.copy()

    def launch(self, launch: Launch) -> None:
        if self.fault is not None:
            raise self.fault
        self.launches += 1
        self._launch(launch)

    def memory(self) -> DeviceMemory:
        return DeviceMemory(self.room_bytes, self.room_bytes - self.used_bytes, self.used_bytes, self.used_bytes)

    def release(self) -> None:
        self.releases += 1

    def limit(self, n_bytes: int | None) -> None:
        self.room_bytes = ROOM if n_bytes is None else n_bytes

    def _held(self, array: Array) -> Array:
        """The array, counted as long as it lives."""
        if self.used_bytes + array.nbytes > self.room_bytes:
            raise DeviceFullError(f"the pretended memory of {self.room_bytes} bytes is used up")
        self.used_bytes += array.nbytes
        weakref.finalize(array, self._freed, array.nbytes)
        return array

    def _freed(self, n_bytes: int) -> None:
        self.used_bytes -= n_bytes

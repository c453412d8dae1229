"""Memory for results that is used again: a page that the system hands out fresh costs more than filling it."""

import threading
from collections import deque

import numpy as np

from data.panel import Floats

LEAST_BYTES = 1 << 19
"""Smaller matrices are numpy's own affair."""
MOST_BYTES = 2 << 30
"""What is kept at most for later."""
ROUNDS = 8
"""What so many rounds have not used is given back to the system."""
LINE = 64
"""Bytes that a CPU reads and writes at once; what lies across two of them takes it twice."""


def aligned(size: int, skew: int = 0) -> Floats:
    """(size,) of any content, whose first number lies `skew` bytes after the begin of a line."""
    room = np.empty(size + LINE // 8)
    start = (skew - room.ctypes.data) % LINE // 8
    return room[start : start + size]


class Buffers:
    """Matrices whose memory comes back when the last reference to them is gone; holds what is free."""

    def __init__(self) -> None:
        self._free: deque[tuple[int, tuple[int, int], Floats]] = deque()
        """Round, size and skew, memory."""
        self._round = 0
        self._lock = threading.RLock()  # the collector may end a lease at any allocation

    def begin(self) -> None:
        """Another round: what is free and has long been so goes back to the system."""
        with self._lock:
            self._round += 1
            while self._free and self._free[0][0] < self._round - ROUNDS:
                self._free.popleft()

    @property
    def free_bytes(self) -> int:
        """What is kept for later."""
        return sum(size * 8 for _, (size, _), _ in self._free)

    def empty(self, rows: int, columns: int, skew: int = 0) -> Floats:
        """A matrix of any content; a large one as `aligned`."""
        size = rows * columns
        if size * 8 < LEAST_BYTES:
            return np.empty((rows, columns))
        with self._lock:
            # The newest first: it may still be in a cache.
            place = next((k for k in reversed(range(len(self._free))) if self._free[k][1] == (size, skew)), None)
            if place is None:
                block = aligned(size, skew)
            else:
                block = self._free[place][2]
                del self._free[place]
        return np.asarray(_Lease(self, block, rows, columns, skew))

    def give(self, block: Floats, skew: int) -> None:
        """Memory that nobody uses any more."""
        with self._lock:
            self._free.append((self._round, (block.size, skew), block))
            while self.free_bytes > MOST_BYTES:
                self._free.popleft()


class _Lease:
    """What a matrix has for its base; dies with the last of its views."""

    def __init__(self, buffers: Buffers, block: Floats, rows: int, columns: int, skew: int) -> None:
        self._buffers, self._block, self._skew = buffers, block, skew
        self.__array_interface__ = {**block.__array_interface__, "shape": (rows, columns)}

    def __del__(self) -> None:
        self._buffers.give(self._block, self._skew)

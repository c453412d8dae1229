"""How a service that runs for months keeps its memory level: by what its allocators give back."""

import ctypes
import gc
import os

LARGE = 1 << 20
"""Bytes from which an array has pages of its own, which go back to the system with it."""
OPTIONS = {
    "MALLOC_ARENA_MAX": (-8, 2),
    "MALLOC_MMAP_THRESHOLD_": (-3, LARGE),
    "MALLOC_TRIM_THRESHOLD_": (-1, LARGE),
}
"""Environment variable, for processes to come -> option of `man 3 mallopt`, for this one, and value."""
SELDOM = (50_000, 20, 100)
"""As `gc.set_threshold` takes them."""


def keep_level() -> None:
    """Let what is freed go back to the system, here and in the processes that come from this one.

    Called before pyarrow is loaded and threads are started: Arrow looks once which allocator it is to have.

    At each session's open a market is read and packed anew, in whichever thread is free. Left alone, glibc keeps a heap
    for each thread (eight a core), keeps arrays of up to 32 MiB in them once one has been freed, and Arrow has heaps
    of its own: each holds on to the most that it ever had, and their sum rises for hours. Python's objects do not.
    Where the C library is another one, nothing is done.
    """
    own = _c_library()
    if own is None:
        return
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for name, (option, value) in OPTIONS.items():
        os.environ.setdefault(name, str(value))
        own.mallopt(option, int(os.environ[name]))


def give_back() -> None:
    """Return what is garbage, and what is free in the midst of the heaps, to the system, as after a session."""
    gc.collect()
    own = _c_library()
    if own is not None:
        own.malloc_trim(0)


def settle() -> None:
    """Called once everything stands: the collector of garbage looks no more at what is there by now, and seldom at the
    rest.

    A full look took 136 ms at the objects of the libraries, and about 100 at those of a thousand connections (2 cores),
    in which nobody is served; by default one came every few bars. Little of ours is garbage that only it can find:
    after a session it looks at all of that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


def _c_library() -> ctypes.CDLL | None:
    """The one that is loaded, if it is glibc."""
    own = ctypes.CDLL(None)
    return own if hasattr(own, "mallopt") and hasattr(own, "malloc_trim") else None

"""Where compiled kernels lie: the first folder that can be written of a setting, the user's cache, a temporary one."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

SETTING = "MYSTOCKS_SCAN__KERNEL_CACHE"
"""The environment's name for the folder of compiled kernels."""


def folders() -> Iterator[Path]:
    """The folders to try, in this order; none of them need exist.

    What lies in them is run. So a temporary one, whose name anybody can take first, counts only where nobody else may
    write.
    """
    if given := os.environ.get(SETTING):
        yield Path(given)
    yield platformdirs.user_cache_path("mystocks-scan") / "kernels"
    temporary = Path(tempfile.gettempdir()) / f"mystocks-scan-kernels-{os.getuid()}"
    with suppress(OSError):
        temporary.mkdir(mode=0o700)
    try:
        status = temporary.lstat()
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        yield temporary

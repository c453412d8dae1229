"""Where compiled kernels lie: the first folder that can be written of a setting, the user's cache, a temporary one."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

SETTING = "MYSTOCKS_SCAN__KERNEL_CACHE"
"""The environment's name for the folder of compiled kernels."""


def folders() -> Iterator[Path]:
    """The folders to try, in this order; none of them need exist."""
    if given := os.environ.get(SETTING):
        yield Path(given)
    yield platformdirs.user_cache_path("mystocks-scan") / "kernels"
    yield Path(tempfile.gettempdir()) / f"mystocks-scan-kernels-{os.getuid() if hasattr(os, 'getuid') else ''}"

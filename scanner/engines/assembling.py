"""PTX assembled for one kind of card by nvJitLink, once: what a second process needs lies on disk."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from data.errors import EngineError
from scanner.engines.folders import SETTING, folders

Assemble = Callable[[str, str], bytes]
"""(PTX, architecture such as sm_90) -> cubin."""


def cubin(name: str, ptx: str, arch: str, version: str, assemble: Assemble) -> Path:
    """The file of an assembled PTX, made by `assemble` of that `version` where no cache folder has it.

    Raises EngineError where no folder can be written, or what `assemble` raises.
    """
    digest = hashlib.sha256(f"{version}\n{arch}\n{ptx}".encode()).hexdigest()[:16]
    places = [folder / "cubin" / f"{name}-{arch}-{digest}.cubin" for folder in folders()]
    for path in places:
        if path.is_file():
            return path
    content = assemble(ptx, arch)
    refused = []
    for path in places:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(content)
            os.replace(file.name, path)
        except OSError as error:
            refused.append(str(error))
        else:
            return path
    raise EngineError(f"no folder for compiled kernels can be written: {'; '.join(refused)}. Set {SETTING} to one")


def linker_version() -> str:
    """nvJitLink's version, 12.9; raises EngineError where it cannot be loaded."""
    try:
        from cuda.bindings import nvjitlink

        major, minor = nvjitlink.version()
    except Exception as error:  # a library that cannot be found is a RuntimeError of several packages
        raise EngineError(
            f"engine 'cuda' needs nvJitLink: {error}. Install it with: pip install nvidia-nvjitlink-cu12 cuda-bindings"
        ) from error
    return f"{major}.{minor}"


def link(ptx: str, arch: str) -> bytes:
    """Assemble PTX by nvJitLink, which needs no driver; raises EngineError with its log."""
    from cuda.bindings import nvjitlink

    text = ptx.encode()
    handle = None
    try:
        handle = nvjitlink.create(1, [f"-arch={arch}"])
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(handle)
        content = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, content)
    except nvjitlink.nvJitLinkError as error:
        log = bytearray(nvjitlink.get_error_log_size(handle) if handle is not None else 0)
        if log:
            nvjitlink.get_error_log(handle, log)
        said = bytes(log).rstrip(b"\0\n").decode(errors="replace")
        raise EngineError(
            f"nvJitLink {linker_version()} makes no cubin for {arch}: {error} {said}. For a newer card install a newer"
            " one: pip install -U nvidia-nvjitlink-cu12"
        ) from error
    finally:
        if handle is not None:
            nvjitlink.destroy(handle)
    return bytes(content)

"""Whether this machine has a usable NVIDIA GPU, asked of the driver alone: no context, no memory, nothing of RAPIDS.

Run as a program it prints the answer as one line of JSON: a broken driver can hang whoever asks it, so those who must
not hang (`mystocks-scan doctor`) ask from a process of its own.
"""

import ctypes
import importlib.util
import json
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

LIBRARY = "libcuda.so.1"
LEAST_DRIVER = 12000
"""CUDA 12.0, as the driver counts; what the packages of the extra `gpu` are built for."""
LEAST_CAPABILITY = (7, 5)
"""Turing: the oldest that the shipped PTX is written for."""
PACKAGES = {"cupy": "cupy-cuda12x", "cuda.bindings": "cuda-bindings", "nvidia.nvjitlink": "nvidia-nvjitlink-cu12"}
"""Module -> package that the engine needs, all of them in the extra `gpu`; cuDF reads Parquet where it is, too."""
INSTALL = "pip install 'mystocks-scan[gpu]' in an environment of its own"

_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
_INIT_ERRORS = {
    2: ("the GPU is out of memory", "end what holds it: nvidia-smi lists the processes"),
    100: ("the driver finds no device", "check that the card is visible: nvidia-smi, CUDA_VISIBLE_DEVICES"),
    803: ("the driver's library and its kernel module are of different versions", "restart the machine"),
}
"""CUresult of cuda.h -> what it means, and the remedy."""


@dataclass(frozen=True)
class Card:
    """One GPU; `capability` as (major, minor), `uuid` as nvidia-smi writes it, empty where the driver tells none."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    uuid: str = ""


@dataclass(frozen=True)
class Probe:
    """What the driver says. `usable`: the first card runs our kernels; else `reason` and `remedy` say what is amiss.

    `installed`: the driver's library is there. `driver`: the newest CUDA it speaks, 12080 for 12.8; 0 where unknown.
    """

    usable: bool
    installed: bool
    driver: int = 0
    devices: tuple[Card, ...] = ()
    reason: str = ""
    remedy: str = ""


def probe() -> Probe:
    """Ask the driver."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return Probe(False, False, reason=f"{LIBRARY} not found", remedy="install NVIDIA's driver")
    version = ctypes.c_int()
    code = cuda.cuDriverGetVersion(ctypes.byref(version))
    driver = version.value
    if code:
        reason = f"cuDriverGetVersion failed with error {code}"
        return Probe(False, True, driver, reason=reason, remedy="install NVIDIA's driver again")
    if driver < LEAST_DRIVER:
        reason = f"the driver speaks CUDA {dotted(driver)}, and {dotted(LEAST_DRIVER)} is the least"
        return Probe(False, True, driver, reason=reason, remedy="install a newer driver")
    code = cuda.cuInit(0)
    if code:
        reason, remedy = _INIT_ERRORS.get(code, (f"cuInit failed with error {code}", "see nvidia-smi"))
        return Probe(False, True, driver, reason=reason, remedy=remedy)
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    devices = tuple(_card(cuda, number) for number in range(count.value))
    if not devices:
        reason, remedy = _INIT_ERRORS[100]
        return Probe(False, True, driver, reason=reason, remedy=remedy)
    # CUDA's first device is the one that a process computes on; CUDA_VISIBLE_DEVICES makes another the first.
    if devices[0].capability < LEAST_CAPABILITY:
        least = ".".join(map(str, LEAST_CAPABILITY))
        reason = f"compute capability {least} is the least, and {devices[0].name} has {capability(devices[0])}"
        names = {card.uuid or str(n): card for n, card in enumerate(devices) if card.capability >= LEAST_CAPABILITY}
        newer = next(iter(names), None)
        remedy = f"export CUDA_VISIBLE_DEVICES={newer} ({names[newer].name})" if newer else "use a newer card"
        return Probe(False, True, driver, devices, reason, remedy)
    return Probe(True, True, driver, devices)


def check() -> None:
    """Raise EngineError, with the remedy, where this machine cannot run the engine `cuda`."""
    from data.errors import EngineError  # here, since as a program this file stands alone

    found = probe()
    if not found.usable:
        raise EngineError(f"engine 'cuda' needs a GPU: {found.reason}. Remedy: {found.remedy}, or use --engine auto")
    if lacking := missing():
        raise EngineError(f"engine 'cuda' needs {', '.join(lacking)}. Install them with: {INSTALL}")


def missing() -> tuple[str, ...]:
    """The packages that the engine `cuda` needs and that are not installed; nothing is imported but their parents."""
    return tuple(package for module, package in PACKAGES.items() if not installed(module))


def installed(module: str) -> bool:
    """Whether a module could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # its parent cannot be
        return False


def dotted(driver: int) -> str:
    """12080 -> 12.8."""
    return f"{driver // 1000}.{driver % 1000 // 10}"


def capability(card: Card) -> str:
    """(8, 9) -> 8.9."""
    return ".".join(map(str, card.capability))


def _card(cuda: Any, number: int) -> Card:
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    cuda.cuDeviceGetName(name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    uuid = (ctypes.c_ubyte * 16)()
    known = hasattr(cuda, "cuDeviceGetUuid_v2") and cuda.cuDeviceGetUuid_v2(uuid, device) == 0
    text = f"GPU-{UUID(bytes=bytes(uuid))}" if known else ""
    return Card(name.value.decode(errors="replace"), (major.value, minor.value), memory.value, text)


if __name__ == "__main__":
    print(json.dumps(asdict(probe())))  # noqa: T201  # its answer

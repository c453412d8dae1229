"""Whether this machine has a usable NVIDIA GPU, asked of the driver alone: no context, no memory, nothing of RAPIDS.

Run as a program it prints the answer as one line of JSON: a broken driver can hang whoever asks it, so those who must
not hang (`mystocks-scan doctor`) ask from a process of its own.
"""

import ctypes
import json
from dataclasses import asdict, dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
LEAST_DRIVER = 12000
"""CUDA 12.0, as the driver counts; what the packages of the extra `gpu` are built for."""
LEAST_CAPABILITY = (7, 0)
"""Volta; older cards are left out by RAPIDS and by current compilers."""

_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
_INIT_ERRORS = {
    100: ("the driver finds no device", "check that the card is visible: nvidia-smi, CUDA_VISIBLE_DEVICES"),
    803: ("the driver's library and its kernel module are of different versions", "restart the machine"),
}


@dataclass(frozen=True)
class Device:
    """One GPU; `capability` as (major, minor)."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class Probe:
    """What the driver says. `usable`: there is a device for CUDA kernels; else `reason` and `remedy` say what is amiss.

    `installed`: the driver's library is there. `driver`: the newest CUDA it speaks, 12080 for 12.8; 0 where unknown.
    """

    usable: bool
    installed: bool
    driver: int = 0
    devices: tuple[Device, ...] = ()
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
    if code or driver < LEAST_DRIVER:
        reason = f"the driver speaks CUDA {dotted(driver)}, and {dotted(LEAST_DRIVER)} is the least"
        return Probe(False, True, driver, reason=reason, remedy="install a newer driver")
    code = cuda.cuInit(0)
    if code:
        reason, remedy = _INIT_ERRORS.get(code, (f"cuInit failed with error {code}", "see nvidia-smi"))
        return Probe(False, True, driver, reason=reason, remedy=remedy)
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    devices = tuple(_device(cuda, number) for number in range(count.value))
    if not devices:
        reason, remedy = _INIT_ERRORS[100]
        return Probe(False, True, driver, reason=reason, remedy=remedy)
    if all(device.capability < LEAST_CAPABILITY for device in devices):
        least = ".".join(map(str, LEAST_CAPABILITY))
        found = ", ".join(f"{device.name} ({'.'.join(map(str, device.capability))})" for device in devices)
        reason = f"compute capability {least} is the least, and there is {found}"
        return Probe(False, True, driver, devices, reason, "use a newer card")
    return Probe(True, True, driver, devices)


def dotted(driver: int) -> str:
    """12080 -> 12.8."""
    return f"{driver // 1000}.{driver % 1000 // 10}"


def _device(cuda: Any, number: int) -> Device:
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    cuda.cuDeviceGetName(name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Device(name.value.decode(errors="replace"), (major.value, minor.value), memory.value)


if __name__ == "__main__":
    print(json.dumps(asdict(probe())))  # noqa: T201  # its answer

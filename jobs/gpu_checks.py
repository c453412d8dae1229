"""Checks of the GPU: what the driver says, which packages there are, what it computes. Another process is asked."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from data.settings import Settings
from jobs.findings import Finding, gib
from scanner.engines import gpu

GPU_PACKAGES = {
    "cupy-cuda12x": "14.2.0",
    "cudf-cu12": "26.10.2",
    "dask-cuda": "26.10.0",
    "cuda-bindings": "12.9.10",
    "nvidia-nvjitlink-cu12": "12.9.86",
}
"""Package -> the release that the engine was written against, with no GPU."""
GPU_PATIENCE_S = 10.0
DRILL_PATIENCE_S = 300.0


def check_gpu(settings: Settings) -> Iterator[Finding]:
    """Whether there is a GPU, asked from a process of its own, since a broken driver can hang."""
    try:
        asked = subprocess.run(
            [sys.executable, "-I", str(gpu.__file__)], capture_output=True, text=True, timeout=GPU_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        yield Finding("WARN", f"the driver has not answered for {GPU_PATIENCE_S:g} s", "restart the machine")
        return
    if asked.returncode:
        text = f"asking the driver ended with {asked.returncode}: {asked.stderr.strip().rpartition(chr(10))[2]}"
        yield Finding("WARN", text, "install NVIDIA's driver again")
        return
    found = json.loads(asked.stdout)
    if not found["installed"]:
        yield Finding("OK", f"no GPU ({found['reason']}): scans run on the CPU")
    elif not found["usable"]:
        yield Finding("WARN", f"{found['reason']}: scans run on the CPU", found["remedy"])
    else:
        cards = ", ".join(
            f"{card['name']} (compute {'.'.join(map(str, card['capability']))}, {gib(card['memory_bytes'])})"
            for card in found["devices"]
        )
        text = f"{cards}, driver for CUDA {gpu.dotted(found['driver'])}"
        if lacking := gpu.missing():
            yield Finding("WARN", f"{text}; missing: {', '.join(lacking)}: scans run on the CPU", gpu.INSTALL)
            return
        yield Finding("OK", f"{text}; {', '.join(_gpu_packages())}; 'doctor --full' computes on it")


def _gpu_packages() -> Iterator[str]:
    """The packages around the GPU, and where they differ from those that the engine was written against."""
    for name, tested in GPU_PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield f"no {name}"
        else:
            yield f"{name} {found}" if found == tested else f"{name} {found} (written against {tested})"


def check_gpu_drill(settings: Settings) -> Iterator[Finding]:
    """What the GPU computes, how it does when memory is short, and whether it leaks; by a process of its own."""
    if not gpu.probe().usable or gpu.missing():
        yield Finding("OK", "no usable GPU: its bits, memory and failures were not looked at")
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.drill"], capture_output=True, text=True, timeout=DRILL_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        yield Finding("FAIL", f"the GPU has not answered for {DRILL_PATIENCE_S:g} s", "use --engine vector")
        return
    for line in done.stdout.splitlines():
        yield Finding(**json.loads(line))
    if done.returncode:
        text = f"the GPU's process ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}"
        yield Finding("FAIL", text, "use --engine vector, and send this report")

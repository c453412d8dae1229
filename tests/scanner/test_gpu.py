"""The probe of the driver, against drivers that fail in every way they can: C compiled on the spot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scanner.engines import gpu

DRIVER = """
#include <stdio.h>
#include <stddef.h>
#include <string.h>
int cuDriverGetVersion(int *v) { *v = %(version)d; return %(broken)d; }
int cuInit(unsigned f) { return %(init)d; }
int cuDeviceGetCount(int *n) { *n = %(count)d; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { return snprintf(s, n, "Pretend %%d", d) < 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = (size_t)16 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? (d ? 8 : %(major)d) : a == 76 ? %(minor)d : -1;
  return 0;
}
int cuDeviceGetUuid_v2(unsigned char *u, int d) { memset(u, 0xab, 16); u[15] = d; return 0; }
"""
GOOD = {"version": 12080, "broken": 0, "init": 0, "count": 1, "major": 8, "minor": 6}
UUID = "GPU-abababab-abab-abab-abab-ababababab"

needs_a_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="a C compiler is not on this machine")


def asked(tmp_path: Path, driver: dict[str, int]) -> dict[str, Any]:
    """What the probe says, as a program, of a driver that behaves so."""
    (tmp_path / "driver.c").write_text(DRIVER % driver)
    command = ["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-I", str(gpu.__file__)],
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@needs_a_compiler
def test_a_usable_card_is_told(tmp_path: Path) -> None:
    told = asked(tmp_path, GOOD)
    assert (told["usable"], told["installed"], told["driver"], told["reason"]) == (True, True, 12080, "")
    assert told["devices"] == [
        {"name": "Pretend 0", "capability": [8, 6], "memory_bytes": 16 << 30, "uuid": f"{UUID}00"}
    ]


@needs_a_compiler
@pytest.mark.parametrize(
    ("driver", "reason", "remedy"),
    [
        (GOOD | {"version": 11080}, "the driver speaks CUDA 11.8, and 12.0 is the least", "install a newer driver"),
        (GOOD | {"broken": 1}, "cuDriverGetVersion failed with error 1", "install NVIDIA's driver again"),
        (GOOD | {"init": 100}, "the driver finds no device", "CUDA_VISIBLE_DEVICES"),
        (GOOD | {"count": 0}, "the driver finds no device", "CUDA_VISIBLE_DEVICES"),
        (GOOD | {"init": 803}, "are of different versions", "restart the machine"),
        (GOOD | {"init": 2}, "the GPU is out of memory", "nvidia-smi lists the processes"),
        (GOOD | {"init": 999}, "cuInit failed with error 999", "see nvidia-smi"),
        (GOOD | {"major": 7, "minor": 0}, "7.5 is the least, and Pretend 0 has 7.0", "use a newer card"),
        (GOOD | {"major": 6, "count": 2}, "Pretend 0 has 6.6", f"CUDA_VISIBLE_DEVICES={UUID}01 (Pretend 1)"),
    ],
)
def test_each_failure_has_its_reason_and_its_remedy(
    driver: dict[str, int], reason: str, remedy: str, tmp_path: Path
) -> None:
    told = asked(tmp_path, driver)
    assert (told["usable"], told["installed"]) == (False, True)
    assert reason in told["reason"]
    assert remedy in told["remedy"]


def test_no_driver_is_told_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from scanner.engines import gpu; gpu.LIBRARY = 'libcuda-that-is-nowhere.so.1'; print(gpu.probe());"
        "print(sorted({'numba', 'talib', 'cupy', 'cudf', 'cuda', 'nvidia'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "reason='libcuda-that-is-nowhere.so.1 not found', remedy=\"install NVIDIA's driver\"" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PACKAGES", {"json": "there", "no_such_package": "one", "no_such.module": "another"})
    assert gpu.missing() == ("one", "another")

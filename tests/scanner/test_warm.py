"""Kernels compiled ahead, by processes of their own."""

import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.engines import compiling, folders, warm
from scanner.indicators import catalog
from scanner.language import parse


def test_what_terms_need() -> None:
    terms = [parse("EMA(RSI(6), 3) > MAX(close, 5)"), parse("count(RSI(14) < 30, 5) > 1")]
    assert [indicator.name for indicator in warm.needed(terms)] == ["RSI", "EMA", "COUNT", "PREV"]


def test_cold_kernels_are_compiled_in_the_background_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.SETTING, str(tmp_path))
    monkeypatch.setattr(compiling, "_homes", {})  # this process may know them from elsewhere
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scanner.py").write_text("raise SystemExit('not this one')")
    both = [replace(catalog[name]) for name in ("MOM", "OBV")]
    assert warm.cold(both) == both
    warming = warm.Warming(both)
    (process, _), *_ = warming._processes
    lowest = False
    while process.poll() is None:
        assert not warming.done()
        try:
            lowest |= os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        except ProcessLookupError:
            break
        time.sleep(0.02)
    assert warming.wait()
    assert warming.done()
    assert lowest
    warming.close()
    assert warm.cold(both) == []
    compiled = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.kernel-*.nbc")}
    assert len(compiled) == 2
    again = warm.Warming(both)
    assert again.wait()
    again.close()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.kernel-*.nbc")} == compiled


def test_a_process_that_fails_is_never_done_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho the disk is full >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    warming = warm.Warming([catalog["MOM"]])
    assert not warming.wait()
    assert not warming.done()
    warming.close()
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.getMessage() == "kernels could not be compiled (exit code 3): the disk is full"


def test_ending_it_ends_its_processes() -> None:
    warming = warm.Warming([catalog["MOM"]])
    warming.close()
    for process, _ in warming._processes:
        assert process.returncode is not None


def test_without_numba_it_says_so() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from scanner.engines import warm; from scanner.indicators import catalog\n"
        "try: warm.cold([catalog['MOM']])\n"
        "except Exception as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install numba" in said

"""A kernel that does not compile, or gives other bits than its source says, is left to the engine `talib`, aloud."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanner.engines import compiling, folders, plain, verdict
from scanner.engines.base import Series, load
from scanner.engines.vector import VectorEngine
from scanner.indicators import catalog
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel

CLOSES = np.cumsum(np.random.default_rng(4).normal(0, 1, (60, 5)), axis=0) + 100


def inputs() -> list[Series]:
    return [Series(CLOSES, np.full(5, 60))]


def uncompilable(t: int, j0: int, j1: int, x: Any, state: Any, out: Any, n: int) -> None:
    v = row(out, t, j0, j1)
    for j in range(j1 - j0):
        v[j] = "no number"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of kernels, and nothing known of any."""
    monkeypatch.setenv(folders.SETTING, str(tmp_path))
    monkeypatch.setattr(verdict, "_known", {})
    monkeypatch.setattr(verdict, "refused", {})
    compiling._homes.clear()
    yield tmp_path
    compiling._homes.clear()


def anew(name: str, **changes: Any) -> Indicator:
    """One of the catalogue as if just declared."""
    return replace(catalog[name], **changes)


def marks(folder: Path) -> list[str]:
    return [file.read_text(encoding="utf-8") for file in folder.glob("*/golden-*")]


def test_what_does_not_compile_is_talibs_and_said_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = anew("SMA", kernel=Kernel(uncompilable, 2))
    for engine in (VectorEngine(), VectorEngine()):
        (got,) = engine.run(broken, {"timeperiod": 5}, inputs())
        (wanted,) = load("talib").run(broken, {"timeperiod": 5}, inputs())
        np.testing.assert_array_equal(got, wanted)
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.getMessage().startswith("the compiled kernel of SMA is not used: KernelError")
    assert list(verdict.refused) == ["SMA"]
    assert marks(cache) == [verdict.refused["SMA"]]


def test_other_bits_than_the_source_s_are_caught(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, key = compiling.source, compiling.key
    monkeypatch.setattr(compiling, "key", lambda indicator: key(indicator) + "a mutant")
    monkeypatch.setattr(compiling, "source", lambda indicator: right(indicator).replace("s / n", "s * (1.0 / n)"))
    mutant = anew("SMA")
    (got,) = VectorEngine().run(mutant, {"timeperiod": 7}, inputs())
    (wanted,) = load("talib").run(mutant, {"timeperiod": 7}, inputs())
    np.testing.assert_array_equal(got, wanted)
    assert not np.array_equal(VectorEngine().by_kernel(mutant, {"timeperiod": 7}, inputs())[0], wanted, equal_nan=True)
    assert "golden values differ, by up to 1 units in the last place" in caplog.text
    monkeypatch.setattr(compiling, "source", right)
    monkeypatch.setattr(compiling, "key", key)
    repaired = anew("SMA")
    assert verdict.refusal(repaired, VectorEngine().by_kernel) == ""


def test_a_verdict_is_found_by_who_comes_later_and_can_be_made_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = VectorEngine().by_kernel
    first = anew("MOM")
    assert not verdict.settled(first)
    assert verdict.refusal(first, run) == ""
    assert marks(cache) == [""]

    def never(*given: Any) -> Any:
        raise AssertionError("compared again")

    with monkeypatch.context() as patch:
        patch.setattr(verdict, "golden", never)
        later = anew("MOM")
        assert verdict.settled(later)
        assert verdict.refusal(later, run) == ""
    (file,) = cache.glob("*/golden-*")
    file.write_text("it was a bad day", encoding="utf-8")
    assert verdict.refusal(anew("MOM"), run) == "it was a bad day"
    fourth = anew("MOM")
    verdict.forget(fourth)
    assert verdict.refusal(fourth, run) == ""


def test_without_talibs_function_numpy_takes_its_place(cache: Path) -> None:
    """KDJ, which TA-Lib lacks, with a kernel that is refused."""
    kdj = anew("KDJ")
    verdict._known[kdj] = "a planted reason"
    given = [inputs()[0], Series(CLOSES - 1.0, np.full(5, 60)), Series(CLOSES - 0.5, np.full(5, 60))]
    got = VectorEngine().run(kdj, kdj.bind(), given)
    wanted = plain.run(kdj, kdj.bind(), given)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)

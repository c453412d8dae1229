"""Where compiled kernels may lie: nobody else may put there what is run."""

import os
import stat
from pathlib import Path

import pytest

from scanner.engines.folders import SETTING, folders


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(SETTING, raising=False)
    return tmp_path / f"mystocks-scan-kernels-{os.getuid()}"


def test_a_temporary_folder_is_ours_alone(temporary: Path) -> None:
    assert list(folders())[-1] == temporary
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert list(folders())[-1] == temporary


def test_one_that_others_made_or_may_write_to_is_left_alone(temporary: Path, tmp_path: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    assert temporary not in folders()
    temporary.rmdir()
    (tmp_path / "elsewhere").mkdir()
    temporary.symlink_to(tmp_path / "elsewhere")
    assert temporary not in folders()

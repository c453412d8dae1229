"""The package's sessions, and the file that keeps them."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data import sessions


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the file, empty."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "mystocks-scan"


def library() -> tuple[sessions.Days, date]:
    """As a new process asks."""
    return sessions.library.__wrapped__()


def test_a_second_process_reads_the_file_and_not_the_package(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days, last = library()
    assert (days[0], type(last)) == (np.datetime64("1990-12-19"), date)
    assert [path.suffix for path in kept.iterdir()] == [".npy"]
    monkeypatch.setattr(sessions, "_computed", lambda: pytest.fail("the package was asked"))
    again, horizon = library()
    np.testing.assert_array_equal(again, days)
    assert horizon == last


def test_a_damaged_file_is_made_again(kept: Path) -> None:
    days, last = library()
    (path,) = kept.iterdir()
    whole = path.read_bytes()
    days_of_it = np.load(path)
    for damaged in (b"", whole[:-3], whole[:200], b"no array"):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(library()[0], days)
        assert path.read_bytes() == whole
    for other in (days_of_it[::-1], days_of_it[1:], days_of_it.astype(np.int64)):
        np.save(path, other)
        np.testing.assert_array_equal(library()[0], days)
        assert library()[1] == last


def test_without_a_folder_the_package_is_asked_each_time(kept: Path) -> None:
    kept.write_text("no folder")
    days, last = library()
    assert len(days) > 8000
    assert last >= days[-1].astype(object)

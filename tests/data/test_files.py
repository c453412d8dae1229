"""Files are there whole or not at all."""

import os
import random
import time
from pathlib import Path

import pytest

from data.files import TEMPORARY, around, sweep, write_atomically, write_text


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    write_text(path, "old")

    def fail(aside: Path) -> None:
        aside.write_text("new")
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sweep_takes_what_is_old_and_leaves_a_writer_at_work_alone(tmp_path: Path) -> None:
    old, young, other = tmp_path / f".a.parquet.1{TEMPORARY}", tmp_path / f".b.parquet.2{TEMPORARY}", tmp_path / "c"
    for path in (old, young, other):
        path.write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)

    assert sweep(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([young, other])


def test_spans_with_another_within_them() -> None:
    rng = random.Random(1)
    for _ in range(300):
        spans = [(first, first + rng.randrange(4)) for first in rng.choices(range(12), k=rng.randrange(8))]
        expected = [
            place
            for place, (first, last) in enumerate(spans)
            if any(first <= a and b <= last for other, (a, b) in enumerate(spans) if other != place)
        ]
        assert around(spans) == expected, spans

"""DeadLetters: what could not be delivered, one JSON object a line, in a file that does not grow beyond its bound."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Letter = Mapping[str, Any]


class DeadLetters:
    """Letters in `folder`/dead-letters.jsonl, the newest in at most two files of `max_bytes` each.

    Several processes may add and take. No secret is among what is written: who makes the letters sees to it.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 20) -> None:
        self.path = folder / "dead-letters.jsonl"
        self._older = folder / "dead-letters.1.jsonl"
        self._taken = folder / "dead-letters.taken.jsonl"
        self._max_bytes = max_bytes

    def add(self, letters: Sequence[Letter]) -> None:
        """Keep letters. Raises OSError."""
        if not letters:
            return
        lines = "".join(json.dumps(letter, ensure_ascii=False, allow_nan=False) + "\n" for letter in letters)
        with self._lock():
            if self.path.exists() and self.path.stat().st_size + len(lines.encode()) > self._max_bytes:
                self.path.replace(self._older)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "r+b") as file:
                if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                    lines = "\n" + lines  # after a line that a crash cut short
                file.write(lines.encode())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All letters, oldest first. A line that a crash cut short is left out."""
        for path in (self._taken, self._older, self.path):
            yield from _read(path)

    def take(self) -> list[dict[str, Any]]:
        """All letters, oldest first, for somebody who sends them and then calls `done`.

        Until then they lie aside: whoever takes after a crash has them again.
        """
        with self._lock():
            letters = list(self)
            if letters:
                aside = self._taken.with_suffix(".tmp")
                aside.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in letters), "utf-8")
                aside.chmod(0o600)
                aside.replace(self._taken)
            self.path.unlink(missing_ok=True)
            self._older.unlink(missing_ok=True)
            return letters

    def done(self, left: Sequence[Letter]) -> None:
        """What was taken is settled, but for those that are left."""
        self.add(left)
        self._taken.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.parent / "dead-letters.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            letter = json.loads(line)
        except ValueError:
            continue
        if isinstance(letter, dict):
            yield letter

"""Tokens: who may come in from elsewhere. A file of names and hashes, which a running server notices the changes of.

A token is 256 random bits, so its SHA-256 tells nobody anything and cannot be searched for: a slow hash would protect
nothing more, and be paid for with every connection. The file is JSON, `{"tokens": [{"name", "sha256", "created"}]}`.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from data.errors import SettingsError, UsageError
from data.files import write_atomically

PREFIX = "mss_"
"""Of every token, so that programs that look for leaked secrets can know it."""
MAX_LENGTH = 128
"""Characters; what is longer is no token."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token: its name, the hash of it in hexadecimal, and when it was made (UTC, ISO 8601)."""

    name: str
    sha256: str
    created: str


def read(path: Path) -> list[Token]:
    """The tokens of a file, none where there is no file.

    Raises SettingsError where it is not what `add` writes, or where others may write to it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o022:
                raise SettingsError(f"serve.tokens {path} can be written to by others: 'chmod 600 {path}'")
            tokens = [Token(**one) for one in json.load(file)["tokens"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"serve.tokens {path} is not a file that 'mystocks-scan token' has made: {error}"
        ) from error
    if not all(isinstance(one.sha256, str) and re.fullmatch("[0-9a-f]{64}", one.sha256) for one in tokens):
        raise SettingsError(f"serve.tokens {path} must hold a SHA-256 of each token; make it anew with 'token new'")
    return tokens


def add(path: Path, name: str | None = None) -> tuple[str, str]:
    """Make a token; its name and itself, which nobody can tell again. Raises UsageError for a name that will not do."""
    with _alone(path):
        tokens = read(path)
        taken = {one.name for one in tokens}
        if name is None:
            name = next(free for number in range(1, len(taken) + 2) if (free := f"token-{number}") not in taken)
        if not _NAME.fullmatch(name):
            raise UsageError(f"a token's name is up to 64 of A-Z, a-z, 0-9, '.', '_', '-', no sign first; got {name!r}")
        if name in taken:
            raise UsageError(f"there is a token {name!r} already: 'mystocks-scan token revoke {name}', or another name")
        token = PREFIX + secrets.token_urlsafe(32)
        _write(path, [*tokens, Token(name, _digest(token), datetime.now(UTC).isoformat(timespec="seconds"))])
    return name, token


def remove(path: Path, name: str) -> None:
    """Revoke a token. Raises UsageError where there is none of the name."""
    with _alone(path):
        tokens = read(path)
        left = [one for one in tokens if one.name != name]
        if len(left) == len(tokens):
            names = ", ".join(one.name for one in tokens) or "none"
            raise UsageError(f"there is no token {name!r} in {path}; there: {names}")
        _write(path, left)


class Tokens:
    """The tokens of a file as a server knows them; `refresh` looks whether the file has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = ()
        self._known: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, digest: str) -> bool:
        return digest in self._known

    def load(self) -> None:
        """Read the file. Raises SettingsError where it cannot be read."""
        self._seen = self._stamp()
        self._known = {one.sha256: one.name for one in read(self.path)}

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read changes nothing, and is logged."""
        if self._stamp() == self._seen:
            return
        try:
            self.load()
        except SettingsError as error:
            log.error("the tokens known before stay in force: %s", error)

    def digest_of(self, token: str) -> str | None:
        """The hash of a token that is known, by which it is asked for later; None of any other."""
        if len(token) > MAX_LENGTH:
            return None
        given, found = _digest(token), None
        for known in self._known:  # each one, and each in constant time: how long it takes tells nothing
            if hmac.compare_digest(given, known):
                found = known
        return found

    def name_of(self, digest: str) -> str:
        """What the token of that hash is called."""
        return self._known.get(digest, "revoked")

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _write(path: Path, tokens: Sequence[Token]) -> None:
    text = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=2)

    def write(aside: Path) -> None:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{text}\n")

    write_atomically(path, write)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others from changing the file meanwhile; its folder is made where there is none."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)

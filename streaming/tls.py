"""TLS: a certificate and its key, which are read again when they are renewed."""

import logging
import ssl
from pathlib import Path

from data.errors import SettingsError

log = logging.getLogger(__name__)


class Certificate:
    """A chain in PEM and its key, which may be in the same file. Raises SettingsError where they cannot be used."""

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._files = (certificate, key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._seen = self._stamp()
        self._load()

    def refresh(self) -> None:
        """Take renewed files for the connections to come; where they will not do, the former stay, and it is logged."""
        seen = self._stamp()
        if seen != self._seen:
            self._seen = seen
            try:
                self._load()
            except SettingsError as error:
                log.error("the certificate of before stays in use: %s", error)

    def _load(self) -> None:
        certificate, key = self._files
        try:
            self.context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"serve.certificate {certificate} with serve.key {key or certificate} cannot be used: {error}"
            ) from error

    def _stamp(self) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for path in self._files:
            try:
                stamps.append(None if path is None else (path.stat().st_ino, path.stat().st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps


def _no_password() -> str:
    raise ValueError("the key has a password: decrypt it with 'openssl pkey'")

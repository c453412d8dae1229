"""RedisLink: commands to one Redis that survive its absence. The only file that imports `redis`.

A command that finds no Redis is repeated, with backoff, until there is one again: who uses the link waits meanwhile.
Whether the first attempt was carried out is then not known, so what is sent must bear being sent twice.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from data.errors import BusError, UsageError
from streaming.budget import Backoff

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
    from redis.exceptions import ConnectionError as LostError
    from redis.exceptions import TimeoutError as MuteError
except ImportError as missing:
    raise UsageError(
        f"a bus over Redis needs the package redis ({missing}): pip install 'mystocks-scan[redis]', or leave out --bus"
    ) from missing

log = logging.getLogger(__name__)

T = TypeVar("T")
OLDEST = (6, 2)
"""The first Redis with XAUTOCLAIM."""
TIMEOUT_S = 10.0
"""After so long without an answer a connection is taken for dead; no command may block for as long."""
_PASSING = ("OOM", "READONLY", "MISCONF", "LOADING", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN")
"""Refusals that an operator or Redis itself puts right: the command is repeated."""


class RedisLink:
    """Commands to the Redis at `url`; `reconnects` counts the times it was away. Not `patient`, it waits no more."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.reconnects = 0
        self.patient = True
        self._away_since: float | None = None
        try:
            self._redis: Any = Redis.from_url(
                url,
                protocol=2,
                socket_timeout=None,  # its own timeouts may swallow a cancellation before Python 3.12
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis.response_callbacks.clear()  # answers as they are
        except ValueError as error:
            raise UsageError(
                f"bus.url must be redis://[:password@]host:port/database, rediss://... or unix://...; got"
                f" {masked(url)!r}: {error}"
            ) from error

    def __str__(self) -> str:
        return masked(self.url)

    @property
    def away(self) -> bool:
        """Whether Redis did not answer last."""
        return self._away_since is not None

    async def open(self) -> None:
        """See that a Redis is there that can do what is needed. Raises BusError, which says what to do."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                about = (await self._redis.execute_command("INFO", "server")).decode()
        except (AuthenticationError, AuthorizationError, ResponseError) as error:
            raise BusError(f"{self} refuses: {error}. Put the user and password into the URL of the bus") from error
        except (RedisError, OSError) as error:
            raise BusError(
                f"no Redis answers at {self}: {str(error).rstrip('.')}. Start one (redis-server), correct --bus, or"
                " leave it out to run everything in one process"
            ) from error
        version = about.partition("redis_version:")[2].split()[0]
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise BusError(f"the Redis at {self} is {version}; the bus needs {OLDEST[0]}.{OLDEST[1]} or newer")

    async def do(self, *command: Any) -> Any:
        """Run one command; its raw answer. Raises BusError where Redis refuses it for good."""
        return await self.repeat(lambda: self._redis.execute_command(*command))

    async def script(self, text: str, keys: tuple[str, ...], *args: Any) -> Any:
        """Run a Lua script."""
        return await self.do("EVAL", text, len(keys), *keys, *args)

    async def repeat(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something with Redis until it is done."""
        backoff = Backoff(least_s=0.05, most_s=5.0)
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    result = await act()
            except (AuthenticationError, AuthorizationError) as error:
                raise BusError(f"{self} refuses: {error}. Put the user and password into the URL of the bus") from error
            except (LostError, MuteError, OSError) as error:
                self._note_away(str(error))
            except ResponseError as error:
                if not str(error).startswith(_PASSING):
                    raise RefusalError(f"{self}: {error}") from error
                self._note_away(str(error))
            else:
                self._note_back()
                return result
            if not self.patient:
                raise BusError(f"Redis at {self} is away, and is not waited for any more")
            await asyncio.sleep(backoff.next_s())

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _note_away(self, reason: str) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("Redis at %s is away: %s. Trying again until it is back", self, reason.rstrip("."))

    def _note_back(self) -> None:
        if self._away_since is not None:
            log.warning("Redis at %s is back after %.1f s", self, time.monotonic() - self._away_since)
            self._away_since = None
            self.reconnects += 1


class RefusalError(BusError):
    """Redis has refused a command; the message has its words. `forgotten`: it does not know the stream or the group."""

    @property
    def forgotten(self) -> bool:
        """Whether Redis does not know, or not any more, what was asked for."""
        return any(word in str(self) for word in ("NOGROUP", "UNBLOCKED", "requires the key to exist"))


def masked(url: str) -> str:
    """A URL as it may be shown: without its password."""
    parts = urlsplit(url)
    where = parts.netloc
    if "@" in where:
        who, _, host = where.rpartition("@")
        where = f"{who.partition(':')[0]}:***@{host}"
    return urlunsplit((parts.scheme, where, parts.path, "password=***" if "password=" in parts.query else "", ""))

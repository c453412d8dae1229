"""Roles: which stages of the live service a process runs, which options are theirs, and where the processes meet.

    feed    quotes -> tape -> bars -> the bus             one a store
    scan    the bus -> store, scan, history -> the bus    one a store
    serve   the bus, history -> /ws/signals               any number
    all     all three, in one process

The processes share the store's folder, and a Redis where `bus.url` says.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import StoreOriginError, UsageError
from data.settings import Settings
from data.store import BarStore
from streaming.bus import EventBus, bar_topic
from streaming.ports import Bus, Policy, SharedBus, Subscription

ROLES = ("all", "feed", "scan", "serve")
STAGES: Mapping[str, Sequence[str]] = {
    "all": ("feed", "scan", "serve"),
    "feed": ("feed",),
    "scan": ("scan",),
    "serve": ("serve",),
}
"""Role -> what it does."""
OPTIONS: Mapping[str, Sequence[str]] = {
    "speed": ("feed",),
    "frame": ("feed", "scan"),
    "symbols_from": ("feed", "scan"),
    "developing": ("feed", "scan"),
    "strategies": ("feed", "scan"),
    "universe": ("feed", "scan"),
    "history_bars": ("feed", "scan"),
    "engine": ("scan",),
    "cluster": ("scan",),
    "workers": ("scan",),
    "dashboard_port": ("scan",),
    "intervals": ("scan",),
    "metrics_port": ("feed", "scan"),
    "host": ("feed", "scan", "serve"),
    "port": ("serve",),
    "once": (),
}
"""Option -> the roles besides `all` that it means something to; those that are not here mean something to all."""


def check_role(role: str, bus_url: str | None, given: Mapping[str, Any]) -> None:
    """Refuse a role that has no bus to meet the others on, and options that are none of its business."""
    if role == "all":
        if given.get("metrics_port") is not None:
            raise UsageError("--metrics-port is for --role feed and --role scan; in one process /metrics is on --port")
        return
    if bus_url is None:
        raise UsageError(
            f"--role {role} needs a bus between processes: name one with --bus redis://localhost:6379/0 (or the setting"
            " bus.url), or leave out --role to run everything in this process"
        )
    for option, roles in OPTIONS.items():
        value = given.get(option)
        if role not in roles and value is not None and value != () and value is not False:
            owner = f"give it to --role {' and --role '.join(roles)}" if roles else "it is for a run in one process"
            raise UsageError(f"--{option.replace('_', '-')} means nothing to --role {role}: {owner}")


@contextmanager
def only_one(store: BarStore, role: str) -> Iterator[None]:
    """Hold the store for what a role does; a second feed or scan is refused."""
    with ExitStack() as held:
        for stage in STAGES[role]:
            if stage != "serve":
                held.enter_context(_locked(store.root / f"{stage}.lock", store, stage))
        yield


@contextmanager
def _locked(path: Path, store: BarStore, stage: str) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreOriginError(
                f"another 'mystocks-scan run' works on the store {store.root} (its role has {stage} in it): end it, or"
                " name another store with --store DIR"
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def lock(path: Path) -> Iterator[Callable[[], bool]]:
    """What is called inside says whether this process alone has the lock now; it can be asked again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def mine() -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    try:
        yield mine
    finally:
        os.close(handle)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is inside."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


async def open_bus(settings: Settings, store: BarStore) -> Bus:
    """The bus on which the stages meet: within this process, or where `bus.url` says. What is fed is kept for the scan
    from the first bar on, whichever of the two comes first."""
    url = settings.bus.url
    if url is None:
        return EventBus()
    from streaming.redis_bus import RedisBus  # heavy and optional

    bus = await RedisBus.connect(url, bus_name(store))
    if "feed" in STAGES[settings.run.role]:
        await bus.expect(bar_topic("*"), name="scan")
    return bus


def bus_name(store: BarStore) -> str:
    """What a store's bus is called. A store made anew has another name: nothing of the old one comes to it."""
    path = store.root / "bus"
    if not path.exists():
        own = path.with_name(f"bus-{secrets.token_hex(8)}")
        own.write_text(f"{store.origin}-{secrets.token_hex(4)}")
        with suppress(FileExistsError):  # another process was faster: its name it is
            os.link(own, path)
        own.unlink()
    return path.read_text()


class Overheard:
    """A bus between processes that tells `on_batch` of what is published; fulfils `streaming.ports.SharedBus`."""

    def __init__(self, bus: SharedBus, on_batch: Callable[[str, pa.RecordBatch], None]) -> None:
        self._bus, self._on_batch = bus, on_batch

    def __str__(self) -> str:
        return str(self._bus)

    async def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        """See `streaming.ports.Bus`."""
        await self._bus.publish(topic, batch)
        self._on_batch(topic, batch)

    def subscribe(self, pattern: str, *, policy: Policy = Policy.BLOCK, size: int = 64, name: str = "") -> Subscription:
        """See `streaming.ports.Bus`."""
        return self._bus.subscribe(pattern, policy=policy, size=size, name=name)

    async def close(self) -> None:
        """See `streaming.ports.Bus`."""
        await self._bus.close()

    def release(self) -> None:
        """See `streaming.ports.SharedBus`."""
        self._bus.release()

"""The server of signals as the settings want it."""

import logging
import resource
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from data import metrics
from data.history import SignalHistory
from data.settings import ServeSettings
from jobs.monitor import Monitor
from jobs.routes import open_routes, routes
from streaming.access import Access
from streaming.door import Limits
from streaming.http import Route
from streaming.server import SignalServer
from streaming.tls import Certificate
from streaming.tokens import Tokens

OWN_HANDLES = 256
"""Handles that connections leave to the store, the bus and the cluster."""

log = logging.getLogger(__name__)


def open_server(
    settings: ServeSettings, history: SignalHistory, routes: Mapping[str, Route], open_routes: Mapping[str, Route]
) -> SignalServer:
    """A server of the history's signals, not started. Raises SettingsError."""
    return _server(settings, settings.port, routes, open_routes, epoch=history.epoch, replay=history.since)


def check(settings: ServeSettings) -> None:
    """Refuse settings that a server would be refused with. Raises SettingsError."""
    SignalServer(
        settings.host, settings.port, epoch="", access=_access(settings), certificate=_certificate(settings)
    ).check()


@asynccontextmanager
async def metrics_served(settings: ServeSettings, monitor: Monitor, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Serve /metrics, /healthz and /readyz of a process that has no signals, where the settings name a port for it."""
    if settings.metrics_port is None:
        yield
        return
    server = _server(settings, settings.metrics_port, routes(monitor), open_routes(monitor), epoch="", path=None)
    await server.start()
    say(f"metrics    http{server.url.removeprefix('ws')}/metrics")
    try:
        yield
    finally:
        await server.stop()


def _server(
    settings: ServeSettings, port: int, routes: Mapping[str, Route], open_routes: Mapping[str, Route], **more: Any
) -> SignalServer:
    return SignalServer(
        settings.host,
        port,
        routes=routes,
        open_routes=open_routes,
        access=_access(settings),
        limits=Limits(
            connections=_as_handles_allow(settings.max_connections), per_address=settings.max_connections_per_address
        ),
        certificate=_certificate(settings),
        on_refused=lambda reason: metrics.ws_refused.labels(reason).inc(),
        **more,
    )


def _access(settings: ServeSettings) -> Access:
    return Access(Tokens(settings.tokens), required=settings.require_token, origins=settings.origins)


def _certificate(settings: ServeSettings) -> Certificate | None:
    return None if settings.certificate is None else Certificate(settings.certificate, settings.key)


def _as_handles_allow(connections: int) -> int:
    """So many connections, or as many as this process may open; its own limit is raised as far as the system lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_HANDLES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            connections = max(1, soft - OWN_HANDLES)
            log.warning("this process may open %d files: %d connections at most (ulimit -Hn)", soft, connections)
    return connections

"""The server of signals as the settings want it."""

from collections.abc import Mapping

from data import metrics
from data.history import SignalHistory
from data.settings import ServeSettings
from streaming.access import Access
from streaming.door import Limits
from streaming.http import Route
from streaming.server import SignalServer
from streaming.tls import Certificate
from streaming.tokens import Tokens


def open_server(
    settings: ServeSettings, history: SignalHistory, routes: Mapping[str, Route], open_routes: Mapping[str, Route]
) -> SignalServer:
    """A server of the history's signals, not started. Raises SettingsError."""
    certificate = settings.certificate
    return SignalServer(
        settings.host,
        settings.port,
        epoch=history.epoch,
        replay=history.since,
        routes=routes,
        open_routes=open_routes,
        access=Access(Tokens(settings.tokens), required=settings.require_token, origins=settings.origins),
        limits=Limits(connections=settings.max_connections, per_address=settings.max_connections_per_address),
        certificate=None if certificate is None else Certificate(certificate, settings.key),
        on_refused=lambda reason: metrics.ws_refused.labels(reason).inc(),
    )

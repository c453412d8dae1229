"""The door: every accepted connection from its first moment, bounded in number before anything is spent on it.

A connection is half-open until its request has come whole; TLS lies before that. The number of all is bounded by
refusing new ones, that of half-open ones by ending the oldest: whoever means it has long said what he wants.
"""

import ipaddress
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from streaming.access import Refusals


@dataclass(frozen=True, slots=True)
class Limits:
    """What all connections together, those of an address, and a single one may take."""

    connections: int = 10_000
    per_address: int = 100
    """Of an IPv6 address: its /64. This machine's own have no such limit."""
    half_open: int = 1024
    handshake_s: float = 5.0
    """So long a TLS handshake may take, and after it so long a request."""
    answer_s: float = 60.0
    """So long an answer over HTTP may take to be made and read."""
    request_bytes: int = 16 * 1024
    message_bytes: int = 16 * 1024
    messages: int = 100
    """Frames that may come at once, and from then on"""
    messages_per_s: float = 20.0
    """so many a second."""


class Door:
    """The connections that are open, by address. `listen` gives the socket that they come in by."""

    def __init__(self, limits: Limits, refusals: Refusals) -> None:
        self.limits, self.refusals = limits, refusals
        self._guests: dict[tuple[Any, ...], _Guest] = {}
        self._half_open: dict[_Guest, None] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def half_open(self) -> int:
        """Connections whose request has not come yet."""
        return len(self._half_open)

    def listen(self, host: str, port: int) -> socket.socket:
        """A listening socket. Raises OSError. `::` is every address, of IPv4 too where the system can."""
        plain = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        listener = _Listener(plain.family, plain.type, plain.proto, fileno=plain.detach())
        listener.door = self
        listener.setblocking(False)
        return listener

    def admit(self, accepted: socket.socket, address: tuple[Any, ...]) -> socket.socket:
        """The connection, counted until it is closed. Raises ConnectionAbortedError where there are too many."""
        if len(self._guests) >= self.limits.connections:
            accepted.close()
            self.refusals.add("connections", home(address), f"{len(self._guests)} connections are open")
            raise ConnectionAbortedError
        if len(self._half_open) >= self.limits.half_open:
            self._evict(next(iter(self._half_open)))
        guest = _Guest(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        guest.door, guest.address = self, address
        self._guests[address] = guest
        self._half_open[guest] = None
        self._count[home(address)] += 1
        return guest

    def _evict(self, guest: "_Guest") -> None:
        """End the connection, which has waited the longest."""
        del self._half_open[guest]
        guest.turn_out()
        if not guest.is_told:
            self.refusals.add("half_open", home(guest.address), "too many connections wait for a request")
        guest.is_met = True

    def met(self, address: tuple[Any, ...]) -> None:
        """The connection speaks: what comes before that is TLS."""
        if guest := self._guests.get(address):
            guest.is_met = True

    def told(self, address: tuple[Any, ...]) -> bool:
        """The connection has been refused, and stays half-open until it ends; False where it was turned out before."""
        guest = self._guests.get(address)
        if guest is None or guest not in self._half_open:
            return False
        guest.is_told = True
        return True

    def passed(self, address: tuple[Any, ...]) -> None:
        """The request of the connection has come."""
        if guest := self._guests.get(address):
            self._half_open.pop(guest, None)

    def is_crowded(self, address: tuple[Any, ...]) -> bool:
        """Whether the address has more connections than it may."""
        return not _is_here(address) and self._count[home(address)] > self.limits.per_address

    def turn_out(self) -> None:
        """End all connections."""
        for guest in list(self._guests.values()):
            guest.turn_out()

    def left(self, guest: "_Guest") -> None:
        """The connection has been closed."""
        if self._guests.get(guest.address) is guest:
            del self._guests[guest.address]
            self._half_open.pop(guest, None)
            place = home(guest.address)
            if not guest.is_met:
                self.refusals.add("tls", place, "no TLS came about")
            self._count[place] -= 1
            if not self._count[place]:
                del self._count[place]


class _Listener(socket.socket):
    """A listening socket whose connections the door lets in. An event loop takes the error for nobody being there."""

    door: Door

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        return self.door.admit(accepted, address), address


class _Guest(socket.socket):
    """A connection that says when it is closed, by whomever."""

    door: Door
    address: tuple[Any, ...]
    is_met = is_told = False

    def turn_out(self) -> None:
        """End it in a way that whoever reads from it notices."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.door.left(self)
        super().close()


def home(address: tuple[Any, ...]) -> str:
    """Whose connection it is: an IPv4 address, or the /64 of an IPv6 one, which is what one subscriber is given."""
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


def _is_here(address: tuple[Any, ...]) -> bool:
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback

"""What opens a connection to a vendor, and finds vendors by name."""

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from data.errors import UsageError
from streaming.feeds import FEEDS, GROUP
from streaming.feeds.reading import VendorConnection
from streaming.feeds.vendors import VENDORS, Vendor

_TRANSPORTS = {
    "poll": "streaming.feeds.polled:PolledConnection",
    "socket": "streaming.feeds.socket:SocketConnection",
    "events": "streaming.feeds.events:EventConnection",
}
"""Loaded when one is opened."""


def find_vendor(name: str) -> Vendor | None:
    """The vendor of that name, our own before an entry point's; None where there is none of that name.

    Raises UsageError where an entry point's vendor has another name than its entry.
    """
    if name in VENDORS or name in FEEDS:
        return VENDORS.get(name)
    for point in entry_points(group=GROUP, name=name):
        found = point.load()
        if not isinstance(found, Vendor):
            return None
        if found.name != name:
            raise UsageError(f"the entry point {name!r} of {GROUP} is the vendor {found.name!r}: give both one name")
        return found
    return None


def open_connection(vendor: Vendor, symbols: Sequence[str], **about: Any) -> VendorConnection:
    """A connection to `vendor` for `symbols`, at most `vendor.shard` of them; nothing is sent before `batches` is read.

    `about`: url, admit, numbers, clock, timeout_s, as of `streaming.feeds.reading.VendorConnection`.
    """
    module, name = _TRANSPORTS[vendor.transport].split(":")
    transport: type[VendorConnection] = getattr(importlib.import_module(module), name)
    return transport(vendor, symbols, **about)

"""Feeds by name. Others join through the entry-point group `mystocks_scan.feeds` of any installed package."""

import importlib
from importlib.metadata import entry_points

from data.errors import UsageError
from streaming.ports import OpenFeed

FEEDS = {
    "replay": "streaming.feeds.replay:open_feed",
    "sim": "streaming.feeds.simulated:open_feed",
}
"""Name -> `module:function`, an `OpenFeed`; loaded when it is asked for."""
STREAM = "streaming.manager:open_stream"
"""What opens vendors as a feed: one, or several in order of priority, `sina,tencent`."""
GROUP = "mystocks_scan.feeds"


def feed_names() -> list[str]:
    """The names of all feeds there are, sorted."""
    from streaming.feeds.vendors import VENDORS

    return sorted({*FEEDS, *VENDORS, *(point.name for point in entry_points(group=GROUP))})


def find_feed(name: str) -> OpenFeed:
    """What opens the feed of that name, or the one that the vendors make whose names are given with commas between.

    Our own come before an entry point's. What follows a colon in `replay:PATH` is the feed's own business. Raises
    UsageError, listing the known.
    """
    # Here and not above: connections look names up here.
    from streaming.feeds.connections import find_vendor
    from streaming.feeds.vendors import VENDORS

    name = name.partition(":")[0]
    parts = [part.strip() for part in name.split(",")]
    strangers = [part for part in parts if part in FEEDS or find_vendor(part) is None]
    if name in FEEDS or not strangers:
        module, function = FEEDS.get(name, STREAM).split(":")
        own: OpenFeed = getattr(importlib.import_module(module), function)
        return own
    if len(parts) > 1:
        raise UsageError(
            f"{strangers[0]!r} is no vendor whose quotes can be merged with others'; got {name!r}. Vendors are"
            f" {', '.join(VENDORS)}"
        )
    for point in entry_points(group=GROUP, name=name):
        other = point.load()
        if not callable(other):
            raise UsageError(
                f"the feed {name!r} is a {type(other).__name__}; one of the group {GROUP} must be a Vendor or"
                " an OpenFeed"
            )
        opens: OpenFeed = other
        return opens
    raise UsageError(f"there is no feed {name!r}; there are: {', '.join(feed_names())}")

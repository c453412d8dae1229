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
GROUP = "mystocks_scan.feeds"


def feed_names() -> list[str]:
    """The names of all feeds there are, sorted."""
    return sorted({*FEEDS, *(point.name for point in entry_points(group=GROUP))})


def find_feed(name: str) -> OpenFeed:
    """What opens the feed of that name; our own come before an entry point's. Raises UsageError, listing the known.

    What follows a colon in `replay:PATH` is the feed's own business.
    """
    name = name.partition(":")[0]
    if name in FEEDS:
        module, function = FEEDS[name].split(":")
        own: OpenFeed = getattr(importlib.import_module(module), function)
        return own
    for point in entry_points(group=GROUP, name=name):
        other = point.load()
        if not callable(other):
            raise UsageError(
                f"the feed {name!r} is a {type(other).__name__}: nothing here opens one as a feed by itself"
            )
        opens: OpenFeed = other
        return opens
    raise UsageError(f"there is no feed {name!r}; there are: {', '.join(feed_names())}")

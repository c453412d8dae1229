"""Why the server ends a connection: the codes of its close frames.

A code of ours is 4000 and the status of HTTP that says the same. The standard ones that occur: the client's own (it has
said goodbye), 1001 (the server stops), 1002, 1007 and 1009 (frames against the protocol, text that is not UTF-8, a
message that is too long), 1011 (a fault of ours, which the log has, or a ping that was not answered).
"""

from enum import IntEnum


class Close(IntEnum):
    """A close code of ours. After all but the first, resuming goes on without a gap."""

    UNAUTHORISED = 4401
    """No token where one is needed, or an unknown one, or it has been revoked: coming back needs another."""
    SLOW = 4408
    """It has more unread than one subscriber may have."""
    GAP = 4410
    """This server has lost signals that follow its place."""
    TOO_MANY = 4429
    """It says too much, or its address has too many connections: come back later."""

"""What a service manager is told: that the service is at work, lives, and ends, as sd_notify(3) has it.

Nothing is told where `NOTIFY_SOCKET` does not stand in the environment, as it does under systemd with Type=notify.
"""

import os
import socket
from contextlib import suppress


def notify(*words: str) -> None:
    """Send words such as `READY=1`; what cannot be sent is not said."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    if place.startswith("@"):  # a name that lies in no folder
        place = f"\0{place[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect(place)
        out.send("\n".join(words).encode())

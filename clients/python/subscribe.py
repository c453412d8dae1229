"""Signals as they are published, by the client that mystocks-scan brings: `python subscribe.py [URL]`.

It connects again after a loss and goes on where it was; what it says of that goes to stderr.
"""

import asyncio
import os
import sys

from data.errors import FeedError
from streaming.client import signals
from streaming.filter import Filter


async def main(url: str = "ws://127.0.0.1:8765/ws/signals") -> None:
    wanted = Filter.of(actions=["BUY", "SELL"], min_confidence=0.5)
    token = os.environ.get("MYSTOCKS_SCAN__WATCH__TOKEN")  # where the service asks for one
    async for signal in signals(url, filters=wanted, token=token):
        print(signal["symbol"], signal["name"] or "", signal["action"], signal["price"], signal["values"], flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except FeedError as error:  # nothing is there, or it refuses
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)

"""A subscriber of /ws/signals that needs nothing of mystocks-scan: Python 3.11 and `pip install websockets`.

`python plain.py ws://127.0.0.1:8765/ws/signals place.json` prints a line of JSON a signal, each once. The place is kept
in the file, so that the next start goes on there. MYSTOCKS_SCAN__WATCH__TOKEN has the token, where one is needed.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

REMEMBERED = 10_000


async def subscribe(url: str, place_file: Path) -> None:
    place = json.loads(place_file.read_text()) if place_file.exists() else None
    token = os.environ.get("MYSTOCKS_SCAN__WATCH__TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    seen: dict[str, None] = {}  # ids, oldest first
    # Connects again, after longer and longer waits; a refusal ends it. A page of a replay may be large.
    async for connection in connect(url, additional_headers=headers, max_size=2**26):
        try:
            await connection.send(json.dumps({"type": "subscribe", "actions": ["BUY", "SELL"], "since": place}))
            async for text in connection:
                message = json.loads(text)
                if message["type"] == "error":
                    sys.exit(f"refused: {message['data']['reason']}")
                if message["type"] not in ("subscribed", "signals"):
                    continue  # hello: its place is not one in what was asked for
                if message["type"] == "subscribed" and message["data"].get("recovered") is False:
                    print(f"signals were missed: {message['data']['reason']}", file=sys.stderr)
                for signal in message["data"] if message["type"] == "signals" else ():
                    if signal["id"] not in seen:
                        seen[signal["id"]] = None
                        print(json.dumps(signal, ensure_ascii=False), flush=True)
                while len(seen) > REMEMBERED:
                    del seen[next(iter(seen))]
                place = {"epoch": message["epoch"], "seq": message["seq"]}
                aside = place_file.with_suffix(".new")
                aside.write_text(json.dumps(place))
                aside.replace(place_file)
        except ConnectionClosed as closed:
            print(f"connecting again: {closed}", file=sys.stderr)


if __name__ == "__main__":
    try:
        asyncio.run(subscribe(sys.argv[1], Path(sys.argv[2])))
    except InvalidStatus as refused:  # 401: the token, 403: the origin, 404: the address
        sys.exit(str(refused))
    except KeyboardInterrupt:
        sys.exit(130)

"""A real server of /ws/signals with a real history, told by lines on stdin what to do: for the tests of clients.

`python server.py FOLDER PORT [--token]`; each line is a JSON object, {"publish": [{symbol, strategy, ...}]},
{"drop": true}, {"revoke": true} or {}, and each is answered by one, {"ids", "clients", "live"}. The first answer is
{"url", "epoch", "token"}.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from data.history import SignalHistory
from data.signal import Signal
from streaming import tokens
from streaming.access import Access
from streaming.server import SignalServer
from streaming.tokens import Tokens

CLOSE = 1_748_242_800 * 10**9  # 2025-05-26 15:00 in Shanghai


def made(number: int, fields: dict[str, Any]) -> Signal:
    plain: dict[str, Any] = {
        "strategy": "macd_golden_cross",
        "symbol": "600519.SH",
        "action": "BUY",
        "confidence": 0.8,
        "price": 10.0,
    }
    end = CLOSE + number * 60 * 10**9
    return Signal(
        version="v1", frame="1m", bar_end=end, engine="vector", origin=0, values={"RSI(14)": 25.5}, **plain | fields
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--token", action="store_true", help="ask for a token")
    options = parser.parse_args()
    history = SignalHistory(options.folder)
    file = options.folder.with_name("tokens.json")
    access = Access(Tokens(file), required=options.token, origins=["http://localhost:3000"])  # jsdom's page
    token = tokens.add(file, "test")[1] if options.token else None
    server = SignalServer("127.0.0.1", options.port, epoch=history.epoch, replay=history.since, access=access)
    await server.start()
    print(json.dumps({"url": server.url, "epoch": history.epoch, "token": token}), flush=True)
    number = history.query().num_rows
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        stored = history.append([made(number := number + 1, fields) for fields in asked.get("publish", [])])
        await server.publish([signal.to_dict() for signal in stored])
        for client in list(server.stream.clients) if asked.get("drop") else ():
            client.connection.transport.abort()
        if asked.get("revoke"):
            tokens.remove(file, "test")
        live = sum(client.live for client in server.stream.clients)
        print(json.dumps({"ids": [one.id for one in stored], "clients": server.clients, "live": live}), flush=True)
    await server.stop()


asyncio.run(main())

"""One subscriber: hello, what it says, and what it is answered.

Every message of the server is one JSON object, `{"v": 1, "epoch", "seq", "type", "data"}`. (epoch, seq) is a place in
the stream of signals: everything up to it was sent on this connection or not wanted there.

    hello        on connecting; data: version, epoch, seq of the last signal
    subscribed   the answer to subscribe; with `since`, data: recovered, and a reason where it is false
    signals      data: a list of signals, each with its own epoch and seq; one message a scan, or a page of a replay
    unsubscribed, pong
    error        data: reason; the connection lives

A client says `{"type": "subscribe", "symbols", "strategies", "actions", "min_confidence", "since": {"epoch", "seq"}}`,
all but the type optional; `{"type": "unsubscribe"}`; `{"type": "ping"}`. Nothing is sent before it subscribes.
"""

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from data.errors import UsageError
from streaming.broadcast import Broadcast, Client
from streaming.filter import FIELDS, Filter, short


async def converse(stream: Broadcast, client: Client, hello: Mapping[str, Any], refused: Callable[[str], None]) -> None:
    """Greet a client, and answer what it says until its connection ends.

    `hello`: more values for the first message. `refused` is told the reason of each error. Raises ConnectionClosed.
    """
    greeting = {"version": version("mystocks-scan"), "epoch": stream.epoch, "seq": stream.seq, **hello}
    await stream.tell(client, "hello", greeting)
    async for message in client.connection:
        try:
            await _on_message(stream, client, message)
        except UsageError as error:
            refused(str(error))
            await stream.tell(client, "error", {"reason": str(error)})


async def _on_message(stream: Broadcast, client: Client, text: str | bytes) -> None:
    try:
        message = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise UsageError(f"a message must be one JSON object in a text frame; got {short(text)}")
    kind = message.pop("type", None)
    if kind == "ping":
        await stream.tell(client, "pong", {})
    elif kind == "unsubscribe":
        client.live = False
        await stream.tell(client, "unsubscribed", {})
    elif kind == "subscribe":
        if unknown := set(message) - {*FIELDS, "since"}:
            raise UsageError(f"subscribe has no {short(min(unknown))}; it has {', '.join(FIELDS)} and since")
        since = _place(message.get("since"))
        await stream.subscribe(client, Filter.parse(message), since)
    else:
        raise UsageError(f"type must be subscribe, unsubscribe or ping; got {short(kind)}")


def _place(since: Any) -> tuple[str, int] | None:
    """The place a client asks to go on from."""
    if since is None:
        return None
    if isinstance(since, dict) and set(since) == {"epoch", "seq"}:
        epoch, seq = since["epoch"], since["seq"]
        if isinstance(epoch, str) and isinstance(seq, int) and not isinstance(seq, bool) and seq >= 0:
            return epoch, seq
    raise UsageError(f'since must be {{"epoch": text, "seq": integer from 0 on}}; got {short(since)}')

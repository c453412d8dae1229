"""docs/asyncapi.yaml says what the server does: it is valid, its examples are, and so is all that the server sends.

`asyncapi-3.0.0.json.gz` is the schema of AsyncAPI documents, as the package @asyncapi/specs 6.11.1 has it (Apache 2.0).
"""

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from websockets.asyncio.client import connect

from data.history import SignalHistory
from data.schema import SIGNAL
from data.signal import Signal
from streaming.closing import Close
from streaming.door import Limits
from streaming.server import PATH, SignalServer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
OF_SERVER = ("hello", "subscribed", "signals", "unsubscribed", "pong", "error")
OF_CLIENT = ("subscribe", "unsubscribe", "ping")
ONE = Signal(
    "macd", "v1", "600519.SH", "1m", 1_748_242_800 * 10**9, "BUY", 0.8, 10.5, "talib", 0, {"a": 1.5, "b": float("nan")}
)


def schema_of(message: str) -> Draft7Validator:
    whole = {"$ref": f"#/components/messages/{message}/payload", "components": DOCUMENT["components"]}
    return Draft7Validator(whole, format_checker=Draft7Validator.FORMAT_CHECKER)


def examples(names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        yield from ((name, example["payload"]) for example in MESSAGES[name]["examples"])


def test_the_document_is_one_of_asyncapi_3() -> None:
    schema = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "asyncapi-3.0.0.json.gz").read_bytes()))
    Draft7Validator(schema).validate(DOCUMENT)
    for wrong in ({"asyncapi": "2.6.0"}, {"channels": {"signals": {"address": 5}}}, {"info": {}}, {"extra": 1}):
        assert list(Draft7Validator(schema).iter_errors({**DOCUMENT, **wrong}))


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from [inner] if name == "$ref" else references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    sent = {reference for operation in DOCUMENT["operations"].values() for reference in references(operation)}
    for name in MESSAGES:
        Draft7Validator.check_schema(MESSAGES[name]["payload"])
        assert f"#/channels/signals/messages/{name}" in sent


@pytest.mark.parametrize(("name", "payload"), [*examples(OF_SERVER + OF_CLIENT)])
def test_every_message_has_an_example_that_is_one(name: str, payload: dict[str, Any]) -> None:
    schema_of(name).validate(payload)
    for other in OF_SERVER + OF_CLIENT:
        assert other == name or not schema_of(other).is_valid(payload)


def test_all_that_the_server_sends_is_in_it(tmp_path: Path) -> None:
    history = SignalHistory(tmp_path)
    seen: list[dict[str, Any]] = []

    async def test() -> None:
        server = SignalServer("127.0.0.1", 0, epoch=history.epoch, replay=history.since, hello={"feed": "sim"})
        await server.start()
        async with AsyncExitStack() as exits, asyncio.timeout(30):
            exits.push_async_callback(server.stop)
            client = await exits.enter_async_context(connect(server.url, proxy=None))

            async def said(*asked: dict[str, Any] | str) -> str:
                for one in asked:
                    await client.send(one if isinstance(one, str) else json.dumps(one))
                seen.append(json.loads(await client.recv()))
                return str(seen[-1]["type"])

            assert await said() == "hello"
            for _, payload in examples(OF_CLIENT):
                assert await said(payload) != "error", payload
            named = {"name": "贵州茅台", "at_limit_up": True, "developing": True}
            for more in ({}, named, {"revision": 1, "revokes": "x"}):
                await server.publish([one.to_dict() for one in history.append([ONE.like(more)])])
            since = {"epoch": history.epoch, "seq": 0}
            assert await said({"type": "subscribe", "since": since}) == "subscribed"
            assert await said() == "signals"
            await server.publish([one.to_dict() for one in history.append([ONE.like({"bar_end": ONE.bar_end + 60})])])
            assert await said() == "signals"
            assert await said({"type": "subscribe", "since": {"epoch": "9", "seq": 9}}) == "subscribed"
            assert await said("{") == "error"

    asyncio.run(test())
    assert {message["type"] for message in seen} == set(OF_SERVER)
    for message in seen:
        schema_of(message["type"]).validate(message)
    signal = next(message["data"][0] for message in seen if message["type"] == "signals")
    described = DOCUMENT["components"]["schemas"]["signal"]
    assert set(signal) == set(described["properties"]) == set(described["required"]) == set(SIGNAL.names)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe", "symbols": []},
        {"type": "subscribe", "symbols": "600519"},
        {"type": "subscribe", "actions": ["HOLD"]},
        {"type": "subscribe", "min_confidence": 80},
        {"type": "subscribe", "since": {"epoch": "x"}},
        {"type": "subscribe", "since": {"epoch": "x", "seq": -1}},
        {"type": "subscribe", "symbol": ["600519"]},
        {"type": "quote"},
        {},
    ],
)
def test_what_it_does_not_allow_the_server_refuses(message: dict[str, Any]) -> None:
    assert not any(schema_of(name).is_valid(message) for name in OF_CLIENT)

    async def answer() -> dict[str, Any]:
        server = SignalServer("127.0.0.1", 0, epoch="e")
        await server.start()
        async with connect(server.url, proxy=None) as client:
            await client.recv()
            await client.send(json.dumps(message))
            answered: dict[str, Any] = json.loads(await client.recv())
        await server.stop()
        return answered

    assert asyncio.run(answer())["type"] == "error"


def test_codes_and_numbers_are_the_server_s() -> None:
    channel = DOCUMENT["channels"]["signals"]
    assert channel["address"] == PATH
    named = {one["name"]: one["code"] for one in channel["x-close-codes"] if "name" in one}
    assert named == {code.name: code.value for code in Close}
    text = json.dumps(channel)
    limits = Limits()
    assert f"longer than {limits.message_bytes // 1024} KiB" in text
    assert f"More than {limits.messages_per_s:g} messages a second, beyond {limits.messages} at once" in text

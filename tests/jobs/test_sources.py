"""What a user sees of the feed's providers."""

import asyncio
import json
from io import StringIO

import pytest
from rich.console import Console

from jobs.screen import TableScreen
from jobs.sources import to_json, to_table
from streaming.status import ProviderStatus, Status

SINA = ProviderStatus(
    name="sina",
    state="failed",
    connections=2,
    connected=1,
    covers=5490,
    symbols=5490,
    serves=800,
    frames=12345,
    rows=9,
    received_bytes=9,
    quote_age_s=17.4,
    symbols_stale=1200,
    reconnects={"mute": 1, "timeout": 3},
    dropped={"short": 7},
    unread={"short": 7},
    said="closed: mute",
)
STATUS = Status(providers=(SINA,), symbols=5500, subscribers=1, uncovered=10, served=5490)


def test_the_table_says_of_each_provider_how_it_is() -> None:
    text = StringIO()
    Console(file=text, width=160).print(to_table(STATUS))
    shown = text.getvalue()
    assert "5,490/5,500 symbols served, 10 that no provider has" in shown
    (row,) = (line for line in shown.splitlines() if "sina" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["sina", "failed", "1/2", "5,490", "800", "12,345", "17", "1,200", "timeout 3, mute 1", "short 7"]


def test_json_has_the_same() -> None:
    found = json.loads(json.dumps(to_json(STATUS)))
    assert (found["served"], found["uncovered"]) == (5490, 10)
    assert found["providers"][0]["reconnects"] == {"mute": 1, "timeout": 3}
    assert found["providers"][0]["said"] == "closed: mute"


def test_the_live_table_has_the_providers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    async def run() -> None:
        screen = TableScreen()
        screen.open("1m", "ws://127.0.0.1:8765/ws/signals", None)
        screen.watch(lambda: STATUS)
        screen.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert "timeout 3, mute 1" in rendered(screen)

    asyncio.run(run())
    capsys.readouterr()


def rendered(screen: TableScreen) -> str:
    text = StringIO()
    Console(file=text, width=160).print(screen._render())
    return text.getvalue()

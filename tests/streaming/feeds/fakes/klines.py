"""Tencent's K-lines on this machine: the simulator's bars of some sessions, without minutes that had no trade."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data.symbols import board, canonical
from streaming.feeds.klines import KLineSource, sources_of
from streaming.feeds.vendors import Budget
from tests.streaming.feeds.fakes.day import FakeDay
from tests.streaming.feeds.fakes.servers import FakeHttp, Faults

_FRAMES = {"m1": "1m", "m5": "5m"}


class FakeTencentKlines(FakeHttp):
    """ifzq.gtimg.cn; with `most`, it bans whoever asks more often."""

    most: int | None = None
    live = False
    """Whether it has no bars beyond the one that is open at the snapshot shown."""

    def __init__(self, day: FakeDay, sessions: Sequence[np.datetime64]) -> None:
        super().__init__(day)
        self._sessions = list(sessions)

        @cache
        def rows(key: str) -> dict[str, list[list[Any]]]:
            found: dict[str, list[list[Any]]] = {}
            table = day.market.bars(_FRAMES[key], *self._sessions)
            for row in table.filter(pc.equal(table["flags"], 0)).sort_by("bar_end").to_pylist():
                label = _label(int(row["bar_end"].timestamp()))
                spelled = [f"{row[name]:.2f}" for name in ("open", "close", "high", "low")]
                lot = 1 if board(row["symbol"]) == "star" else 100
                found.setdefault(row["symbol"], []).append([label, *spelled, f"{row['volume'] / lot:.2f}", {}, "0"])
            return found

        self._rows = rows

    def codes(self, target: str) -> list[str]:
        return target.partition("param=")[2].split(",")

    async def _answer(self, codes: list[str], writer: asyncio.StreamWriter) -> None:
        if self.most is not None and len(self.asked) > self.most:
            self.faults = Faults(ban="403")
            await self._send(writer, 403, b"")
            return
        code, key, _, n = codes
        rows = self._rows(key).get(canonical(code), [])
        if self.live:
            rows = [row for row in rows if row[0] <= _label(self.day.time // 10**9 + 60)]
        rows = rows[-int(n) :]
        await self._send(writer, 200, json.dumps({"code": 0, "msg": "", "data": {code: {key: rows}}}).encode())


def _label(unix_s: int) -> str:
    """A minute as Tencent writes it, in Shanghai."""
    label = str(np.datetime64(unix_s + 8 * 3600, "s"))[:16]
    return label.replace("-", "").replace("T", "").replace(":", "")


def quick_sources(frame: str) -> tuple[KLineSource, ...]:
    """The endpoints of a frame, with a budget for tests."""
    return tuple(replace(source, budget=Budget(per_s=1000, burst=1000)) for source in sources_of(frame))

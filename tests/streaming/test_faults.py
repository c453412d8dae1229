"""Every fault of the catalogue against a vendor that a StreamManager asks: what a user sees, and which law holds.

Of all of them: the day's last price, high, low, volume and amount are right; minutes that are not flagged incomplete
are the clean run's; and none is flagged in which the vendor was well.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.calendar import MINUTE, SECOND
from data.schema import FLAG_INCOMPLETE
from data.symbols import sina_code
from streaming.links import Patience
from tests.streaming.feeds.fakes.day import FakeDay, bars_of, ordered, totals_of
from tests.streaming.feeds.fakes.scene import MARKET, Scene, scene
from tests.streaming.feeds.fakes.servers import Faults

ALL = len(FakeDay(MARKET, minutes=1).symbols)


@dataclass(frozen=True)
class Case:
    """A fault of the first of some providers, and what is seen of it."""

    faults: Faults
    providers: tuple[str, ...] = ("sina", "tencent")
    state: str = "failed"
    lost: str | None = None
    """What the reason among its `reconnects` has in it; None: nothing need have been opened again.
    By whom no answer is given up first, its request's or its quotes' time limit, is not said."""
    dropped: str = ""
    """The reason among what it `dropped`."""
    loses: bool = True
    """Whether bars lack what it did not show."""
    options: Mapping[str, Any] = field(default_factory=dict)


SHARDS = {"changes": {"sina_ws": {"shard": 8}}}
CASES = {
    "reset": Case(Faults(reset=True), lost=""),
    "refused": Case(Faults(status=502), lost="http_502", dropped="http_502"),
    "blackhole": Case(Faults(blackhole=True), lost=""),
    "slow bytes": Case(Faults(slow_s=0.02), lost=""),
    "half answers": Case(Faults(truncated=True), lost="truncated", dropped="truncated"),
    "mute": Case(Faults(mute=True), lost="stale", dropped="empty"),
    "stale": Case(Faults(stale=True), lost="stale"),
    "ban": Case(Faults(ban="403"), state="banned", lost="ban"),
    "ban page": Case(Faults(ban="page"), state="banned", lost="ban"),
    "volume reset": Case(Faults(volume_reset=True), dropped="volume_fell"),
    "garbage": Case(Faults(garbage=True), state="live", dropped="short"),
    "duplicate": Case(Faults(duplicate=True), state="live", loses=False),
    "out of order": Case(Faults(out_of_order=True), state="live", dropped="older", loses=False),
    "two at once": Case(Faults(status=502), lost="http_502", loses=False, options={"n_active": 2}),
    "socket reset": Case(Faults(reset=True), ("sina_ws",), lost="connection", options=SHARDS),
    "socket mute": Case(Faults(mute=True), ("sina_ws",), lost="mute"),
    "socket stale": Case(Faults(stale=True), ("sina_ws",), lost="stale", options=SHARDS),
    "socket blackhole": Case(Faults(blackhole=True), ("sina_ws",), lost="mute"),
    "events garbled": Case(Faults(garbage=True), ("eastmoney", "sina"), lost="garbled", dropped="line"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_seen_of_a_fault_and_what_becomes_of_the_bars(name: str) -> None:
    case = CASES[name]
    first = case.providers[0]

    def seen(on: Scene) -> bool:
        now = on.of(first)
        return (
            now.state == case.state
            and (case.lost is None or any(case.lost in reason for reason in now.reconnects))
            and (not case.dropped or now.dropped.get(case.dropped, 0) > 0)
            and (case.state == "live" or len(case.providers) == 1 or on.of(case.providers[1]).serves == ALL)
        )

    async def run() -> None:
        patience = Patience(back_s=9, ban_s=20)
        async with scene(*case.providers, minutes=8, patience=patience, **case.options) as on:
            await on.step(6)
            begun = on.day.time
            on.fakes[first].faults = case.faults
            if case.loses:
                for _ in range(12 if case.state == "live" else 0):
                    on.day.step()
                    frames = on.of(first).frames + 2
                    await on.until(lambda frames=frames: on.of(first).frames >= frames)  # type: ignore[misc]
                if case.state != "live":
                    on.day.step(3)
                await on.pass_until(lambda: seen(on))
            else:
                await on.step(20)
                await on.until(lambda: seen(on))
            on.fakes[first].faults = Faults()
            await on.pass_until(lambda: on.of(first).serves == ALL and on.of(first).state == "live")
            await on.until(on.caught_up)
            ended = on.day.time
            await on.step(22)  # a whole minute more
            assert on.manager.status().served == ALL
            flagged = check_laws(on)
            assert bool(flagged) == case.loses
            assert all(begun - MINUTE <= end - SECOND and end - MINUTE <= ended for end in flagged)

    asyncio.run(run())


@pytest.mark.parametrize("first", ["tencent", "sina_ws"])
def test_one_bad_code_costs_nobody_else_anything_and_is_asked_of_the_next(first: str) -> None:
    async def run() -> None:
        async with scene(first, "sina", minutes=3, subscribe=False) as on:
            bad = on.day.symbols[5]
            on.fakes[first].faults = Faults(bad_codes=frozenset({sina_code(bad)}))
            await on.manager.subscribe(on.day.symbols)
            await on.until(lambda: (on.of(first).serves, on.of("sina").serves) == (ALL - 1, 1))
            await on.until(on.caught_up)
            await on.step(26)
            assert (on.of(first).covers, on.of(first).state, on.of("sina").state) == (ALL - 1, "live", "live")
            assert on.of(first).reconnects.get("refused", 0) + on.of(first).dropped.get("refused", 0) >= 1
            assert check_laws(on) == []

    asyncio.run(run())


def check_laws(on: Scene) -> list[int]:
    """The laws of lost quotes; returns the ends (UTC ns) of minutes that are flagged incomplete."""
    got, wanted = totals_of(on.day.symbols, on.got), on.day.totals()
    assert got.keys() == wanted.keys()
    for symbol, numbers in wanted.items():
        assert got[symbol][:4] == numbers[:4]
        assert got[symbol][4] == pytest.approx(numbers[4], abs=1)  # Tencent's are in whole CNY
    clean = ordered(on.day.bars())
    found = bars_of(on.day.symbols, on.got)
    found = found.filter(pc.is_in(found["bar_end"], pc.unique(clean["bar_end"])))
    incomplete = (found["flags"].to_numpy() & FLAG_INCOMPLETE) > 0
    whole = found.filter(pa.array(~incomplete))
    same = clean.filter(pa.array(~incomplete))
    for name in ("symbol", "bar_end", "open", "high", "low", "close", "volume", "flags"):
        assert whole[name].equals(same[name]), name
    np.testing.assert_allclose(whole["amount"].to_numpy(), same["amount"].to_numpy(), atol=2)
    return sorted(set(found["bar_end"].cast(pa.int64()).to_numpy()[incomplete].tolist()))

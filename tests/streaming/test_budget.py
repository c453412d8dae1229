import asyncio

import pytest

from streaming.budget import Backoff, TokenBucket
from streaming.feeds.vendors import Budget


def test_a_burst_goes_at_once_and_the_rest_in_turn() -> None:
    async def run() -> None:
        now, slept = 100.0, []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        bucket = TokenBucket(Budget(per_s=2, burst=3), clock=lambda: now, sleep=sleep)
        for _ in range(6):
            await bucket.admit()
        assert slept == [0.5, 1.0, 1.5]  # three at once, then one each half second
        slept.clear()
        now += 2.0  # three are owed, so one is left
        await bucket.admit()
        assert slept == []
        await bucket.admit()
        assert slept == [0.5]
        now += 1000.0
        slept.clear()
        for _ in range(4):
            await bucket.admit()
        assert slept == [0.5]  # a long pause saves up no more than the burst

    asyncio.run(run())


def test_a_budget_that_admits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="per_s > 0 and burst >= 1; got Budget"):
        TokenBucket(Budget(per_s=0, burst=1))
    with pytest.raises(ValueError, match="burst=0"):
        TokenBucket(Budget(per_s=1, burst=0))


def test_waits_double_within_their_bounds_and_begin_anew_after_data() -> None:
    longest, shortest = Backoff(uniform=lambda _, most: most), Backoff(uniform=lambda least, _: least)
    assert [longest.next_s() for _ in range(6)] == [2, 4, 8, 16, 30, 30]
    assert [shortest.next_s() for _ in range(6)] == [1, 2, 4, 8, 15, 15]
    longest.reset()
    assert longest.next_s() == 2
    chance = Backoff()
    waits = [chance.next_s() for _ in range(200)]
    assert all(1 <= wait <= 30 for wait in waits)
    assert len(set(waits[10:])) > 100

"""How often a vendor may be asked, and how long to wait before asking again after a failure."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from streaming.feeds.vendors import Budget

Sleep = Callable[[float], Awaitable[object]]


class TokenBucket:
    """A vendor's request budget, shared by all its connections: `burst` at once, then `per_s` a second, in turn.

    `clock`: seconds that only grow. Raises ValueError where the budget admits nothing.
    """

    def __init__(self, budget: Budget, *, clock: Callable[[], float] = time.monotonic, sleep: Sleep = asyncio.sleep):
        if not budget.per_s > 0 or budget.burst < 1:
            raise ValueError(f"a budget must admit something: per_s > 0 and burst >= 1; got {budget}")
        self._budget, self._clock, self._sleep = budget, clock, sleep
        self._tokens = float(budget.burst)
        self._at = clock()

    async def admit(self) -> None:
        """Return once one more request may be made. A caller that gives up waiting has spent its turn all the same."""
        now = self._clock()
        self._tokens = min(self._budget.burst, self._tokens + (now - self._at) * self._budget.per_s) - 1
        self._at = now
        if self._tokens < 0:
            await self._sleep(-self._tokens / self._budget.per_s)


class Backoff:
    """How long to wait after each failure in a row: twice as long each time, with jitter, within [1, 30] s.

    Only data set it back: a vendor that takes connections and gives nothing is asked less and less often.
    """

    def __init__(
        self, *, least_s: float = 1.0, most_s: float = 30.0, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._least, self._most, self._uniform = least_s, most_s, uniform
        self.failures = 0

    def next_s(self) -> float:
        """The wait after one more failure; half of it is chance, so that many do not come back at once."""
        full = min(self._most, self._least * 2.0 ** min(self.failures + 1, 32))
        self.failures += 1
        return self._uniform(max(self._least, full / 2), full)

    def reset(self) -> None:
        """There were data."""
        self.failures = 0

"""Outbox: what waits for one channel. Pure: it is told the time, and holds nothing but what waits."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

MINUTE_S = 60.0
LONGEST_PAUSE_S = 60.0
TOP = 20
"""So many of the alerts that are held back are named by the digest, if there is room."""

Place = tuple[str, int]
"""Epoch and sequence number of a signal; they order as signals do."""


@dataclass(frozen=True)
class Alert:
    """One signal, said for people."""

    place: Place
    say: Callable[[], tuple[str, str]]
    """One line, which is what a digest says of it, and further ones. Called once, if at all: most of a full market's
    alerts may be held back."""
    action: str = ""
    weight: float = 0.0
    """What a digest names first: its confidence."""
    signal: str = ""
    """Its id."""
    published_ns: int = 0

    @cached_property
    def _said(self) -> tuple[str, str]:
        return self.say()

    @property
    def head(self) -> str:
        """Its one line."""
        return self._said[0]

    def __str__(self) -> str:
        return "\n".join(filter(None, self._said))


@dataclass(frozen=True)
class Batch:
    """The alerts of one scan for one channel."""

    title: str
    alerts: Sequence[Alert]


@dataclass
class Message:
    """What is sent in one piece."""

    title: str
    body: str
    alerts: Sequence[Alert]
    """What it tells in full."""
    first: Place
    """The oldest signal that it tells of."""
    digest: int = 0
    """Of how many alerts that were held back it is the digest."""
    attempts: int = 0


@dataclass
class _Held:
    """Alerts over the cap: how many of which action since when, and the top ones."""

    since: float
    first: Place
    actions: Counter[str] = field(default_factory=Counter)
    top: list[tuple[float, int, Alert]] = field(default_factory=list)

    def add(self, alert: Alert) -> None:
        self.actions[alert.action] += 1
        item = (alert.weight, -self.actions.total(), alert)  # of equals, the older one stays
        (heapq.heappush if len(self.top) < TOP else heapq.heappushpop)(self.top, item)


class Outbox:
    """The queue of one channel, in the order of the signals.

    A batch becomes one message; as many as it needs where they do not fit into one. No more than `per_minute` attempts
    begin in a minute: at the cap everything is held back for a minute, and then told by one digest, whose title begins
    with `sender`. `fits`: whether a
    title and a body are within the channel's size. `size`: alerts that may wait; beyond it the oldest go.
    """

    def __init__(
        self,
        fits: Callable[[str, str], bool],
        *,
        sender: str = "",
        per_minute: int = 15,
        attempts: int = 6,
        backoff_s: float = 2.0,
        size: int = 1000,
    ) -> None:
        self._fits, self._sender, self._per_minute, self._attempts = fits, sender, per_minute, attempts
        self._backoff_s, self._size = backoff_s, size
        self._queue: deque[Batch] = deque()
        self._waiting = 0
        self._begun: deque[float] = deque()
        self._held: _Held | None = None
        self._current: Message | None = None
        self._not_before = 0.0

    def put(self, batch: Batch) -> list[Alert]:
        """Take a batch; returns the alerts for which there is no more room."""
        self._queue.append(batch)
        self._waiting += len(batch.alerts)
        gone: list[Alert] = []
        while self._waiting > self._size:
            oldest = self._queue.popleft()
            rest = max(0, len(oldest.alerts) - (self._waiting - self._size))
            gone += oldest.alerts[rest:]
            self._waiting -= len(oldest.alerts) - rest
            if rest:
                self._queue.appendleft(Batch(oldest.title, oldest.alerts[:rest]))
        return gone

    def take(self, now: float, *, hurry: bool = False) -> Message | None:
        """The message to send now, until `sent` or `failed` is told of it. `hurry`: a digest does not wait."""
        while self._begun and self._begun[0] <= now - MINUTE_S:
            self._begun.popleft()
        if self._current is None:
            self._current = self._next(now, hurry)
        if self._current is None or now < self._not_before:
            return None
        self._begun.append(now)
        return self._current

    def due(self, now: float) -> float | None:
        """Seconds until `take` may give something; None: not before the next `put`."""
        if self._current is not None:
            return max(0.0, self._not_before - now)
        if self._held is not None:
            return max(0.0, self._held.since + MINUTE_S - now)
        return 0.0 if self._queue else None

    def sent(self) -> None:
        """The current message has been delivered."""
        self._current = None

    def failed(self, now: float, *, for_good: bool = False, pause_s: float = 0.0) -> Message | None:
        """An attempt has failed. Returns the message where it was the last: then nobody sends it any more.

        `for_good`: another attempt is in vain. `pause_s`: as long as the channel asks to be left alone.
        """
        message = self._current
        assert message is not None
        message.attempts += 1
        pause = min(self._backoff_s * 2 ** (message.attempts - 1), LONGEST_PAUSE_S)
        self._not_before = now + max(pause, pause_s)
        if not for_good and message.attempts < self._attempts:
            return None
        self._current = None
        if not pause_s:
            self._not_before = now
        return message

    @property
    def held(self) -> int:
        """Alerts that the next digest will count."""
        return 0 if self._held is None else self._held.actions.total()

    @property
    def waiting(self) -> int:
        """Alerts that are queued, held back or on their way."""
        on_the_way = 0 if self._current is None else len(self._current.alerts) or self._current.digest
        return self._waiting + self.held + on_the_way

    @property
    def oldest(self) -> Place | None:
        """The oldest signal that is neither sent nor given up."""
        if self._current is not None:
            return self._current.first
        if self._held is not None:
            return self._held.first
        return _oldest(self._queue[0].alerts) if self._queue else None

    def _next(self, now: float, hurry: bool) -> Message | None:
        if self._queue and (self._held is not None or len(self._begun) >= self._per_minute):
            self._hold(now)
        if self._held is not None:
            return self._digest() if hurry or now >= self._held.since + MINUTE_S else None
        return self._piece() if self._queue else None

    def _hold(self, now: float) -> None:
        for batch in self._queue:
            for alert in batch.alerts:
                if self._held is None:
                    self._held = _Held(now, _oldest(batch.alerts))
                self._held.add(alert)
        self._queue.clear()
        self._waiting = 0

    def _piece(self) -> Message:
        """As many alerts of the oldest batch as fit, or what fits of one."""
        batch = self._queue.popleft()
        title, n = batch.title, self._room(batch.title, [str(alert) for alert in batch.alerts])
        if n < len(batch.alerts):
            self._queue.appendleft(Batch(title, batch.alerts[n:]))
        self._waiting -= n
        taken = batch.alerts[:n]
        body = cut(self._fits, title, "\n\n".join(map(str, taken)))
        return Message(title, body, taken, _oldest(batch.alerts))

    def _digest(self) -> Message:
        held = self._held
        assert held is not None
        self._held = None
        total = held.actions.total()
        counts = ", ".join(f"{n} {action}" for action, n in held.actions.most_common())
        lines = [alert.head for _, _, alert in sorted(held.top, key=lambda item: item[:2], reverse=True)]
        title = f"{self._sender}: {total} alerts held back"
        head = f"over the cap of {self._per_minute} messages a minute: {counts}. The most confident:"
        n = self._room(f"{title}\n{head}", lines)
        return Message(title, cut(self._fits, title, "\n".join([head, *lines[:n]])), (), held.first, digest=total)

    def _room(self, title: str, texts: Sequence[str]) -> int:
        """How many of the texts fit into one message; at least one."""
        low, high = 1, len(texts)
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(title, "\n\n".join(texts[:middle])):
                low = middle
            else:
                high = middle - 1
        return low


def cut(fits: Callable[[str, str], bool], title: str, body: str) -> str:
    """The body, or as much of its beginning as fits."""
    if fits(title, body):
        return body
    low, high = 0, len(body)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(title, body[:middle] + "…") else (low, middle - 1)
    return body[:low] + "…"


def _oldest(alerts: Sequence[Alert]) -> Place:
    return min(alert.place for alert in alerts)

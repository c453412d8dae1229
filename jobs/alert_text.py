"""What an alert says: a signal in a few plain lines, Chinese names and the exchange's time."""

from collections.abc import Sequence
from functools import partial

from data.signal import Signal
from data.store import BarStore
from jobs.show import local_time, tags
from streaming.alerts.outbox import Alert, Batch

SENDER = "mystocks-scan"
"""Begins every title: chats that ask for a keyword can be given it."""
MOST_VALUES = 8


def to_alert(signal: Signal) -> Alert:
    """A signal as it is told, once it is."""
    return Alert(
        (signal.epoch, signal.seq),
        partial(said_of, signal),
        signal.action,
        signal.confidence,
        signal.id,
        signal.published_ns,
    )


def said_of(signal: Signal) -> tuple[str, str]:
    """What there is to say of a signal: on one line, and its values on another."""
    who = f"{signal.name} {signal.symbol}" if signal.name else signal.symbol
    said = tags(signal)
    if signal.revokes is not None:
        who = f"REVOKED, no longer holds: {who}"
    at = f"{local_time(signal.bar_end)[5:]} {signal.frame}"
    head = f"{who} {signal.action} {signal.strategy} {signal.price:.2f}, confidence {signal.confidence:.2f}, {at}"
    values = ", ".join(
        f"{name} {'n/a' if value is None else f'{value:.6g}'}"
        for name, value in list(signal.values.items())[:MOST_VALUES]
    )
    more = len(signal.values) - MOST_VALUES
    text = f"{values}, {more} more" if more > 0 else values
    return _plain(f"{head}, {said}" if said else head), _plain(text)


def to_batch(signals: Sequence[Signal], market: str) -> Batch:
    """The signals of one scan, the most confident first. `market`: what is said of it where it is not the real one."""
    first = signals[0]
    alerts = [to_alert(signal) for signal in sorted(signals, key=lambda signal: -signal.confidence)]
    n = f"{len(signals)} signals" if len(signals) > 1 else "1 signal"
    return Batch(f"{title(market)}: {n}, {first.frame} {local_time(first.bar_end)}", alerts)


def title(market: str) -> str:
    """How every title begins; who reads it must not take a simulated market's signal for a real one's."""
    return f"{SENDER} [{market}]" if market else SENDER


def market_of(store: BarStore) -> str:
    """What is said of a store's market in its alerts; nothing of the real one."""
    family = store.origin.partition("-")[0]
    return {"market": "", "sim": "simulated"}.get(family, family)


def _plain(text: str) -> str:
    """On one line, without characters that rule a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)

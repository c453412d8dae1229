"""How signals look on a terminal: China's colours, red up and green down, and times of the exchange."""

from datetime import UTC, datetime, timedelta

from data.signal import Signal

STYLES = {"BUY": "red", "SELL": "green", "ALERT": "yellow"}


def action_style(action: str) -> str:
    """The colour of an action; rich leaves it out where NO_COLOR is set."""
    return STYLES.get(action, "")


def local_time(ns: int) -> str:
    """UTC ns -> the exchange's wall clock, 2025-05-23 15:00."""
    return (datetime.fromtimestamp(ns // 10**9, UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M")


def tags(signal: Signal) -> str:
    """What stands beside a signal: at its limit, of a bar still open, of a revised one, taken back."""
    words = [
        word
        for word, met in (
            ("涨停", signal.at_limit_up),
            ("跌停", signal.at_limit_down),
            ("developing", signal.developing),
            (f"revision {signal.revision}", signal.revision > 0),
            ("revoked", signal.revokes is not None),
        )
        if met
    ]
    return " ".join(words)

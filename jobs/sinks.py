"""Where signals go besides subscribers: what the settings say, as stages of the live service."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data.errors import SettingsError, UsageError
from data.history import SignalHistory
from data.settings import AlertRule, AlertSettings, Settings
from data.store import BarStore
from jobs.alert_text import market_of
from jobs.stages.alerting import Alerting
from streaming.alerts.delivery import Delivery, Ledger
from streaming.alerts.outbox import Outbox
from streaming.alerts.routing import Rule
from streaming.filter import Filter
from streaming.ports import Bus

if TYPE_CHECKING:
    from streaming.alerts.channels import AppriseChannel

ALERTS = "alerts"
"""The folder of a store where alerts keep their places and dead letters."""


def open_sinks(settings: Settings, store: BarStore, bus: Bus, history: SignalHistory) -> list[Alerting]:
    """The stages that the settings ask for. Raises SettingsError."""
    return [open_alerting(settings.alerts, store, bus, history)] if settings.alerts.channels else []


def open_alerting(alerts: AlertSettings, store: BarStore, bus: Bus, history: SignalHistory) -> Alerting:
    """The stage that tells of signals. Raises SettingsError."""
    channels = open_channels(alerts)
    rules = make_rules(alerts)

    def deliveries(ledger: Ledger) -> list[Delivery]:
        made = []
        for name, channel in channels.items():
            own = alerts.channels[name]
            outbox = Outbox(channel.fits, per_minute=own.per_minute, attempts=own.attempts, backoff_s=alerts.backoff_s)
            made.append(Delivery(channel, outbox, ledger, timeout_s=own.timeout_s))
        return made

    return Alerting(
        bus,
        history,
        rules,
        deliveries,
        store.root / ALERTS,
        market=market_of(store),
        max_age_s=alerts.max_age_s,
        drain_s=alerts.drain_s,
    )


def open_channels(alerts: AlertSettings) -> "Mapping[str, AppriseChannel]":
    """Every channel by its name. Raises SettingsError, also where Apprise is not installed."""
    from streaming.alerts.channels import AppriseChannel  # heavy and optional

    return {name: AppriseChannel(name, own.url.get_secret_value()) for name, own in alerts.channels.items()}


def make_rules(alerts: AlertSettings) -> list[Rule]:
    """The rules, checked; without any, one that sends everything everywhere. Raises SettingsError."""
    every = tuple(alerts.channels)
    rules = []
    for number, rule in enumerate(alerts.rules or (AlertRule(),), 1):
        if unknown := [name for name in rule.channels if name not in alerts.channels]:
            known = ", ".join(every)
            raise SettingsError(f"setting alerts.rules, rule {number}: no channel {unknown[0]!r}; there are {known}")
        try:
            wants = Filter.of(
                symbols=rule.symbols,
                strategies=rule.strategies,
                actions=rule.actions,
                min_confidence=rule.min_confidence,
            )
        except UsageError as error:
            raise SettingsError(f"setting alerts.rules, rule {number}: {error}") from error
        rules.append(Rule(rule.channels or every, wants, rule.cooldown_s))
    return rules

"""Where signals go besides subscribers: what the settings say, as stages of the live service."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data import metrics
from data.errors import SettingsError, UsageError
from data.history import SignalHistory
from data.settings import AlertRule, AlertSettings, InfluxSettings, Settings
from data.store import BarStore
from data.symbols import canonical
from jobs.alert_text import market_of, title
from jobs.stages.alerting import Alerting
from jobs.stages.influx import Recording
from streaming.alerts.delivery import Delivery, Ledger
from streaming.alerts.outbox import Outbox
from streaming.alerts.routing import Rule
from streaming.filter import Filter
from streaming.ports import Bus

if TYPE_CHECKING:
    from streaming.alerts.channels import AppriseChannel

ALERTS = "alerts"
"""The folder of a store where alerts keep their places and dead letters."""


def open_sinks(settings: Settings, store: BarStore, bus: Bus, history: SignalHistory) -> list[Alerting | Recording]:
    """The stages that the settings ask for. Raises SettingsError."""
    sinks: list[Alerting | Recording] = []
    if settings.alerts.channels:
        sinks.append(open_alerting(settings.alerts, store, bus, history))
    if settings.influx.bucket:
        sinks.append(open_recording(settings.influx, bus))
    return sinks


def open_recording(influx: InfluxSettings, bus: Bus) -> Recording:
    """The stage that writes to InfluxDB. Raises SettingsError."""
    from streaming.influx import Database, InfluxWriter  # httpx

    try:
        symbols = {canonical(symbol) for symbol in influx.symbols}
    except UsageError as error:
        raise SettingsError(f"setting influx.symbols: {error}") from error
    writer = InfluxWriter(
        Database(influx.url, influx.bucket, influx.org, influx.token.get_secret_value()),
        flush_s=influx.flush_s,
        timeout_s=influx.timeout_s,
        most_bytes=influx.most_bytes,
        on_result=_count,
        on_trouble=lambda reason: metrics.influx_failures.labels(reason).inc(),
    )
    return Recording(bus, writer, symbols=symbols, drain_s=influx.drain_s, on_left=lambda n: _count("dropped", n))


def _count(result: str, n: int) -> None:
    metrics.influx_points.labels(result).inc(n)


def open_alerting(alerts: AlertSettings, store: BarStore, bus: Bus, history: SignalHistory) -> Alerting:
    """The stage that tells of signals. Raises SettingsError."""
    channels = open_channels(alerts)
    rules, market = make_rules(alerts), market_of(store)

    def deliveries(ledger: Ledger) -> list[Delivery]:
        made = []
        for name, channel in channels.items():
            own = alerts.channels[name]
            outbox = Outbox(
                channel.fits,
                sender=title(market),
                per_minute=own.per_minute,
                attempts=own.attempts,
                backoff_s=alerts.backoff_s,
            )
            made.append(Delivery(channel, outbox, ledger, timeout_s=own.timeout_s))
        return made

    return Alerting(
        bus,
        history,
        rules,
        deliveries,
        store.root / ALERTS,
        market=market,
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

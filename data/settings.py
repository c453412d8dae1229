"""Settings: one frozen object, read once. A command's flag > environment > file > default.

Environment: `MYSTOCKS_SCAN__SCAN__ENGINE=talib` sets `scan.engine`. File: `mystocks-scan.yaml` in the working folder,
else in the user's configuration folder (`~/.config/mystocks-scan/` on Linux), or the one named by `--config`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnparsableError

from data.errors import SettingsError

APP = "mystocks-scan"
FILE_NAME = f"{APP}.yaml"
Frame = Literal["1m", "5m", "15m", "30m", "60m", "1d"]


def _clock_time(text: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError("a time of day is written HH:MM, as 14:50")
    return text


def _web_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", text):
        raise ValueError("an address is written http://host:8086, without a name, password or query")
    return text.rstrip("/")


ClockTime = Annotated[str, AfterValidator(_clock_time)]


class Section(BaseModel):
    """A group of settings; an unknown name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(Section):
    """Where bars and signals lie."""

    path: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir(APP, appauthor=False)) / "market")
    replay_path: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir(APP, appauthor=False)) / "replay")
    sim_path: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir(APP, appauthor=False)) / "sim")


class ScanSettings(Section):
    """What is scanned, and by what."""

    frame: Frame | None = None
    engine: str = "auto"
    cluster: str = Field("auto", description="auto, local, inline, or tcp://host:8786")
    workers: int = Field(0, ge=0, le=1024, description="worker processes of a local cluster; 0: one a core")
    strategies: tuple[Path, ...] = Field((), description="YAML or Python files or folders; none: the built-in ones")
    universe: tuple[str, ...] = Field(("a_share", "cdr"), description="kinds of symbols that are scanned")
    history_bars: int | None = Field(
        None, ge=1, description="bars before the session's open that indicators see; none: all"
    )
    deadline_s: float = Field(60.0, gt=0)
    developing: tuple[ClockTime, ...] = Field(
        (), description="times of day in Shanghai at which `run` scans the daily bar that is still open, as 14:50"
    )


class FeedSettings(Section):
    """Where ticks come from."""

    name: str = "sim"
    symbols: int = Field(5000, ge=1, le=12_000, description="size of the simulated market")
    seed: int = 7
    interval_s: float = Field(
        1.0, ge=0, description="wall seconds a simulated one-minute bar takes; 0: as fast as it goes"
    )
    history_bars: int = Field(250, ge=1, le=5000, description="bars of history the simulated market starts with")
    grace_s: float = Field(3.5, ge=0, le=60, description="how long past its end a bar waits for late quotes")
    closing_grace_s: float = Field(30.0, ge=0, le=300, description="the same of a day's last bar")
    late_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="how late a quote may be and still change the bars it belongs to; 0: not at all",
    )
    urls: Mapping[str, str] = Field({}, description="vendor's name -> address asked in place of its own, as of a proxy")
    universe: str = Field(
        "auto",
        description="whose quotes vendors are asked for: list, all that a vendor lists; index:000300; a file of"
        " symbols; auto: the stored ones, and the list where none are stored",
    )
    backfill_s: float = Field(
        60.0,
        ge=0,
        description="so long bars that the store lacks are fetched before the first scan, if the market does not trade;"
        " what is left comes beside it. 0: none are fetched",
    )
    active: int = Field(
        1, ge=1, le=8, description="so many of the vendors are asked for each symbol at once; their prices are compared"
    )
    tape: bool | Literal["auto"] = Field(
        "auto",
        description="whether quotes are kept until their bars are safe; auto: those that cannot be asked for again",
    )
    tape_sessions: int = Field(5, ge=1, le=250, description="sessions that stay on the tape")


class ServeSettings(Section):
    """The server of /ws/signals."""

    host: str = "127.0.0.1"
    port: int = Field(8765, ge=0, le=65535, description="0: any free port")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="of /metrics, /healthz and /readyz where a process does not serve signals; none: it shows none",
    )
    dashboard_port: int = Field(8787, ge=0, le=65535, description="of the Dask dashboard; 0: any free port")
    tokens: Path = Field(
        default_factory=lambda: Path(platformdirs.user_config_dir(APP, appauthor=False)) / "tokens.json",
        description="file of the names and hashes of tokens, as 'mystocks-scan token' makes it",
    )
    require_token: bool = Field(False, description="ask for a token also where only this machine can come in")
    origins: tuple[str, ...] = Field(
        (), description="of pages of other sites that may subscribe, as https://scanner.example"
    )
    max_connections: int = Field(10_000, ge=1, description="beyond them new ones are closed at once")
    max_connections_per_address: int = Field(
        100, ge=1, description="from elsewhere; of IPv6 the /64 counts as one address"
    )
    certificate: Path | None = Field(None, description="PEM file of the chain for TLS; none: plain text")
    key: Path | None = Field(None, description="PEM file of its key; none: in the same file")


class ChartSettings(Section):
    """How charts look."""

    colors: Literal["cn", "western"] = Field("cn", description="cn: red is up; western: green is")


class WatchSettings(Section):
    """A subscriber on a terminal."""

    token: SecretStr | None = Field(None, description="what it shows where the service asks for a token")


class BusSettings(Section):
    """Where the stages of the live service meet."""

    url: str | None = Field(None, description="redis://host:6379/0, for stages in several processes; none: this one")


class RunSettings(Section):
    """What a process of the live service does."""

    role: Literal["all", "feed", "scan", "serve"] = "all"


ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""Of lower-case letters, as the environment's names become; it stands in metrics and logs."""


class AlertChannel(Section):
    """One chat, mailbox or webhook."""

    url: SecretStr = Field(description="as Apprise spells it: dingtalk://SECRET@TOKEN, json://host/path, ...")
    per_minute: int = Field(15, ge=1, le=1000, description="messages; what is beyond them comes as one digest")
    timeout_s: float = Field(20.0, gt=0, le=600, description="a message that takes longer is given up and tried again")
    attempts: int = Field(6, ge=1, le=20, description="how often a message is tried before it is a dead letter")


class AlertRule(Section):
    """Which signals go to which channels; a list that is left out lets all pass."""

    channels: tuple[ChannelName, ...] = Field((), description="none: all")
    strategies: tuple[str, ...] | None = Field(None, min_length=1)
    symbols: tuple[str, ...] | None = Field(None, min_length=1)
    actions: tuple[str, ...] | None = Field(None, min_length=1)
    min_confidence: float | None = Field(None, ge=0, le=1)
    cooldown_s: float = Field(
        300.0, ge=0, description="so long after an alert the same strategy's same action on the same symbol is none"
    )


class AlertSettings(Section):
    """Where signals are told besides; with no channel, nowhere."""

    channels: Mapping[ChannelName, AlertChannel] = {}
    rules: tuple[AlertRule, ...] = Field((), description="none: every signal goes to every channel")
    backoff_s: float = Field(2.0, gt=0, le=600, description="pause before the second attempt; doubles up to a minute")
    max_age_s: float = Field(600.0, gt=0, description="what is older when the service starts again is not sent")
    drain_s: float = Field(5.0, ge=0, le=60, description="how long the end waits for what is on its way")


class InfluxSettings(Section):
    """The InfluxDB that signals and latencies are written to; without a bucket, none."""

    url: Annotated[str, AfterValidator(_web_address)] = "http://127.0.0.1:8086"
    bucket: str = Field("", description="InfluxDB 3 calls it database")
    org: str = Field("", description="InfluxDB 3 has none")
    token: SecretStr = SecretStr("")
    symbols: tuple[str, ...] = Field((), description="symbols whose bars are written too, to draw signals on")
    flush_s: float = Field(1.0, gt=0, le=60, description="so long points wait for others")
    timeout_s: float = Field(10.0, gt=0, le=600)
    most_bytes: int = Field(32 << 20, ge=1 << 16, description="of points that wait; beyond it the oldest are dropped")
    drain_s: float = Field(5.0, ge=0, le=60, description="how long the end waits for what is not written")


SECRET = frozenset({"alerts", "influx", "watch"})
"""Sections of which no value stands in an error: it may be a secret, or a secret in the wrong place."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="MYSTOCKS_SCAN__",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    store: StoreSettings = StoreSettings()
    scan: ScanSettings = ScanSettings()
    feed: FeedSettings = FeedSettings()
    serve: ServeSettings = ServeSettings()
    watch: WatchSettings = WatchSettings()
    chart: ChartSettings = ChartSettings()
    bus: BusSettings = BusSettings()
    run: RunSettings = RunSettings()
    alerts: AlertSettings = AlertSettings()
    influx: InfluxSettings = InfluxSettings()
    kernel_cache: Path | None = Field(None, description="folder of compiled kernels; none: in the user's cache folder")
    calendar_overlay: Path | None = Field(None, description="a YAML file of sessions beyond the calendar's horizon")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The file's values come in as arguments, so the environment stands before them."""
        return env_settings, init_settings


def find_file(named: Path | None = None) -> Path | None:
    """The settings file that counts: the one named, else the working folder's, else the user's."""
    if named is not None:
        if not named.is_file():
            raise SettingsError(f"the settings file {named} does not exist")
        return named
    places = (Path.cwd() / FILE_NAME, Path(platformdirs.user_config_dir(APP, appauthor=False)) / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


def load_settings(named: Path | None = None, flags: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read the settings. `flags`: section -> name -> value from the command line; a value of None was not given.

    Raises SettingsError, which names the setting, the value and the bound.
    """
    file = find_file(named)
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"the settings file {file} is not readable: {error}") from error
        except yaml.YAMLError as error:
            # No cause and no excerpt: the line that is wrong may hold a secret.
            raise SettingsError(f"the settings file {file} is not readable as YAML: {_place_of(error)}") from None
        if not isinstance(values, dict):
            raise SettingsError(f"the settings file {file} must hold a mapping; got {type(values).__name__}")
    within: tuple[str, ...] = ()
    try:
        settings = Settings(**values)
        for section, given in (flags or {}).items():
            within = (section,)
            chosen = {name: value for name, value in given.items() if value is not None}
            if chosen:
                model = getattr(settings, section)
                fresh = type(model).model_validate(model.model_dump() | chosen)
                settings = settings.model_copy(update={section: fresh})
    except ValidationError as error:
        first = error.errors()[0]
        loc = (*within, *first["loc"])
        open_ = loc[0] in Settings.model_fields.keys() - SECRET
        place = ".".join(str(part) if open_ or _is_name(part) else "?" for part in loc)
        source = f" (file {file})" if file else ""
        got = f"; got {first.get('input')!r}" if open_ else ""
        raise SettingsError(f"setting {place}: {first['msg']}{got}{source}") from (error if open_ else None)
    except UnparsableError as error:  # a variable that must hold JSON and does not
        raise SettingsError(f"environment: {error}") from None
    return settings


def _is_name(part: str | int) -> bool:
    return re.fullmatch(r"[\w\[\]-]{1,32}", str(part)) is not None


def _place_of(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "it is no YAML"
    return what if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {what}"

"""The models of the configuration file (SPEC 3). The attribute of a duration ends in `_s` and is in seconds."""

from collections.abc import Mapping
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from watcher.fields import Block, Duration, Rate, Secret
from watcher.models import Status
from watcher.sinks.stdout import StdoutSettings
from watcher.sinks.webhook import WebhookSettings

AnySink = Annotated[StdoutSettings | WebhookSettings, Field(discriminator="type")]


class AccountSettings(Block):
    """One API key."""

    api_key: Secret
    base_url: str = "https://web-api.clerk.chat"
    rate_limit: Rate = Field(default="5/s")
    timeout_s: Duration = Field(default="10s", alias="timeout")
    link: str | None = None


class WatchSettings(Block):
    """One pipeline and those of its executions that are watched."""

    pipeline: UUID
    account: str
    executions: tuple[UUID, ...]
    name: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    overdue_after_s: Mapping[Literal[Status.NEW, Status.RUNNING, Status.PAUSED], Duration] = Field(
        default_factory=dict, alias="overdue_after"
    )


class PollingSettings(Block):
    """How often to look."""

    cadence: Literal["fixed", "backoff"] = "backoff"
    min_interval_s: Duration = Field(default="1s", alias="min_interval")
    max_interval_s: Duration = Field(default="60s", alias="max_interval")
    concurrency: int = Field(default=64, ge=1)
    lost_after: int = Field(default=3, ge=1)
    lost_grace_s: Duration = Field(default="60s", alias="lost_grace")
    degraded_after_s: Duration = Field(default="60s", alias="degraded_after")


class StoreSettings(Block):
    """Where state lives."""

    url: str = "sqlite:///watcher.db"
    retention_s: Duration = Field(default="30d", alias="retention")


class HttpSettings(Block):
    """Where health and metrics are served."""

    listen: str = "127.0.0.1:8080"


class LogSettings(Block):
    """How much is logged, and how it looks. Always on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Block):
    """The whole file. `sinks` always holds a stdout sink; `watch` entries always name their account."""

    accounts: Mapping[str, AccountSettings] = Field(default_factory=dict)
    watch: tuple[WatchSettings, ...] = ()
    polling: PollingSettings = PollingSettings()
    sinks: Mapping[str, AnySink] = Field(default_factory=dict)
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

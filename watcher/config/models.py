"""The models of the configuration file (SPEC 3). The attribute of a duration ends in `_s` and is in seconds."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, GetPydanticSchema
from pydantic_core.core_schema import no_info_after_validator_function

from watcher.config.later import NOT_YET, REPLICAS
from watcher.fields import (
    ApiKey,
    Block,
    Duration,
    DurationOrZero,
    Labels,
    Name,
    Rate,
    ShortText,
    as_written,
    split_http_url,
)
from watcher.models import Status
from watcher.sinks.stdout import StdoutSettings
from watcher.sinks.webhook import WebhookSettings
from watcher.units import UnfitError, parse_address

SINK_KINDS: Mapping[str, type[Block]] = {"stdout": StdoutSettings, "webhook": WebhookSettings}
"""The models of the sinks, by the word in `type`."""

AnySink = Annotated[StdoutSettings | WebhookSettings, Field(discriminator="type")]

_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?#]*[^?#/]")
_PLACEHOLDER = re.compile(r"\{(?:pipelineId|executionId)\}")


def _base_url(value: str) -> str:
    """Return the API's address without a trailing slash; a path may lead to a gateway."""
    parts = split_http_url(value, example="https://web-api.clerk.chat")
    remedy = "write only scheme, host and perhaps a path, such as https://web-api.clerk.chat"
    if parts.username is not None or "?" in value or "#" in value:
        raise UnfitError("holds more than an address", remedy=remedy, quote=False)
    path = parts.path.rstrip("/")
    if {"", ".", ".."} & set(path.split("/")[1:]) or "%" in path:
        raise UnfitError("has an odd path", remedy=remedy, quote=False)
    return value.rstrip("/")


def _link(value: str) -> str:
    example = "https://example.com/agents/{pipelineId}/runs/{executionId}"
    plain = _PLACEHOLDER.sub("x", value)
    if "{" in plain or "}" in plain:
        remedy = "only {pipelineId} and {executionId} are filled in"
        raise UnfitError("holds a placeholder that is not known", remedy=remedy, quote=False)
    split_http_url(plain, example=example)
    return value


def _listen(value: str) -> str:
    parse_address(value)
    return value.strip()


def _store_url(value: str) -> str:
    if _SQLITE.fullmatch(value):
        return value
    if value.startswith("postgres"):
        raise UnfitError(f"PostgreSQL is {NOT_YET}", remedy=f"{REPLICAS}; use sqlite:///watcher.db", quote=False)
    remedy = "write sqlite:///watcher.db, or sqlite:////var/lib/watcher/watcher.db with a path from the root"
    raise UnfitError("is not the address of a SQLite file", remedy=remedy, quote=False)


def _account_may_be_left_out(schema: dict[str, Any]) -> None:
    """With one account the loader fills it in (SPEC 3)."""
    schema["required"].remove("account")


class AccountSettings(Block):
    """One API key."""

    api_key: ApiKey = Field(examples=["${CLERK_API_KEY}"])
    api_key_file: str | None = None
    base_url: Annotated[str, AfterValidator(_base_url)] = "https://web-api.clerk.chat"
    rate_limit: Rate = Field(default=as_written("5/s"))
    timeout_s: Duration = Field(default=as_written("10s"), alias="timeout")
    link: Annotated[str, AfterValidator(_link)] | None = None


ExecutionId = Annotated[
    str,
    GetPydanticSchema(lambda _, handler: no_info_after_validator_function(str, handler.generate_schema(UUID))),
]
"""A UUID, kept as the text that 100,000 watched executions are known by: one text for each, and no other."""


class WatchSettings(Block):
    """One pipeline and those of its executions that are watched."""

    model_config = ConfigDict(json_schema_extra=_account_may_be_left_out)

    pipeline: UUID
    account: str
    executions: tuple[ExecutionId, ...] = Field(min_length=1)
    name: ShortText | None = None
    labels: Labels = Field(default_factory=dict)
    overdue_after_s: Mapping[Literal[Status.NEW, Status.RUNNING, Status.PAUSED], Duration] = Field(
        default_factory=dict, alias="overdue_after"
    )


class PollingSettings(Block):
    """How often to look."""

    cadence: Literal["fixed", "backoff"] = "backoff"
    min_interval_s: Duration = Field(default=as_written("1s"), alias="min_interval")
    max_interval_s: Duration = Field(default=as_written("60s"), alias="max_interval")
    concurrency: int = Field(default=64, ge=1)
    lost_after: int = Field(default=3, ge=1)
    lost_grace_s: DurationOrZero = Field(default=as_written("60s"), alias="lost_grace")
    degraded_after_s: Duration = Field(default=as_written("60s"), alias="degraded_after")


class StoreSettings(Block):
    """Where state lives."""

    url: Annotated[str, AfterValidator(_store_url)] = "sqlite:///watcher.db"
    retention_s: Duration = Field(default=as_written("30d"), alias="retention")


class HttpSettings(Block):
    """Where health and metrics are served. `watcher.units.parse_address` takes `listen` apart."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"


class LogSettings(Block):
    """How much is logged, and how it looks. Always on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Block):
    """The whole file. `sinks` always holds a stdout sink; `watch` entries always name their account."""

    accounts: Mapping[Name, AccountSettings] = Field(default_factory=dict)
    watch: tuple[WatchSettings, ...] = ()
    polling: PollingSettings = PollingSettings()
    sinks: Mapping[Name, AnySink] = Field(default_factory=dict)
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

"""The models of the configuration file. The name of a duration ends in `_s`: its value is in seconds."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from typing import Annotated, Literal, Self, Union
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    SecretStr,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import no_info_after_validator_function

from watcher.domain.execution import OPEN_STATUSES
from watcher.domain.report import ReportSchedule
from watcher.domain.routing import WeeklyHours
from watcher.domain.watch import Details, FirstSight
from watcher.rules import RulesSettings
from watcher.runtime.settings import (
    ApiKey,
    Block,
    Duration,
    DurationOrZero,
    Labels,
    Name,
    Rate,
    ShortText,
    as_written,
    file_twin,
    matching,
    scalar_text,
    split_http_url,
)
from watcher.runtime.units import InvalidValueError, parse_address
from watcher.sinks.alert import usable_link
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import Match, SilenceMatch, SinkSettings
from watcher.store.store_url import check_store_url

OpenStatus = Literal[OPEN_STATUSES]  # type: ignore[valid-type]  # a tuple is all of its values


class StoreSettings(Block):
    """The database that holds the state."""

    url: Annotated[str, AfterValidator(check_store_url)] = Field(
        default="sqlite:///watcher.db",
        examples=["sqlite:////var/lib/watcher/watcher.db", "postgresql://watcher@db.example.com/watcher"],
    )
    """A SQLite file, whose path starts in the daemon's folder after three slashes, at the root after four; or a
    [PostgreSQL](../store.md#postgresql) database in libpq's form. A change needs a restart."""
    password: SecretStr | None = Field(default=None, examples=["${WATCHER_DB_PASSWORD}"])
    """PostgreSQL's password. Without it libpq uses `PGPASSWORD` or `~/.pgpass`."""
    password_file: str | None = file_twin("the password", example="/run/secrets/db")
    retention_s: Duration = Field(default=as_written("30d"), examples=["90d"])
    """The time for which ended executions, their events and settled deliveries are kept."""


_WRITE_MOMENT = "write date, time and zone, such as 2026-12-24T00:00:00Z or 2026-12-24T00:00:00+01:00"


def _utc_moment(value: object) -> datetime:
    text = scalar_text(value)
    try:
        moment = datetime.fromisoformat(text.upper())
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("is not a date with a time", remedy=_WRITE_MOMENT, quote=True) from None
    if moment.tzinfo is None:
        raise InvalidValueError("has no zone", remedy=_WRITE_MOMENT, quote=True)
    return in_utc


UtcMoment = Annotated[datetime, BeforeValidator(_utc_moment, json_schema_input_type=StrictStr)]
"""A time in UTC. The file gives the time in RFC 3339, with a zone."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d|24:00")


def _clock_time(value: str, *, latest: str = "24:00") -> str:
    if _CLOCK_TIME.fullmatch(value) and value <= latest:
        return value
    raise InvalidValueError("is not a time of day", remedy=f"write it like 08:00, from 00:00 to {latest}", quote=True)


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # the last two for a text that cannot be the name of a file
        remedy = "write one such as Europe/Berlin, and see that tzdata is installed"
        raise InvalidValueError("is no time zone that this system knows", remedy=remedy, quote=True) from None
    return value


class WeeklySettings(Block):
    """Hours that repeat on some days of each week."""

    days: tuple[Day, ...] = Field(min_length=1, examples=["[sat, sun]"])
    """The days on which the hours begin: `mon` to `sun`."""
    from_: Annotated[str, AfterValidator(_clock_time)] = Field(examples=['"20:00"'])
    """The time of day at which they begin."""
    to: Annotated[str, AfterValidator(_clock_time)] = Field(examples=['"08:00"'])
    """The time of day at which they end, on the next day if `to` is not after `from`. `24:00` is midnight."""
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(examples=["Europe/Berlin"])
    """The time zone of `days`, `from` and `to`."""

    @property
    def hours(self) -> WeeklyHours:
        """Return the same hours, with begin and end in minutes of the day."""
        begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in (self.from_, self.to))
        days = frozenset(map(_DAYS.index, self.days))
        return WeeklyHours(days, begin, end if end > begin else end + 24 * 60, ZoneInfo(self.timezone))


class SilenceSettings(Block):
    """A silence: the deliveries that are silenced, and the time, once or each week."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["from", "until"]}, {"required": ["weekly"]}]})

    match: SilenceMatch = Field(examples=["{labels: {team: sales}}"])
    """The deliveries that are silenced: those that match all given keys, at least one."""
    from_at: UtcMoment | None = Field(default=None, alias="from", examples=["2026-12-24T00:00:00Z"])
    """The start of the silence, with its zone. Needs `until`."""
    until_at: UtcMoment | None = Field(default=None, alias="until", examples=["2026-12-27T00:00:00Z"])
    """The end of the silence, with its zone. Needs `from`."""
    weekly: WeeklySettings | None = Field(
        default=None, examples=['{days: [sat, sun], from: "20:00", to: "08:00", timezone: Europe/Berlin}']
    )
    """The hours of each week, instead of `from` and `until`."""
    comment: ShortText | None = Field(default=None, examples=["shop closed"])
    """The reason, at most 256 characters."""

    @field_validator("until_at")
    @classmethod
    def _after_it_begins(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        begin = info.data.get("from_at")
        if value is not None and begin is not None and value <= begin:
            raise InvalidValueError("is not after from", remedy="write a later moment", quote=True)
        return value

    @model_validator(mode="after")
    def _once_or_each_week(self) -> Self:
        absent = [key for key, value in (("from", self.from_at), ("until", self.until_at)) if value is None]
        if self.weekly is not None and len(absent) < 2:
            remedy = "keep from and until, or weekly"
            raise InvalidValueError("is given beside from or until", remedy=remedy, at="weekly")
        if self.weekly is None and absent:
            remedy = "write both like 2026-12-24T00:00:00Z, or weekly: {days: [sat, sun], …}"
            raise InvalidValueError(f"needs {' and '.join(absent)}", remedy=remedy, at=absent[0])
        return self

    def window(self, at: datetime) -> tuple[datetime, datetime]:
        """Return the start and end; for a weekly silence, of the window that contains `at`, else of the next window."""
        if self.weekly is not None:
            return self.weekly.hours.window(at)
        assert self.from_at is not None
        assert self.until_at is not None
        return self.from_at, self.until_at

    def windows(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the start and end of each window that overlaps a span, in their order."""
        begin, end = self.window(since)
        while begin < until and end > since:
            yield begin, end
            if self.weekly is None:
                return
            begin, end = self.window(end)


class ReportSettings(Block):
    """A report of the results of pipelines: its times and its sinks. See [reports.md](../reports.md)."""

    at: Annotated[str, AfterValidator(partial(_clock_time, latest="23:59"))] = Field(examples=['"08:00"'])
    """The time of day at which the report is sent. It covers the time since it was last due."""
    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1, examples=["[mon, tue, wed, thu, fri]"])
    """The days on which it is sent: `mon` to `sun`."""
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(default="UTC", examples=["Europe/Berlin"])
    """The time zone of `at` and `days`."""
    sinks: tuple[Name, ...] = Field(min_length=1, examples=["[mail, chat]"])
    """The sinks that get it, whatever their `events`; not `template: pagerduty` or `alertmanager`."""

    match: Match = Field(default=Match(), examples=["{labels: {customer: acme}}"])
    """Only these pipelines are in the report: in its lines, sums, kinds of errors and links."""

    @property
    def schedule(self) -> ReportSchedule:
        """Return the times at which the report is due."""
        minute = int(self.at[:2]) * 60 + int(self.at[3:])
        return ReportSchedule(frozenset(map(_DAYS.index, self.days)), minute, ZoneInfo(self.timezone))


_SinkUnion = Annotated[Union[tuple(SINK_KINDS.values())], Field(discriminator="type")]  # type: ignore[valid-type] # noqa: UP007 (its members come from the registry)
AnySink = Annotated[SinkSettings, GetPydanticSchema(lambda _, handler: handler.generate_schema(_SinkUnion))]
"""The settings of a sink of any kind."""

API = "https://web-api.clerk.chat"
RUNBOOK_LENGTH = 512
_PLACEHOLDER = re.compile(r"\{(?:pipelineId|executionId)\}")


def _base_url(value: str) -> str:
    """Return the API's address without a trailing slash. The address of a gateway may have a path."""
    parts = split_http_url(value, example=API)
    remedy = f"write only scheme and host, such as {API}"
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidValueError("holds more than an address", remedy=remedy)
    path = parts.path.rstrip("/")
    if path and ((parts.hostname or "").endswith("clerk.chat") or path.endswith("/public") or "/pipelines" in path):
        problem = "has a path, and the watcher adds the API's own, /public/pipelines/…"
        raise InvalidValueError(problem, remedy=f"end it before that, as {API} does")
    return value.rstrip("/")


def _link(value: str) -> str:
    plain = _PLACEHOLDER.sub("x", value)
    if "{" in plain or "}" in plain:
        remedy = "only {pipelineId} and {executionId} are filled in"
        raise InvalidValueError("holds a placeholder that is not known", remedy=remedy)
    split_http_url(plain, example="https://example.com/agents/{pipelineId}/runs/{executionId}")
    return value


def _runbook(value: str) -> str:
    split_http_url(value, example="https://wiki.example.com/agents/sales")
    if usable_link(value) is None or len(value) > RUNBOOK_LENGTH:
        remedy = f"write at most {RUNBOOK_LENGTH} characters, with %20 for a space and the like"
        raise InvalidValueError("cannot be shown as a link everywhere", remedy=remedy)
    return value


def _listen(value: str) -> str:
    parse_address(value)
    return value.strip()


def _public_url(value: str) -> str:
    """Return the address of the pages without a trailing slash."""
    parts = split_http_url(value, example="https://watcher.example.com")
    if parts.username is not None or parts.path.rstrip("/") or parts.query or parts.fragment:
        remedy = "write only scheme and host, such as https://watcher.example.com"
        raise InvalidValueError("holds more than scheme and host", remedy=remedy)
    return value.rstrip("/")


def _host_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", value):
        return value.lower()
    remedy = "write it without scheme and port, such as watcher.internal"
    raise InvalidValueError("is not a host name alone", remedy=remedy, quote=True)


class AccountSettings(Block):
    """One API key."""

    api_key: ApiKey = Field(examples=["${CLERK_API_KEY}"])
    """The key, as Clerk Chat shows it. Required."""
    api_key_file: str | None = file_twin("the key", example="/run/secrets/clerk_api_key")
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default=API, examples=["https://gateway.example.com/clerk"]
    )
    """The address of the API, or of a gateway to it, which may have a path."""
    rate_limit: Rate = Field(default=as_written("5/s"), examples=["300/m"])
    """The highest rate of requests with this key, over all its watches."""
    timeout_s: Duration = Field(default=as_written("10s"), examples=["30s"])
    """The longest time for one request."""
    link: Annotated[str, AfterValidator(_link)] | None = Field(
        default=None, examples=["https://example.com/agents/{pipelineId}/runs/{executionId}"]
    )
    """A link to an execution, copied into events as `data.link`, with the ids filled in."""


ExecutionId = Annotated[
    str, GetPydanticSchema(lambda _, handler: no_info_after_validator_function(str, handler.generate_schema(UUID)))
]
"""A UUID as text. A text takes less memory than a `UUID`, and a file may have 100,000 of them."""


class WatchSettings(Block):
    """One pipeline, with all of its executions or the named ones."""

    # If there is only one account, the loader fills in `account`, so the schema does not require the key.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("account"))

    pipeline: UUID = Field(examples=["0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"])
    """The pipeline's id, from its address in Clerk Chat."""
    account: str = Field(examples=["default"])
    """The account whose key is used. Not needed if there is only one."""
    executions: tuple[ExecutionId, ...] = Field(
        default_factory=tuple, validate_default=False, min_length=1, examples=["[9a1b0000-0000-4000-8000-000000000001]"]
    )
    """The executions to watch until they end, at least one. Without this key all are watched, future ones too."""
    name: ShortText | None = Field(default=None, examples=["Sales agent"])
    """The pipeline's name in events, instead of the API's; at most 256 characters."""
    labels: Labels = Field(default_factory=dict, examples=["{team: sales}"])
    """Your own labels, at most 32, copied into every event. Sinks match on them."""
    runbook: Annotated[str, AfterValidator(_runbook)] | None = Field(
        default=None, examples=["https://wiki.example.com/agents/sales"]
    )
    """A link to instructions for trouble, copied into events as `data.runbook`. Chats and pagers show it."""
    overdue_after_s: Mapping[OpenStatus, Duration] = Field(
        default_factory=dict, examples=["{new: 2m, running: 15m, paused: 48h}"]
    )
    """The time in a status after which `execution.overdue` is emitted."""
    rules: RulesSettings | None = Field(default=None, examples=["{failing: {consecutive: 3}}"])
    """The [rules](../rules.md) of the pipeline as a whole: `failing`, `silent`, `slow`, `tokens`, `new_error`."""

    @field_validator("rules")
    @classmethod
    def _of_what_is_watched(cls, value: RulesSettings | None, info: ValidationInfo) -> RulesSettings | None:
        if value is not None and value.silent_s is not None and info.data.get("executions"):
            remedy = "remove silent, or remove executions to watch every one"
            raise InvalidValueError("silent needs a pipeline that is watched whole", remedy=remedy)
        return value


class DefaultsSettings(Block):
    """Values for every watch. A watch's own key counts instead, for `rules` and `labels` name by name."""

    overdue_after_s: Mapping[OpenStatus, Duration] = Field(
        default_factory=dict, examples=["{new: 2m, running: 15m, paused: 48h}"]
    )
    """The times in a status for each watch without `overdue_after`."""
    rules: RulesSettings | None = Field(default=None, examples=["{failing: {consecutive: 3}}"])
    """The [rules](../rules.md) of each watch, for those that the watch does not name. In a watch `silent:` without a
    value turns this default off. `silent` does not count for a watch with `executions`."""
    labels: Labels = Field(default_factory=dict, examples=["{team: sales}"])
    """The labels of each watch, beside its own."""
    runbook: Annotated[str, AfterValidator(_runbook)] | None = Field(
        default=None, examples=["https://wiki.example.com/agents"]
    )
    """The link to instructions for each watch without `runbook`."""


class PollingSettings(Block):
    """The times between polls, and the limits for answers that fail."""

    cadence: Literal["fixed", "backoff"] = Field(default="backoff", examples=["fixed"])
    """`fixed` polls every `min_interval`. With `backoff` the interval is a tenth of the time in the status, between
    `min_interval` and `max_interval`."""
    min_interval_s: Duration = Field(default=as_written("1s"), examples=["500ms"])
    """The shortest time between two polls of one execution."""
    max_interval_s: Duration = Field(default=as_written("60s"), examples=["5m"])
    """The longest time between two polls of an open execution, unless `rate_limit` forbids it."""
    concurrency: int = Field(default=64, ge=1, examples=["16"])
    """The most requests in flight per account."""
    first_sight: Literal[FirstSight.BASELINE, FirstSight.NOTIFY] = Field(
        default=FirstSight.BASELINE, examples=["notify"]
    )
    """`baseline` emits nothing of executions that ended before the pipeline was first watched, `notify` their ends."""
    lookback_s: Duration = Field(default=as_written("7d"), examples=["30d"])
    """The time that the first scan of a whole pipeline, and the one after a downtime, reads back. After a longer
    downtime `pipeline.gap` is emitted."""
    details: Literal[Details.FAILED, Details.ALWAYS, Details.NEVER] = Field(default=Details.FAILED, examples=["always"])
    """The executions that are polled once more when a list shows their end, for failed nodes and goals."""
    lost_after: int = Field(default=3, ge=1, examples=["5"])
    """The number of answers "not known" or "refused" in a row before `execution.lost`."""
    lost_grace_s: DurationOrZero = Field(default=as_written("60s"), examples=["5m"])
    """The shortest time that these answers must span; `0s` is allowed."""
    degraded_after_s: Duration = Field(default=as_written("60s"), examples=["2m"])
    """The time without a successful request after which an account is degraded, if polls are due."""


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        remedy = "write one such as 10.0.0.0/8, or a single address"
        raise InvalidValueError("is no network", remedy=remedy, quote=True) from None
    return value


def _user_header(value: str) -> str:
    if value.lower() in {"authorization", "proxy-authorization", "cookie"}:
        raise InvalidValueError("holds a secret", remedy="write one such as X-Forwarded-User", quote=True)
    return value


class ProxySettings(Block):
    """A proxy in front that knows who its users are."""

    from_: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(min_length=1, examples=["[10.0.0.0/8]"])
    """The networks or addresses of the proxy. The header of any other client is ignored."""
    user_header: Annotated[
        str,
        matching("[A-Za-z0-9_-]{1,64}", "is not the name of a header", remedy="write one such as X-Forwarded-User"),
        AfterValidator(_user_header),
    ] = Field(examples=["X-Forwarded-User"])
    """The header in which the proxy names the user. This name counts for acknowledgements and silences. The proxy must
    replace a header of this name that its client sends."""


class HttpSettings(Block):
    """The address of pages, API, probes and metrics, and [access](../access.md)."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(default="127.0.0.1:8080", examples=["0.0.0.0:8080"])
    """`:8080` is every interface, port 0 any free port. A change needs a restart."""
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        default=None, examples=["https://watcher.example.com"]
    )
    """The address at which people reach the pages, for links; with a proxy the proxy's."""
    names: tuple[Annotated[str, AfterValidator(_host_name)], ...] = Field(
        default=(), examples=["[watcher.internal, 192.0.2.7]"]
    )
    """Further host names and addresses of the daemon, without a port. A request for another name is refused, unless it
    has a token."""
    token: SecretStr | None = Field(default=None, examples=["${WATCHER_TOKEN:-}"])
    """The [token](../access.md) with which clients may read pages and API, and act. An empty one counts as none.
    Without `token` and `read_token` pages and API are served only on a loopback address."""
    token_file: str | None = file_twin("the token", example="/run/secrets/watcher_token")
    read_token: SecretStr | None = Field(default=None, examples=["${WATCHER_READ_TOKEN:-}"])
    """The token with which clients may only read pages and API. An empty one counts as none."""
    read_token_file: str | None = file_twin("the token", example="/run/secrets/watcher_read_token")

    proxy: ProxySettings | None = Field(default=None, examples=["{from: [10.0.0.0/8], user_header: X-Forwarded-User}"])
    """A proxy that names the user of each request. See [access.md](../access.md)."""

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        if self.token and self.token == self.read_token:
            remedy = "make another one: openssl rand -hex 32"
            raise InvalidValueError("is the same as token", remedy=remedy, at="read_token")
        return self


def _ping_url(value: SecretStr) -> SecretStr:
    split_http_url(value.get_secret_value(), example="https://hc-ping.com/your-check")
    return value


class HeartbeatSettings(Block):
    """A service that is pinged regularly while all is well."""

    url: Annotated[SecretStr, AfterValidator(_ping_url)] = Field(examples=["https://hc-ping.com/your-check"])
    """The URL to GET. Required. Only scheme and host are ever shown."""
    url_file: str | None = file_twin("the URL", example="/run/secrets/heartbeat_url")
    every_s: Duration = Field(default=as_written("1m"), examples=["30s"])
    """The time between two pings."""


class LogSettings(Block):
    """The log, always on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", examples=["debug"])
    """The lowest level that is logged."""
    format: Literal["auto", "json", "console"] = Field(default="auto", examples=["json"])
    """`console` is for people, `json` for machines. `auto` is `console` on a terminal, else `json`."""


class Settings(Block):
    """The whole configuration. `sinks` always has a stdout sink. Each watch has its account and the `defaults`."""

    accounts: Mapping[Name, AccountSettings] = Field(
        default_factory=dict, examples=["{default: {api_key: '${CLERK_API_KEY}'}}"]
    )
    """One account per API key. Choose the names: 1 to 64 of A-Z a-z 0-9 _ . -"""
    watch: tuple[WatchSettings, ...] = Field(
        default=(), examples=["[{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]"]
    )
    """The pipelines that are watched, one entry each."""
    defaults: DefaultsSettings = DefaultsSettings()
    """Values for every watch. A watch's own key counts instead, for `rules` and `labels` name by name."""
    polling: PollingSettings = PollingSettings()
    """The times between polls, and the limits for answers that fail."""
    sinks: Mapping[Name, AnySink] = Field(
        default_factory=dict, examples=["{ops: {type: webhook, url: https://hooks.example.com/clerk}}"]
    )
    """The receivers of events. There is always one stdout sink; name it to set its `events`, `match` or `format`."""
    reports: Mapping[Name, ReportSettings] = Field(
        default_factory=dict, examples=['{morning: {at: "08:00", timezone: Europe/Berlin, sinks: [mail, chat]}}']
    )
    """[Reports](../reports.md) of the results of all pipelines, such as each morning. Choose the names."""
    silences: tuple[SilenceSettings, ...] = ()
    """Deliveries that are [not sent](../silences.md) for a time, but settled as `silenced`. stdout is never
    silenced."""
    store: StoreSettings = StoreSettings()
    """The database that holds the state."""
    http: HttpSettings = HttpSettings()
    """The address of pages, API, probes and metrics, and [access](../access.md)."""
    heartbeat: HeartbeatSettings | None = Field(
        default=None, examples=["{url: https://hc-ping.com/your-check, every: 1m}"]
    )
    """A service such as healthchecks.io, which is pinged while all is well, and alerts when the pings stop
    ([more](../watch.md#heartbeat))."""
    log: LogSettings = LogSettings()
    """The log, always on stderr."""

"""The models of the configuration file. The attribute of a duration ends in `_s` and is in seconds."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
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

from watcher.domain.execution import Status
from watcher.domain.report import ReportSchedule
from watcher.domain.routing import WeeklyHours
from watcher.domain.watch import Details, FirstSight
from watcher.runtime.settings import (
    ApiKey,
    Block,
    Duration,
    DurationOrZero,
    Labels,
    Name,
    Rate,
    Share,
    ShortText,
    as_written,
    file_twin,
    key_of,
    single,
    split_http_url,
)
from watcher.runtime.units import InvalidValueError, parse_address
from watcher.sinks.alert import usable_link
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import SilenceMatch, SinkSettings, http_url
from watcher.store.store_url import check_store_url


class StoreSettings(Block):
    """Where state lives."""

    url: Annotated[str, AfterValidator(check_store_url)] = Field(
        default="sqlite:///watcher.db",
        examples=["sqlite:////var/lib/watcher/watcher.db", "postgresql://watcher@db.example.com/watcher"],
    )
    """A SQLite file, after three slashes from where the daemon starts, after four from the root; or a
    [PostgreSQL](run.md#postgresql) database, as libpq reads it. A change needs a restart."""
    password: SecretStr | None = Field(default=None, examples=["${WATCHER_DB_PASSWORD}"])
    """PostgreSQL's password. Without one libpq's own ways are open: `PGPASSWORD`, `~/.pgpass`."""
    password_file: str | None = file_twin("the password", example="/run/secrets/db")
    retention_s: Duration = Field(default=as_written("30d"), examples=["90d"])
    """How long ended executions, their events and settled deliveries are kept."""


_WRITE_MOMENT = "write date, time and zone, such as 2026-12-24T00:00:00Z or 2026-12-24T00:00:00+01:00"


def _utc_moment(value: object) -> datetime:
    text = single(value)
    try:
        moment = datetime.fromisoformat(text.upper())
        in_utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("is not a date with a time", remedy=_WRITE_MOMENT, quote=True) from None
    if moment.tzinfo is None:
        raise InvalidValueError("has no zone", remedy=_WRITE_MOMENT, quote=True)
    return in_utc


UtcMoment = Annotated[datetime, BeforeValidator(_utc_moment, json_schema_input_type=StrictStr)]
"""A moment in UTC inside, RFC 3339 with its zone outside."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d|24:00")


def _clock_time(value: str) -> str:
    if _CLOCK_TIME.fullmatch(value):
        return value
    raise InvalidValueError("is not a time of day", remedy="write it like 08:00, from 00:00 to 24:00", quote=True)


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # the last two for what is no name of a file of zones
        remedy = "write one such as Europe/Berlin, and see that tzdata is installed"
        raise InvalidValueError("is no time zone that this system knows", remedy=remedy, quote=True) from None
    return value


class WeeklySettings(Block):
    """Hours of some days of the week."""

    days: tuple[Day, ...] = Field(min_length=1, examples=["[sat, sun]"])
    """The days on which it begins: `mon` to `sun`."""
    from_: Annotated[str, AfterValidator(_clock_time)] = Field(examples=['"20:00"'])
    """When it begins on each of them."""
    to: Annotated[str, AfterValidator(_clock_time)] = Field(examples=['"08:00"'])
    """When it ends; if that is not after `from`, on the next day. `24:00` is midnight."""
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(examples=["Europe/Berlin"])
    """By whose clock."""

    @property
    def hours(self) -> WeeklyHours:
        """Return when that is."""
        begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in (self.from_, self.to))
        days = frozenset(map(_DAYS.index, self.days))
        return WeeklyHours(days, begin, end if end > begin else end + 24 * 60, ZoneInfo(self.timezone))


class SilenceSettings(Block):
    """What is not sent, and when: once, or each week."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["from", "until"]}, {"required": ["weekly"]}]})

    match: SilenceMatch = Field(examples=["{labels: {team: sales}}"])
    """What is kept back: what matches all that is given; at least one."""
    from_at: UtcMoment | None = Field(default=None, alias="from", examples=["2026-12-24T00:00:00Z"])
    """When it begins, with its zone. Needs `until`."""
    until_at: UtcMoment | None = Field(default=None, alias="until", examples=["2026-12-27T00:00:00Z"])
    """When it ends."""
    weekly: WeeklySettings | None = Field(
        default=None, examples=['{days: [sat, sun], from: "20:00", to: "08:00", timezone: Europe/Berlin}']
    )
    """Instead of `from` and `until`: each week."""
    comment: ShortText | None = Field(default=None, examples=["shop closed"])
    """Why; at most 256 characters."""

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
        """Return its begin and its end; of a weekly one those of the window that holds that time, else of the next."""
        if self.weekly is not None:
            return self.weekly.hours.window(at)
        assert self.from_at is not None
        assert self.until_at is not None
        return self.from_at, self.until_at


def _report_time(value: str) -> str:
    if _CLOCK_TIME.fullmatch(value) and value != "24:00":
        return value
    raise InvalidValueError("is not a time of day", remedy="write it like 08:00, from 00:00 to 23:59", quote=True)


class ReportSettings(Block):
    """A report of how the pipelines did: when, and to whom. See [reports.md](reports.md)."""

    at: Annotated[str, AfterValidator(_report_time)] = Field(examples=['"08:00"'])
    """When it is sent. It covers the time since the last one was due."""
    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1, examples=["[mon, tue, wed, thu, fri]"])
    """The days on which it is sent: `mon` to `sun`."""
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(default="UTC", examples=["Europe/Berlin"])
    """By whose clock."""
    sinks: tuple[Name, ...] = Field(min_length=1, examples=["[mail, chat]"])
    """The sinks it goes to, whatever their `events`; none with `template: pagerduty` or `alertmanager`."""

    @property
    def schedule(self) -> ReportSchedule:
        """Return when it is due."""
        minute = int(self.at[:2]) * 60 + int(self.at[3:])
        return ReportSchedule(frozenset(map(_DAYS.index, self.days)), minute, ZoneInfo(self.timezone))


_SinkUnion = Annotated[Union[tuple(SINK_KINDS.values())], Field(discriminator="type")]  # type: ignore[valid-type] # noqa: UP007 (of what the registry has)
AnySink = Annotated[SinkSettings, GetPydanticSchema(lambda _, handler: handler.generate_schema(_SinkUnion))]
"""The settings of a sink of any kind."""

API = "https://web-api.clerk.chat"
RUNBOOK_LENGTH = 512
_PLACEHOLDER = re.compile(r"\{(?:pipelineId|executionId)\}")


def _base_url(value: str) -> str:
    """Return the API's address without a trailing slash; a path may lead to a gateway."""
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
    example = "https://example.com/agents/{pipelineId}/runs/{executionId}"
    plain = _PLACEHOLDER.sub("x", value)
    if "{" in plain or "}" in plain:
        remedy = "only {pipelineId} and {executionId} are filled in"
        raise InvalidValueError("holds a placeholder that is not known", remedy=remedy)
    split_http_url(plain, example=example)
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
    """The key, as Clerk Chat shows it. Required, unless `api_key_file` is given."""
    api_key_file: str | None = file_twin("the key", example="/run/secrets/clerk_api_key")
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default=API, examples=["https://gateway.example.com/clerk"]
    )
    """Where the API is; a path may lead to a gateway."""
    rate_limit: Rate = Field(default=as_written("5/s"), examples=["300/m"])
    """The most requests with this key, over everything that is watched with it."""
    timeout_s: Duration = Field(default=as_written("10s"), examples=["30s"])
    """How long one request may take."""
    link: Annotated[str, AfterValidator(_link)] | None = Field(
        default=None, examples=["https://example.com/agents/{pipelineId}/runs/{executionId}"]
    )
    """Copied into events as `data.link`, with the ids filled in."""


ExecutionId = Annotated[
    str, GetPydanticSchema(lambda _, handler: no_info_after_validator_function(str, handler.generate_schema(UUID)))
]
"""A UUID, kept as text: there may be 100,000."""


_OF_CONSECUTIVE = {"consecutive", "recover_after", "quiet_for_s"}
_OF_RATE = {"rate", "of_last", "within_s", "at_least"}


class FailingSettings(Block):
    """When a pipeline is failing: by one of `consecutive` and `rate`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["consecutive"]}, {"required": ["rate"]}]})

    consecutive: int | None = Field(default=None, ge=1, le=1000, examples=["3"])
    """So many executions failed in a row, by when they ended. `pipeline.recovered` follows once `recover_after`
    executions in a row succeeded, `quiet_for` has passed since the problem opened, and at most a tenth of the
    executions failed that ended within the last `quiet_for`."""
    recover_after: int = Field(default=3, ge=1, le=1000, examples=["5"])
    """With `consecutive`: how many executions in a row must succeed before the problem closes."""
    quiet_for_s: Duration = Field(default=as_written("5m"), examples=["15m"])
    """With `consecutive`: the shortest time a problem stays open. When it closes, at most a tenth of the executions
    that ended within this time may have failed."""
    rate: Share | None = Field(default=None, examples=["20%"])
    """Instead of `consecutive`: this share of the last executions failed, or more. `pipeline.recovered` follows once
    the share is below half of that."""
    of_last: int = Field(default=20, ge=1, le=1000, examples=["50"])
    """With `rate`: of how many ends, at most."""
    within_s: Duration = Field(default=as_written("24h"), examples=["6h"])
    """With `rate`: how old they may be, counted from the newest."""
    at_least: int = Field(default=5, ge=1, le=1000, examples=["10"])
    """With `rate`: how many there must be to open a problem."""

    @model_validator(mode="after")
    def _by_one_of_them(self) -> Self:
        if self.consecutive is None and self.rate is None:
            raise InvalidValueError("needs consecutive or rate", remedy="write consecutive: 3, or rate: 20%")
        by, others = ("consecutive", _OF_RATE) if self.consecutive is not None else ("rate", _OF_CONSECUTIVE)
        if more := self.model_fields_set & others:
            at = key_of(type(self), name=min(more))
            raise InvalidValueError(f"is not for {by}", remedy="keep one of the two", at=at)
        if self.at_least > self.of_last:
            problem = f"at_least {self.at_least} is more than of_last {self.of_last}, so it would never hold"
            at = "at_least" if "at_least" in self.model_fields_set else "of_last"
            raise InvalidValueError(problem, remedy="raise of_last or lower at_least", at=at)
        return self


class RulesSettings(Block):
    """What is wrong with a pipeline as a whole: each rule opens a problem once and closes it once."""

    failing: FailingSettings | None = Field(default=None, examples=["{consecutive: 3}"])
    """Emit `pipeline.failing` when too many executions fail. Give `consecutive` or `rate`."""
    silent_s: Duration | None = Field(default=None, examples=["6h"])
    """Emit `pipeline.silent` when no execution has started for this long. For whole pipelines."""


class WatchSettings(Block):
    """One pipeline, and which of its executions are watched: all of them, or those that are named."""

    # With one account the loader fills it in.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("account"))

    pipeline: UUID = Field(examples=["0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"])
    """The pipeline's id, from its address in Clerk Chat."""
    account: str = Field(examples=["default"])
    """The account whose key is used. May be left out while there is only one."""
    executions: tuple[ExecutionId, ...] = Field(
        default_factory=tuple, validate_default=False, min_length=1, examples=["[9a1b0000-0000-4000-8000-000000000001]"]
    )
    """Follow only these until they end; at least one. Without the key every execution is watched, those to come as
    well."""
    name: ShortText | None = Field(default=None, examples=["Sales agent"])
    """The pipeline's name in events, instead of the API's; at most 256 characters."""
    labels: Labels = Field(default_factory=dict, examples=["{team: sales}"])
    """Your own labels, copied into every event; sinks match on them; at most 32."""
    runbook: Annotated[str, AfterValidator(_runbook)] | None = Field(
        default=None, examples=["https://wiki.example.com/agents/sales"]
    )
    """What to do when it is in trouble: copied into events as `data.runbook`, and shown by chats and pagers."""
    overdue_after_s: Mapping[Literal[Status.NEW, Status.RUNNING, Status.PAUSED], Duration] = Field(
        default_factory=dict, examples=["{new: 2m, running: 15m, paused: 48h}"]
    )
    """How long an execution may stay in a status before `execution.overdue` is emitted."""
    rules: RulesSettings | None = Field(default=None, examples=["{failing: {consecutive: 3}}"])
    """What is a [problem](alerts.md) of the pipeline as a whole: `failing`, `silent`."""

    @field_validator("rules")
    @classmethod
    def _of_what_is_watched(cls, value: RulesSettings | None, info: ValidationInfo) -> RulesSettings | None:
        if value is not None and value.silent_s is not None and info.data.get("executions"):
            remedy = "remove silent, or remove executions to watch every one"
            raise InvalidValueError("silent needs a pipeline that is watched whole", remedy=remedy)
        return value


class PollingSettings(Block):
    """How often to poll."""

    cadence: Literal["fixed", "backoff"] = Field(default="backoff", examples=["fixed"])
    """`fixed` polls every `min_interval`; with `backoff` the interval is the time in this status / 10, between
    `min_interval` and `max_interval`."""
    min_interval_s: Duration = Field(default=as_written("1s"), examples=["500ms"])
    """The shortest time between two polls of one execution."""
    max_interval_s: Duration = Field(default=as_written("60s"), examples=["5m"])
    """The longest time between two polls of an open execution, unless `rate_limit` forbids it."""
    concurrency: int = Field(default=64, ge=1, examples=["16"])
    """Requests in flight per account, at most."""
    first_sight: Literal[FirstSight.BASELINE, FirstSight.NOTIFY] = Field(
        default=FirstSight.BASELINE, examples=["notify"]
    )
    """Executions that ended before their pipeline was first watched: `baseline` emits nothing for them, `notify` emits
    their ends."""
    lookback_s: Duration = Field(default=as_written("7d"), examples=["30d"])
    """How far back the first scan of a whole pipeline reads, and the scan after a downtime. A longer downtime emits
    `pipeline.gap`."""
    details: Literal[Details.FAILED, Details.ALWAYS, Details.NEVER] = Field(default=Details.FAILED, examples=["always"])
    """Which ends found in a list are also fetched one by one, for failed nodes and goals."""
    lost_after: int = Field(default=3, ge=1, examples=["5"])
    """Answers in a row that say "not known" or "refused" before `execution.lost`."""
    lost_grace_s: DurationOrZero = Field(default=as_written("60s"), examples=["5m"])
    """The least time those answers must span; `0s` is allowed."""
    degraded_after_s: Duration = Field(default=as_written("60s"), examples=["2m"])
    """An account without a successful request for this long, with something due, is degraded."""


class HttpSettings(Block):
    """Where pages, API, probes and metrics are. `watcher.runtime.units.parse_address` takes `listen` apart."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(default="127.0.0.1:8080", examples=["0.0.0.0:8080"])
    """Where pages, API, probes and metrics are; `:8080` is every interface, port 0 any free one. A change needs a
    restart."""
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        default=None, examples=["https://watcher.example.com"]
    )
    """Where people reach the pages, for links to them; behind a proxy its address."""
    names: tuple[Annotated[str, AfterValidator(_host_name)], ...] = Field(
        default=(), examples=["[watcher.internal, 192.0.2.7]"]
    )
    """Further host names and addresses by which it is reached, without a port. A request for any other name is refused,
    unless it has a token."""
    token: SecretStr | None = Field(default=None, examples=["${WATCHER_TOKEN:-}"])
    """The token that may see the pages, use the API and act; empty is none. Without this or `read_token` they are
    served only where `listen` is a loopback address."""
    token_file: str | None = file_twin("the token", example="/run/secrets/watcher_token")
    read_token: SecretStr | None = Field(default=None, examples=["${WATCHER_READ_TOKEN:-}"])
    """The token that may see the pages and read the API, not act; empty is none. Without `token` nobody may act."""
    read_token_file: str | None = file_twin("the token", example="/run/secrets/watcher_read_token")

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        if self.token and self.token == self.read_token:
            remedy = "make another one: openssl rand -hex 32"
            raise InvalidValueError("is the same as token", remedy=remedy, at="read_token")
        return self


class HeartbeatSettings(Block):
    """Who is to hear regularly that all is well."""

    url: Annotated[SecretStr, http_url("https://hc-ping.com/your-check")] = Field(
        examples=["https://hc-ping.com/your-check"]
    )
    """The URL to GET. Required, unless `url_file` is given. Only scheme and host are ever shown."""
    url_file: str | None = file_twin("the URL", example="/run/secrets/heartbeat_url")
    every_s: Duration = Field(default=as_written("1m"), examples=["30s"])
    """How often."""


class LogSettings(Block):
    """What is logged, and in which format. Always on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", examples=["debug"])
    """The lowest level that is logged."""
    format: Literal["auto", "json", "console"] = Field(default="auto", examples=["json"])
    """`console` is for people, `json` for machines; `auto` is the first on a terminal, else the second."""


class Settings(Block):
    """The whole file. `sinks` always holds a stdout sink; `watch` entries always name their account."""

    accounts: Mapping[Name, AccountSettings] = Field(
        default_factory=dict, examples=["{default: {api_key: '${CLERK_API_KEY}'}}"]
    )
    """One per API key. The names are yours: 1 to 64 of A-Z a-z 0-9 _ . -"""
    watch: tuple[WatchSettings, ...] = Field(
        default=(), examples=["[{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]"]
    )
    """What is watched: one entry per pipeline."""
    polling: PollingSettings = PollingSettings()
    """How often to poll, and what failing answers lead to."""
    sinks: Mapping[Name, AnySink] = Field(
        default_factory=dict, examples=["{ops: {type: webhook, url: https://hooks.example.com/clerk}}"]
    )
    """Where events go. There is always one stdout sink; name it to set its `events`, `match` or `format`."""
    reports: Mapping[Name, ReportSettings] = Field(
        default_factory=dict, examples=['{morning: {at: "08:00", timezone: Europe/Berlin, sinks: [mail, chat]}}']
    )
    """[Reports](reports.md) of how the pipelines did, such as each morning. The names are yours."""
    silences: tuple[SilenceSettings, ...] = ()
    """What is not sent for a time: it is settled as `silenced`. What then opened a problem is sent when the silence
    ends, if the problem is still open. stdout is never silenced."""
    store: StoreSettings = StoreSettings()
    """Where state lives."""
    http: HttpSettings = HttpSettings()
    """Where pages, API, probes and metrics are served."""
    heartbeat: HeartbeatSettings | None = Field(
        default=None, examples=["{url: https://hc-ping.com/your-check, every: 1m}"]
    )
    """Pings while all loops make progress and the store takes writes. A service such as healthchecks.io, which gets
    none for a while, says so."""
    log: LogSettings = LogSettings()
    """What is logged, always on stderr."""

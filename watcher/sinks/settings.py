"""The settings that are shared by all sinks, by all sinks but stdout, and by all sinks that use HTTP."""

import ssl
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.event_factory import trial_event
from watcher.domain.routing import Grouped, GroupRules
from watcher.domain.timestamps import NEVER
from watcher.runtime.clock import Clock
from watcher.runtime.settings import Block, Duration, Labels, Name, Rate, as_written, did_you_mean, plain, redact_url
from watcher.runtime.units import InvalidValueError
from watcher.sinks.http_post import Poster, stop
from watcher.sinks.protocol import GROUP_COUNT, SendResult, Sink, SinkContext, WorkerRules

BATCH_COUNT = 100
"""The most events in one batch of a webhook without `template`, unless `group.max` is given."""

_GROUPED_BY = ("pipeline", "account", "type")


def _glob(value: str) -> str:
    if any(fnmatchcase(type_, value) for type_ in EventType):
        return value
    meant = next((type_ for type_ in EventType if type_.endswith(f".{value}")), value)
    family = [type_ for type_ in EventType if type_.startswith(f"{value.partition('.')[0]}.")]
    rest = f"write {', '.join(family)}" if family else 'globs such as "execution.*" work'
    raise InvalidValueError(
        "matches no event type", remedy=did_you_mean(meant, [*EventType], rest=rest, cutoff=0.8), quote=True
    )


EventGlob = Annotated[str, AfterValidator(_glob)]
"""A glob over event types that matches at least one of them."""

EventGlobs = Annotated[
    tuple[EventGlob, ...],
    Field(
        min_length=1,
        description="Globs over event types, such as `account.*`; each must match at least one.",
        examples=['[execution.failed, "account.*"]'],
    ),
]
"""The events that a sink gets. Each kind of sink has its own default."""


class Match(Block):
    """A condition for events of a pipeline: the watch has all `labels`, and the pipeline is one of `pipelines`."""

    labels: Labels = Field(default_factory=dict, examples=["{team: sales}"])
    """The watch must have all of these labels."""
    pipelines: tuple[UUID, ...] = Field(default=(), examples=["[0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]"])
    """The pipeline must be one of these."""


class SilenceMatch(Match):
    """The deliveries that are silenced: those that match all given keys."""

    events: tuple[EventGlob, ...] = Field(default=(), examples=['["execution.*"]'])
    """Globs over event types; one of them must match."""
    accounts: tuple[Name, ...] = Field(default=(), examples=["[default]"])
    """The account must be one of these."""
    sinks: tuple[Name, ...] = Field(default=(), examples=["[phone]"])
    """The sink must be one of these."""

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if any((self.labels, self.events, self.pipelines, self.accounts, self.sinks)):
            return self
        raise InvalidValueError("is empty", remedy='name what is meant; for everything write events: ["*"]')


class SinkSettings(Block):
    """The settings of every sink. `events` are globs over event types."""

    events: EventGlobs = ("*",)
    match: Match = Match()
    """Selects events of pipelines; others are selected by `events` alone."""

    @property
    def target(self) -> str | None:
        """Return the part of the target that is no secret; `None` for stdout."""
        return None

    @property
    def rules(self) -> WorkerRules:
        """Return the rules by which the worker sends to the sink."""
        raise NotImplementedError

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        raise NotImplementedError

    async def connect(self) -> str:
        """Try to reach the target without sending an event. Return a text about it. Raises `TransportFailedError`."""
        raise NotImplementedError

    async def send_test(self, name: str, context: SinkContext) -> SendResult:
        """Send a `watcher.test` at once, ahead of all pending deliveries. Return the result."""
        event, sink = trial_event(sink=name, at=context.clock.now()), self.open(context)
        delivery = Delivery(
            sink=name,
            event_id=event.id,
            type=event.type,
            number=0,
            ordering_key=event.ordering_key,
            body=event.body,
            recorded_at=NEVER,
            due_at=NEVER,
        )
        try:
            return await sink.send([delivery])
        finally:
            await sink.close()


def _group_field(value: str) -> str:
    if value in _GROUPED_BY or (value.startswith("labels.") and value != "labels."):
        return value
    rest = f"write {', '.join(_GROUPED_BY)} or labels.NAME"
    raise InvalidValueError("is nothing to group by", remedy=did_you_mean(value, _GROUPED_BY, rest=rest), quote=True)


class RetrySettings(Block):
    """The retries of a failed delivery. The last time in `schedule` repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))),
        min_length=1,
        examples=["[5s, 1m, 10m]"],
    )
    """The times between attempts of a delivery that fails (±20 %), unless `Retry-After` asks for more. The last
    repeats. Once the receiver works again, [all that is pending is sent](../sinks.md#when-it-is-retried)."""
    give_up_after_s: Duration = Field(default=as_written("3d"), examples=["12h"])
    """The time from when a delivery is first due until it is a dead letter."""


class GroupSettings(Block):
    """The rules by which events are sent together. `max` is `None` unless the file has it."""

    by: tuple[Annotated[str, AfterValidator(_group_field)], ...] = Field(
        default=("pipeline",), min_length=1, examples=["[pipeline, labels.team]"]
    )
    """Events with the same values of all these share a group: `pipeline`, `account`, `type`, `labels.NAME`. An event
    that lacks one is sent alone."""
    wait_s: Duration = Field(default=as_written("30s"), examples=["2m"])
    """The time that an event waits for others, from its recording. Then all pending events of the group are sent."""
    max: int | None = Field(
        default=None,
        ge=1,
        le=GROUP_COUNT,
        description=f"The most events in one batch: {BATCH_COUNT} by default, up to {GROUP_COUNT}. Only for a "
        "webhook without `template`.",
        examples=["500"],
    )


PROBLEMS_TOGETHER = (("account",), 10.0)
"""The fields by which chats group problems, and the time that a problem waits for others, unless `group` is given."""


def _unless_none(value: object) -> object:
    return None if value == "none" else value


Grouping = Annotated[
    GroupSettings | None, BeforeValidator(_unless_none, json_schema_input_type=GroupSettings | Literal["none"] | None)
]
"""A block, or `none`, which is the same as no group. Only a chat groups problems if the key is absent."""


class RemoteSettings(SinkSettings):
    """The settings of every sink but stdout. The receiver may be slow, away, or overloaded."""

    grouped: ClassVar[Grouped] = Grouped.EXECUTIONS
    """The events that `group` groups."""
    timeout_s: Duration = Field(default=as_written("15s"), examples=["5s"])
    """The longest time for one request."""
    rate_limit: Rate = Field(default=as_written("100/s"), examples=["60/m"])
    """The highest rate of requests. The defaults for Slack and Teams are `1/s`, Discord `30/m`, PagerDuty `2/s`."""
    retry: RetrySettings = RetrySettings()
    """The retries of a failed delivery."""
    group: Grouping = Field(default=None, examples=["{by: [pipeline], wait: 30s}"])
    """Sends events together: as a CloudEvents batch by a webhook without `template`, as one incident at PagerDuty
    (`wait` is 10s there), as one message elsewhere. Without it [chats still gather
    problems](../groups.md#many-problems-at-once-in-a-chat); `none` sends each event alone and at once."""
    after_s: Duration | None = Field(default=None, examples=["10m"])
    """The time that the opening of a problem waits. It is sent only if the problem is still open then, and not
    acknowledged."""
    remind_every_s: Duration | None = Field(default=None, examples=["4h"])
    """The time between `problem.reminder` events while a problem is open. Without it there are none."""

    @property
    def group_count(self) -> int:
        """Return the most events that are sent together."""
        return GROUP_COUNT

    @property
    def is_chat(self) -> bool:
        """Whether people read each message: in a chat that keeps no state, or as mail."""
        return False

    @property
    def rules(self) -> WorkerRules:
        """Return the rules by which the worker sends to the sink."""
        group, problem_group = self.group, None
        if self.is_chat and not ("group" in self.model_fields_set and group is None):
            by, wait_s = (group.by, group.wait_s) if group and "group" in self.model_fields_set else PROBLEMS_TOGETHER
            problem_group = GroupRules(by, wait_s, GROUP_COUNT, Grouped.PROBLEMS)
        names_failures = "events" in self.model_fields_set and EventType.EXECUTION_FAILED in self.events
        grouped = Grouped.WITHOUT_PROBLEMS if self.is_chat else self.grouped
        return WorkerRules(
            self.retry.schedule,
            self.retry.give_up_after_s,
            self.rate_limit,
            group=None if group is None else GroupRules(group.by, group.wait_s, self.group_count, grouped),
            problem_group=problem_group,
            covers=self.is_chat and not names_failures,
            after_s=self.after_s or 0.0,
            remind_every_s=self.remind_every_s,
        )


@dataclass(frozen=True, slots=True)
class PemFile:
    """A PEM file: its path as written, its full path, and a hash of its content, by which a change is noticed."""

    given: str
    path: Path
    digest: str


def _read(value: object) -> PemFile:
    if isinstance(value, PemFile):
        return value
    raise InvalidValueError("is not a single value", remedy="write one path")


def _dumped(file: PemFile, info: SerializationInfo) -> str:
    """Return path and hash, in JSON only the path: replicas compare the JSON, and their certificates may differ."""
    return file.given if info.mode == "json" else f"{file.given} {file.digest}"


PemPath = Annotated[
    SkipValidation[PemFile],
    BeforeValidator(_read),
    PlainSerializer(_dumped, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""The path of a PEM file. The loader replaces the path by a `PemFile`."""


def client_context(ca_file: PemFile | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the CAs in the file, or without a file the CAs of the system."""
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else ca_file.path)
    except OSError:
        remedy = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"
        raise InvalidValueError("holds no certificate, or a broken one", remedy=remedy, at="ca_file") from None


class TlsSettings(Block):
    """`{ca_file: …, cert_file: …, key_file: …}`: `ca_file` alone, the other two, or all three."""

    ca_file: PemPath | None = Field(default=None, examples=["/etc/watcher/ca.pem"])
    """The certificates (PEM) of the CAs to trust, instead of the system's."""
    cert_file: PemPath | None = Field(default=None, examples=["/etc/watcher/tls/tls.crt"])
    """The client certificate (PEM), followed by its intermediate certificates. Needs `key_file`."""
    key_file: PemPath | None = Field(default=None, examples=["/etc/watcher/tls/tls.key"])
    """The private key of the client certificate (PEM), without a passphrase."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        """Check the keys, and make the TLS context in the loader's thread: an event loop must not read files."""
        if (self.cert_file is None) is not (self.key_file is None):
            problem = "is given without cert_file" if self.cert_file is None else "cert_file is given without key_file"
            raise InvalidValueError(problem, remedy="name both, or none", at="key_file")
        assert self.context
        return self

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Return the TLS context. It is no field, so a comparison of settings ignores it."""
        context = client_context(self.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None and self.key_file is not None:
            try:  # without this empty password OpenSSL would ask for a password on the terminal
                context.load_cert_chain(self.cert_file.path, self.key_file.path, password="")
            except OSError as error:
                reason = (getattr(error, "reason", None) or "not readable").lower().replace("_", " ")
                remedy = "name a certificate and its own key, both as PEM, the key without a passphrase"
                problem = f"cannot be used with cert_file ({reason})"
                raise InvalidValueError(problem, remedy=remedy, at="key_file") from None
        return context


class HttpSinkSettings(RemoteSettings):
    """The settings of every sink that uses a `Poster`."""

    if TYPE_CHECKING:  # each kind of sink declares this field itself, at its place among the others
        url: SecretStr | str
    allow_private: bool = Field(default=True, examples=["false"])
    """`false` refuses [addresses of this machine and of private networks](../connections.md#private-addresses)."""
    tls: TlsSettings | None = Field(default=None, examples=["{ca_file: ca.pem}"])
    """The CAs to trust, and a client certificate. For `https://` only. Paths start beside the configuration file. A
    changed file is read again."""

    @field_validator("url", check_fields=False)
    @classmethod
    def _secured(cls, value: SecretStr | str, info: ValidationInfo) -> SecretStr | str:
        if info.data.get("tls") is not None and URL(plain(value)).scheme != "https":
            raise InvalidValueError("has tls, and does not begin with https://", remedy="write https://, or remove tls")
        return value

    @property
    def address(self) -> str:
        """Return the whole URL, which may be a secret."""
        return plain(self.url)

    @property
    def target(self) -> str:
        """Return scheme and host of the URL, and the port if it has one. The path may be a secret."""
        return redact_url(self.address)

    async def connect(self) -> str:
        """Connect to the host, also through a proxy, without sending a request. Return a text about the connection."""
        context = SinkContext(Clock(), before_request=stop)
        async with aclosing(self.open_poster(URL(self.address), headers={}, context=context)) as poster:
            return await poster.try_connection()

    def open_poster(self, url: URL, *, headers: Mapping[str, str], context: SinkContext) -> Poster:
        """Return the poster for this URL."""
        return Poster(
            url,
            headers=headers,
            timeout_s=self.timeout_s,
            context=context,
            allow_private=self.allow_private,
            tls=None if self.tls is None else self.tls.context,
        )

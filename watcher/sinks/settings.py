"""What the blocks of sinks have in common: of all, of those that send elsewhere, and of those that post over HTTP."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Self
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
from watcher.domain.routing import GroupRules
from watcher.domain.timestamps import NEVER
from watcher.runtime.clock import Clock
from watcher.runtime.settings import (
    Block,
    Duration,
    Labels,
    Name,
    Rate,
    as_written,
    did_you_mean,
    shown_url,
    split_http_url,
)
from watcher.runtime.units import InvalidValueError
from watcher.sinks.http_post import Poster, stop
from watcher.sinks.protocol import GROUP_COUNT, SendResult, Sink, SinkContext, WorkerRules

BATCH_COUNT = 100
"""Events in one batch of a plain webhook by default."""

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
        description="Globs over event types; each must match at least one.",
        examples=['[execution.failed, "account.*"]'],
    ),
]
"""Which events a sink gets; each kind of sink has its own default."""


def http_url(example: str) -> AfterValidator:
    """Return the validator of an http or https URL. Its error shows the example and nothing of the URL."""

    def validate(value: str | SecretStr) -> str | SecretStr:
        split_http_url(_plain(value), example=example)
        return value

    return AfterValidator(validate)


def _plain(value: str | SecretStr) -> str:
    return value if isinstance(value, str) else value.get_secret_value()


class Match(Block):
    """Which events with a pipeline are wanted: all labels must match, any pipeline."""

    labels: Labels = Field(default_factory=dict, examples=["{team: sales}"])
    """The watch must have all of these labels."""
    pipelines: tuple[UUID, ...] = Field(default=(), examples=["[0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]"])
    """The pipeline must be one of these."""


class SilenceMatch(Match):
    """Which deliveries are kept back: those that match all that is given."""

    events: tuple[EventGlob, ...] = Field(default=(), examples=['["execution.*"]'])
    """Globs over event types; any of them must match."""
    accounts: tuple[Name, ...] = Field(default=(), examples=["[default]"])
    """The account must be one of these."""
    sinks: tuple[Name, ...] = Field(default=(), examples=["[phone]"])
    """Only what goes to these sinks. stdout is never silenced."""

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if any((self.labels, self.events, self.pipelines, self.accounts, self.sinks)):
            return self
        raise InvalidValueError("is empty", remedy='name what is meant; for everything write events: ["*"]')


class SinkSettings(Block):
    """Common to all sinks. `events` are globs over event types."""

    events: EventGlobs = ("*",)
    match: Match = Match()
    """Restricts events of a pipeline; others pass by `events` alone."""

    @property
    def target(self) -> str | None:
        """Return as much of where it sends to as may be shown; `None` if that is this process."""
        return None

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        raise NotImplementedError

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        raise NotImplementedError

    async def connect(self) -> str:
        """Connect to its target, send nothing, and say what was done.

        Raises `TransportFailedError`.
        """
        raise NotImplementedError

    async def send_test(self, name: str, context: SinkContext) -> SendResult:
        """Send a `watcher.test` to it, past all that waits, and return the answer. Raises `TransportFailedError`."""
        event, sink = trial_event(sink=name, at=context.clock.now()), self.open(context)
        delivery = Delivery(
            sink=name,
            event_id=event.id,
            type=event.type,
            number=0,
            lane=event.lane,
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
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))),
        min_length=1,
        examples=["[5s, 1m, 10m]"],
    )
    """The waits of a delivery that fails (±20 %), unless `Retry-After` asks for more; the last repeats. When the
    receiver works again, all that waits goes within about a minute."""
    give_up_after_s: Duration = Field(default=as_written("3d"), examples=["12h"])
    """How long a delivery is retried, from when it was first due; then it is a dead letter."""


class GroupSettings(Block):
    """Which events are sent together. `max` is absent unless it is given."""

    by: tuple[Annotated[str, AfterValidator(_group_field)], ...] = Field(
        default=("pipeline",), min_length=1, examples=["[pipeline, labels.team]"]
    )
    """Events alike in all of these share a group: `pipeline`, `account`, `type`, `labels.NAME`. One that lacks any of
    them goes alone."""
    wait_s: Duration = Field(default=as_written("30s"), examples=["2m"])
    """How long an event waits for others, from its recording: then all of its group that wait go together. Less than
    `retry.give_up_after`."""
    max: int | None = Field(
        default=None,
        ge=1,
        le=GROUP_COUNT,
        description=f"The most events in one batch ({BATCH_COUNT} unless given, at most {GROUP_COUNT}). Only of a "
        "webhook without `template`: one message has room for all.",
        examples=["500"],
    )


class RemoteSettings(SinkSettings):
    """Common to all sinks but stdout: they may be slow, away, or asked too much of."""

    groups_problems: ClassVar[bool] = True
    """Whether an event of an execution's problem may go with others."""
    timeout_s: Duration = Field(default=as_written("15s"), examples=["5s"])
    """How long one request may take."""
    rate_limit: Rate = Field(default=as_written("100/s"), examples=["60/m"])
    """The most requests sent. Slack and Teams: `1/s`, Discord: `30/m`, PagerDuty: `2/s`."""
    retry: RetrySettings = RetrySettings()
    """When a failed delivery is tried again."""
    group: GroupSettings | None = Field(default=None, examples=["{by: [pipeline], wait: 30s}"])
    """Sends events together: a webhook without `template` as a CloudEvents batch, PagerDuty's problems as one
    incident (`wait` is 10s there), all else as one message."""
    after_s: Duration | None = Field(default=None, examples=["10m"])
    """How long the event that opens a problem waits. It is sent only if the problem is still open then; while somebody
    has acknowledged the problem it waits on. Without it, it is sent at once."""
    remind_every_s: Duration | None = Field(default=None, examples=["4h"])
    """How often `problem.reminder` is sent while a problem is open. Without it never."""

    @property
    def group_count(self) -> int:
        """Return how many events may be sent together."""
        return GROUP_COUNT

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        group = self.group
        return WorkerRules(
            self.retry.schedule,
            self.retry.give_up_after_s,
            self.rate_limit,
            group=None if group is None else GroupRules(group.by, group.wait_s, self.group_count, self.groups_problems),
            after_s=self.after_s or 0.0,
            remind_every_s=self.remind_every_s,
        )


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file as the configuration names it, where that is, and a hash of what it held: a changed file is another."""

    given: str
    path: Path
    digest: str


def _read(value: object) -> PemFile:
    if isinstance(value, PemFile):
        return value
    raise InvalidValueError("is not a single value", remedy="write one path")


def _dumped(file: PemFile, info: SerializationInfo) -> str:
    """Return its name and hash; as JSON its name alone: replicas, whose certificates may differ, compare that."""
    return file.given if info.mode == "json" else f"{file.given} {file.digest}"


PemPath = Annotated[
    SkipValidation[PemFile],
    BeforeValidator(_read),
    PlainSerializer(_dumped, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A path, as it is written; the loader puts the `PemFile` in its place."""


def client_context(ca_file: PemFile | None) -> ssl.SSLContext:
    """Return a TLS context that trusts these CAs, without any those of the system."""
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else ca_file.path)
    except OSError:
        remedy = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"
        raise InvalidValueError("holds no certificate, or a broken one", remedy=remedy, at="ca_file") from None


class TlsSettings(Block):
    """`{ca_file: …, cert_file: …, key_file: …}`: the first alone, the other two, or all three."""

    ca_file: PemPath | None = Field(default=None, examples=["/etc/watcher/ca.pem"])
    """The certificates (PEM) of the CAs to trust, instead of the system's."""
    cert_file: PemPath | None = Field(default=None, examples=["/etc/watcher/tls/tls.crt"])
    """The certificate (PEM) to show, with those between it and its CA; needs `key_file`."""
    key_file: PemPath | None = Field(default=None, examples=["/etc/watcher/tls/tls.key"])
    """Its private key (PEM), without a passphrase."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        """Make the context here, in the loader's thread: an event loop is not to read files."""
        if (self.cert_file is None) is not (self.key_file is None):
            problem = "is given without cert_file" if self.cert_file is None else "cert_file is given without key_file"
            raise InvalidValueError(problem, remedy="name both, or none", at="key_file")
        assert self.context
        return self

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Return how to connect. It is no part of what is compared when the configuration is read again."""
        context = client_context(self.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None and self.key_file is not None:
            try:  # without a password OpenSSL would ask for one on the terminal
                context.load_cert_chain(self.cert_file.path, self.key_file.path, password="")
            except OSError as error:
                reason = (getattr(error, "reason", None) or "not readable").lower().replace("_", " ")
                remedy = "name a certificate and its own key, both as PEM, the key without a passphrase"
                problem = f"cannot be used with cert_file ({reason})"
                raise InvalidValueError(problem, remedy=remedy, at="key_file") from None
        return context


class HttpSinkSettings(RemoteSettings):
    """Common to all sinks with a `Poster`."""

    allow_private: bool = Field(default=True, examples=["false"])
    """`false` refuses a target that resolves to an address of this machine or of a private network. See
    [sinks.md](sinks.md#connections)."""
    tls: TlsSettings | None = Field(default=None, examples=["{ca_file: ca.pem}"])
    """Whom to trust instead of the system's CAs, and the certificate to show. For `https://` only. Relative paths
    start beside the configuration file; a change of a file is taken up."""

    @field_validator("url", check_fields=False)
    @classmethod
    def _secured(cls, value: SecretStr | str, info: ValidationInfo) -> SecretStr | str:
        if info.data.get("tls") is not None and URL(_plain(value)).scheme != "https":
            raise InvalidValueError("has tls, and does not begin with https://", remedy="write https://, or remove tls")
        return value

    @property
    def address(self) -> str:
        """Return the whole URL, which may be a secret."""
        raise NotImplementedError

    @property
    def target(self) -> str:
        """Return scheme and host, with the port where there is one: the path may be a secret."""
        return shown_url(self.address)

    async def connect(self) -> str:
        """Connect to the host, through the proxy that leads there, and say nothing."""
        poster = self.poster(URL(self.address), headers={}, context=SinkContext(Clock(), check=stop))
        try:
            return await poster.try_connection()
        finally:
            await poster.close()

    def poster(self, url: URL, *, headers: Mapping[str, str], context: SinkContext) -> Poster:
        """Return what posts to this URL."""
        return Poster(
            url,
            headers=headers,
            timeout_s=self.timeout_s,
            context=context,
            allow_private=self.allow_private,
            tls=None if self.tls is None else self.tls.context,
        )

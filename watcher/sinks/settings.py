"""What the blocks of sinks have in common: which events they get; of those that send elsewhere, when and how often."""

import base64
import binascii
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from watcher.domain.event import EventType
from watcher.domain.routing import GroupRules
from watcher.runtime.settings import (
    Block,
    Duration,
    Labels,
    Rate,
    as_written,
    did_you_mean,
    one_or_list,
    split_http_url,
)
from watcher.runtime.units import InvalidValueError
from watcher.sinks.protocol import RetryRules, Sink, SinkContext, WorkerRules
from watcher.sinks.signing import SECRET_PREFIX

BATCH_COUNT = 100
GROUP_COUNT = 10_000
"""Events in one batch of a plain webhook by default, and in one of anything at most."""

_WRITTEN = tuple(sorted({*EventType, *(f"{type_.partition('.')[0]}.*" for type_ in EventType)}))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = frozenset({"content-type", "content-length", "user-agent", "host", "transfer-encoding"})
_SECRET_BYTES = range(24, 65)
_GROUPED_BY = ("pipeline", "account", "type")


def _glob(value: str) -> str:
    if any(fnmatchcase(type_, value) for type_ in EventType):
        return value
    meant = next((type_ for type_ in EventType if type_.endswith(f".{value}")), value)
    rest = 'globs such as "execution.*" work'
    raise InvalidValueError("matches no event type", remedy=did_you_mean(meant, _WRITTEN, rest=rest))


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


def _sink_url(value: SecretStr) -> SecretStr:
    split_http_url(value.get_secret_value(), example="https://hooks.example.com/clerk")
    return value


SinkUrl = Annotated[SecretStr, AfterValidator(_sink_url)]
"""Where events are posted to. Its path is a secret."""


def _signing_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if text.startswith(SECRET_PREFIX) and len(key) in _SECRET_BYTES:
        return value
    remedy = "write whsec_ + base64 of 24 to 64 bytes; make one: watcher init --secret"
    raise InvalidValueError("not a signing secret", remedy=remedy, quote=False)


SigningSecrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_signing_secret)], ...],
    BeforeValidator(one_or_list, json_schema_input_type=str | list[str]),
]
"""Signing secrets of Standard Webhooks; one text is a list of one."""


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise InvalidValueError("is not a header's name", remedy="write it like X-Team", quote=False)
    if value.lower() in _OWN_HEADERS or value.lower().startswith("webhook-"):
        raise InvalidValueError("is set by the watcher itself", remedy="remove it or choose another header")
    return value


def _header_value(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        raise InvalidValueError("holds a line end or control character", remedy="write it on one line", quote=False)
    return value


Headers = Mapping[
    Annotated[str, AfterValidator(_header_name)],
    Annotated[SecretStr, AfterValidator(_header_value)],
]
"""Headers added to each request. Their values are secrets."""


class Match(Block):
    """Which events with a pipeline are wanted: all labels must match, any pipeline."""

    labels: Labels = Field(
        default_factory=dict, description="The watch must have all of these labels.", examples=["{team: sales}"]
    )
    pipelines: tuple[UUID, ...] = Field(
        default=(),
        description="The pipeline must be one of these.",
        examples=["[0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]"],
    )


class SinkSettings(Block):
    """Common to all sinks. `events` are globs over event types."""

    events: EventGlobs = ("*",)
    match: Match = Field(default=Match(), description="Restricts events of a pipeline; others pass by `events` alone.")

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


def _group_field(value: str) -> str:
    if value in _GROUPED_BY or (value.startswith("labels.") and value != "labels."):
        return value
    rest = f"write {', '.join(_GROUPED_BY)} or labels.NAME"
    raise InvalidValueError(
        "is nothing to group by", remedy=did_you_mean(value, _GROUPED_BY, rest=rest), blind_remedy=rest
    )


class RetrySettings(Block):
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))),
        min_length=1,
        description="The waits of a delivery that fails while others get through (±20 %), unless `Retry-After` asks "
        "for more; the last one repeats.",
        examples=["[5s, 1m, 10m]"],
    )
    give_up_after_s: Duration = Field(
        default=as_written("3d"),
        alias="give_up_after",
        description="How long a delivery is retried, from when it was first due; then it is a dead letter.",
        examples=["12h"],
    )


class GroupSettings(Block):
    """Which events are sent together. `max` is absent unless it is given."""

    by: tuple[Annotated[str, AfterValidator(_group_field)], ...] = Field(
        default=("pipeline",),
        min_length=1,
        description="Events alike in all of these share a group: `pipeline`, `account`, `type`, `labels.NAME`. One "
        "that lacks any of them goes alone.",
        examples=["[pipeline, labels.team]"],
    )
    wait_s: Duration = Field(
        default=as_written("30s"),
        alias="wait",
        description="How long a group is open, from when its first event was recorded; less than "
        "`retry.give_up_after`.",
        examples=["2m"],
    )
    max: int | None = Field(
        default=None,
        ge=1,
        le=GROUP_COUNT,
        description=f"The most events in one batch ({BATCH_COUNT} unless given, at most {GROUP_COUNT}). Only of a "
        "webhook without `template`: one message has room for all.",
        examples=["500"],
    )

    def rules(self, *, is_batch: bool) -> GroupRules:
        """Return how the worker is to group; `is_batch` says that events are posted as they are."""
        return GroupRules(self.by, self.wait_s, (self.max or BATCH_COUNT) if is_batch else GROUP_COUNT)


class RemoteSettings(SinkSettings):
    """Common to all sinks but stdout: they may be slow, away, or asked too much of."""

    timeout_s: Duration = Field(
        default=as_written("15s"), alias="timeout", description="How long one request may take.", examples=["5s"]
    )
    rate_limit: Rate = Field(
        default=as_written("100/s"),
        description="The most requests sent. Slack and Teams: `1/s`, Discord: `30/m`, PagerDuty: `2/s`.",
        examples=["60/m"],
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="When a failed delivery is tried again.")
    group: GroupSettings | None = Field(
        default=None,
        description="Sends events together: a webhook without `template` as a CloudEvents batch, else as one message.",
        examples=["{by: [pipeline], wait: 30s}"],
    )
    remind_every_s: Duration | None = Field(
        default=None,
        alias="remind_every",
        description="How often `problem.reminder` is sent while a problem is open. Without it never.",
        examples=["4h"],
    )

    @property
    def sends_batches(self) -> bool:
        """Whether a group is sent as a batch of events, not as one message."""
        return False

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        return WorkerRules(
            RetryRules(self.retry.schedule, self.retry.give_up_after_s),
            self.rate_limit,
            group=None if self.group is None else self.group.rules(is_batch=self.sends_batches),
            remind_every_s=self.remind_every_s,
        )

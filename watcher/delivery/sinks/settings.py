"""What every sink's block has: which events of which pipelines it gets; and the types of the values of sinks alone.

What a sink does with them is its own file's business.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from watcher.delivery.sinks.protocol import Sink, SinkContext, WorkerRules
from watcher.delivery.sinks.signing import SECRET_PREFIX
from watcher.domain.event import EventType
from watcher.runtime.settings import Block, Labels, did_you_mean, one_or_list, split_http_url
from watcher.runtime.units import InvalidValueError

LATER_EVENTS = ("problem.acknowledged",)
"""Types of SPEC 5 that this version never emits."""

_WRITTEN = tuple(sorted({*EventType, *(f"{type_.partition('.')[0]}.*" for type_ in EventType)}))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = frozenset({"content-type", "content-length", "user-agent", "host", "transfer-encoding"})
_SECRET_BYTES = range(24, 65)


def _glob(value: str) -> str:
    if any(fnmatchcase(type_, value) for type_ in EventType):
        return value
    if any(fnmatchcase(type_, value) for type_ in LATER_EVENTS):
        raise InvalidValueError("matches only events of a later version", remedy="remove it until then")
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

        Raises `TransportFailedError`, or `NotConnectedError` where its target says why not.
        """
        raise NotImplementedError

"""The webhook sink and its settings. A template makes the requests; the sink signs them and posts them to one URL.

The delivery worker decides when to try. Only scheme and host of the URL are ever shown: its path is a secret.
"""

import asyncio
import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import SentOpening
from watcher.domain.routing import IncidentRules
from watcher.runtime.settings import file_twin, one_or_list, split_http_url
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alertmanager import AlertmanagerTemplate
from watcher.sinks.chat import ChatTemplate
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.http_post import Poster
from watcher.sinks.pagerduty import INCIDENT_WAIT_S, PagerDutyTemplate, RoutingKey
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext, WorkerRules
from watcher.sinks.settings import BATCH_COUNT, GroupSettings, HttpSinkSettings
from watcher.sinks.slack import SlackTemplate
from watcher.sinks.teams import TeamsTemplate
from watcher.sinks.template import ALERT_EVENTS, BatchTemplate, EventTemplate, Message, Template, minimal_next

PRESETS: Mapping[str, type[Template]] = {
    "slack": SlackTemplate,
    "discord": DiscordTemplate,
    "teams": TeamsTemplate,
    "pagerduty": PagerDutyTemplate,
    "alertmanager": AlertmanagerTemplate,
}
"""The templates by the names of their receivers."""


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """The operator's own template: its path as written, and its content, which may hold secrets."""

    path: str
    source: str = field(repr=False)


_Preset: Any = Literal[tuple(PRESETS)]
_PRESET: TypeAdapter[str] = TypeAdapter(_Preset)


def _preset_or_file(value: object) -> str | TemplateFile:
    return value if isinstance(value, TemplateFile) else _PRESET.validate_python(value)


def _dumped(value: str | TemplateFile) -> Any:
    return [value.path, value.source] if isinstance(value, TemplateFile) else value


TemplateChoice = Annotated[
    str | TemplateFile, PlainValidator(_preset_or_file, json_schema_input_type=_Preset | str), PlainSerializer(_dumped)
]
"""The name of a receiver, or the path of a template file. The loader replaces the path by a `TemplateFile`."""

_EXAMPLE_URL = "https://hooks.example.com/clerk"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RETIRED = re.compile(r"(?:.+\.)?webhook\.office\.com|outlook\.office(?:365)?\.com")
"""The hosts of Office 365 connectors. The URLs of Teams flows, their successors, are not matched by any pattern."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = frozenset({"content-type", "content-length", "user-agent", "host", "transfer-encoding"})


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise InvalidValueError("is not a header's name", remedy="write it like X-Team")
    if value.lower() in _OWN_HEADERS or value.lower().startswith("webhook-"):
        raise InvalidValueError("is set by the watcher itself", remedy="remove it or choose another header", quote=True)
    return value


def _header_value(value: SecretStr) -> SecretStr:
    if _CONTROL.search(value.get_secret_value()):
        raise InvalidValueError("holds a line end or control character", remedy="write it on one line")
    return value


Headers = Mapping[Annotated[str, AfterValidator(_header_name)], Annotated[SecretStr, AfterValidator(_header_value)]]
"""Headers that are added to each request. Their values are secrets."""


SECRET_PREFIX = "whsec_"  # noqa: S105 (the prefix of secrets, not a secret)
_SECRET_BYTES = range(24, 65)


def _signing_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if text.startswith(SECRET_PREFIX) and len(key) in _SECRET_BYTES:
        return value
    remedy = "write whsec_ + base64 of 24 to 64 bytes; make one: watcher init --secret"
    raise InvalidValueError("not a signing secret", remedy=remedy)


SigningSecrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_signing_secret)], ...],
    BeforeValidator(one_or_list, json_schema_input_type=str | list[str]),
]
"""The signing secrets of a webhook. A single text counts as a list of one."""


def _sink_url(value: SecretStr) -> SecretStr:
    parts = split_http_url(value.get_secret_value(), example=_EXAMPLE_URL)
    if _RETIRED.fullmatch(parts.hostname or ""):
        remedy = 'make the flow "Post to a channel when a webhook request is received" in Teams, and copy its URL'
        raise InvalidValueError("is an Office 365 connector, which Microsoft has switched off", remedy=remedy)
    return value


class WebhookSettings(HttpSinkSettings):
    """`{type: webhook, url: …}`. `secret` is a tuple of secrets: each of them signs."""

    type: Literal["webhook"] = Field(examples=["webhook"])
    """Posts each event to a URL, signed if there is a `secret`."""
    template: TemplateChoice | None = Field(default=None, examples=["pagerduty"])
    """Posts messages instead of events: for the named receiver, or made by the Jinja2 file at this path, which may
    start beside the configuration file. It changes the [defaults](../sinks.md) of `events` and `rate_limit`."""
    routing_key: RoutingKey | None = Field(default=None, examples=["${PAGERDUTY_ROUTING_KEY}"])
    """The integration key of the PagerDuty service, 32 characters. Only for `template: pagerduty`, which needs it."""
    routing_key_file: str | None = file_twin("the routing key", example="/run/secrets/pagerduty_key")
    url: Annotated[SecretStr, AfterValidator(_sink_url)] = Field(examples=[_EXAMPLE_URL])
    """The URL to post to. Required, unless `template` is `pagerduty`. Only scheme and host are ever shown."""
    url_file: str | None = file_twin("the URL", example="/run/secrets/ops_url")
    secret: SigningSecrets = Field(default=(), examples=["${OPS_WEBHOOK_SECRET}"])
    """Signs each request (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes. A list signs with each, for
    rotation."""
    secret_file: str | None = file_twin("the secrets, one per line", example="/run/secrets/ops_webhook_secret")
    headers: Headers = Field(default_factory=dict, examples=['{Authorization: "Bearer ${OPS_TOKEN}"}'])
    """Headers that are added to each request. Their values are secrets."""

    @model_validator(mode="wrap")
    @classmethod
    def _with_defaults(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the template's defaults. They do not count as set by the file: fingerprints leave them out."""
        template = value.get("template") if isinstance(value, dict) else None
        if template is None:
            return handler(value)
        preset = PRESETS.get(template) if isinstance(template, str) else None
        defaults = {"events": list(ALERT_EVENTS), **({} if preset is None else preset.defaults)}
        missing = {key: default for key, default in defaults.items() if value.get(key) is None}
        settings = handler({**value, **missing} if missing else value)
        settings.model_fields_set.difference_update(missing)
        return settings

    @field_validator("routing_key", mode="before")
    @classmethod
    def _of_pagerduty(cls, value: object, info: ValidationInfo) -> object:
        is_pagerduty = info.data.get("template") == "pagerduty"
        if is_pagerduty and value is None:
            remedy = "write routing_key: ${PAGERDUTY_ROUTING_KEY}, an integration key of 32 characters"
            raise InvalidValueError("template pagerduty needs routing_key or routing_key_file", remedy=remedy)
        if value is not None and not is_pagerduty and "template" in info.data:
            raise InvalidValueError("is of template pagerduty only", remedy="add that template, or remove it")
        return value

    @model_validator(mode="after")
    def _grouped_as_incidents(self) -> Self:
        if self.template == "pagerduty" and self.group is not None and "type" in self.group.by:
            remedy = "write pipeline, account or labels.NAME"
            raise InvalidValueError("type is not for incidents", remedy=remedy, at="group")
        return self

    @property
    def is_chat(self) -> bool:
        """Whether people read each message: in a chat that keeps no state, or as mail."""
        return isinstance(self.template, str) and issubclass(PRESETS[self.template], ChatTemplate)

    @property
    def rules(self) -> WorkerRules:
        """Return the rules by which the worker sends: incidents to PagerDuty, events or groups elsewhere."""
        rules, group = super().rules, self.group or GroupSettings()
        if self.template != "pagerduty":
            return rules
        wait_s = group.wait_s if "wait_s" in group.model_fields_set else INCIDENT_WAIT_S
        return replace(rules, group=None, incidents=IncidentRules(group.by, wait_s))

    @property
    def group_count(self) -> int:
        """Return the most events that are sent together."""
        if self.template is None:
            return (self.group and self.group.max) or BATCH_COUNT
        return Template.group_count if isinstance(self.template, TemplateFile) else PRESETS[self.template].group_count

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        template = self.chosen_template(context)
        keys = [signing_key(secret.get_secret_value()) for secret in self.secret]
        poster = self.open_poster(template.post_url(URL(self.address)), headers=headers, context=context)
        return WebhookSink(poster, template, keys=keys, context=context)

    def chosen_template(self, context: SinkContext) -> Template:
        """Return the template that makes the requests."""
        if self.template is None:
            return EventTemplate() if self.group is None else BatchTemplate()
        if isinstance(self.template, TemplateFile):
            from watcher.sinks.own_template import OwnTemplate  # noqa: PLC0415 (it imports jinja2, which few need)

            source, url = self.template.source, context.public_url
            return OwnTemplate(source, clock=context.clock, public_url=url)
        key = "" if self.routing_key is None else self.routing_key.get_secret_value()
        return PRESETS[self.template](clock=context.clock, public_url=context.public_url, routing_key=key)


class WebhookSink(Sink):
    """The sink of one receiver at one URL."""

    def __init__(self, poster: Poster, template: Template, *, keys: Sequence[bytes], context: SinkContext) -> None:
        self.refresh_every_s = template.refresh_every_s
        self.keeps_state = template.keeps_state
        self._context = context
        self._poster = poster
        self._template = template
        self._keys = keys
        self._refreshing = asyncio.Lock()
        self._closed: set[UUID | None] = set()  # the problems whose closing was sent since the last refresh

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Post the requests of a delivery or a group once. The first failure ends the attempt.

        The next attempt posts all requests again. Only PagerDuty gets several, and knows them by `dedup_key`.
        """
        if self.refresh_every_s is not None and (closed := {each.problem for each in batch if each.closes}):
            self._closed |= closed
            async with self._refreshing:  # wait: a refresh in flight may still post these problems as open
                pass
        result = SendResult(SendOutcome.DELIVERED, "200")
        for nth, message in enumerate(await self._template.prepare(batch)):
            if nth:
                await asyncio.sleep(self._context.take_slot())
            answer = await self._post(message, batch)
            result = answer if result.outcome.is_taken else result
            # A test is resolved even if its trigger seems to have failed: only the answer may have been lost.
            if not answer.outcome.is_taken and batch[0].type != EventType.WATCHER_TEST:
                break
        return result

    async def refresh(self, openings: Sequence[SentOpening]) -> SendResult:
        """Post the state of open and recently closed problems again, for a template with `refresh_every_s`.

        A problem in `openings` whose closing was sent in the meantime is left out: the refresh would open it again.
        """
        result = SendResult(SendOutcome.DELIVERED, "200")
        async with self._refreshing:
            known = [each for each in openings if each.closed_at is not None or each.problem.id not in self._closed]
            self._closed.clear()  # the next refresh gets these problems as closed
            for message in await asyncio.to_thread(self._template.refreshes, known):
                result = await self._post(message)
                if not result.outcome.is_taken:
                    break
        return result

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.aclose()

    async def _post(self, message: Message, batch: Sequence[Delivery] = ()) -> SendResult:
        """Post one message once. `batch` is empty for a refresh."""
        timestamp = str(int(self._context.clock.now().timestamp()))
        headers = {"Content-Type": message.content_type, "webhook-id": message.id, "webhook-timestamp": timestamp}
        if self._keys:
            signature = sign(message.body, message_id=message.id, timestamp=timestamp, keys=self._keys)
            headers["webhook-signature"] = signature
        template = self._template
        result = await self._poster.request(
            message.body, judge=template.send_result, headers=headers, judged_by_body=template.judged_by_body
        )
        has_minimal_left = template.has_minimal and result.outcome is SendOutcome.REFUSED
        return minimal_next(batch, result) if has_minimal_left else result


def signing_key(secret: str) -> bytes:
    """Return the bytes of the key in `whsec_<base64>`."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def sign(body: bytes, *, message_id: str, timestamp: str, keys: Sequence[bytes]) -> str:
    """Return the `webhook-signature` header: one signature per key, because a receiver may know only one of them.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#signature-scheme
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)

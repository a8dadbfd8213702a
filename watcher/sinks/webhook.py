"""A webhook sink: its settings, and how it posts what a template makes of events to one URL, signed.

When to try, and how often, is the worker's. Of the URL only scheme and host are ever shown: its path is a secret.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
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
from watcher.domain.errors import TransportFailedError
from watcher.runtime.clock import Clock
from watcher.runtime.settings import describe_twins, not_both_twins, one_of_twins
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alertmanager import REFRESH_EVERY_S, AlertmanagerTemplate, parts_of
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.http_post import Poster, result_without_answer, stop, with_retry_after
from watcher.sinks.http_settings import HttpSinkSettings
from watcher.sinks.pagerduty import PagerDutyTemplate
from watcher.sinks.protocol import SendOutcome, SendResult, SentProblem, Sink, SinkContext
from watcher.sinks.request_series import TAKEN, RequestSlots, TakenParts, make_messages
from watcher.sinks.settings import Headers, SigningSecrets, SinkUrl
from watcher.sinks.signing import sign, signing_key
from watcher.sinks.slack import SlackTemplate
from watcher.sinks.teams import TeamsTemplate
from watcher.sinks.template import (
    ALERT_EVENTS,
    BatchTemplate,
    EventTemplate,
    Message,
    MessageLog,
    Template,
    TemplateFailure,
)

Preset = Literal["slack", "discord", "teams", "pagerduty", "alertmanager"]
"""Receivers that there is a template for."""

PRESETS: Mapping[str, type[Template]] = {
    "slack": SlackTemplate,
    "discord": DiscordTemplate,
    "teams": TeamsTemplate,
    "pagerduty": PagerDutyTemplate,
    "alertmanager": AlertmanagerTemplate,
}
"""Each of them, and its template."""

OWN_DEFAULTS: Mapping[str, Any] = {"events": list(ALERT_EVENTS)}
"""What a template of one's own brings where the file says nothing: it is for people, as the presets are."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    name: {**OWN_DEFAULTS, **template.defaults} for name, template in PRESETS.items()
}
"""What each preset brings where the file says nothing."""


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A template of the operator's own: its path, as the configuration has it, and what it holds, which may be secret.

    jinja2 is imported only once there is one: that takes time, and most configurations have none.
    """

    path: str
    source: str = field(repr=False)

    def check(self, *, with_group: bool) -> TemplateFailure | None:
        """Return what is wrong with it: as a template, or with what it makes of examples."""
        from watcher.sinks.own_template import check  # noqa: PLC0415 (it imports jinja2)

        return check(self.source, with_group=with_group)

    def template(self, *, timeout_s: float) -> Template:
        """Return what makes messages by it, once it is checked."""
        from watcher.sinks.own_template import OwnTemplate  # noqa: PLC0415 (it imports jinja2)

        return OwnTemplate(self.source, timeout_s=timeout_s)


_PRESET: TypeAdapter[Preset] = TypeAdapter(Preset)


def _preset_or_file(value: object) -> Preset | TemplateFile:
    return value if isinstance(value, TemplateFile) else _PRESET.validate_python(value)


def _dumped(value: Preset | TemplateFile) -> Any:
    return [value.path, value.source] if isinstance(value, TemplateFile) else value


TemplateChoice = Annotated[
    Preset | TemplateFile,
    PlainValidator(_preset_or_file, json_schema_input_type=Preset | str),
    PlainSerializer(_dumped),
]
"""A receiver, or a file: what it holds is put in by whoever reads the configuration."""

_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


def _routing_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if _ROUTING_KEY.fullmatch(key):
        return value
    problem = "is not a routing key" if len(key) == 32 else f"has {len(key)} characters"
    remedy = "copy the Integration Key of an Events API v2 integration: 32 letters and digits"
    raise InvalidValueError(problem, remedy=remedy, quote=False)


RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
"""Which PagerDuty service an event is for. Everybody who has it can page."""


def _in_use(value: SecretStr) -> SecretStr:
    host = (URL(value.get_secret_value()).host or "").lower().rstrip(".")
    if not f".{host}".endswith(".webhook.office.com"):
        return value
    raise InvalidValueError(
        "is that of an Office 365 connector, which Microsoft has retired",
        remedy='in Teams, make the workflow "Post to a channel when a webhook request is received" and write its URL, '
        "with template: teams",
        quote=False,
    )


WebhookUrl = Annotated[SinkUrl, AfterValidator(_in_use)]
"""Where a webhook posts to, which is still in use."""


def _url_may_be_left_out(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Let the JSON Schema do without a URL where the template brings one."""
    describe_twins(schema, model)
    brings_url = {"properties": {"template": {"const": "pagerduty"}}, "required": ["template"]}
    needed = one_of_twins("url")
    schema["allOf"].remove(needed)
    schema["allOf"].append({"if": brings_url, "then": not_both_twins("url"), "else": needed})


class WebhookSettings(HttpSinkSettings):
    """`{type: webhook, url: …}`. `secret` is a tuple, for a list signs with each."""

    model_config = ConfigDict(json_schema_extra=_url_may_be_left_out)

    type: Literal["webhook"] = Field(description="Posts each event to a URL, signed.", examples=["webhook"])
    template: TemplateChoice | None = Field(
        default=None,
        description="Posts messages made for this receiver instead of events, or what a Jinja2 file makes of them "
        "(its path begins beside this file). It brings its own defaults of `events` (all but `execution.new`, "
        "`.running`, `.paused`, `.success`) and, but for a file, `rate_limit`. See [sinks.md](sinks.md).",
        examples=["pagerduty"],
    )
    routing_key: RoutingKey | None = Field(
        default=None,
        description="`template: pagerduty` only, which needs it: the integration key of the service, 32 characters.",
        examples=["${PAGERDUTY_ROUTING_KEY}"],
    )
    routing_key_file: str | None = Field(
        default=None, description="The file that holds the routing key.", examples=["/run/secrets/pagerduty_key"]
    )
    url: WebhookUrl = Field(
        description="The URL to post to. Required, unless `url_file` is given or `template` is `pagerduty`. Only "
        "scheme and host are ever shown.",
        examples=["https://hooks.example.com/clerk"],
    )
    url_file: str | None = Field(
        default=None, description="The file that holds the URL.", examples=["/run/secrets/ops_url"]
    )
    secret: SigningSecrets = Field(
        default=(),
        description="Signs each request (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes. "
        "A list signs with each, for rotation. Without one nothing is signed.",
        examples=["${OPS_WEBHOOK_SECRET}"],
    )
    secret_file: str | None = Field(
        default=None,
        description="The file that holds the secrets, one per line.",
        examples=["/run/secrets/ops_webhook_secret"],
    )
    headers: Headers = Field(
        default_factory=dict,
        description="Added to each request; their values are secrets.",
        examples=['{Authorization: "Bearer ${OPS_TOKEN}"}'],
    )

    @model_validator(mode="wrap")
    @classmethod
    def _with_defaults(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in what the template's receiver wants. Such do not count as given: fingerprints rely on that."""
        template = value.get("template") if isinstance(value, dict) else None
        defaults = OWN_DEFAULTS if isinstance(template, TemplateFile) else {}
        if isinstance(template, str):
            defaults = DEFAULTS.get(template, {})
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
            problem = "template pagerduty needs routing_key or routing_key_file"
            raise InvalidValueError(problem, remedy=remedy, quote=False)
        if value is not None and not is_pagerduty and "template" in info.data:
            raise InvalidValueError(
                "is of template pagerduty only", remedy="add that template, or remove it", quote=False
            )
        return value

    @property
    def address(self) -> str:
        """Return the whole URL: its path is a secret."""
        return self.url.get_secret_value()

    @property
    def sends_batches(self) -> bool:
        """Whether a group goes as a CloudEvents batch."""
        return self.template is None

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        template = self.chosen_template(context.clock)
        keys = [signing_key(secret.get_secret_value()) for secret in self.secret]
        poster = self.poster(template.post_url(URL(self.address)), headers=headers, check=context.check)
        return WebhookSink(poster, template, keys=keys, context=context)

    async def connect(self) -> str:
        """Connect to the host, through the proxy that leads there, and say nothing."""
        poster = self.poster(URL(self.address), headers={}, check=stop)
        try:
            return await poster.try_connection()
        finally:
            await poster.close()

    def chosen_template(self, clock: Clock) -> Template:
        """Return what makes its requests."""
        if self.template is None:
            return EventTemplate() if self.group is None else BatchTemplate()
        if isinstance(self.template, TemplateFile):
            return self.template.template(timeout_s=self.timeout_s)
        template = PRESETS[self.template]
        if issubclass(template, PagerDutyTemplate):
            return template(self._key())
        if issubclass(template, AlertmanagerTemplate):
            return template(clock)
        return template()

    def _key(self) -> str:
        return "" if self.routing_key is None else self.routing_key.get_secret_value()


class WebhookSink(Sink):
    """Posts to one URL."""

    def __init__(self, poster: Poster, template: Template, *, keys: Sequence[bytes], context: SinkContext) -> None:
        """Sign with each of the keys, if there are any."""
        self.refresh_every_s = REFRESH_EVERY_S if isinstance(template, AlertmanagerTemplate) else None
        self._clock = context.clock
        self._take_slot = context.take_slot
        self._poster = poster
        self._template = template
        self._keys = keys
        self._log = MessageLog(context.clock)
        self._taken = TakenParts()
        self._refreshing = asyncio.Lock()  # held for each request of a refresh
        self._closed: set[UUID] = set()  # problems whose end went out, which a refresh may have read as open before

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Post a delivery or a group once, as its template says; the first request that is not taken ends it.

        The next attempt goes on behind what was taken: of a large group no attempt may get all through.
        """
        if isinstance(self._template, AlertmanagerTemplate):
            await self._wait_for_refresh(await make_messages(self._template.closed_by, batch))
        slots = RequestSlots(self._take_slot)
        messages = await self._template.requests(batch)
        for message in messages:
            if message.is_cut:
                self._log.cut(batch[0])

        async def post(message: Message) -> SendResult:
            return await self._post_once(message, batch[0], slots)

        return await self._taken.send(batch, messages, post)

    async def refresh(self, problems: Sequence[SentProblem]) -> SendResult:
        """Post again what open and lately closed problems are. Only for what asks for it by `refresh_every_s`.

        One whose end went out after it was read as open is left out: it would be opened again.
        """
        assert isinstance(self._template, AlertmanagerTemplate)
        result = SendResult(SendOutcome.DELIVERED, "200")
        try:
            for part in parts_of(problems):
                async with self._refreshing:
                    known = [each for each in part if each.closed_at is not None or each.problem.id not in self._closed]
                    if known:
                        result = await self._post(await make_messages(self._template.refresh, known))
                if result.outcome not in TAKEN:
                    break
        finally:
            self._closed.clear()  # the next refresh reads them as closed
        return result

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.close()

    async def _wait_for_refresh(self, closed: frozenset[UUID]) -> None:
        """Return once no request is under way, nor will be, that says of one of these problems that it is open."""
        if closed:
            self._closed |= closed
            async with self._refreshing:
                pass

    async def _post_once(self, message: Message, delivery: Delivery, slots: RequestSlots) -> SendResult:
        """Post once when its slot has come."""
        if message.failure is not None:
            self._log.failed(delivery, message.failure)
        await slots.wait()
        result = await self._post(message, replayed=delivery.replayed)
        if result.outcome is SendOutcome.REFUSED and self._template.has_minimal and not delivery.rejections:
            self._log.rejected(delivery, answer=result.answer)
            return replace(result, minimal_left=True)
        return result

    async def _post(self, message: Message, *, replayed: bool = False) -> SendResult:
        headers = self._headers_of(message, replayed=replayed)
        try:
            answer = await self._poster.post(
                message.body, headers=headers, judged_by_body=self._template.judged_by_body
            )
        except TransportFailedError as error:
            return result_without_answer(error)
        return with_retry_after(self._template.send_result(answer), answer, now=self._clock.now())

    def _headers_of(self, message: Message, *, replayed: bool) -> dict[str, str]:
        timestamp = str(int(self._clock.now().timestamp()))
        headers = {
            "Content-Type": message.content_type or self._template.content_type,
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
        }
        if replayed:
            headers["webhook-replay"] = "1"
        if self._keys:
            headers["webhook-signature"] = sign(
                message.body, message_id=message.id, timestamp=timestamp, keys=self._keys
            )
        return headers

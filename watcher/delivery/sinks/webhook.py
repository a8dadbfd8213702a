"""The settings of a webhook sink: where it posts to, signed, and by which template.

When to try, and how often, is the worker's. Of the URL only scheme and host are ever shown: its path is a secret.
"""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from yarl import URL

from watcher.delivery.sinks.alertmanager import AlertmanagerTemplate
from watcher.delivery.sinks.connection_trial import connect
from watcher.delivery.sinks.http_post import Poster
from watcher.delivery.sinks.http_settings import HttpSinkSettings
from watcher.delivery.sinks.message_log import MessageLog
from watcher.delivery.sinks.pagerduty import PagerDutyTemplate
from watcher.delivery.sinks.protocol import Sink, SinkContext
from watcher.delivery.sinks.settings import Headers, SigningSecrets
from watcher.delivery.sinks.signing import signing_key
from watcher.delivery.sinks.template import BatchTemplate, EventTemplate, Template
from watcher.delivery.sinks.template_file import TemplateFile
from watcher.delivery.sinks.webhook_sender import WebhookSink
from watcher.delivery.sinks.webhook_settings import (
    DEFAULTS,
    OWN_DEFAULTS,
    PRESETS,
    RoutingKey,
    TemplateChoice,
    WebhookUrl,
    check_address,
)
from watcher.runtime.clock import Clock
from watcher.runtime.settings import (
    describe_twins,
    not_both_twins,
    one_of_twins,
)
from watcher.runtime.units import InvalidValueError

SECRET_LENGTH = 4
"""What has fewer characters is no secret, and occurs in any text."""


def _url_may_be_left_out(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Let the JSON Schema do without a URL where the template brings one."""
    describe_twins(schema, model)
    brings_url = {"properties": {"template": {"const": "pagerduty"}}, "required": ["template"]}
    needed = one_of_twins("url")
    schema["allOf"].remove(needed)
    schema["allOf"].append({"if": brings_url, "then": not_both_twins("url"), "else": needed})


def _secrets_in(text: str) -> tuple[str, ...]:
    """Return what gives a URL away: its login, its path, the end of that, and its query's values."""
    url = URL(text)
    login = filter(None, (url.raw_user, url.user, url.raw_password, url.password))
    path = url.raw_path.strip("/")
    queries = (url.raw_query_string, urlsplit(text).query)  # as it is sent, and as it is written
    values = [value for query in queries for pair in query.split("&") for value in pair.partition("=")[2:]]
    return (*login, url.raw_path_qs.strip("/"), path, path.rpartition("/")[2], *values, *url.query.values())


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

    @field_validator("url")
    @classmethod
    def _of_receiver(cls, value: WebhookUrl, info: ValidationInfo) -> WebhookUrl:
        if isinstance(template := info.data.get("template"), str):
            check_address(URL(value.get_secret_value()), template=template)
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
        words = (word for value in headers.values() for word in value.split())  # a token also stands behind `Bearer`
        secrets = (*_secrets_in(self.address), self._key(), *headers.values(), *words)
        log = MessageLog(context.clock, hidden=tuple(text for text in secrets if len(text) >= SECRET_LENGTH))
        template, rules = self.chosen_template(context.clock), self.connection_rules()
        keys = [signing_key(secret.get_secret_value()) for secret in self.secret]
        url = template.post_url(URL(self.address))
        poster = Poster(url, headers=headers, timeout_s=self.timeout_s, context=context, rules=rules)
        return WebhookSink(poster, template, keys=keys, log=log, context=context)

    async def connect(self) -> str:
        """Connect to the host, through the proxy that leads there, and say nothing."""
        url = URL(self.address)
        return await connect(url, timeout_s=self.timeout_s, rules=self.connection_rules())

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

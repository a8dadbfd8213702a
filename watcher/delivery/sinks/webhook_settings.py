"""Values of a webhook's settings: the URL, the routing key, and which templates there are with what defaults."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, PlainSerializer, PlainValidator, SecretStr, TypeAdapter
from yarl import URL

from watcher.delivery.sinks.alertmanager import PATH, AlertmanagerTemplate
from watcher.delivery.sinks.discord import DiscordTemplate
from watcher.delivery.sinks.pagerduty import PagerDutyTemplate
from watcher.delivery.sinks.settings import SinkUrl
from watcher.delivery.sinks.slack import SlackTemplate
from watcher.delivery.sinks.teams import TeamsTemplate, is_retired
from watcher.delivery.sinks.template import ALERT_EVENTS, Template
from watcher.delivery.sinks.template_file import TemplateFile
from watcher.runtime.units import InvalidValueError

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
"""Which PagerDuty service an event is for. Whoever has it can page."""


def _in_use(value: SecretStr) -> SecretStr:
    if not is_retired(URL(value.get_secret_value())):
        return value
    raise InvalidValueError(
        "is that of an Office 365 connector, which Microsoft has retired",
        remedy='in Teams, make the workflow "Post to a channel when a webhook request is received" and write its URL, '
        "with template: teams",
        quote=False,
    )


class _Address(NamedTuple):
    """Where a receiver takes messages: the hosts that are its own, and what host and path a webhook has there."""

    hosts: re.Pattern[str]
    webhooks: re.Pattern[str]
    remedy: str


_ADDRESSES: Mapping[str, _Address] = {
    "slack": _Address(
        re.compile(r"(.+\.)?slack(-gov)?\.com"),
        re.compile(r"[^/]+/services/.+"),
        "copy the URL of an incoming webhook of your app, https://hooks.slack.com/services/…",
    ),
    "discord": _Address(
        re.compile(r"(.+\.)?discord(app)?\.com"),
        re.compile(r"[^/]+/api/(v\d+/)?webhooks/\d+/[\w-]+/?"),
        "copy it in the channel (Edit Channel, Integrations, Webhooks), and add no /slack or /github",
    ),
}
"""Any other host may be a relay of one's own, or a receiver that takes the same. Slack's workflows, on the host of its
webhooks, take what one likes."""

_PAGERDUTY_HOSTS = frozenset({"events.pagerduty.com", "events.eu.pagerduty.com"})


def check_address(url: URL, *, template: str) -> None:
    """See whether a template's receiver takes messages at a URL of its own. Raises `InvalidValueError`."""
    address, host = _ADDRESSES.get(template), _host(url)
    if address and address.hosts.fullmatch(host) and not address.webhooks.fullmatch(f"{host}{url.path}"):
        problem = f"is not that of a {template.capitalize()} webhook"
        raise InvalidValueError(problem, remedy=address.remedy, quote=False)


def receiver_at(url: URL) -> str | None:
    """Return the template whose receiver takes messages at a URL, where the URL alone says so."""
    host = _host(url)
    if url.path.rstrip("/").endswith(PATH):
        return "alertmanager"
    if host in _PAGERDUTY_HOSTS:
        return "pagerduty"
    at = f"{host}{url.path}"
    return next(
        (name for name, each in _ADDRESSES.items() if each.hosts.fullmatch(host) and each.webhooks.match(at)), None
    )


def _host(url: URL) -> str:
    return (url.host or "").lower().rstrip(".")


WebhookUrl = Annotated[SinkUrl, AfterValidator(_in_use)]
"""Where a webhook posts to, which is still in use."""

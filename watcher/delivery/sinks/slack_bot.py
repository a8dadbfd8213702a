"""The settings of a Slack app that posts in one channel: one message for each problem, updated when it is over."""

import re
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from watcher.delivery.sinks.http_settings import HttpSinkSettings
from watcher.delivery.sinks.message_log import MessageLog
from watcher.delivery.sinks.protocol import Sink, SinkContext, WorkerRules
from watcher.delivery.sinks.settings import EventGlobs
from watcher.delivery.sinks.slack_api import API_URL, SlackApi, check_access
from watcher.delivery.sinks.slack_bot_sender import SlackBotSink
from watcher.delivery.sinks.template import ALERT_EVENTS
from watcher.runtime.clock import SystemClock
from watcher.runtime.settings import Rate, as_written, split_http_url
from watcher.runtime.units import InvalidValueError

_TOKEN = re.compile(r"xoxb-[A-Za-z0-9-]+")
_CHANNEL = re.compile(r"[CGD][A-Z0-9]{6,}")
_SLACK = re.compile(r"(.+\.)?slack(-gov)?\.com")
_METHOD = re.compile(r".*/(api|auth|chat|conversations)\.[A-Za-z]+")
_OTHER_TOKENS = {
    "xoxe.xoxb-": "is a token that expires: make an app without token rotation",
    "xapp-": "is a token of the app, which may not post",
    "xoxp-": "is a user's token, whose messages would be that user's",
}


def _bot_token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if _TOKEN.fullmatch(token):
        return value
    problem = next((words for begin, words in _OTHER_TOKENS.items() if token.startswith(begin)), "is not a bot's token")
    remedy = "copy the Bot User OAuth Token of the app (OAuth & Permissions), xoxb-…"
    raise InvalidValueError(problem, remedy=remedy, quote=False)


def _channel(value: str) -> str:
    if _CHANNEL.fullmatch(value):
        return value
    problem = "is a channel's name, which may change" if value.startswith("#") else "is not a channel's id"
    remedy = "write its id, such as C0123456789: it stands at the end of the channel's details in Slack"
    raise InvalidValueError(problem, remedy=remedy)


def _api_url(value: str) -> str:
    parts = split_http_url(value, example=API_URL)
    if parts.username is not None or "?" in value or "#" in value:
        remedy = f"write only scheme, host and path, such as {API_URL}"
        raise InvalidValueError("holds more than an address", remedy=remedy, quote=False)
    host, path = (parts.hostname or "").rstrip("."), parts.path.rstrip("/")
    if host.startswith("hooks.") and _SLACK.fullmatch(host):
        remedy = "remove it, for a bot needs only token and channel; or write type: webhook and template: slack"
        raise InvalidValueError("is that of an incoming webhook", remedy=remedy, quote=False)
    if _METHOD.fullmatch(path):
        remedy = f"write where all methods are, such as {API_URL}, or remove it"
        raise InvalidValueError("ends in a method of Slack's Web API", remedy=remedy, quote=False)
    if _SLACK.fullmatch(host) and path != "/api":
        remedy = f"let it end in /api, as {API_URL} does, or remove it"
        raise InvalidValueError("is not where Slack's Web API is", remedy=remedy, quote=False)
    return value


class SlackBotSettings(HttpSinkSettings):
    """`{type: slack_bot, token: …, channel: …}`."""

    type: Literal["slack_bot"] = Field(
        description="Posts in one Slack channel as an app: one message for each problem, updated when it is over.",
        examples=["slack_bot"],
    )
    token: Annotated[SecretStr, AfterValidator(_bot_token)] = Field(
        description="The app's Bot User OAuth Token, `xoxb-…`; its scope `chat:write` is enough. Required, unless "
        "`token_file` is given.",
        examples=["${SLACK_BOT_TOKEN}"],
    )
    token_file: str | None = Field(
        default=None, description="The file that holds the token.", examples=["/run/secrets/slack_token"]
    )
    channel: Annotated[str, AfterValidator(_channel)] = Field(
        description="The channel's id: it stands at the end of the channel's details. The app must be in the channel.",
        examples=["C0123456789"],
    )
    url: Annotated[str, AfterValidator(_api_url)] = Field(
        default=API_URL, description="Where Slack's Web API is.", examples=["https://slack-gov.com/api"]
    )
    events: EventGlobs = ALERT_EVENTS
    rate_limit: Rate = Field(
        default=as_written("1/s"), description="The most requests sent; Slack takes one a second.", examples=["30/m"]
    )

    @property
    def address(self) -> str:
        """Return the whole URL."""
        return self.url

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        return replace(super().rules, keeps_messages=True)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        log = MessageLog(context.clock, hidden=(self.token.get_secret_value(),))
        return SlackBotSink(self._api(context), channel=self.channel, log=log, context=context)

    async def connect(self) -> str:
        """Ask Slack whose token it is and whether it knows the channel."""
        api = self._api(SinkContext(SystemClock()))
        try:
            return await check_access(api, self.channel)
        finally:
            await api.close()

    def _api(self, context: SinkContext) -> SlackApi:
        token, rules = self.token.get_secret_value(), self.connection_rules()
        return SlackApi(self.url, token, timeout_s=self.timeout_s, context=context, rules=rules)

"""The sink of a Slack app in one channel. A problem has one message, updated when the problem is over, and a thread.

`messages_of` makes the messages of a delivery, in their order. The store keeps the place of each problem's message, and
adds it to the problem's deliveries. `SlackBotSink` posts, updates and answers messages by Slack's Web API.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Annotated, ClassVar, Literal
from uuid import UUID

import structlog
from pydantic import AfterValidator, Field, SecretStr
from yarl import URL

from watcher.domain.delivery import Delivery, MessagePlace, ProblemMessage
from watcher.domain.envelope import Json
from watcher.domain.event import EventType
from watcher.domain.routing import Grouped
from watcher.runtime.clock import Clock
from watcher.runtime.settings import Rate, as_written, file_twin, matching, split_http_url
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import Alert, to_json
from watcher.sinks.chat import notice_of, notice_of_batch
from watcher.sinks.http_post import Poster
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext, WorkerRules
from watcher.sinks.settings import EventGlobs, HttpSinkSettings
from watcher.sinks.slack import message_of, minimal, one_line, with_button
from watcher.sinks.slack_api import CANNOT_UPDATE_ERRORS, CHANNEL_ERROR_REMEDIES, GONE_ERRORS, call
from watcher.sinks.slack_buttons import NEW_APP_TOKEN, SlackButtons, button_of, call_or_raise
from watcher.sinks.template import ALERT_EVENTS, minimal_next

API_URL = "https://slack.com/api"

POST, UPDATE = "chat.postMessage", "chat.update"

_CHANNEL = re.compile(r"[CGD][A-Z0-9]{6,}")
_NOT_FOR_UPDATES = frozenset({"mrkdwn", "unfurl_links", "unfurl_media"})
_FIXED = "it cannot be updated; what is new stands in its thread"
_GONE = "its problem's message is gone: a new one is posted"

log = structlog.get_logger()


_COPY_TOKEN = "copy the Bot User OAuth Token, xoxb-…, of an app without token rotation (OAuth & Permissions)"  # noqa: S105 (no token)
_COPY_APP_TOKEN = "make an app-level token, xapp-…, with the scope connections:write (Basic Information)"  # noqa: S105 (no token)
_AppToken = Annotated[SecretStr, matching("xapp-[A-Za-z0-9-]+", "is not an app-level token", remedy=_COPY_APP_TOKEN)]
_BotToken = Annotated[SecretStr, matching("xoxb-[A-Za-z0-9-]+", "is not a bot's token", remedy=_COPY_TOKEN)]


def _channel(value: str) -> str:
    if _CHANNEL.fullmatch(value):
        return value
    problem = "is a channel's name, which may change" if value.startswith("#") else "is not a channel's id"
    remedy = "write its id, such as C0123456789: it stands at the end of the channel's details in Slack"
    raise InvalidValueError(problem, remedy=remedy, quote=True)


def _api_url(value: str) -> str:
    split_http_url(value, example=API_URL)
    return value


class SlackBotSettings(HttpSinkSettings):
    """`{type: slack_bot, token: …, channel: …}`."""

    grouped: ClassVar = Grouped.WITHOUT_PROBLEMS
    type: Literal["slack_bot"] = Field(examples=["slack_bot"])
    """Posts in one Slack channel as an app: one message for each problem, updated when the problem is over."""
    token: _BotToken = Field(examples=["${SLACK_BOT_TOKEN}"])
    """The app's Bot User OAuth Token, `xoxb-…`, with the scope `chat:write`. Required."""
    token_file: str | None = file_twin("the token", example="/run/secrets/slack_token")
    channel: Annotated[str, AfterValidator(_channel)] = Field(examples=["C0123456789"])
    """The channel's id, from the end of the channel's details. The app must be in the channel."""
    app_token: _AppToken | None = Field(default=None, examples=["${SLACK_APP_TOKEN}"])
    """The app's app-level token, `xapp-…`, with the scope `connections:write`: buttons acknowledge problems."""
    app_token_file: str | None = file_twin("the app-level token", example="/run/secrets/slack_app_token")
    url: Annotated[str, AfterValidator(_api_url)] = Field(default=API_URL, examples=["https://slack-gov.com/api"])
    """The address of Slack's Web API."""
    events: EventGlobs = ALERT_EVENTS
    rate_limit: Rate = Field(default=as_written("1/s"), examples=["30/m"])
    """The highest rate of requests. Slack accepts one a second."""

    @property
    def rules(self) -> WorkerRules:
        """Return the rules by which the worker sends. Deliveries come with the place of their problem's message."""
        return replace(super().rules, keeps_messages=True)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink. With buttons it begins to connect. Needs a running event loop."""
        poster, buttons = self._poster_with(self.token, context), None
        if self.app_token is not None and context.press is not None:
            app = self._poster_with(self.app_token, context)
            # The presser gets an answer even after the lease of the sink has ended: it changes no message.
            open_poster = partial(self.open_poster, headers={}, context=SinkContext(context.clock))
            buttons = SlackButtons(poster, app, open_poster, url=URL(self.url), channel=self.channel, context=context)
        return SlackBotSink(poster, channel=self.channel, context=context, buttons=buttons)

    async def connect(self) -> str:
        """Ask Slack whether it knows the tokens. Return a text about that. Raises `TransportFailedError`."""
        async with aclosing(self._poster_with(self.token, SinkContext(Clock()))) as poster:
            await call_or_raise(poster, "auth.test")
        if self.app_token is not None:
            async with aclosing(self._poster_with(self.app_token, SinkContext(Clock()))) as app:
                await call_or_raise(app, "apps.connections.open", remedy=NEW_APP_TOKEN)
        known = "token" if self.app_token is None else "tokens"
        return f"takes the {known}; whether it may post in {self.channel} is shown by --send; nothing sent"

    def _poster_with(self, token: SecretStr, context: SinkContext) -> Poster:
        headers = {"Authorization": f"Bearer {token.get_secret_value()}", "Accept-Encoding": "identity"}
        return self.open_poster(URL(self.url), headers=headers, context=context)


class MessageRole(Enum):
    """The role of a message for its problem."""

    OPENING = auto()
    """The problem's message itself: a new message, or an update of the existing one."""
    NEWS = auto()
    """A reply to the problem's message. If the problem has none, the reply becomes the problem's message."""
    CLOSING = auto()
    """The last update of the problem's message. If the problem has none, a message is posted on its own."""
    NOTE = auto()
    """A reply of one line: the problem is over or acknowledged. Without the problem's message it is not sent."""
    OTHER = auto()
    """A message about no problem: a reply to the message of its pipeline's `pipeline.failing`, else on its own."""


@dataclass(frozen=True, slots=True)
class BotMessage:
    """One message. It belongs to the message of `problem`; `None`: it is posted on its own."""

    role: MessageRole
    content: Json
    problem: UUID | None
    button: Json | None = None
    """The button of the problem's own message; a reply has none."""


def messages_of(
    batch: Sequence[Delivery], public_url: str = "", *, buttons_at: datetime | None = None
) -> list[BotMessage]:
    """Return the messages of a batch in their order. After a refusal a single event has the minimal form.

    Messages of open problems have buttons for the time `buttons_at`; `None`: there are no buttons. An event that closes
    a problem and is trouble itself gets messages for the closing, then for the event itself.
    """
    if len(batch) == 1:
        alerts = Alert.of_delivery(batch[0], public_url).apart()
        return [each for alert in alerts for each in _messages(alert, batch[0], buttons_at)]
    group, threads = message_of(notice_of_batch(batch, public_url)), set(map(_thread_of, batch))
    return [BotMessage(MessageRole.OTHER, group, threads.pop() if len(threads) == 1 else None)]


def _messages(alert: Alert, delivery: Delivery, buttons_at: datetime | None) -> list[BotMessage]:
    notice, role, problem, button = notice_of(alert), MessageRole.OTHER, _thread_of(delivery), None
    if alert.problem is not None:
        problem = UUID(alert.problem["id"])
        is_acknowledgement = alert.type is EventType.PROBLEM_ACKNOWLEDGED
        role = MessageRole.OPENING if is_acknowledgement or alert.type == alert.problem["kind"] else MessageRole.NEWS
        if alert.closes:  # the message shows the opening, and how long the problem lasted
            opening, role = delivery.message and delivery.message.opening, MessageRole.CLOSING
            texts = [f"It was: {_text_of(Alert.of(json.loads(opening)))}"] if opening else []
            if delivery.only_closes and (ended := Alert.of(delivery.content)).is_trouble:
                texts.append(f"Then: {_text_of(ended)}")  # no other message shows this event
            notice = notice_of(replace(alert, nodes=()), error=". ".join(texts))
        elif buttons_at is not None and delivery.is_problem_open and not delivery.rejections:
            is_acknowledged = delivery.is_acknowledged(buttons_at)
            button = button_of(problem, delivery.problem_event_count, is_acknowledged=is_acknowledged)
    messages = [BotMessage(role, minimal(notice) if delivery.rejections else message_of(notice), problem, button)]
    if role is MessageRole.CLOSING or alert.type is EventType.PROBLEM_ACKNOWLEDGED:
        messages.append(BotMessage(MessageRole.NOTE, one_line(alert.headline), problem))
    return messages


def _text_of(alert: Alert) -> str:
    return ": ".join(filter(None, (alert.title, alert.error)))


def _thread_of(delivery: Delivery) -> UUID | None:
    return None if delivery.thread is None else delivery.thread.problem


class SlackBotSink(Sink):
    """A Slack app in one channel."""

    keeps_state = True

    def __init__(
        self, poster: Poster, *, channel: str, context: SinkContext, buttons: SlackButtons | None = None
    ) -> None:
        """Post new messages in this channel. Existing messages are updated where they are."""
        self._buttons = buttons
        self._channel = channel
        self._poster = poster
        self._context = context
        self._sent_counts: dict[UUID, int] = {}  # messages sent so far, by event id; a dead letter's stays

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send all messages of a delivery, or the one message of a group. The first failure ends the attempt."""
        kept = (message for each in batch for message in (each.message, each.thread) if message is not None)
        before = {each.problem: each.place for each in kept}
        url, places = self._context.public_url, before.copy()
        at = self._context.clock.now() if self._buttons and not self._buttons.trouble else None
        make = partial(messages_of, batch, url, buttons_at=at)
        messages = await asyncio.to_thread(make) if len(batch) > 1 else make()
        result = await self._send_rest(messages, batch, places)
        moved = (ProblemMessage(problem, at) for problem, at in places.items() if at != before.get(problem))
        return replace(result, messages=tuple(moved))

    @property
    def trouble(self) -> str:  # type: ignore[override] # it changes
        """Return why the buttons do not work; an empty text if they do, or if there are none."""
        return self._buttons.trouble if self._buttons else ""

    async def close(self) -> None:
        """Close all connections."""
        if self._buttons is not None:
            await self._buttons.close()
        await self._poster.aclose()

    async def _send_rest(
        self, messages: Sequence[BotMessage], batch: Sequence[Delivery], places: dict[UUID, MessagePlace | None]
    ) -> SendResult:
        """Send the messages that no earlier attempt has sent. The first failure ends the attempt."""
        id_, result = batch[0].event_id, SendResult(SendOutcome.DELIVERED, "200")
        begin = self._sent_counts.get(id_, 0)
        for nth, message in enumerate(messages[begin:], begin):
            if nth > begin:
                await asyncio.sleep(self._context.take_slot())
            result = await self._send(message, batch, places)
            if not result.outcome.is_taken:
                return result
            self._sent_counts[id_] = nth + 1
        self._sent_counts.pop(id_, None)
        return result

    async def _send(
        self, message: BotMessage, batch: Sequence[Delivery], places: dict[UUID, MessagePlace | None]
    ) -> SendResult:
        """Post a message, or update or answer its problem's message. Keep the places in `places` up to date."""
        problem, named = message.problem, {"sink": batch[0].sink, "event_id": str(batch[0].event_id)}
        place = None if problem is None else places.get(problem)
        if place is None and message.role is MessageRole.NOTE:
            return SendResult(SendOutcome.DELIVERED, "200")
        is_update = place is not None and message.role in {MessageRole.OPENING, MessageRole.CLOSING}
        where = {"channel": self._channel}
        if place is not None:
            where = {"channel": place.channel, "ts" if is_update else "thread_ts": place.number}
        left_out, content = _NOT_FOR_UPDATES if is_update else frozenset[str](), message.content
        if message.button is not None and (is_update or place is None):
            content = with_button(content, message.button)
        arguments = {**where, **{name: value for name, value in content.items() if name not in left_out}}
        result, answer = await call(self._poster, UPDATE if is_update else POST, to_json(arguments).encode())
        if result.outcome is SendOutcome.REFUSED:
            return minimal_next(batch, result)
        word, posted = result.answer, answer.get("message")
        if is_update and word in CANNOT_UPDATE_ERRORS:
            log.warning("message.fixed", **named, answer=word, note=_FIXED)
            return SendResult(SendOutcome.DELIVERED, word)
        if place is not None and problem is not None:
            # In a channel that the sink no longer uses, a message counts as gone on an error of that channel.
            is_gone = word in GONE_ERRORS or (word in CHANNEL_ERROR_REMEDIES and place.channel != self._channel)
            # Slack posts a reply to a deleted message outside any thread, without an error: slack-go/slack#1571.
            is_apart = (
                result.outcome.is_taken and not is_update and isinstance(posted, dict) and "thread_ts" not in posted
            )
            if is_gone or is_apart:
                places[problem] = place = None
                log.warning("message.gone", **named, answer=word if is_gone else "not in its thread", note=_GONE)
            if is_gone:
                await asyncio.sleep(self._context.take_slot())
                return await self._send(message, batch, places)
        if place is None and problem is not None and message.role in {MessageRole.OPENING, MessageRole.NEWS}:
            channel, number = answer.get("channel"), answer.get("ts")
            if result.outcome.is_taken and isinstance(channel, str) and isinstance(number, str):
                places[problem] = MessagePlace(channel, number)
        return result
